"""Networks of three libraries as functions from pictures to logits; saved and loaded bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import resnet18
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from erase.classification.data import Digits
from erase.classification.heads import unfit_head
from erase.classification.images import Normalise
from erase.classification.models import ModelSettings, head, load_classifier, make_model, save_classifier
from erase.classification.networks import from_timm
from erase.classification.splits import Random, make_splits
from erase.config import build, dump
from erase.errors import UserError

COLOR = Normalise((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
Weights = dict[str, torch.Tensor]


def timm_settings(architecture: str = "test_resnet", **others: object) -> ModelSettings:
    return build(ModelSettings, {"source": "timm", "architecture": architecture, "stem": "standard", **others})


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    """A tiny transformers ResNet of 5 classes, as its library saves it."""
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=5)
    ResNetForImageClassification(config).save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


def hub(folder: Path, **others: object) -> ModelSettings:
    choice = {"source": "transformers", "architecture": str(folder), "stem": "standard"}
    return build(ModelSettings, {**choice, **others})


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_stem_keeps_every_pixel(channels: int) -> None:
    model = make_model(ModelSettings(), 10, channels)
    seen: list[torch.Size] = []
    model.get_submodule("layer1").register_forward_hook(lambda _, __, output: seen.append(output.shape))
    assert model(torch.zeros(2, channels, 8, 8)).shape == (2, 10)
    assert seen == [torch.Size([2, 64, 8, 8])]


def test_a_small_resnet_18_has_the_parameters_counted_by_hand() -> None:
    count = sum(p.numel() for p in make_model(ModelSettings(), 10, 3).parameters())
    stock = sum(p.numel() for p in resnet18(num_classes=1000).parameters())
    assert count == stock - (7 * 7 - 3 * 3) * 3 * 64 - 990 * 513
    assert count == 11_173_962  # the ResNet-18 of the CIFAR papers


def test_a_standard_torchvision_network_is_torchvisions_own() -> None:
    torch.manual_seed(3)
    model = make_model(ModelSettings(stem="standard"), 7, 3)
    torch.manual_seed(3)
    judge = resnet18(num_classes=7)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), judge.state_dict().values(), strict=True))


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_torchvision_networks_take_grey_pictures(architecture: str) -> None:
    model = make_model(ModelSettings(architecture=architecture, stem="standard"), 4, 1).eval()
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 4)


def test_initial_weights_depend_on_torchs_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in make_model(ModelSettings(), 10, 1).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_timm_networks_are_found_by_their_name() -> None:
    model = make_model(timm_settings(), 6, 1).eval()
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 6)
    assert head(model)[1].out_features == 6


def test_published_weights_fill_all_but_a_head_that_may_be_replaced(tmp_path: Path) -> None:
    published = timm.create_model("test_resnet")
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    same = from_timm(timm_settings(pretrained=True), 1000, 3, tmp_path / "model.safetensors")
    assert all(torch.equal(same.state_dict()[name], value) for name, value in published.state_dict().items())
    settings = timm_settings(pretrained=True, replace_head=True)
    other = from_timm(settings, 6, 3, tmp_path / "model.safetensors").state_dict()
    differ = {name for name, value in published.state_dict().items() if other[name].shape != value.shape}
    assert {name.split(".")[0] for name in differ} == {"fc"}
    assert all(torch.equal(other[name], v) for name, v in published.state_dict().items() if name not in differ)
    with pytest.raises(UserError, match="tells 1000 classes apart, the data has 6; `replace_head: true`"):
        from_timm(timm_settings(pretrained=True), 6, 3, tmp_path / "model.safetensors")


def test_weights_that_cannot_be_fetched_are_named() -> None:
    with pytest.raises(UserError, match=r"model.pretrained: timm/resnet18.a1_in1k cannot be fetched"):
        make_model(timm_settings("resnet18", pretrained=True), 1000, 3)


def test_a_transformers_network_gives_the_logits_of_its_library(resnet: Path) -> None:
    model = make_model(hub(resnet, pretrained=True), 5, 3).eval()
    judge = ResNetForImageClassification.from_pretrained(resnet).eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(images), judge(pixel_values=images).logits)


def test_a_transformers_network_can_begin_at_random_with_other_classes_and_channels(resnet: Path) -> None:
    model = make_model(hub(resnet), 7, 1)
    assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


def test_labels_that_do_not_match_a_pretrained_head_are_refused_unless_it_is_replaced(resnet: Path) -> None:
    with pytest.raises(UserError, match="tells 5 classes apart, the data has 7; `replace_head: true`"):
        make_model(hub(resnet, pretrained=True), 7, 3)
    model = make_model(hub(resnet, pretrained=True, replace_head=True), 7, 3)
    there, here = load_file(resnet / "model.safetensors"), model.state_dict()
    kept = {name for name in there if torch.equal(there[name], here[f"network.{name}"])}
    assert set(there) - kept == {"classifier.1.weight", "classifier.1.bias"}


def test_pretrained_weights_of_another_shape_are_refused_although_the_head_may_be_replaced(resnet: Path) -> None:
    weights = load_file(resnet / "model.safetensors")
    name = next(n for n, w in weights.items() if w.dim() == 4)
    save_file({**weights, name: torch.zeros(1, 1, 1, 1)}, resnet / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"lack {name}, or its shape differs"):
        make_model(hub(resnet, pretrained=True, replace_head=True), 7, 3)


def test_a_network_that_takes_other_channels_is_refused(resnet: Path) -> None:
    with pytest.raises(UserError, match="takes pictures of 3 channels; the data's have 1"):
        make_model(hub(resnet, pretrained=True), 5, 1)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.architecture: .* cannot be loaded"):
        make_model(hub(tmp_path), 5, 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ModelSettings("timm", "test_resnet"), "model.stem: small is made for torchvision's ResNets; found timm"),
        (ModelSettings(architecture="vgg11"), "found torchvision vgg11; write `stem: standard`"),
        (ModelSettings(pretrained=True), "torchvision's weights are pickles, which can run code"),
        (ModelSettings(revision="main"), "torchvision's networks are on no Hub"),
        (ModelSettings(architecture="googlenet", stem="standard"), "googlenet has outputs besides its logits"),
        (ModelSettings(checkpoint=Path("a.pth")), "model.checkpoint: a.pth is a pickle, which can run code"),
        (timm_settings(revision="x"), "model.revision: found x without `pretrained: true`"),
        (timm_settings(replace_head=True), "model.replace_head: found true without `pretrained: true`"),
        (timm_settings(pretrained=True, checkpoint="x.safetensors"), "weights come from one place"),
        (ModelSettings(architecture="resnet81"), "torchvision has no 'resnet81'; did you mean resnet18"),
        (timm_settings("resnet81"), "timm has no 'resnet81'; did you mean resnet18"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: ModelSettings, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        make_model(settings, 10, 3)


def saved(folder: Path, settings: ModelSettings, classes: int = 4, normalise: Normalise = COLOR) -> nn.Module:
    model = make_model(settings, classes, len(normalise.mean))
    names = [f"class {number}" for number in range(classes)]
    save_classifier(model, settings, folder, names, normalise, {"forget": "abc"})
    return model


def test_a_saved_classifier_is_loaded_bit_for_bit_with_its_description(tmp_path: Path) -> None:
    model = saved(tmp_path / "out", timm_settings())
    loaded, description = load_classifier(tmp_path / "out")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert not loaded.training
    assert description.settings == timm_settings()
    assert description.classes == ("class 0", "class 1", "class 2", "class 3")
    assert (description.normalise, description.channels, description.extra) == (COLOR, 3, {"forget": "abc"})
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["classifier.json", "model.safetensors"]


def test_a_saved_transformers_classifier_needs_its_first_folder_no_more(resnet: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "out", hub(resnet, pretrained=True, replace_head=True))
    resnet.rename(tmp_path / "gone")
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(load_classifier(tmp_path / "out")[0](images), model.eval()(images))


def test_the_same_weights_under_another_configuration_are_refused(resnet: Path, tmp_path: Path) -> None:
    saved(tmp_path / "out", hub(resnet, pretrained=True, replace_head=True))
    settings = hub(resnet, checkpoint=str(tmp_path / "out"))
    make_model(settings, 4, 3)
    file = resnet / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "gelu"}))
    with pytest.raises(UserError, match=r"was made with hidden_act 'relu'; model\.architecture has 'gelu'"):
        make_model(settings, 4, 3)


def test_saving_again_replaces_the_model_and_leaves_other_files(tmp_path: Path) -> None:
    saved(tmp_path, timm_settings())
    (tmp_path / "mask.safetensors").write_bytes(b"")
    second = saved(tmp_path, timm_settings(), classes=5)
    assert len(load_classifier(tmp_path)[1].classes) == 5
    assert torch.equal(load_file(tmp_path / "model.safetensors")["fc.weight"], head(second)[1].weight)
    assert (tmp_path / "mask.safetensors").exists()


def test_a_checkpoint_folder_or_file_gives_the_weights(tmp_path: Path) -> None:
    model = saved(tmp_path / "out", timm_settings())
    for place in (tmp_path / "out", tmp_path / "out" / "model.safetensors"):
        found = make_model(timm_settings(checkpoint=str(place)), 4, 3)
        assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_of_another_network_is_refused_with_every_difference(tmp_path: Path) -> None:
    saved(tmp_path / "out", timm_settings())
    with pytest.raises(UserError) as refused:
        make_model(timm_settings("test_vit", checkpoint=str(tmp_path / "out")), 6, 1)
    found = [problem.removeprefix(f"model.checkpoint: {tmp_path / 'out'} ") for problem in refused.value.problems]
    assert found == [
        "was made with architecture test_resnet; found test_vit here",
        "was made with classes 4; found 6 here",
        "was made with channels 3; found 1 here",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {n: t for n, t in w.items() if n != "fc.bias"}, "fc.bias is missing"),
        (lambda w: {**w, "extra": torch.zeros(1)}, "extra is too much"),
        (lambda w: {**w, "fc.bias": torch.zeros(9)}, r"fc.bias is \[9\], the model's \[4\]"),
    ],
)
def test_a_file_must_fit_to_the_last_key(tmp_path: Path, change: Callable[[Weights], Weights], words: str) -> None:
    weights = make_model(timm_settings(), 4, 3).state_dict()
    save_file(change(dict(weights)), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=words):
        make_model(timm_settings(checkpoint=str(tmp_path / "x.safetensors")), 4, 3)


def test_damaged_or_missing_files_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "out", timm_settings())
    weights, description = tmp_path / "out" / "model.safetensors", tmp_path / "out" / "classifier.json"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_classifier(tmp_path / "out")
    weights.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        load_classifier(tmp_path / "out")
    (tmp_path / "out" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle, which can run code"):
        load_classifier(tmp_path / "out")
    content = json.loads(description.read_text(encoding="utf-8"))
    description.write_text(json.dumps({**content, "settings": {"source": "keras"}}), encoding="utf-8")
    with pytest.raises(UserError, match=r"classifier.json is damaged: source: found 'keras'"):
        load_classifier(tmp_path / "out")
    with pytest.raises(UserError, match=r"is no saved classifier: it has no classifier.json"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (ModelSettings(), "fc"),
        (ModelSettings(architecture="mobilenet_v3_small", stem="standard"), "classifier.3"),
        (timm_settings(), "fc"),
        (timm_settings("test_vit"), "head"),
        (timm_settings("test_convnext"), "head.fc"),
    ],
)
def test_the_head_is_the_layer_that_gives_the_logits(settings: ModelSettings, name: str) -> None:
    model = make_model(settings, 4, 3).eval()
    found, layer = head(model)
    seen: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _, __, output: seen.append(output))
    size = 160 if "vit" in settings.architecture else 32
    logits = model(torch.randn(1, 3, size, size))
    assert (found, model.get_submodule(found)) == (name, layer)
    assert torch.equal(seen[-1], logits)


def test_the_head_of_a_transformers_network_is_found(tmp_path: Path, resnet: Path) -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **small)).save_pretrained(tmp_path / "vit")
    assert head(make_model(hub(resnet), 5, 3))[0] == "network.classifier.1"
    assert head(make_model(hub(tmp_path / "vit"), 5, 3))[0] == "network.classifier"


@pytest.mark.parametrize(
    "settings",
    [ModelSettings(architecture="squeezenet1_1", stem="standard"), timm_settings("deit_tiny_distilled_patch16_224")],
)
def test_a_network_without_one_linear_head_is_refused(settings: ModelSettings) -> None:
    with pytest.raises(UserError, match="the last layer must be linear"):
        head(make_model(settings, 4, 3))


def test_a_network_whose_logits_are_of_two_heads_cannot_have_a_class_more(tmp_path: Path, resnet: Path) -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    two = DeiTForImageClassificationWithTeacher(DeiTConfig(image_size=8, patch_size=4, num_channels=1, **small))
    two.save_pretrained(tmp_path / "deit")
    splits = make_splits(Digits(), Random(), 0)
    (problem,) = unfit_head(make_model(hub(tmp_path / "deit"), 10, 1), splits)
    assert problem.startswith("model.architecture: the logits are not those of network.distillation_classifier alone")
    assert not list(unfit_head(make_model(timm_settings(), 10, 1), splits))


def test_settings_are_read_back_from_what_is_stored() -> None:
    settings = timm_settings(checkpoint="a.safetensors")
    assert build(ModelSettings, dump(settings)) == settings
