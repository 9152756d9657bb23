"""The two objectives of a step, on a real UNet: shards, counts, the reference and what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from erase.diffusion.losses import (
    AnchorRedirection,
    Denoising,
    ForgetLoss,
    NegativeGuidance,
    RetainLoss,
    TeacherDistillation,
)
from erase.diffusion.task import ErasureTask
from erase.parameters import CrossAttentionKV, Full, LoRA, Parameters
from erase.protocols import Objective, Shard, UpdateRule, UpdateState
from erase.updates import LUR, AlternatingSteps, PCGrad, WeightedSum
from erase.updates.alpha import AbsoluteAlpha
from tests.properties import assert_same_bits
from tests.tiny import tiny_pipeline
from tests.unit.diffusion.material import circle_examples, star_examples, told_of
from tests.unit.updates.problems import HEADS, TAILS

LOSSES = (NegativeGuidance(), TeacherDistillation())
WHOLE = Shard(batch_size=2)
ROUNDING: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-7}
"""Gradients are 1e-3 to 1; a sum over two forward passes rounds otherwise in float32 than one over a batch."""


def make_task(
    parameters: Parameters | None = None,
    losses: tuple[ForgetLoss, RetainLoss] = LOSSES,
    training: bool = False,
    **given: Any,
) -> ErasureTask:
    pipeline = tiny_pipeline()
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False).train(training)
    pools = (star_examples(), circle_examples())
    return ErasureTask(pipeline, parameters or Full(), losses, pools, told_of(pipeline), **given)


def move(task: ErasureTask, size: float = 0.05) -> ErasureTask:
    with torch.no_grad():
        for p in task.trainable.values():
            p.add_(size * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return task


def gradient(task: ErasureTask, objective: Objective) -> Tensor:
    loss = torch.stack(list(objective())).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(task.trainable.values()))])


def loss(objective: Objective) -> float:
    with torch.no_grad():
        return sum(value.item() for value in objective())


def gradients(task: ErasureTask, shard: Shard, step: int = 0) -> list[Tensor]:
    return [gradient(task, objective) for objective in task.objectives(step, shard)]


def test_the_first_objective_retains_and_the_second_forgets() -> None:
    retain, forget = make_task().objectives(0, WHOLE)
    assert loss(retain) == 0.0, "teacher distillation before training"
    assert loss(forget) > 1e-3


def test_before_training_the_retain_gradient_is_exactly_0_and_after_a_step_it_is_not() -> None:
    task = make_task()
    assert not gradients(task, WHOLE)[0].any()
    assert gradients(move(task), WHOLE)[0].norm() > 1e-3


def test_the_forget_objective_carries_its_weight_and_the_retain_one_does_not() -> None:
    plain, heavy = (move(make_task(forget_weight=weight)).objectives(0, WHOLE) for weight in (1.0, 2.5))
    assert loss(heavy[1]) == pytest.approx(2.5 * loss(plain[1]))
    assert loss(heavy[0]) == loss(plain[0]) > 0


def test_an_objective_is_a_pure_function_of_the_parameters() -> None:
    task = move(make_task())
    for objective in task.objectives(0, WHOLE):
        first = gradient(task, objective)
        torch.manual_seed(99)
        assert_same_bits([gradient(task, objective)], [first])
        move(task, 0.01)
        assert (gradient(task, objective) - first).norm() > 1e-6
        move(task, -0.01)


def test_the_same_step_gives_the_same_objectives_and_another_step_others() -> None:
    task = move(make_task())
    for again, first, other in zip(*(gradients(task, WHOLE, step) for step in (3, 3, 4)), strict=True):
        assert_same_bits([again], [first])
        assert not torch.equal(other, first)


def test_another_seed_draws_other_batches() -> None:
    one, other = (move(make_task(seed=seed)).objectives(0, WHOLE) for seed in (0, 1))
    assert all(loss(a) != loss(b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("losses", [LOSSES, (AnchorRedirection(), Denoising())], ids=["guidance", "anchor"])
def test_two_micro_batches_of_one_are_one_batch_of_two(losses: tuple[ForgetLoss, RetainLoss]) -> None:
    task = move(make_task(losses=losses))
    for parts, whole in zip(gradients(task, Shard(micro_batches=2)), gradients(task, WHOLE), strict=True):
        assert whole.norm() > 1e-3
        torch.testing.assert_close(parts, whole, **ROUNDING)


def test_the_mean_over_two_processes_is_one_process_with_all() -> None:
    task = move(make_task())
    first, second = (gradients(task, Shard(process=p, processes=2, batch_size=1)) for p in (0, 1))
    for a, b, whole in zip(first, second, gradients(task, WHOLE), strict=True):
        assert not torch.equal(a, b)
        torch.testing.assert_close((a + b) / 2, whole, **ROUNDING)


@pytest.mark.parametrize(
    ("losses", "retain_target", "forget_target"),
    [
        ((NegativeGuidance(), TeacherDistillation()), 1, 3),
        ((AnchorRedirection(), TeacherDistillation()), 1, 1),
        ((NegativeGuidance(), Denoising()), 0, 3),
    ],
)
def test_the_counter_counts_targets_once_when_they_are_needed_and_every_pass(
    losses: tuple[ForgetLoss, RetainLoss], retain_target: int, forget_target: int
) -> None:
    task = make_task(losses=losses)
    retain, forget = task.objectives(0, Shard(micro_batches=2, batch_size=3))
    assert task.counter.count == 0
    loss(retain)
    assert task.counter.count == 6 * (retain_target + 1)
    loss(forget), loss(retain)
    assert task.counter.count == 6 * (retain_target + forget_target + 3)


def test_a_step_that_looks_at_one_objective_asks_the_base_nothing_for_the_other() -> None:
    """To forget: 3 predictions of the base and one of the model, of 2 examples; to retain: 1 and 1."""
    task, state, counts = move(make_task()), UpdateState(), []
    for step in range(4):
        before = task.evaluations
        AlternatingSteps()(*task.objectives(step, WHOLE), list(task.trainable.values()), state)
        counts.append(task.evaluations - before)
    assert counts == [8, 4, 8, 4]


AHEAD: dict[str, Any] = {"alpha": AbsoluteAlpha(value=0.1), "measure_every": 0}
RULES: dict[str, tuple[UpdateRule, int]] = {
    "weighted_sum": (WeightedSum(), 0),
    "pcgrad": (PCGrad(), 0),
    "chained": (LUR(mode="chained", **AHEAD), 0),
    "exact": (LUR(mode="exact", **AHEAD), 0),
    "first_order": (LUR(mode="first_order", **AHEAD), 0),
    "heads": (LUR(mode="alternating", **AHEAD), HEADS),
    "tails": (LUR(mode="alternating", **AHEAD), TAILS),
}


@pytest.mark.parametrize("losses", [LOSSES, (AnchorRedirection(), Denoising())], ids=["guidance", "anchor"])
@pytest.mark.parametrize("parameters", [Full(), LoRA(rank=2)], ids=lambda p: p.name)
@pytest.mark.parametrize("name", RULES)
def test_a_target_is_the_base_s_wherever_a_rule_has_moved_the_weights_when_it_is_asked(
    name: str, parameters: Parameters, losses: tuple[ForgetLoss, RetainLoss]
) -> None:
    """The same bits as with all targets taken before the rule; `exact` asks the base with its own attention kernel."""
    (rule, step), found = RULES[name], []
    for beforehand in (False, True):
        task = move(make_task(parameters, losses), 0.02)
        objectives = task.objectives(step, Shard(micro_batches=2))
        if beforehand:
            assert all(loss(objective) > 0 for objective in objectives)
        trained = list(task.trainable.values())
        rule(*objectives, trained, UpdateState(step=step))
        found.append([p.grad for p in trained if p.grad is not None])
    assert len(found[0]) > 0
    if name == "exact":
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    else:
        assert_same_bits(found[0], found[1])


@pytest.mark.parametrize("parameters", [Full(), CrossAttentionKV(), LoRA(rank=2)], ids=lambda p: p.name)
def test_the_reference_stays_the_base_while_the_model_moves(parameters: Parameters) -> None:
    still, moved = make_task(parameters), move(make_task(parameters))
    value = loss(still.objectives(0, WHOLE)[1])
    with torch.no_grad():
        for p, start in zip(moved.trainable.values(), still.trainable.values(), strict=True):
            assert not torch.equal(p, start)
        objective = moved.objectives(0, WHOLE)[1]
        for p, start in zip(moved.trainable.values(), still.trainable.values(), strict=True):
            p.copy_(start)
    assert loss(objective) == value, "the target was taken from the moved model"


def test_gradient_checkpointing_gives_the_same_gradient_and_count() -> None:
    plain, saving = move(make_task()), move(make_task(gradient_checkpointing=True))
    assert saving.pipeline.unet.is_gradient_checkpointing
    for a, b in zip(gradients(saving, WHOLE), gradients(plain, WHOLE), strict=True):
        torch.testing.assert_close(a, b, **ROUNDING)
    assert saving.counter.count == plain.counter.count


def test_dropout_stands_still_so_that_a_loss_is_a_function_of_the_weights() -> None:
    for checkpointing in (False, True):
        task = make_task(gradient_checkpointing=checkpointing, training=True)
        dropouts = [part for part in task.pipeline.unet.modules() if isinstance(part, nn.Dropout)]
        for part in dropouts:
            part.p = 0.5
        _, objective = task.objectives(0, WHOLE)
        one, other = gradient(task, objective), gradient(task, objective)
        assert_same_bits([one], [other])
        task.pipeline.unet.train()
        assert len(dropouts) > 5 and not torch.equal(gradient(task, objective), one), "or this would show nothing"


def test_an_adapters_start_is_drawn_from_the_seed() -> None:
    first, again, other = (make_task(LoRA(rank=2), seed=seed) for seed in (0, 0, 1))
    assert_same_bits(first.trainable.values(), again.trainable.values())
    assert any(not torch.equal(a, b) for a, b in zip(first.trainable.values(), other.trainable.values(), strict=True))


def test_a_batch_is_described_by_its_prompts() -> None:
    task = make_task()
    lines = task.describe_batch(0, Shard(batch_size=3))
    assert sorted(lines) == sorted(
        [
            *(f"forget: {prompt}" for prompt in task.forget.prompts),
            *(f"retain: {prompt}" for prompt in task.retain.prompts),
        ]
    )
    assert task.describe_batch(0, WHOLE) == task.describe_batch(0, Shard(process=1, processes=2, batch_size=1))


def predict(unet: Any) -> Tensor:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return unet(latents, torch.tensor([500]), torch.ones(1, 12, 16)).sample


def test_a_saved_pipeline_holds_the_moved_weights_and_the_rest_of_the_base(tmp_path: Path) -> None:
    task = move(make_task(CrossAttentionKV()))
    task.save(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, use_safetensors=True)
    base = tiny_pipeline()
    assert_same_bits(loaded.unet.parameters(), task.pipeline.unet.parameters())
    assert_same_bits(loaded.vae.parameters(), base.vae.parameters())
    assert_same_bits(loaded.text_encoder.parameters(), base.text_encoder.parameters())
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} <= {".json", ".safetensors"}


def test_a_saved_adapter_loads_into_the_base_by_diffusers_own_way(tmp_path: Path) -> None:
    task = move(make_task(LoRA(rank=2, alpha=6.0)))
    task.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    base = tiny_pipeline()
    before = predict(base.unet)
    base.load_lora_weights(str(tmp_path), weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(predict(base.unet), predict(task.pipeline.unet), rtol=0, atol=1e-6)
    assert (predict(base.unet) - before).abs().max() > 1e-3
