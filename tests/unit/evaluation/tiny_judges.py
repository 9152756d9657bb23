"""A classifier and a CLIP model of the real classes with random weights, saved as the embedded ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from erase.provenance import write_json
from erase.shapes.build.classifier import LABELS

SHAPES_LABELS = tuple(LABELS)


def save_classifier(folder: Path, labels: tuple[str, ...] = SHAPES_LABELS, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    ResNetForImageClassification(config).eval().save_pretrained(folder)
    size = {"height": 16, "width": 16}
    ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2).save_pretrained(folder)
    return folder


CLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 10, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
}


def save_clip(folder: Path, seed: int = 0) -> str:
    """The folder's name as open_clip takes it."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    model = open_clip.model.CLIP(**CLIP["model_cfg"], quick_gelu=False)
    write_json(folder / "open_clip_config.json", CLIP)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", {"format": "pt"})
    return f"local-dir:{folder}"
