"""The README's picture: the same prompts and seeds through the base (above) and an erased model (below).

    python pipelines/before_after.py --audit runs/demo --target star --output docs/demo.png

The pictures are those of the audit, such as a demo's. The first pairs of columns show the target, one for each color;
the others show one kept concept each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from erase import embedded
from erase.evaluation.audit import SIDES
from erase.evaluation.audit_settings import IMAGES
from erase.generation.folder import open_folder
from erase.vocabulary import Caption

SCALE, GAP = 3, 6


def chosen(target: str) -> list[Caption]:
    """Six captions with the target, then one for each of six kept concepts of its domain, attributes in turn."""
    domain = embedded.VOCABULARY.domain_of(target)
    captions = embedded.VOCABULARY.captions([embedded.FULL_TEMPLATE])
    kept = [concept for concept in embedded.VOCABULARY.domains[domain] if concept != target]
    words = [target] * 6 + kept[:6]
    found: list[Caption] = []
    for turn, word in enumerate(words):
        of = [caption for caption in captions if caption.concepts[domain] == word]
        found.append(of[(turn * 7) % len(of)])
    return found


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """The rows, enlarged pixel by pixel, with a gap between the halves."""
    side = rows[0][0].width * SCALE
    page = Image.new("RGB", (side * len(rows[0]) + 4 * GAP, side * len(rows) + GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            left = x * side + (4 * GAP if x >= len(row) // 2 else 0)
            page.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, y * (side + GAP)))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audit", type=Path, required=True, help="the output of `erase demo` or `erase audit`")
    parser.add_argument("--target", default="star")
    parser.add_argument("--output", type=Path, default=Path("docs/demo.png"))
    given = parser.parse_args()
    folders = [open_folder(given.audit / IMAGES / side) for side in SIDES]
    files = [{picture.prompt: picture.file for picture in folder.pictures} for folder in folders]
    rows = [[Image.open(of[caption.text]).convert("RGB") for caption in chosen(given.target)] for of in files]
    given.output.parent.mkdir(exist_ok=True, parents=True)
    sheet(rows).save(given.output, optimize=True)


if __name__ == "__main__":
    main()
