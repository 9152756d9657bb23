"""CLIP score by a real open_clip model with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from erase.embedded import WEIGHTS
from erase.errors import UserError
from erase.evaluation.metrics.clip_model import ClipModel, check_clip, clip_width, load_clip, needs_quick_gelu
from erase.shapes.drawing import draw
from tests.unit.evaluation.tiny_judges import CLIP, save_clip

PROMPTS = ["a red star", "a blue circle", "a red star in dotted style"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def score(model: str) -> ClipModel:
    return ClipModel(model)


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    words = (("star", "red", "flat"), ("circle", "blue", "flat"), ("star", "red", "dotted"))
    return [Image.fromarray(draw(*each, rng)) for each in words]


def test_a_score_is_100_times_the_cosine_of_the_features(score: ClipModel) -> None:
    with torch.no_grad():
        shown = score.model.encode_image(torch.stack([score.preprocess(image) for image in pictures()]))
        said = score.model.encode_text(score.tokenizer(PROMPTS))
    expected = 100 * torch.nn.functional.cosine_similarity(shown, said)
    assert score(pictures(), PROMPTS) == pytest.approx(expected.tolist(), abs=1e-3)
    assert len({round(value, 3) for value in expected.tolist()}) == 3


def test_each_picture_is_scored_with_its_own_prompt(score: ClipModel) -> None:
    order = [2, 0, 1]
    shuffled = score([pictures()[i] for i in order], [PROMPTS[i] for i in order])
    plain = score(pictures(), PROMPTS)
    assert shuffled == pytest.approx([plain[i] for i in order], abs=1e-3)
    assert score(pictures(), PROMPTS[::-1]) != pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_batch_size_does_not_change_a_score(score: ClipModel, batch_size: int) -> None:
    assert score(pictures(), PROMPTS, batch_size=batch_size) == pytest.approx(score(pictures(), PROMPTS), abs=1e-3)
    assert score([], []) == []


def test_features_have_length_1_and_scores_are_within_100(score: ClipModel) -> None:
    assert score.embed(pictures()).norm(dim=-1).tolist() == pytest.approx([1.0] * 3)
    assert score.read(PROMPTS).norm(dim=-1).tolist() == pytest.approx([1.0] * 3)
    assert all(-100 <= value <= 100 for value in score(pictures(), PROMPTS))


def test_gray_and_transparent_pictures_are_scored_as_color(score: ClipModel) -> None:
    image = pictures()[0]
    opaque = image.convert("RGBA")
    assert score([opaque], PROMPTS[:1]) == score([image], PROMPTS[:1])
    assert len(score([image.convert("L")], PROMPTS[:1])) == 1


def test_the_context_is_the_models_own_and_a_long_prompt_is_cut(score: ClipModel) -> None:
    length = CLIP["model_cfg"]["text_cfg"]["context_length"]
    assert score.tokenizer(PROMPTS).shape == (3, length)
    long = " ".join(["star"] * 50)
    assert score(pictures()[:1], [long]) == pytest.approx(score(pictures()[:1], [f"{long} circle"]))


def test_the_model_judges_in_float32_and_does_not_train(score: ClipModel) -> None:
    assert not score.model.training
    assert {p.dtype for p in score.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("lost", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_a_folder_that_lacks_a_part_is_refused_by_name(model: str, tmp_path: Path, lost: str) -> None:
    partial = Path(shutil.copytree(model.removeprefix("local-dir:"), tmp_path / "partial"))
    (partial / lost).unlink()
    with pytest.raises(UserError, match=r"^clip: local-dir:.* cannot be loaded"):
        ClipModel(f"local-dir:{partial}")


def test_damaged_parts_are_refused_by_name(model: str, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(model.removeprefix("local-dir:"), tmp_path / "damaged"))
    weights = damaged / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"^clip: local-dir:.* cannot be loaded"):
        ClipModel(f"local-dir:{damaged}")


def test_a_config_of_another_shape_is_refused_by_name(model: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(model.removeprefix("local-dir:"), tmp_path / "other"))
    wider = {**CLIP, "model_cfg": {**CLIP["model_cfg"], "embed_dim": 16}}
    (other / "open_clip_config.json").write_text(json.dumps(wider), encoding="utf-8")
    with pytest.raises(UserError, match=r"^clip: local-dir:.* cannot be loaded"):
        ClipModel(f"local-dir:{other}")


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^clip: no-such-model cannot be loaded"):
        ClipModel("no-such-model")


def test_a_pickle_is_refused_even_beside_safetensors_that_open_clip_would_not_take(model: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(model.removeprefix("local-dir:"), tmp_path / "other"))
    (other / "open_clip_model.safetensors").rename(other / "model.safetensors")
    torch.save({}, other / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match=r"open_clip_pytorch_model.bin is a pickle, which can run code"):
        ClipModel(f"local-dir:{other}")


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-32", "", r"ViT-B-32 needs weights; its tags: openai"),
        ("ViT-B-32", "no-such-tag", r"has no tag 'no-such-tag'; known: openai"),
        ("shapes", "openai", r"brings its own weights, leave it empty"),
        ("ViT-B-32", "openai", "cannot be loaded"),  # there is no network in a test
        ("hf-hub:owner/name", "", "cannot be loaded"),
    ],
)
def test_weights_that_are_unknown_or_cannot_be_had_are_refused(name: str, pretrained: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClipModel(name, pretrained)


def test_the_embedded_model_is_one_word_and_loaded_once() -> None:
    clip = load_clip("shapes")
    assert load_clip("shapes") is clip
    assert clip.weights_hash == ClipModel(f"local-dir:{WEIGHTS / 'clip'}").weights_hash
    assert clip.identity()["model"] == "shapes"


def test_other_weights_have_another_hash(model: str, tmp_path: Path) -> None:
    one, same, other = ClipModel(model), ClipModel(model), ClipModel(save_clip(tmp_path / "other", seed=1))
    assert one.weights_hash == same.weights_hash != other.weights_hash
    assert one.identity()["preprocessing"]["interpolation"] == "bicubic"


def test_an_architecture_takes_a_safetensors_file(tmp_path: Path) -> None:
    small = "test-tiny"
    (tmp_path / f"{small}.json").write_text(json.dumps(CLIP["model_cfg"]), encoding="utf-8")
    folder = Path(save_clip(tmp_path / "model").removeprefix("local-dir:"))
    open_clip.add_model_config(tmp_path / f"{small}.json")
    one = ClipModel(small, str(folder / "open_clip_model.safetensors"))
    assert one.weights_hash == ClipModel(f"local-dir:{folder}").weights_hash


# QuickGELU


def test_the_flag_is_the_tags_by_open_clips_table() -> None:
    asked = {pair: needs_quick_gelu(*pair) for pair in open_clip.list_pretrained()}
    assert {asked[model, "openai"] for model in ("RN50", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")} == {True}
    assert not asked["ViT-B-32", "laion2b_s34b_b79k"] and asked["ViT-B-16", "dfn2b"]
    for (model, tag), quick in asked.items():  # open_clip lists those tags again under architectures with QuickGELU
        assert quick == (model.endswith("-quickgelu") or (f"{model}-quickgelu", tag) in asked), (model, tag)
    assert not needs_quick_gelu("local-dir:x", "") and not needs_quick_gelu("ViT-B-32", "weights.safetensors")


def architecture(tmp_path: Path, name: str, **own: bool) -> str:
    """A small architecture that open_clip then knows by name."""
    (tmp_path / f"{name}.json").write_text(json.dumps({**CLIP["model_cfg"], **own}), encoding="utf-8")
    open_clip.add_model_config(tmp_path / f"{name}.json")
    return name


@pytest.mark.parametrize("quick", [True, False])
def test_a_tags_model_has_the_activation_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """A tag of the table, its weights in the Hub's cache as a download leaves them: open_clip builds it for real."""
    name, saved = architecture(tmp_path, f"test-tag-{quick}"), Path(save_clip(tmp_path / "clip").split(":", 1)[1])
    stored = tmp_path / "hub" / "models--owner--tiny"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    shutil.copytree(saved, stored / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    tag = {"hf_hub": "owner/tiny/", "quick_gelu": quick}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"mine": tag})
    found = ClipModel(name, "mine")  # open_clip's warning of a mismatch would be an error here
    assert has_quick_gelu(found) == quick == found.identity()["quick_gelu"]
    same = open_clip.model.CLIP(**CLIP["model_cfg"], quick_gelu=quick).eval()
    same.load_state_dict(found.model.state_dict())
    pixels = torch.stack([found.preprocess(image) for image in pictures()])
    assert torch.allclose(found.embed(pictures()), same.encode_image(pixels, normalize=True), atol=1e-6)


@pytest.mark.parametrize("quick", [True, False])
def test_a_files_model_has_the_activation_of_its_architecture(tmp_path: Path, quick: bool) -> None:
    name = architecture(tmp_path, f"test-file-{quick}", quick_gelu=quick)
    file = Path(save_clip(tmp_path / "clip").split(":", 1)[1]) / "open_clip_model.safetensors"
    found = ClipModel(name, str(file))
    assert has_quick_gelu(found) == quick == found.identity()["quick_gelu"]


def has_quick_gelu(found: ClipModel) -> bool:
    names = {type(module).__name__ for module in found.model.modules()} & {"GELU", "QuickGELU"}
    assert len(names) == 1
    return names == {"QuickGELU"}


def test_a_name_with_a_slash_is_checked_as_the_architecture_that_it_names() -> None:
    with pytest.raises(UserError, match=r"ViT-B-32 has no tag 'none'"):
        ClipModel("ViT-B/32", "none")
    with pytest.raises(UserError, match=r"did you mean .*ViT-B-32"):
        check_clip("ViT-B-33", "openai")
    with pytest.raises(UserError, match=r"there is no file nowhere.safetensors"):
        check_clip("ViT-B-32", "nowhere.safetensors")


@pytest.mark.parametrize(
    ("model", "width"), [("shapes", 64), ("ViT-B/32", 512), ("ViT-L-14-336", 768), ("hf-hub:owner/name", None)]
)
def test_the_width_is_known_without_the_weights(model: str, width: int | None) -> None:
    assert clip_width(model) == width
    if model == "shapes":
        assert load_clip(model).embed(pictures()).shape[1] == width
