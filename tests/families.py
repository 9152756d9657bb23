"""A pipeline of each supported family, of the real classes at tiny size: random weights, the words of Shapes World."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from erase.shapes.build.denoiser import MAX_TOKENS, make_scheduler, make_tokenizer
from tests.tiny import WIDTH, tiny_pipeline

SECOND_WIDTH, POOLED_WIDTH, ID_WIDTH = 24, 12, 8
"""Of the second text encoder's states, of its pooled embedding, and of each size id's embedding."""


def tiny_v_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """As Stable Diffusion 2.1: predicts velocity; linear projections, a head count for each level."""
    pipeline = tiny_pipeline(seed)
    unet = UNet2DConditionModel.from_config(pipeline.unet.config, use_linear_projection=True, attention_head_dim=(2, 4))
    scheduler = DDIMScheduler.from_config(make_scheduler().config, prediction_type="v_prediction")
    pipeline.register_modules(unet=unet, scheduler=scheduler)
    return pipeline


def tiny_xl_pipeline(seed: int = 0) -> StableDiffusionXLPipeline:
    """As SDXL's base: two text encoders, pooled embeddings, size ids, Euler's scheduler."""
    small = tiny_pipeline(seed)
    tokenizer = make_tokenizer()

    def encoder(kind: Callable[[CLIPTextConfig], Any], width: int) -> Any:
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=POOLED_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return kind(config)

    unet = UNet2DConditionModel.from_config(
        small.unet.config,
        cross_attention_dim=WIDTH + SECOND_WIDTH,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=ID_WIDTH,
        projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * ID_WIDTH,
    )
    betas = {name: small.scheduler.config[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    pipeline = StableDiffusionXLPipeline(
        vae=small.vae,
        text_encoder=encoder(CLIPTextModel, WIDTH),
        text_encoder_2=encoder(CLIPTextModelWithProjection, SECOND_WIDTH),
        tokenizer=tokenizer,
        tokenizer_2=make_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**betas, steps_offset=1),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


FAMILIES: dict[str, Callable[[int], Any]] = {
    "sd-epsilon": tiny_pipeline,
    "sd-v": tiny_v_pipeline,
    "sdxl": tiny_xl_pipeline,
}
"""By name: a function of the weights' seed."""


def save_family(folder: Path, family: str, seed: int = 0) -> Path:
    """The family's pipeline on the disk, 16 x 16 pictures and 4 x 8 x 8 latents."""
    FAMILIES[family](seed).save_pretrained(folder)
    return folder


def frozen(pipeline: Any) -> Any:
    """The pipeline with every part frozen, as it is loaded."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipeline


ONE_ENCODER: dict[str, Any] = {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768}
"""Settings of Stable Diffusion 1.x's UNet; the rest is diffusers' default."""
OPEN_ENCODER: dict[str, Any] = {
    "sample_size": 96,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
"""Of Stable Diffusion 2.1's."""
TWO_ENCODERS: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""Of SDXL's: 2816 is the pooled embedding's 1280 and six size ids of 256."""
TRUE_SIZE = {"sd-1.5": ONE_ENCODER, "sd-2.1": OPEN_ENCODER, "sdxl": TWO_ENCODERS}


def true_size_unet(name: str) -> UNet2DConditionModel:
    """Names and shapes of the real thing, without numbers: on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel(**TRUE_SIZE[name])
