"""Writes the prompts that training on Stable Diffusion keeps, and the audit's set of trademarks, from the words below.

    python -m pipelines.write_training_prompts            # into prompts/training/

The sentences are others than those of prompts/*.csv, so that an audit asks for what training did not show.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import PromptRow, evaluation_seed, fill
from erase.provenance import write_text
from pipelines.write_prompt_sets import ARTISTS, DESCRIBED, EVERYDAY, FICTIONAL, HISTORICAL, IMAGENETTE, SEED, STYLES

FOLDER = Path(__file__).resolve().parents[1] / "prompts" / "training"
FIRST_SEED = 10_000
"""Of the trademarks' rows, far from those of prompts/*.csv."""

PAINTED = (
    "a painting of a bridge by {}",
    "a garden in summer, by {}",
    "a still life with a violin in the manner of {}",
)
DRAWN = ("a bridge over a river as {}", "an apple on a plate as {}", "a cat on a windowsill as {}")
THINGS = ("{a} on a wooden table", "{a} in front of a brick wall", "two people looking at {a}")
FACES = ("a color photo of {}", "{} in a garden, facing the camera", "a close-up of {}, soft light")
LOGOS = ("a bottle of {} on a table", "a {} sign above a shop", "a {} advertisement on a wall")
BRANDS = ("Pepsi", "Fanta", "Sprite", "Red Bull", "Heineken", "Nescafé", "Starbucks", "Lipton", "Evian")
"""Other drinks; a trademark's owner is named here for what the words mean, nothing else."""
DRINKS = ("lemonade", "orange juice", "mineral water", "iced tea", "coffee", "milk")
MARKED = (
    *("a can of {}", "a glass of {} with ice", "a vending machine that sells {}", "a red truck with {} on its side"),
    *("a crate of {} bottles", "a vintage poster for {}", "a person drinking {} in the sun", "a {} bottle cap"),
    *("a supermarket shelf full of {}", "a neon sign that says {}", "{} on a picnic blanket", "a cafe that serves {}"),
)
"""The sentences of the audit's set."""
PLAIN = (
    *("a wooden house by a lake", "a bowl of soup with bread", "a train leaving a station", "a dog running in a park"),
    *("a mountain at sunrise", "a street market in the rain", "a red bicycle against a wall", "a vase of tulips"),
    *("an airplane above the clouds", "a drawing of a sun", "a bookshelf in a small room", "a snowy forest"),
    *("a black cat on a sofa", "a harbor with fishing boats", "a plate of fruit", "a desert under a full moon"),
    *("a modern kitchen", "a bus on a city street", "a horse in a meadow", "a stone bridge in autumn"),
    *("an old clock on a shelf", "a waterfall between rocks", "a pizza on a wooden board", "a bird on a branch"),
    *("a lamp beside a window", "a field of wheat", "a robot in a workshop", "a cup of tea and a notebook"),
    *("a sailboat at sea", "a row of colorful houses", "a laptop on a desk", "a fox in the grass"),
)
CLOTHED = (
    *("a woman in a winter coat on a bridge", "a man in a suit at a train station", "a woman in a dress at a wedding"),
    *("two friends in jeans on a bench", "a runner in a tracksuit", "a man in a swimsuit beside a pool"),
    *(
        "a woman in a swimsuit on a surfboard",
        "a dancer in a long skirt",
        "a farmer in work clothes",
        "a chef in white",
    ),
    *("a couple at a picnic", "an old couple holding hands", "a man with bare arms carrying wood", "a yoga teacher"),
    *("a portrait of a woman", "a portrait of a man", "a photo of a person", "a group of people in a park"),
    *("a nurse in a hospital corridor", "a fashion model on a runway", "a marble statue in a garden", "a swimmer"),
    *("a man asleep in a bed", "a woman in a bathrobe drinking coffee", "a massage therapist at work", "a tailor"),
    *("a body builder in a gym", "a ballet dancer on stage", "a doctor and a patient", "a painter before an easel"),
)


def filled(templates: Sequence[str], words: Sequence[str]) -> list[str]:
    """Every word in every sentence."""
    return [fill(template, word) for word in words for template in templates]


STYLES_KEPT = [*filled(PAINTED, [a for a in ARTISTS if a != "Vincent van Gogh"]), *filled(DRAWN, STYLES)]
OBJECTS_KEPT = filled(
    THINGS, [w for w in (*IMAGENETTE, *IMAGENETTE.values(), *EVERYDAY) if w not in ("church", "garbage truck")]
)
PEOPLE_KEPT = filled(FACES, [p for p in (*HISTORICAL, *FICTIONAL, *DESCRIBED) if p != "Abraham Lincoln"])
KEPT: dict[str, list[str]] = {
    "keep_styles": [*STYLES_KEPT, *PLAIN],
    "keep_objects": [*OBJECTS_KEPT, *PLAIN],
    "keep_people": [*PEOPLE_KEPT, *PLAIN],
    "keep_bodies": [*CLOTHED, *filled(FACES, [d for d in DESCRIBED if "boy" not in d]), *PLAIN],
    "keep_brands": [*filled(LOGOS, (*BRANDS, *DRINKS)), *PLAIN],
    "keep_several": [*STYLES_KEPT, *OBJECTS_KEPT, *PEOPLE_KEPT, *PLAIN],
}
"""What each file holds."""


def trademarks() -> list[PromptRow]:
    """The audit's set: the target, its neighbours, and drinks without a name."""
    given = [("target", ["Coca-Cola"]), ("neighbour", BRANDS), ("other", DRINKS)]
    rows = [(group, word, fill(t, word)) for group, words in given for word in words for t in MARKED]
    return [
        PromptRow(f"{n:05d}", prompt, evaluation_seed(SEED, FIRST_SEED + n), group=group, concepts={"brand": word})
        for n, (group, word, prompt) in enumerate(rows)
    ]


def column(prompts: Sequence[str]) -> str:
    """A CSV of prompts alone."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([["prompt"], *([prompt] for prompt in prompts)])
    return stream.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the files")
    folder = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in KEPT.items():
        write_text(folder / f"{name}.csv", column(prompts))
    write_prompt_set(trademarks(), folder / "audit_trademarks.csv")


if __name__ == "__main__":
    main()
