"""The embedded models as they are shipped: real, small, and as good as their own record says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from erase import embedded
from erase.diffusion.pipelines import load_pipeline, unknown_words
from erase.evaluation.metrics import ConceptClassifier
from erase.evaluation.metrics.clip_model import ClipModel, load_clip
from erase.generation.plan import Ask, Look
from erase.generation.prompts import PromptRow
from erase.generation.sampler import PipelineSampler
from erase.shapes.build.drawings import COMBINATIONS, Drawings, make_drawings
from erase.shapes.build.nothings import KINDS, make_nothings
from tests.launch import train
from tests.tiny import write_config

UNSEEN = 77_000_001
"""Not a seed of the build, nor of its own check."""


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(embedded.WEIGHTS / "pipeline")


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    return load_clip(embedded.NAME)


def classify(images: Sequence[Image.Image], asked: Sequence[Mapping[str, str]] | None = None) -> list[dict[str, str]]:
    """What the embedded classifier sees, by domain."""
    rows = [PromptRow(str(i), "a shape", i, concepts=asked[i] if asked else {}) for i in range(len(images))]
    columns = ConceptClassifier()(images, rows)
    return [{d: columns[f"seen/{d}"][i] for d in embedded.VOCABULARY.domains} for i in range(len(images))]


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    return make_drawings(1, UNSEEN)


def pictures(images: torch.Tensor) -> list[Image.Image]:
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in pixels]


def test_the_models_together_take_at_most_25_mb_of_half_precision_safetensors() -> None:
    files = [file for file in embedded.WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 25e6
    assert {file.suffix for file in files} <= {".json", ".safetensors"}


def test_the_record_of_the_build_reaches_every_bar() -> None:
    record = json.loads((embedded.WEIGHTS / "quality.json").read_text())
    assert record["classifier"]["drawings"] >= 2000 and min(record["classifier"]["accuracy"].values()) >= 0.995
    assert min(share for kind in record["classifier"]["none"].values() for share in kind.values()) >= 0.98
    assert record["pipeline"]["images"] == 960 and min(record["pipeline"]["accuracy"].values()) >= 0.985
    assert record["clip"]["rank_1_of_240"] >= 0.95


def test_the_classifier_names_unseen_drawings(drawings: Drawings) -> None:
    seen = classify(pictures(drawings.images))
    wrong = [(c.text, s) for c, s in zip(COMBINATIONS, seen, strict=True) if s != c.concepts]
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize("kind", KINDS)
def test_the_classifier_sees_nothing_where_nothing_is(drawings: Drawings, pipeline: Any, kind: str) -> None:
    seen = classify(pictures(make_nothings(kind, drawings, 60, UNSEEN, pipeline)))
    nothing = [label == embedded.NONE for labels in seen for label in labels.values()]
    assert sum(nothing) / len(nothing) >= 0.96


def test_clip_ranks_the_right_caption_first(clip: ClipModel, drawings: Drawings) -> None:
    images = clip.embed(pictures(drawings.images))
    best = (images @ clip.read([c.text for c in COMBINATIONS]).T).argmax(1)
    assert (best == torch.arange(len(COMBINATIONS))).float().mean() >= 0.95


def test_the_pipeline_draws_what_full_and_short_captions_say(pipeline: Any) -> None:
    captions = [*COMBINATIONS[::12], *embedded.VOCABULARY.captions(["a {object}", "a {color} shape"])]
    look, rows = Look(15, 4.0, 32, 32), [PromptRow(str(i), c.text, UNSEEN + i) for i, c in enumerate(captions)]
    made = PipelineSampler(pipeline)([Ask(row, 0, look) for row in rows])
    seen = classify([Image.fromarray(picture) for picture in made])
    said = [s[domain] == word for c, s in zip(captions, seen, strict=True) for domain, word in c.concepts.items()]
    assert sum(said) / len(said) >= 0.97


def test_an_unknown_word_is_an_error_and_not_noise(
    pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unknown_words(pipeline, ["a red star", "a red zebra"]) == ["a red zebra"]
    config = write_config(tmp_path, Path("shapes"), targets="[{concept: star, prompts: [a starry zebra]}]")
    assert train(config) == 2
    assert "targets.0.prompts: 'a starry zebra' has a word that the model's tokenizer does not know" in (
        capsys.readouterr().err
    )
