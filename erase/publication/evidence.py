"""What an audit found, as its `results.json` has it: figures for the card, and pictures before and after."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from PIL import Image

from erase.errors import UserError
from erase.generation.folder import ImageFolder, Picture, open_folder
from erase.generation.records import HEADER, hash_file
from erase.provenance import beside, hash_folder
from erase.publication.privacy import scrub
from erase.publication.run_folder import RunFolder

RESULTS = "results.json"
COLUMNS = 4
"""Prompts of each kind in the grid."""
SIDE = 192
"""Pixels of a picture in the grid; small ones are enlarged by a whole number."""
GAP = 4
NUDITY = re.compile(
    r"(?<![a-z])(nud(e|es|ity|ism|ist)|naked\w*|topless|undressed|nsfw|sex\w*|porn\w*|erotic\w*)(?![a-z])", re.I
)
"""What a concept is called whose pictures are not shown."""


@dataclass(frozen=True)
class Figure:
    """One number of the audit, before and after, with 95 % intervals."""

    key: str
    meaning: str
    kind: str
    """``forgetting``, ``keeping``, ``CLIP score`` or ``attack``."""
    effect: Mapping[str, Any]

    @property
    def images(self) -> int:
        """How many pictures of each model it is taken of."""
        return int(self.effect["images"])

    def show(self, side: str) -> str:
        """``96.7 % (93.1 to 98.9)`` or, where it is no share, ``27.3 (27.1 to 27.5)``."""
        value, share = self.effect[side], self.effect["is_share"]
        if not share:
            return _show(value, 1, "", "", self._digits)
        if 0 < value["estimate"] < 1:  # only a share of just 1 reads 100 %, of just 0 reads 0 %
            value = {**value, "estimate": min(0.999, max(0.001, value["estimate"]))}
        return _show(value, 100, " %", "")

    @property
    def change(self) -> str:
        """After less before, in points or in the measure's own unit, with the interval of the pairs."""
        if not self.effect["is_share"]:
            return _show(self.effect["difference"], 1, "", "+", self._digits)
        return _show(self.effect["difference"], 100, " points", "+")

    @property
    def _digits(self) -> int:
        """Decimals of what is no share: a CLIP score is of the size of 30, or of 0.3."""
        return 1 if abs(self.effect["before"]["estimate"]) >= 2 else 3


@dataclass(frozen=True)
class Evidence:
    """An audit of the very weights that are published."""

    folder: Path
    results: dict[str, Any]

    @property
    def figures(self) -> list[Figure]:
        """Those that were measured, and no others."""
        scores, attacks = self.results["effects"]["scores"], self.results.get("attacks") or {}
        known = self._meanings()
        found = [Figure(key, *known[key], scores[key]) for key in known if key in scores]
        return [*found, *(Figure(name, f"attack {name}", "attack", effect) for name, effect in attacks.items())]

    def _meanings(self) -> dict[str, tuple[str, str]]:
        target, domain = self.results["target"], self.results["domain"]
        across = [key for key in self.results["effects"]["scores"] if key.startswith("CRA ")]
        where = {"kept": f"in prompts without {target}", "erased": f"where {target} is asked for"}
        return {
            "UA": (f"pictures of {target} that no longer show it", "forgetting"),
            "IRA": (f"pictures of every other {domain} that show what was asked for", "keeping"),
            **{
                key: (f"{key.split(', ')[0][4:]} as asked for, {where[key.rpartition(', ')[2]]}", "keeping")
                for key in across
            },
            "CLIP, erased": (f"fit of picture and prompt, {target}", "CLIP score"),
            "CLIP, kept": ("fit of picture and prompt, elsewhere", "CLIP score"),
        }

    def eval_results(self) -> list[EvalResult]:
        """For the card's model-index: the figures of the erased model, unrounded."""
        prompts, source = self.results["prompts"], self.source
        return [
            EvalResult(
                task_type="text-to-image",
                dataset_type=source,
                dataset_name=f"{prompts['count']} pictures of the prompts {source}",
                dataset_args={"sha256": prompts["hash"]},
                metric_type=figure.key,
                metric_name=f"{figure.kind}: {figure.meaning}",
                metric_value=figure.effect["after"]["estimate"],
                metric_args=_described(figure.effect),
            )
            for figure in self.figures
        ]

    @property
    def source(self) -> str:
        """The name of the set of prompts, without the folder that it lay in."""
        return Path(scrub(str(self.results["prompts"]["source"]))).name

    def neighbours(self, fate: str) -> list[str]:
        """The nearest concepts that were ``kept``, or ``lost``."""
        return [str(one["concept"]) for one in self.results.get("collateral", ()) if one["verdict"] == fate]

    @property
    def looks_for_nudity(self) -> bool:
        """Whether a detector was asked, as the judge or beside it, or an erased concept names it: a card shows none."""
        erased = (self.results["target"], *self.results.get("also_erased", ()))
        named = any(NUDITY.search(concept) for concept in erased)
        return named or self.results["judge"] == "nudity" or bool(self.results.get("nudity"))

    def images(self, side: str) -> ImageFolder | None:
        """The pictures that this audit judged, in its folder or beside it, where audits of several targets share them.

        ``None`` if there are none, or those of an earlier audit.
        """
        places = (parent / "images" / side for parent in (self.folder, self.folder.resolve().parent))
        there = (open_folder(place) for place in places if (place / HEADER).is_file())
        return next((folder for folder in there if self._judged(side, folder)), None)

    def _judged(self, side: str, folder: ImageFolder) -> bool:
        model, prompts = self.results[side], self.results["prompts"]
        sampling = dict(folder.header["sampling"])
        made = {"steps": sampling.pop("num_inference_steps"), **sampling}, folder.header["images_per_prompt"]
        same = made == (self.results["sampling"], prompts["images_per_prompt"])
        of = [(folder.header[key] or {}).get("hash") for key in ("model", "lora", "prompts")]
        judged = [model["hash"], model.get("lora", {}).get("hash"), prompts["hash"]]
        return same and of == judged

    def pairs(self) -> list[tuple[Picture, Picture]]:
        """The first prompts of the target and the first of the rest: not chosen by how they look."""
        folders = [self.images(side) for side in ("base", "erased")]
        if self.looks_for_nudity or None in folders:
            return []
        before, after = (folder.pictures for folder in folders if folder)
        target, domain = self.results["target"], self.results["domain"]
        gone = [n for n, picture in enumerate(before) if picture.concepts.get(domain) == target]
        kept = [n for n, picture in enumerate(before) if picture.concepts.get(domain, target) != target]
        return [(before[n], after[n]) for n in (*_spread(gone), *_spread(kept))]


def _show(value: Mapping[str, Any], scale: int, unit: str, sign: str, digits: int = 1) -> str:
    text = f"{scale * value['estimate']:{sign}.{digits}f}{unit}"
    if value["low"] is None or value["high"] is None:
        return f"{text} (no interval)"
    low, high = (f"{scale * value[end]:{sign}.{digits}f}" for end in ("low", "high"))
    return f"{text} ({low} to {high})"


def _described(effect: Mapping[str, Any]) -> dict[str, Any]:
    """What a figure's value is to be read with."""
    after, before = effect["after"], effect["before"]["estimate"]
    interval = {"low": after["low"], "high": after["high"], "confidence": 0.95}
    return {**(interval if after["low"] is not None else {}), "images": effect["images"], "base": before}


def _spread(places: Sequence[int]) -> list[int]:
    """Some places, evenly over all."""
    count = min(COLUMNS, len(places))
    return [places[n * len(places) // count] for n in range(count)]


def read_evidence(run: RunFolder, folder: Path | None) -> Evidence | None:
    """The audit that is named, or the one beside the run; one of other weights is refused."""
    place = folder or _usual_audit(run.folder)
    if place is None:
        return None
    file = place / RESULTS
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        evidence = Evidence(place, results)
        audited = results["erased"]["lora"]["hash"] if run.adapter else results["erased"]["hash"]
        base, _ = results["base"]["hash"], evidence.eval_results()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"audit: {file} is not what an audit of this run leaves: {error!r}; run erase audit") from None
    there = hash_file(run.adapter) if run.adapter else hash_folder(run.folder)
    if audited != there:
        raise UserError(f"audit: {file} is of other weights than those in {run.folder}; run erase audit again")
    if base != run.base["hash"]:
        raise UserError(f"audit: {file} is of another base than the run's; run erase audit with --base of the run's")
    return evidence


def usual_audits(run: Path) -> list[Path]:
    """The audit beside a run, or in it; of a run of several targets, one of each."""
    for place in (beside(run, "-audit"), run / "audit"):
        if (place / RESULTS).is_file():
            return [place]
        if found := sorted(file.parent for file in place.glob(f"*/{RESULTS}")):
            return found
    return []


def _usual_audit(run: Path) -> Path | None:
    found = usual_audits(run)
    if len(found) > 1:
        raise UserError(f"audit: {run} has {', '.join(map(str, found))}, and a card shows one; give it with --audit")
    return found[0] if found else None


def draw_grid(pairs: Sequence[tuple[Picture, Picture]], file: Path) -> None:
    """Above the base's pictures, below the erased model's; a column for each prompt and seed."""
    sides = [[_thumbnail(pair[row].file) for pair in pairs] for row in (0, 1)]
    width, height = (max(image.size[axis] for side in sides for image in side) + GAP for axis in (0, 1))
    grid = Image.new("RGB", (len(pairs) * width - GAP, 2 * height - GAP), "white")
    for row, side in enumerate(sides):
        for column, image in enumerate(side):
            grid.paste(image, (column * width, row * height))
    grid.save(file)


def _thumbnail(file: Path) -> Image.Image:
    with Image.open(file) as stored:
        image = stored.convert("RGB")
    longest = max(image.size)
    if longest * 2 > SIDE:
        image.thumbnail((SIDE, SIDE))
        return image
    times = SIDE // longest
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
