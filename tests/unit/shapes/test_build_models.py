"""How the embedded models are trained: a step or two of each, on few drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from erase.embedded import NONE, VOCABULARY
from erase.shapes.build.autoencoder import train_autoencoder
from erase.shapes.build.classifier import LABELS, SPANS, enlarge, make_classifier, make_processor, predict, truth
from erase.shapes.build.denoiser import encode_drawings, train_denoiser
from erase.shapes.build.drawings import COMBINATIONS, Drawings, make_drawings, to_tensor
from erase.shapes.drawing import draw
from tests.properties import assert_same_bits
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    whole = make_drawings(copies=1, seed=0)
    return Drawings(whole.images[::60], whole.combination[::60])


def trained(drawings: Drawings, seed: int) -> Any:
    frozen = tiny_pipeline().vae.requires_grad_(False)
    return train_denoiser(frozen, drawings, steps=2, seed=seed, batch_size=2)


def test_an_autoencoder_ends_frozen_and_its_latents_have_unit_scale(drawings: Drawings) -> None:
    first, again = (train_autoencoder(drawings, steps=1, seed=0, batch_size=2) for _ in range(2))
    assert_same_bits(first.parameters(), again.parameters())
    assert not first.training and not any(p.requires_grad for p in first.parameters())
    assert encode_drawings(first, drawings).shape == (4, 4, 16, 16)
    samples = first.encode(drawings.images).latent_dist.sample() * first.config.scaling_factor
    assert samples.std().item() == pytest.approx(1, abs=0.05)  # 4,096 numbers


def test_a_denoiser_is_trained_repeatably_and_by_its_seed(drawings: Drawings) -> None:
    first, again, other = (trained(drawings, seed) for seed in (0, 0, 1))
    assert_same_bits(first.unet.parameters(), again.unet.parameters())
    assert_same_bits(first.text_encoder.parameters(), again.text_encoder.parameters())
    assert not torch.equal(next(first.unet.parameters()), next(other.unet.parameters()))
    assert not first.unet.training and not first.text_encoder.training


def test_a_trained_denoiser_is_a_pipeline_that_draws(drawings: Drawings) -> None:
    pipeline = trained(drawings, 0)
    pipeline.set_progress_bar_config(disable=True)
    (image,) = pipeline("a red star", num_inference_steps=1, generator=torch.Generator().manual_seed(0)).images
    assert image.size == (32, 32)


def test_each_domain_has_its_labels_and_one_for_nothing() -> None:
    assert len(LABELS) == 8 + 6 + 5 + 3 == len(set(LABELS))
    assert sorted(index for span in SPANS.values() for index in span) == list(range(22))
    for domain, span in SPANS.items():
        assert [LABELS[index] for index in span] == [f"{domain}/{c}" for c in (*VOCABULARY.domains[domain], NONE)]


def test_the_truth_names_each_combinations_labels_and_ends_in_nothing() -> None:
    labels = truth()
    for domain, span in SPANS.items():
        named = [LABELS[span[index]] for index in labels[domain].tolist()]
        assert named == [f"{domain}/{c.concepts[domain]}" for c in COMBINATIONS] + [f"{domain}/{NONE}"]


def test_enlarging_a_tensor_is_what_the_processor_does_to_a_picture() -> None:
    pixels = np.stack([draw("star", "red", "dotted", np.random.default_rng(seed)) for seed in range(3)])
    processed = make_processor()([Image.fromarray(p) for p in pixels], return_tensors="pt").pixel_values
    enlarged = enlarge(to_tensor(pixels))
    assert processed.shape == enlarged.shape == (3, 3, 64, 64)
    torch.testing.assert_close(processed, enlarged, rtol=0, atol=1.01 * 2 / 255)  # the picture is rounded to 8 bits


def test_a_prediction_is_the_likeliest_label_within_each_domain(drawings: Drawings) -> None:
    torch.manual_seed(0)
    model = make_classifier().eval()
    found = predict(model, drawings.images)
    with torch.no_grad():
        logits = model(pixel_values=enlarge(drawings.images)).logits
    assert logits.shape == (4, 22)
    for domain, span in SPANS.items():
        assert found[domain].tolist() == [max(range(len(span)), key=lambda i: row[span[i]]) for row in logits.tolist()]


def test_a_classifiers_labels_survive_saving(tmp_path: Path) -> None:
    make_classifier().save_pretrained(tmp_path)
    loaded = type(make_classifier()).from_pretrained(tmp_path)
    assert [loaded.config.id2label[index] for index in range(22)] == LABELS
