"""What a dry run says that a run will cost is what the run then counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import HeunDiscreteScheduler, PNDMScheduler

from erase.config import load
from erase.diffusion.losses import (
    AnchorRedirection,
    Denoising,
    ForgetLoss,
    GradientAscent,
    NegativeGuidance,
    RetainLoss,
    TeacherDistillation,
)
from erase.diffusion.pipelines import load_pipeline
from erase.training.dry_run import dry_run
from erase.training.erasure import ErasureRun, check_run, erase_concepts
from erase.training.evaluations import Evaluations, count_evaluations, count_latents, looks, target_cost
from tests.tiny import draw_captioned, save_tiny, tiny_pipeline, write_config

TARGET = "targets=[{concept: star, prompts: [a red star, a star in flat style], "
RUNS: dict[str, list[str]] = {
    "chained": ["update.mode=chained"],
    "exact": ["update.mode=exact"],
    "alternating, measured": ["update={name: lur, mode: alternating, measure_every: 2}", "max_train_steps=7"],
    "first order, other seed": ["update.mode=first_order", "seed=3"],
    "weighted sum, probed": ["update=weighted_sum", "probe_every=3"],
    "steps in turn, probed": ["update=alternating_steps", "update.retain_steps=2", "probe_every=2"],
    "a rule, then steps": ["update={name: alternating_steps, rule: pcgrad, retain_steps: 2}", "probe_every=2"],
    "the forget side alone": ["update=forget_only"],
    "a combination": ["update.combine=nash"],
    "accumulated": ["gradient_accumulation_steps=3", "update=pcgrad"],
    "no guidance, neutral pictures": ["latents.guidance_scale=1", "latents.neutral=3"],
    "two targets": ["targets=[{concept: star}, {concept: red}]", "latents.forget=5", "latents.neutral=3"],
    "the concept alone": [TARGET + "concept_prompt: a shape}]", "update=weighted_sum"],
    "an anchor": [TARGET + "anchor: ring}]", "forget_loss=anchor_redirection"],
    "ascent": ["forget_loss=gradient_ascent", "latents.neutral=4"],
    "an adapter": ["parameters=lora", "update=weighted_sum"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def settings(folder: Path, model: Path, *overrides: str) -> ErasureRun:
    torch.set_num_threads(1)
    return load(ErasureRun, write_config(folder, model), overrides)


def foretold(run: ErasureRun) -> Evaluations:
    return count_evaluations(run, check_run(run), load_pipeline(Path(run.model)).scheduler)


@pytest.mark.parametrize("case", RUNS)
def test_a_run_takes_what_was_foretold(case: str, tmp_path: Path, model: Path) -> None:
    run = settings(tmp_path, model, *RUNS[case])
    found = foretold(run)
    counts = erase_concepts(run)
    assert found == Evaluations(counts.latent_evaluations, counts.training_evaluations, exact=True)


def test_a_run_on_images_makes_no_latents_of_prompts_to_keep(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    images = draw_captioned(tmp_path / "images", ["a red ring in flat style", "a blue moon"])
    run = settings(tmp_path, model, "retain_loss=denoising", f"retain.images={images}")
    found = foretold(run)
    counts = erase_concepts(run)
    assert (found.latents, found.training) == (counts.latent_evaluations, counts.training_evaluations)
    assert found.latents == 4 * 2 * 2, "four of targets, two steps, with and without the prompt"


def test_where_a_batch_may_mix_wordings_the_most_is_told(tmp_path: Path, model: Path) -> None:
    """A micro-batch with the concept alone in it costs three evaluations of the base an example, else two."""
    mixed = "targets=[{concept: star}, {concept: moon, concept_prompt: a shape}]"
    run = settings(tmp_path, model, mixed, "update=weighted_sum")
    found = foretold(run)
    counts = erase_concepts(run)
    assert not found.exact and "; at most 48 in training" in found.describe()
    assert 4 * 2 * (1 + 1 + 2 + 1) <= counts.training_evaluations <= found.training == 4 * 2 * (1 + 1 + 3 + 1)


def test_the_dry_run_prints_the_counts(tmp_path: Path, model: Path) -> None:
    run = settings(tmp_path, model)
    latents, step = 10 * 2 * 2, 2 * (2 + 1 + 1 + 2)  # base on p and n, forget; base on p, retain twice
    training = 4 * step + 2 * 3  # a look for alpha, at targets that the first step knows
    says = f"denoiser evaluations: {latents} for latents, fewer where they are cached; {training} in training, "
    assert f"\n{says}in each process\n" in dry_run(run, check_run(run))


def test_a_samplers_own_number_of_evaluations_counts(tmp_path: Path, model: Path) -> None:
    """Heun's sampler looks twice at each step but the last; PNDM's, without its Runge-Kutta steps, once more in all."""
    run, config = settings(tmp_path, model, "latents.steps=5"), tiny_pipeline().scheduler.config
    plan = check_run(run)
    assert count_latents(run, plan, HeunDiscreteScheduler.from_config(config)) == 10 * 2 * 9
    assert count_latents(run, plan, PNDMScheduler.from_config(config, skip_prk_steps=True)) == 10 * 2 * 6


def test_looks_are_those_of_the_rule_and_of_the_probes(tmp_path: Path, model: Path) -> None:
    assert list(looks(settings(tmp_path, model, "probe_every=2"))) == [(4, 2), (4, 3), (2, 1), (4, 3)]
    assert list(looks(settings(tmp_path, model, "update=weighted_sum"))) == [(1, 1)] * 4


@pytest.mark.parametrize(
    ("loss", "in_context", "alone"),
    [
        (NegativeGuidance(), 2, 3),
        (AnchorRedirection(), 1, 1),
        (GradientAscent(), 0, 0),
        (TeacherDistillation(), 1, 1),
        (Denoising(), 0, 0),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_target_costs_what_its_formula_asks_of_the_base(
    loss: ForgetLoss | RetainLoss, in_context: int, alone: int
) -> None:
    assert (target_cost(loss, True), target_cost(loss, False)) == (in_context, alone)
