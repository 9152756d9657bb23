"""What a model folder must be, and how one that is not is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase import embedded
from erase.diffusion.pipelines import check_pipeline, find_pipeline, load_pipeline, unknown_words
from erase.errors import UserError
from tests.properties import assert_same_bits
from tests.tiny import save_tiny, tiny_pipeline

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    (message,) = caught.value.problems
    assert message.startswith("model: ")
    return message


def test_a_whole_folder_is_loaded_frozen_and_in_float32(saved: Path) -> None:
    pipeline, original = load_pipeline(saved), tiny_pipeline()
    for name in ("unet", "vae", "text_encoder"):
        module = getattr(pipeline, name)
        assert not module.training
        assert {(p.dtype, p.requires_grad) for p in module.parameters()} == {(torch.float32, False)}
        assert_same_bits(module.state_dict().values(), getattr(original, name).state_dict().values())


def test_weights_in_half_precision_are_loaded_as_float32(folder: Path) -> None:
    halves = {name: tensor.half() for name, tensor in load_file(folder / UNET).items()}
    save_file(halves, folder / UNET, {"format": "pt"})
    assert {p.dtype for p in load_pipeline(folder).unet.parameters()} == {torch.float32}


def test_a_folder_is_found_as_it_is_and_the_embedded_model_by_its_name(saved: Path) -> None:
    assert find_pipeline(str(saved)) == saved
    assert find_pipeline("shapes") == embedded.WEIGHTS / "pipeline"


@pytest.mark.parametrize("name", ["nowhere", "./some/model", "a/b/c", "/no/such", "~/no-such-folder", "a/b/"])
def test_what_is_no_folder_and_no_hub_id_is_refused(name: str) -> None:
    assert f"{name!r} is no folder and no Hub id" in refused(lambda: find_pipeline(name))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"x")
    assert "is no folder and no Hub id" in refused(lambda: find_pipeline(str(tmp_path / "model.ckpt")))


def test_a_hub_id_that_cannot_be_had_says_so() -> None:
    found = refused(lambda: find_pipeline("no-such-owner/no-such-model"))
    assert "'no-such-owner/no-such-model' is no folder here and could not be had from the Hub" in found


def test_a_folder_without_an_index_is_no_pipeline(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    assert refused(lambda: check_pipeline(folder)).endswith("has no model_index.json, so it is no diffusers pipeline")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe{}"])
def test_a_damaged_index_is_named(folder: Path, content: bytes) -> None:
    (folder / "model_index.json").write_bytes(content)
    assert "model_index.json is damaged" in refused(lambda: check_pipeline(folder))


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline", ["pipeline", "Own"], None])
def test_another_kind_of_pipeline_lists_the_supported_ones(folder: Path, kind: object) -> None:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}), encoding="utf-8")
    found = refused(lambda: load_pipeline(folder))
    supported = "StableDiffusionPipeline (Stable Diffusion 1.x, 2.x), StableDiffusionXLPipeline (SDXL)"
    assert found.endswith(f"is a {kind}; supported: {supported}")


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
def test_weights_that_are_missing_are_named(folder: Path, name: str) -> None:
    (folder / f"{name}.safetensors").unlink()
    found = refused(lambda: load_pipeline(folder))
    assert str((folder / name).parent) in found
    assert "holds no *.safetensors weights" in found


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_weights_are_named(folder: Path, keep: float) -> None:
    whole = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(whole[: int(len(whole) * keep)])
    found = refused(lambda: load_pipeline(folder))
    assert f"{folder / UNET} is damaged" in found
    assert found.endswith("download or copy it again")


@pytest.mark.parametrize("ending", ["bin", "ckpt", "pt", "pth"])
def test_pickles_are_refused_unopened(folder: Path, ending: str) -> None:
    state = load_file(folder / UNET)
    (folder / UNET).unlink()
    pickle = folder / "unet" / f"diffusion_pytorch_model.{ending}"
    torch.save(state, pickle)
    found = refused(lambda: load_pipeline(folder))
    assert f"{pickle} is a pickle, which can run code; convert it" in found


def test_a_pickle_beside_safetensors_is_not_read(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not a pickle either")
    assert_same_bits(load_pipeline(folder).unet.parameters(), tiny_pipeline().unet.parameters())


SETTINGS = ["unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/tokenizer.json"]
SCHEDULE = "scheduler/scheduler_config.json"
"""Every value of a schedule has a default: `{}` is one."""


@pytest.mark.parametrize(
    ("name", "content"),
    [*((name, content) for name in SETTINGS for content in ("{", "{}", None)), (SCHEDULE, "{"), (SCHEDULE, None)],
)
def test_settings_that_are_damaged_or_missing_are_a_users_mistake(folder: Path, name: str, content: str | None) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content, encoding="utf-8")
    assert str(folder) in refused(lambda: load_pipeline(folder))


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
def test_weights_that_lack_a_tensor_are_not_filled_with_random_numbers(folder: Path, name: str) -> None:
    file = folder / f"{name}.safetensors"
    state = load_file(file)
    lost = sorted(state)[0]
    del state[lost]
    save_file(state, file, {"format": "pt"})
    assert str(folder) in refused(lambda: load_pipeline(folder))


def test_words_outside_of_the_vocabulary_are_found() -> None:
    prompts = ["a red star", "a red zebra", "", "A STAR", "stars"]
    assert unknown_words(tiny_pipeline(), prompts) == ["a red zebra", "stars"]


def test_a_tokenizer_whose_unknown_token_is_its_end_knows_every_word() -> None:
    pipeline = tiny_pipeline()
    pipeline.tokenizer.unk_token = pipeline.tokenizer.eos_token  # as CLIP's byte-level one has it
    assert unknown_words(pipeline, ["a red zebra"]) == []
