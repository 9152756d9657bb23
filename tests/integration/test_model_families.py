"""Stable Diffusion that predicts noise or velocity, and SDXL: trained, saved, loaded, drawn from, audited, shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

import erase
from erase import embedded
from erase.audit import main as audit
from erase.diffusion.conditioning import encode_prompts
from erase.diffusion.losses import FORGET_LOSSES, RETAIN_LOSSES
from erase.diffusion.pipelines import load_pipeline, weighted_parts
from erase.diffusion.task import ErasureTask
from erase.generate import main as generate
from erase.generation.folder import open_folder
from erase.generation.prompt_csv import write_prompt_set
from erase.generation.prompts import vocabulary_set
from erase.parameters import PARAMETERS, CrossAttentionKV, LoRA, Parameters
from erase.protocols import Shard
from erase.publication.formats import write_format
from erase.training.step_log import read_log
from tests.families import FAMILIES, save_family
from tests.generation import arguments, one_thread, rows_of, settings, write_set
from tests.launch import pictures, train
from tests.tiny import write_config
from tests.unit.diffusion.material import circle_examples, star_examples

ADAPTER = "pytorch_lora_weights.safetensors"
LINE = "{name: lora, rank: 2, alpha: 8}"
ASKED = vocabulary_set(embedded.VOCABULARY, embedded.FULL_TEMPLATE, seed=3)[::20]
TOLERANCE = 1e-4
"""Of pixels from 0 to 1: what is folded into weights is rounded once more."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(tmp_path_factory.mktemp("base") / "model", family)


@pytest.fixture(scope="module")
def full(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that moved the UNet itself."""
    return run(base, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA run, with the merged pipeline beside the adapter."""
    return run(base, tmp_path_factory.mktemp("lora"), parameters=LINE, save_merged="true", learning_rate="2.0e-2")


def run(base: Path, folder: Path, **extra: str) -> Path:
    assert train(write_config(folder, base, **{"max_train_steps": "2", **extra})) == 0
    return folder / "run"


def plain(folder: Path) -> Any:
    """By diffusers alone, as the class that the folder names."""
    return DiffusionPipeline.from_pretrained(folder, use_safetensors=True)


def same_bits(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    return all(torch.equal(*pair) for pair in zip(left.parameters(), right.parameters(), strict=True))


@pytest.mark.parametrize("parameters", [CrossAttentionKV(), LoRA(rank=2)], ids=lambda p: p.name)
def test_every_pair_of_losses_has_a_gradient(base: Path, parameters: Parameters) -> None:
    for forget_loss in FORGET_LOSSES.values():
        for retain_loss in RETAIN_LOSSES.values():
            pipeline, pools = load_pipeline(base), (star_examples(), circle_examples())
            told = encode_prompts(pipeline, [text for pool in pools for text in pool.texts()])
            task = ErasureTask(pipeline, parameters, (forget_loss(), retain_loss()), pools, told)
            torch.manual_seed(0)
            with torch.no_grad():
                for p in task.trainable.values():
                    p.add_(0.3 * torch.randn_like(p))
            for objective in task.objectives(0, Shard(batch_size=2)):
                gradients = torch.autograd.grad(next(iter(objective())), list(task.trainable.values()))
                norms = torch.stack([g.norm() for g in gradients])
                assert norms.isfinite().all() and norms.max() > 1e-6, (forget_loss.__name__, retain_loss.__name__)


def test_a_run_leaves_a_folder_of_the_same_kind_that_plain_diffusers_loads(base: Path, full: Path) -> None:
    before, after = plain(base), plain(full)
    assert type(after) is type(before)
    assert after.scheduler.config == before.scheduler.config
    for name, part in weighted_parts(after).items():
        assert same_bits(part, getattr(before, name)) is (name != "unet"), name
    assert (pictures(after) - pictures(before)).abs().max() > 1e-4
    assert all(np.isfinite(line["forget_loss"]) for line in read_log(full))


def test_an_adapter_is_loaded_by_plain_diffusers_and_draws_as_the_merged_folder(base: Path, adapter: Path) -> None:
    adapted = plain(base)
    before = pictures(adapted)
    adapted.load_lora_weights(adapter, weight_name=ADAPTER)
    assert (pictures(adapted) - pictures(plain(adapter / "merged"))).abs().max() < TOLERANCE
    assert (pictures(adapted) - before).abs().max() > 10 * TOLERANCE


def test_erase_load_gives_what_plain_diffusers_gives(base: Path, full: Path, adapter: Path) -> None:
    one_thread()
    assert torch.equal(pictures(erase.load(full)), pictures(plain(full)))
    loaded, folder = erase.load(adapter, base=base), plain(adapter / "merged")
    assert (pictures(loaded) - pictures(folder)).abs().max() < TOLERANCE
    for name, part in weighted_parts(loaded).items():
        assert all(p.requires_grad for p in part.parameters()), name


def drawn(folder: Path) -> list[Any]:
    return [np.asarray(Image.open(folder / picture.file)) for picture in open_folder(folder).pictures]


def test_generate_draws_what_plain_diffusers_draws(full: Path, tmp_path: Path) -> None:
    """Alone in its batch; some rows with guidance and some without.

    Prompts are encoded eight at a time, which rounds otherwise than one alone: a value between two levels may fall on
    the other side, few do.
    """
    one_thread()
    rows, pipeline = rows_of(4), plain(full)
    assert generate([*arguments(settings(full, write_set(tmp_path, 4), tmp_path / "out")), "--batch_size", "1"]) == 0
    pipeline.set_progress_bar_config(disable=True)
    for row, found in zip(rows, drawn(tmp_path / "out"), strict=True):
        picture = pipeline(
            row.prompt,
            num_inference_steps=row.steps or 2,
            guidance_scale=4.0 if row.guidance_scale is None else row.guidance_scale,
            generator=torch.Generator().manual_seed(row.image_seed(0)),
        ).images[0]
        apart = np.abs(np.asarray(picture).astype(int) - found.astype(int))
        assert apart.max() <= 1 and (apart > 0).mean() < 0.01, row.prompt


def test_an_adapter_is_generated_from_as_its_merged_folder(base: Path, adapter: Path, tmp_path: Path) -> None:
    file = write_set(tmp_path, 4)
    assert generate(arguments(settings(adapter / "merged", file, tmp_path / "merged"))) == 0
    assert generate([*arguments(settings(base, file, tmp_path / "put")), "--lora", str(adapter)]) == 0
    for merged, put in zip(drawn(tmp_path / "merged"), drawn(tmp_path / "put"), strict=True):
        assert np.abs(merged.astype(int) - put.astype(int)).max() <= 1


def test_a_run_is_audited(base: Path, full: Path, tmp_path: Path) -> None:
    write_prompt_set(ASKED, tmp_path / "set.csv")
    given = {"base": base, "erased": full, "target": "star", "prompts": tmp_path / "set.csv"}
    given |= {"output_dir": tmp_path / "audit", "num_inference_steps": 1, "batch_size": 16}
    fixed = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    assert audit([*fixed, "--metrics", "[{name: concept_classifier}, {name: clip_score, model: shapes}]"]) == 0
    assert json.loads((tmp_path / "audit" / "results.json").read_text())["effects"]


@pytest.mark.parametrize("name", ["diffusers", "delta", "unet"])
def test_a_full_runs_formats_draw_its_pictures(base: Path, full: Path, tmp_path: Path, name: str) -> None:
    one_thread()
    write_format(full, name, tmp_path / name)
    assert torch.equal(pictures(erase.load(tmp_path / name, base=base)), pictures(plain(full)))


@pytest.mark.parametrize("name", ["diffusers", "lora", "kohya"])
def test_a_lora_runs_formats_draw_its_pictures(base: Path, adapter: Path, tmp_path: Path, name: str) -> None:
    write_format(adapter, name, tmp_path / name)
    found = pictures(erase.load(tmp_path / name, base=base))
    assert (found - pictures(plain(adapter / "merged"))).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["cross_attention_kv", "lora"])
def test_a_dry_run_prints_what_would_move(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert train(write_config(tmp_path, base, parameters=f"{{name: {name}}}"), "--dry_run") == 0
    printed, chosen = capsys.readouterr().out, PARAMETERS[name]().select(load_pipeline(base).unet)
    assert f"{name}: {len(chosen)} tensors, {sum(p.numel() for p in chosen.values()):,} numbers" in printed
    assert next(iter(chosen)) in printed
    assert not (tmp_path / "run").exists()


def test_a_lora_of_sdxls_second_text_encoder_is_folded_too(tmp_path: Path) -> None:
    """As others ship them: diffusers' training script has adapters for both encoders."""
    one_thread()
    base, made = save_family(tmp_path / "base", "sdxl"), FAMILIES["sdxl"](0)
    torch.manual_seed(1)
    layers = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        model, names = getattr(made, part), ["to_k", "to_v"] if part == "unet" else ["q_proj", "v_proj"]
        model.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=names, init_lora_weights=False))
        layers[f"{part}_lora_layers"] = get_peft_model_state_dict(model)
    type(made).save_lora_weights(tmp_path / "lora", **layers)
    adapted = plain(base)
    before = pictures(adapted)
    adapted.load_lora_weights(tmp_path / "lora", weight_name=ADAPTER)
    loaded = erase.load(tmp_path / "lora", base=base)
    assert (pictures(loaded) - pictures(adapted)).abs().max() < TOLERANCE
    assert (pictures(adapted) - before).abs().max() > 10 * TOLERANCE
    for name, part in weighted_parts(loaded).items():
        assert same_bits(part, getattr(plain(base), name)) is (name == "vae"), name
