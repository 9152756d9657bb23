"""What a GPU alone can show: fp16 kernels, and what stays on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from erase.classification.data import Digits
from erase.classification.model_settings import ModelSettings
from erase.classification.models import make_model
from erase.classification.splits import Classes, make_splits
from erase.config import load
from erase.diffusion.prepare import load_base, prepare
from erase.evaluation.unlearning.outputs import predict
from erase.training.erasure import ErasureRun, check_run, make_task
from erase.training.loop import TrainingRun
from erase.training.step_log import read_log
from pipelines.unlearn_class import parts_of
from tests.launch import largest_difference, train
from tests.tiny import write_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("parameters", ["{name: full}", "{name: lora, rank: 2}"])
def test_a_run_in_half_precision_has_finite_steps(model: Path, tmp_path: Path, precision: str, parameters: str) -> None:
    config = write_config(tmp_path, model)
    assert train(config, "--mixed_precision", precision, "--parameters", parameters) == 0
    log = read_log(tmp_path / "run")
    assert all(line["forget_loss"] is not None for line in log)
    assert None not in (log[-1]["forget_norm"], log[-1]["retain_norm"])  # not skipped: the loss scale has settled
    if "full" in parameters:
        assert largest_difference(model, tmp_path / "run") > 0


def test_the_unet_alone_stays_on_the_device(model: Path, tmp_path: Path) -> None:
    run = load(ErasureRun, write_config(tmp_path, model), [])
    plan, accelerator = check_run(run), Accelerator(mixed_precision="no")
    base = load_base(run, plan, accelerator.device)
    task = make_task(run, base, prepare(base, run, plan, run.seed, quiet=True), accelerator)
    assert {p.device.type for p in base.pipeline.unet.parameters()} == {"cuda"}
    for part in (base.pipeline.text_encoder, base.pipeline.vae):
        assert {p.device.type for p in part.parameters()} == {"cpu"}
    TrainingRun(task, run, accelerator, {}).train()


def test_a_classifier_is_judged_on_the_device_and_alike() -> None:
    splits = make_splits(Digits(), Classes(labels=("8",)), 0)
    torch.manual_seed(0)
    model = make_model(ModelSettings("timm", "test_resnet", "standard"), 10, 1)
    plain = predict(model.eval(), splits.test, splits.normalise)
    found = parts_of(model, splits.normalise, splits)["test"]
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert np.abs(found.logits - plain.logits).max() < 1e-2
