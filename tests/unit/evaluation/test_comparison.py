"""Two tiny models before the same exam: the same shots, judged alike, scored side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from erase import embedded
from erase.errors import UserError
from erase.evaluation.clip_score import ClipScore
from erase.evaluation.comparison import Exam, Judges, Scored, compare, embedded_exam, make_pairs, sampling_device
from erase.evaluation.concept_classifier import ConceptClassifier
from erase.evaluation.scores import summarize
from erase.generation.sampling import SamplingSettings, Shot
from erase.provenance import hash_folder, hash_json
from erase.randomness import derive
from erase.vocabulary import UnknownConceptError
from tests.tiny import save_tiny
from tests.unit.evaluation.tiny_judges import save_classifier, save_clip

SAMPLING = SamplingSettings(steps=1, guidance_scale=2.0, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and their judges, laid out as the embedded ones are."""
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder / "pipeline")
    save_tiny(folder / "other", seed=1)
    save_classifier(folder / "classifier")
    save_clip(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def exam(folder: Path) -> Exam:
    judges = Judges(ConceptClassifier(folder / "classifier"), ClipScore(f"local-dir:{folder / 'clip'}"), {"by": "tiny"})
    captions = embedded.VOCABULARY.captions([embedded.FULL_TEMPLATE])[::23]
    shots = [Shot(caption.text, seed) for seed, caption in enumerate(captions)]
    return Exam(captions, shots, SAMPLING, judges, seed=7)


@pytest.fixture(scope="module")
def base(exam: Exam, folder: Path) -> Scored:
    return exam.sit(folder / "pipeline", "base")


@pytest.fixture(scope="module")
def other(exam: Exam, folder: Path) -> Scored:
    return exam.sit(folder / "other", "other")


def test_an_exam_judges_each_shots_own_picture(exam: Exam, base: Scored, folder: Path) -> None:
    assert (base.name, base.hash) == ("base", hash_folder(folder / "pipeline"))
    assert len(base.images) == len(base.judged) == len(exam.shots) == 11
    assert [judged.asked for judged in base.judged] == [caption.concepts for caption in exam.captions]
    assert [judged.seen for judged in base.judged] == exam.judges.classifier(base.images)
    fits = exam.judges.clip(base.images, [shot.prompt for shot in exam.shots])
    assert [judged.clip for judged in base.judged] == pytest.approx(fits, abs=1e-3)


def test_the_same_model_sits_the_exam_twice_with_the_same_result(exam: Exam, base: Scored, folder: Path) -> None:
    again = exam.sit(folder / "pipeline", "base")
    assert again.judged == base.judged
    for one, two in zip(again.images, base.images, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(two))


def test_another_model_makes_other_pictures_of_the_same_shots(base: Scored, other: Scored) -> None:
    assert other.hash != base.hash
    for one, two in zip(other.images, base.images, strict=True):
        assert not np.array_equal(np.asarray(one), np.asarray(two))


def test_a_comparison_holds_both_sides_and_how_they_were_made(exam: Exam, base: Scored, other: Scored) -> None:
    result = compare(exam, base, other, "circle")
    assert (result["target"], result["domain"]) == ("circle", "object")
    for side, scored in (("base", base), ("erased", other)):
        assert result[side]["scores"] == summarize(scored.judged, "circle", "object", "none")
        assert (result[side]["model"], result[side]["hash"]) == (scored.name, scored.hash)
        assert sum(row["images"] for row in result[side]["concepts"].values()) == 3 * 11
    assert result["prompts"] == {
        "count": 11,
        "hash": hash_json([shot.prompt for shot in exam.shots]),
        "evaluation_seed": 7,
        "seeds": list(range(11)),
    }
    assert result["sampling"] == {"steps": 1, "guidance_scale": 2.0, "batch_size": 4, "device": sampling_device()}
    assert result["metrics"] == {"by": "tiny"}


def test_a_target_of_another_domain_is_scored_in_it(exam: Exam, base: Scored, other: Scored) -> None:
    color = compare(exam, base, other, "red")
    assert color["domain"] == "color"
    counts = Counter(caption.concepts["color"] for caption in exam.captions)
    assert color["base"]["scores"]["images_erased"] == counts["red"] > 0


def test_an_unknown_target_and_one_that_is_never_asked_for_are_errors(exam: Exam, base: Scored) -> None:
    with pytest.raises(UnknownConceptError, match="'hexagon' is not a concept"):
        compare(exam, base, base, "hexagon")
    kept = [i for i, caption in enumerate(exam.captions) if caption.concepts["object"] != "circle"]
    without = replace(base, judged=[base.judged[i] for i in kept])
    with pytest.raises(UserError, match="no pictures to measure UA on"):
        compare(exam, without, without, "circle")


def test_pairs_show_each_shot_before_and_after(exam: Exam, base: Scored, other: Scored) -> None:
    pairs = make_pairs(exam, base, other)
    assert [(pair.prompt, pair.seed) for pair in pairs] == [(shot.prompt, shot.seed) for shot in exam.shots]
    for pair, then, now, caption in zip(pairs, base.judged, other.judged, exam.captions, strict=True):
        assert (pair.asked, pair.seen_before, pair.seen_after) == (caption.concepts, then.seen, now.seen)
    assert all(pair.before is image for pair, image in zip(pairs, base.images, strict=True))
    assert all(pair.after is image for pair, image in zip(pairs, other.images, strict=True))


def test_the_embedded_exam_asks_for_every_full_caption_from_seeds_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WEIGHTS", folder)
    exam = embedded_exam(2, 5, SAMPLING)
    assert len(exam.captions) == len(exam.shots) == 480
    assert set(Counter(shot.prompt for shot in exam.shots).values()) == {2}
    assert len({shot.seed for shot in exam.shots}) == 480
    assert [shot.prompt for shot in exam.shots] == [caption.text for caption in exam.captions]
    other = embedded_exam(1, 6, SAMPLING)
    assert not {shot.seed for shot in other.shots} & {shot.seed for shot in exam.shots}
    assert not {derive(5, "latent", index) for index in range(480)} & {shot.seed for shot in exam.shots}
    assert exam.judges.identity == {
        "classifier": {"model": "shapes/classifier", "hash": hash_folder(folder / "classifier")},
        "clip": {"model": "shapes/clip", "hash": hash_folder(folder / "clip"), "scale": "100 x cosine"},
    }
