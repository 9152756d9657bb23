"""``python -m erase.shapes.build --output DIR``: draws, trains, checks and saves the embedded models."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from erase import embedded
from erase.provenance import describe_environment, write_json
from erase.shapes.build.autoencoder import train_autoencoder
from erase.shapes.build.check import check_models
from erase.shapes.build.classifier import make_processor, train_classifier
from erase.shapes.build.clip import save_clip, train_clip
from erase.shapes.build.denoiser import train_denoiser
from erase.shapes.build.drawings import Drawings, make_drawings

COPIES = 80
"""Drawings of each combination to train on."""
STEPS = {"autoencoder": 900, "denoiser": 6000, "classifier": 1500, "clip": 1500}
PARTS = ("pipeline", "classifier", "clip", "check")


def main() -> None:
    """Builds the parts asked for, in order; a part that is left out is read from the folder."""
    parser = argparse.ArgumentParser(prog="python -m erase.shapes.build", description=__doc__)
    parser.add_argument("--output", type=Path, default=embedded.WEIGHTS, help="folder of the models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    arguments = parser.parse_args()
    folder, drawings = arguments.output, make_drawings(COPIES, arguments.seed)
    for part in (part for part in PARTS if part in arguments.parts):
        started = time.monotonic()
        if part == "check":
            write_json(folder / "quality.json", check_models(folder))
        else:
            BUILD[part](drawings, folder, arguments.seed)
        record(folder, part, arguments.seed, round(time.monotonic() - started))


def record(folder: Path, part: str, seed: int, seconds: int) -> None:
    """Adds to ``build.json`` how a part was made."""
    file = folder / "build.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    made = {"seed": seed, "copies": COPIES, "steps": STEPS, "seconds": seconds, "environment": describe_environment()}
    write_json(file, known | {part: made})


def build_pipeline(drawings: Drawings, folder: Path, seed: int) -> None:
    """The autoencoder, then the denoiser with its text encoder; float16."""
    autoencoder = train_autoencoder(drawings, STEPS["autoencoder"], seed)
    pipeline = train_denoiser(autoencoder, drawings, STEPS["denoiser"], seed)
    pipeline.to(torch.float16).save_pretrained(folder / "pipeline")


def build_classifier(drawings: Drawings, folder: Path, seed: int) -> None:
    """The concept classifier; it learns ``none`` from the pipeline's half-denoised pictures too."""
    model: Any = train_classifier(drawings, load_pipeline(folder), STEPS["classifier"], seed)
    model.half().save_pretrained(folder / "classifier")
    make_processor().save_pretrained(folder / "classifier")


def build_clip(drawings: Drawings, folder: Path, seed: int) -> None:
    """The open_clip model."""
    save_clip(train_clip(drawings, STEPS["clip"], seed), folder / "clip")


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The saved pipeline, in float32."""
    return StableDiffusionPipeline.from_pretrained(folder / "pipeline", dtype=torch.float32)


BUILD = {"pipeline": build_pipeline, "classifier": build_classifier, "clip": build_clip}

if __name__ == "__main__":
    main()
