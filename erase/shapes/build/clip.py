"""Trains a small open_clip model on drawings and their captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import trange

from erase.embedded import IMAGE_SIZE, VOCABULARY
from erase.shapes.build.drawings import COMBINATIONS, Drawings

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": IMAGE_SIZE, "layers": 4, "width": 96, "head_width": 24, "patch_size": 4},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
}


def train_clip(drawings: Drawings, steps: int, seed: int, batch_size: int = 120) -> torch.nn.Module:
    """The symmetric contrastive loss over batches of distinct combinations (Radford et al. 2021, fig. 3).

    A third of the batches has shorter captions; pictures that share one are all counted as right.
    """
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**{**CONFIG["model_cfg"], "quick_gelu": False}).train()
    tokens = _caption_tokens()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = get_cosine_schedule_with_warmup(optimizer, 100, steps)
    copies = len(drawings) // len(COMBINATIONS)
    for step in (bar := trange(steps, desc="open_clip")):
        combination = torch.randperm(len(COMBINATIONS))[:batch_size]
        images = drawings.images[combination * copies + torch.randint(copies, (batch_size,))]
        template = 0 if step % 3 else int(torch.randint(1, tokens.shape[1], ()))
        text = tokens[combination, template]
        image_features, text_features, scale = model(images + 0.05 * torch.randn_like(images), text)
        logits = scale * image_features @ text_features.T
        right = (text[:, None] == text[None]).all(-1).float()
        right = right / right.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        bar.set_postfix(loss=f"{loss.item():.4f}")
    _forget_unused_words(model, tokens)
    return model.eval()


def _caption_tokens() -> Tensor:
    """``[240, templates, 16]`` token ids by open_clip's own byte-pair vocabulary."""
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=CONFIG["model_cfg"]["text_cfg"]["context_length"])
    return torch.stack([tokenizer([t.format(**c.concepts) for t in VOCABULARY.templates]) for c in COMBINATIONS])


@torch.no_grad()
def _forget_unused_words(model: Any, tokens: Tensor) -> None:
    """Words that no caption has keep no trace of their random start."""
    used = torch.zeros(len(model.token_embedding.weight), dtype=torch.bool)
    used[tokens.unique()] = True
    model.token_embedding.weight[~used] = 0


def save_clip(model: torch.nn.Module, folder: Path) -> None:
    """In the layout that open_clip reads with ``local-dir:``, float16."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    weights = {name: t.half().contiguous() for name, t in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", {"format": "pt"})
