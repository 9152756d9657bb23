"""A whole erasure of the tiny pipeline: what is refused, what is written, what it says of its making."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from torch import Tensor

from erase.config import build, dump, load
from erase.diffusion.pipelines import load_pipeline
from erase.errors import UserError
from erase.provenance import hash_folder
from erase.training.dry_run import dry_run
from erase.training.erasure import Counts, ErasureRun, check_run, erase_concepts
from erase.training.step_log import read_log
from tests.properties import assert_same_bits
from tests.tiny import save_tiny, write_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def settings(folder: Path, model: Path, *overrides: str) -> ErasureRun:
    return load(ErasureRun, write_config(folder, model), overrides)


def predict(unet: Any) -> Tensor:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return unet(latents, torch.tensor([500]), torch.ones(1, 12, 16)).sample


def test_an_erasure_leaves_a_pipeline_its_settings_its_log_and_its_provenance(tmp_path: Path, model: Path) -> None:
    run = settings(tmp_path, model)
    counts = erase_concepts(run)
    erased, base = load_pipeline(run.output_dir), load_pipeline(model)
    assert not torch.equal(predict(erased.unet), predict(base.unet))
    assert_same_bits(erased.vae.parameters(), base.vae.parameters())
    assert build(ErasureRun, yaml.safe_load((run.output_dir / "config.yaml").read_text(encoding="utf-8"))) == run
    assert [line["step"] for line in read_log(run.output_dir)] == [1, 2, 3, 4]
    made = json.loads((run.output_dir / "provenance.json").read_text(encoding="utf-8"))
    assert made["erased"] == ["star"]
    base = {"model": str(model), "revision": None, "hash": hash_folder(model), "is_folder": True}
    assert made["base"] == base
    assert made["config"] == dump(run)
    assert made["trained_parameters"] == 64_796
    assert made["counts"] == vars(counts)
    assert set(made["environment"]["libraries"]) >= {"erase", "torch", "diffusers"}


def test_every_denoiser_evaluation_is_counted(tmp_path: Path, model: Path) -> None:
    counts = erase_concepts(settings(tmp_path, model))
    assert counts.gradient_evaluations == (1 + 4) * 3
    assert counts.latent_evaluations == (4 + 6) * 2 * 2  # steps, with and without the prompt
    # a step: targets 2 x 2 + 2; gradients twice retain, once forget
    assert counts.training_evaluations == 4 * (6 + 6) + 6  # a look for alpha, at the first step's targets
    assert "94 denoiser evaluations: 40 for latents (43 %), 54 in training" in counts.describe()


def test_a_second_run_takes_its_latents_from_the_cache_and_ends_the_same(tmp_path: Path, model: Path) -> None:
    first = settings(tmp_path, model)
    again = settings(tmp_path, model, f"output_dir={tmp_path / 'again'}")
    erase_concepts(first)
    assert erase_concepts(again).latent_evaluations == (4 + 6) * 2 * 2
    unets = [load_pipeline(run.output_dir).unet for run in (first, again)]
    assert_same_bits(*(unet.parameters() for unet in unets))


def test_an_adapter_is_written_alone_and_merged_on_request(tmp_path: Path, model: Path) -> None:
    run = settings(
        tmp_path, model, "parameters.name=lora", "parameters.rank=2", "save_merged=true", "learning_rate=0.1"
    )
    erase_concepts(run)
    assert (run.output_dir / "pytorch_lora_weights.safetensors").is_file()
    assert not (run.output_dir / "model_index.json").exists()
    with_adapter = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    before = predict(with_adapter.unet)
    with_adapter.load_lora_weights(str(run.output_dir), weight_name="pytorch_lora_weights.safetensors")
    merged = load_pipeline(run.output_dir / "merged")
    assert not any("lora" in name for name, _ in merged.unet.named_parameters())
    torch.testing.assert_close(predict(merged.unet), predict(with_adapter.unet), rtol=0, atol=1e-4)  # folded in float32
    assert (predict(merged.unet) - before).abs().max() > 1e-3
    assert json.loads((run.output_dir / "provenance.json").read_text(encoding="utf-8"))["erased"] == ["star"]


def test_a_folder_in_use_is_refused_before_anything_is_made(tmp_path: Path, model: Path) -> None:
    run = settings(tmp_path, model)
    run.output_dir.mkdir()
    (run.output_dir / "notes.txt").touch()
    with pytest.raises(UserError, match=r"^output_dir: .* is not empty"):
        erase_concepts(run)
    assert not (tmp_path / "cache").exists()
    assert [path.name for path in run.output_dir.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("update", "label"),
    [
        ("mgda", "mgda"),
        ("{name: lur, mode: first_order, combine: mgda}", "lur with mgda"),
        ("{name: torchjd, aggregator: MGDA}", "torchjd"),
    ],
)
def test_a_rule_that_the_teacher_s_loss_would_hold_for_ever_is_refused(
    tmp_path: Path, model: Path, update: str, label: str
) -> None:
    run = settings(tmp_path, model, f"update={update}")
    with pytest.raises(UserError, match=f"^update: {label} takes no step where the retain gradient is 0"):
        check_run(run)
    check_run(settings(tmp_path, model, f"update={update}", "adam_weight_decay=0.1"))  # which moves the weights


def test_overwriting_starts_anew(tmp_path: Path, model: Path) -> None:
    erase_concepts(settings(tmp_path, model))
    run = settings(tmp_path, model, "overwrite=true", "max_train_steps=1")
    erase_concepts(run)
    assert len(read_log(run.output_dir)) == 1
    assert [folder.name for folder in run.output_dir.glob("checkpoint-*")] == ["checkpoint-1"]


@pytest.mark.parametrize("wanted", ["latest", "nowhere/checkpoint-2"])
def test_resuming_from_nothing_is_refused_before_a_model_is_loaded(tmp_path: Path, wanted: str) -> None:
    run = settings(tmp_path, tmp_path / "no model", f"resume_from_checkpoint={wanted}")
    with pytest.raises(UserError, match=r"^resume_from_checkpoint: "):
        check_run(run)


def test_a_resumed_erasure_ends_where_a_whole_one_does(tmp_path: Path, model: Path) -> None:
    whole = settings(tmp_path, model, f"output_dir={tmp_path / 'whole'}")
    resumed = settings(tmp_path, model)
    for run in (whole, resumed):
        erase_concepts(run)
    for name in ("unet", "model_index.json", "checkpoint-4"):
        (resumed.output_dir / name).rename(tmp_path / f"lost-{name}")
    counts = erase_concepts(settings(tmp_path, model, "resume_from_checkpoint=latest"))
    assert counts.gradient_evaluations == (1 + 4) * 3, "the part before the checkpoint counts too"
    assert_same_bits(*(load_pipeline(run.output_dir).unet.parameters() for run in (whole, resumed)))
    assert read_log(whole.output_dir) == read_log(resumed.output_dir)


def test_a_dry_run_says_what_would_move_and_writes_nothing(tmp_path: Path, model: Path) -> None:
    run = settings(tmp_path, model, "parameters.name=cross_attention_kv", "gradient_accumulation_steps=3")
    report = dry_run(run, check_run(run))
    assert "parameters: cross_attention_kv: 8 tensors, 2,048 numbers" in report
    assert "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight  (16, 16)" in report
    assert "(64,796 parameters in the UNet)" in report
    assert "forget: star: 42 prompts, of which 4 are drawn: raise latents.forget to use them all, such as 'a" in report
    assert ", of which 6 are drawn: raise latents.retain to use them all\n" in report
    assert "steps: 4, each of 6 + 6 examples a process" in report
    assert "latents: 4 of targets + 0 without them + 6 to keep, 2 steps each" in report
    assert "attention: AttnProcessor2_0\n" in report  # torch's scaled_dot_product_attention
    assert "memory of the device: about 0.5 GiB (+-20 %)" in report
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_dry_run_refuses_what_a_run_would(tmp_path: Path, model: Path) -> None:
    run = settings(tmp_path, model, "parameters.name=lora", "parameters.target_modules=[to_w]")
    with pytest.raises(UserError, match="to_w matches no layer"):
        dry_run(run, check_run(run))


def test_counts_of_nothing_are_described_too() -> None:
    assert Counts(0, 0, 0, 0.4).describe().startswith("0 denoiser evaluations: 0 for latents (0 %)")
