"""A Stable Diffusion pipeline of the real classes with random weights: thousands of parameters, not millions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from erase.shapes.build.denoiser import MAX_TOKENS, make_scheduler, make_tokenizer

WIDTH = 16


def tiny_unet() -> UNet2DConditionModel:
    """Two levels, cross-attention on the lower one."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """16 x 16 pictures, 4 x 8 x 8 latents, and the words of Shapes World."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    autoencoder = AutoencoderKL(
        sample_size=16,
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """The pipeline on the disk."""
    tiny_pipeline(seed).save_pretrained(folder)
    return folder


CONFIG = """
model: {model}
vocabulary: shapes
targets: [{{concept: star}}]
latents: {{forget: 4, neutral: 0, retain: 6, steps: 2, batch_size: 4, cache_dir: {cache}}}
max_train_steps: 4
train_batch_size: 2
learning_rate: 1.0e-3
checkpointing_steps: 2
output_dir: {output}
"""


def write_config(folder: Path, model: Path, **extra: str) -> Path:
    """A run on the tiny pipeline, two examples a batch, four steps; ``extra`` are whole lines of YAML by key."""
    file = folder / "config.yaml"
    text = CONFIG.format(model=model, cache=folder / "cache", output=folder / "run")
    kept = [line for line in text.splitlines() if line.split(":")[0] not in extra]
    file.write_text("\n".join([*kept, *(f"{key}: {value}" for key, value in extra.items())]), encoding="utf-8")
    return file


def draw_captioned(folder: Path, captions: Sequence[str]) -> Path:
    """An imagefolder with a random picture for each caption."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for index, caption in enumerate(captions):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder
