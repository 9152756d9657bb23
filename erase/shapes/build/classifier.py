"""Trains the concept classifier: one transformers ResNet, one softmax for each domain, each with a ``none``."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import trange
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from erase.embedded import NONE, VOCABULARY
from erase.shapes.build.drawings import COMBINATIONS, Drawings
from erase.shapes.build.nothings import KINDS, make_nothings

INPUT_SIZE = 64
LABELS = [f"{domain}/{label}" for domain, labels in VOCABULARY.domains.items() for label in (*labels, NONE)]
"""``object/circle`` ... ``style/none``: the softmax of a domain is over the labels that share its prefix."""
SPANS = {d: [i for i, label in enumerate(LABELS) if label.startswith(f"{d}/")] for d in VOCABULARY.domains}
NONE_SHARE = 0.2


def make_classifier() -> ResNetForImageClassification:
    """A ResNet of 0.7 M parameters on pictures enlarged to 64 x 64."""
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128],
            depths=[1, 2, 2],
            layer_type="basic",
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
        )
    )


def make_processor() -> ViTImageProcessor:
    """Bilinear enlargement, then [-1, 1]."""
    return ViTImageProcessor(
        size={"height": INPUT_SIZE, "width": INPUT_SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2
    )


def truth() -> dict[str, Tensor]:
    """Domain to ``[241]``: each combination's label within the domain; the last row is ``none``."""
    return {
        domain: torch.tensor([labels.index(c.concepts[domain]) for c in COMBINATIONS] + [len(labels)])
        for domain, labels in VOCABULARY.domains.items()
    }


def enlarge(images: Tensor) -> Tensor:
    """The processor's enlargement, on tensors."""
    return F.interpolate(images, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False, antialias=True)


def train_classifier(
    drawings: Drawings, pipeline: Any, steps: int, seed: int, batch_size: int = 96
) -> ResNetForImageClassification:
    """Cross-entropy in each domain, on drawings (half of them through the autoencoder) and on nothings."""
    torch.manual_seed(seed)
    model, labels = make_classifier().train(), truth()
    nothings = torch.cat([make_nothings(kind, drawings, 1600, seed + 1 + i, pipeline) for i, kind in enumerate(KINDS)])
    decoded = _through_autoencoder(drawings, pipeline)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = get_cosine_schedule_with_warmup(optimizer, 50, steps)
    empty = int(batch_size * NONE_SHARE)
    for _ in (bar := trange(steps, desc="classifier")):
        chosen = torch.randint(len(drawings), (batch_size - empty,))
        plain = (torch.rand(len(chosen), 1, 1, 1) < 0.5).float()
        shown = plain * drawings.images[chosen] + (1 - plain) * decoded[chosen]
        images = torch.cat([shown, nothings[torch.randint(len(nothings), (empty,))]])
        images = images + 0.06 * torch.rand(batch_size, 1, 1, 1) * torch.randn_like(images)
        combination = torch.cat([drawings.combination[chosen], torch.full((empty,), len(COMBINATIONS))])
        logits = model(pixel_values=enlarge(images)).logits
        losses = [F.cross_entropy(logits[:, SPANS[d]], labels[d][combination]) for d in SPANS]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    return model.eval()


@torch.no_grad()
def _through_autoencoder(drawings: Drawings, pipeline: Any) -> Tensor:
    vae = pipeline.vae
    return torch.cat([vae.decode(vae.encode(x).latent_dist.mode()).sample for x in drawings.images.split(256)])


@torch.no_grad()
def predict(model: ResNetForImageClassification, images: Tensor) -> dict[str, Tensor]:
    """Domain to ``[n]`` label within the domain."""
    logits = torch.cat([model(pixel_values=enlarge(part)).logits for part in images.split(256)])
    return {domain: logits[:, span].argmax(1) for domain, span in SPANS.items()}
