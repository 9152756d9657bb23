"""Trains the AutoencoderKL: 32 x 32 pixels to 4 x 16 x 16 latents of unit scale."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch.nn import functional as F
from tqdm.auto import trange

from erase.embedded import IMAGE_SIZE
from erase.shapes.build.drawings import Drawings


def train_autoencoder(drawings: Drawings, steps: int, seed: int, batch_size: int = 32) -> AutoencoderKL:
    """Minimises mean squared error + L1 + 1e-5 KL, then sets ``scaling_factor`` to 1 / std of the latents."""
    torch.manual_seed(seed)
    model = AutoencoderKL(
        sample_size=IMAGE_SIZE,
        latent_channels=4,
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=16,
        mid_block_add_attention=False,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 50, steps)
    for _ in (bar := trange(steps, desc="autoencoder")):
        images = drawings.images[torch.randint(len(drawings), (batch_size,))]
        posterior = model.encode(images).latent_dist
        decoded = model.decode(posterior.sample()).sample
        loss = F.mse_loss(decoded, images) + F.l1_loss(decoded, images) + 1e-5 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    model.eval().requires_grad_(False)
    latents = model.encode(drawings.images[:: max(1, len(drawings) // 500)]).latent_dist.sample()
    model.register_to_config(scaling_factor=1 / latents.std().item())
    return model
