"""FID's InceptionV3 against torch-fidelity's, and resizing against clean-fid's, with random weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import inception_v3

from erase.config import build
from erase.errors import UserError
from erase.evaluation.metrics.features import InceptionFeatures
from erase.evaluation.metrics.inception import FIDInception, resize_clean, resize_tensorflow
from tests.unit.evaluation.metrics.material import drawings


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
    file = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file({name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}, file)
    return file


def pictures() -> list[Image.Image]:
    images, _ = drawings(3)
    rng = np.random.default_rng(0)
    return [*images, Image.fromarray(rng.integers(0, 255, (40, 32, 3), dtype=np.uint8))]


def test_the_features_are_torch_fidelitys(weights: Path, tmp_path: Path) -> None:
    judge = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    from safetensors.torch import load_file

    torch.save(load_file(weights), tmp_path / "weights.pth")  # what that library reads
    network = judge.FeatureExtractorInceptionV3("x", ["2048"], str(tmp_path / "weights.pth"))
    metric = InceptionFeatures(weights=str(weights), resize="legacy_tensorflow")
    for image in pictures():
        pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None]
        (expected,) = network(pixels)
        found = metric([image])
        assert found.shape == (1, 2048)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_torchvisions_own_pooling_gives_other_features(weights: Path) -> None:
    from safetensors.torch import load_file

    plain = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    plain.load_state_dict(load_file(weights))
    plain.fc = torch.nn.Identity()
    pixels = resize_clean(pictures())[:1]
    with torch.no_grad():
        ours, theirs = FIDInception(load_file(weights), "x")(pixels), plain.eval()((pixels - 128) / 128)
    assert float((ours - theirs).abs().max()) > 1e-3 * float(theirs.abs().max())


def test_clean_resizing_is_clean_fids() -> None:
    resize = pytest.importorskip("cleanfid.resize")
    for image in pictures():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it names a mode that Pillow no longer wants named
            expected = resize.build_resizer("clean")(np.asarray(image))
        found = resize_clean([image])[0].permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() < 1e-4


def test_tensorflows_resizing_looks_at_corners_by_hand() -> None:
    two = Image.fromarray(np.array([[[0] * 3, [100] * 3]] * 2, dtype=np.uint8))
    row = resize_tensorflow([two])[0, 0, 0]
    assert row[0] == 0
    assert row[149].item() == pytest.approx(100 * 149 * 2 / 299, rel=1e-5)
    assert row[150:].unique().tolist() == [100]


def test_weights_must_be_given_and_be_no_pickle(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights must be given: .*safetensors.*name: clip"):
        build(InceptionFeatures, {})
    with pytest.raises(UserError, match="is a pickle, which can run code; its weights are pt_inception"):
        InceptionFeatures(weights="pt_inception-2015-12-05-6726825d.pth")(pictures())
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="holds other weights than are needed"):
        InceptionFeatures(weights=str(tmp_path / "x.safetensors"))(pictures())
    assert InceptionFeatures(weights=str(weights)).identity()["resize"] == "clean"
