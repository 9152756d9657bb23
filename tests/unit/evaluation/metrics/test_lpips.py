"""LPIPS with the real layers and a random backbone: by hand, by its properties, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import alexnet, vgg16

from erase.config import build
from erase.errors import UserError
from erase.evaluation.metrics.lpips import Lpips, Net, load_lpips
from erase.evaluation.metrics.perceptual import pixels_of_pair
from tests.unit.evaluation.metrics.material import drawings


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("lpips") / "alexnet.safetensors"
    features = {name: tensor for name, tensor in alexnet().state_dict().items() if name.startswith("features")}
    save_file(features, file)
    return str(file)


def pictures(seed: int = 0) -> list[Image.Image]:
    return [image.resize((64, 64)) for image in drawings(3, seed)[0]]


def test_a_picture_is_at_no_distance_from_itself_and_distances_are_symmetric(weights: str) -> None:
    metric, one, other = Lpips(backbone=weights), pictures(), pictures(3)[::-1]
    assert metric(one, one)["lpips"] == [0.0] * 3
    there, back = metric(one, other)["lpips"], metric(other, one)["lpips"]
    assert there == pytest.approx(back, rel=1e-5)
    assert min(there) > 0


def test_the_distance_by_hand(weights: str) -> None:
    """Unit features of each layer after its ReLU; squared differences, weighted, averaged over places, summed."""
    network = load_lpips("alex", weights, None)
    one, other = pixels_of_pair(pictures()[0], pictures()[1], 1, "x")
    convolutions = alexnet().eval().features
    convolutions.load_state_dict({k.removeprefix("features."): v for k, v in load(weights).items()})
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = 0.0
    sides = [((2 * x[None] - 1) - shift[:, None, None]) / scale[:, None, None] for x in (one, other)]
    for layer, (start, stop) in enumerate(((0, 2), (2, 5), (5, 8), (8, 10), (10, 12))):
        with torch.no_grad():
            sides = [convolutions[start:stop](x) for x in sides]
        a, b = (x / (1e-8 + x.square().sum(1, keepdim=True)).sqrt() for x in sides)
        weight = network.lins[layer].model[-1].weight
        total += float(((a - b).square() * weight.detach().view(1, -1, 1, 1)).sum(1).mean())
    assert Lpips(backbone=weights)([pictures()[0]], [pictures()[1]])["lpips"] == pytest.approx([total], rel=1e-4)


def load(file: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_the_size_is_a_setting_and_part_of_the_identity(weights: str) -> None:
    plain, small = Lpips(backbone=weights), Lpips(backbone=weights, resize=48)
    assert plain(pictures(), pictures(3))["lpips"] != small(pictures(), pictures(3))["lpips"]
    one, other = plain.identity(), small.identity()
    assert (one["network"], one["resize"], other["resize"]) == ("alex", None, 48)
    assert one["weights_sha256"] == other["weights_sha256"]
    assert len(small([i.resize((32, 32)) for i in pictures()], [i.resize((32, 32)) for i in pictures()])["lpips"]) == 3


@pytest.mark.parametrize(("net", "backbone"), [("alex", "x.pth"), ("vgg", "vgg16-397923af.pth")])
def test_a_pickle_is_refused_with_the_line_that_converts_it(net: Net, backbone: str) -> None:
    with pytest.raises(UserError, match=r"is a pickle, which can run code; torchvision's .*save_file\(torch.load"):
        Lpips(net=net, backbone=backbone)(pictures(), pictures())


def test_missing_weights_are_an_error_with_the_remedy(weights: str) -> None:
    with pytest.raises(UserError, match=r"backbone must be given for `alex`: torchvision's alexnet-owt-7be5be79.pth"):
        build(Lpips, {})
    with pytest.raises(UserError, match=r"timm/vgg16.tv_in1k cannot be read"):  # there is no network in a test
        Lpips(net="vgg")(pictures(), pictures())
    with pytest.raises(UserError, match=r"is of another network|lacks features"):
        Lpips(net="vgg", backbone=weights)(pictures(), pictures())


def test_pictures_that_a_layer_cannot_see_are_refused(weights: str) -> None:
    with pytest.raises(UserError, match=r"lpips: .* 31 pixels a side are needed"):
        Lpips(backbone=weights)([pictures()[0].resize((30, 30))], [pictures()[0].resize((30, 30))])
    assert len(Lpips(backbone=weights)(drawings(1)[0], drawings(1)[0])["lpips"]) == 1  # 32 pixels


def test_vgg_takes_torchvisions_names(tmp_path: Path) -> None:
    features = {k: v for k, v in vgg16().state_dict().items() if k.startswith("features")}
    save_file(features, tmp_path / "vgg.safetensors")
    metric = Lpips(net="vgg", backbone=str(tmp_path / "vgg.safetensors"))
    one = [image.resize((32, 32)) for image in pictures()[:1]]
    assert metric(one, one)["lpips"] == [0.0]
