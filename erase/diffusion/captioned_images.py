"""Images with captions, in the imagefolder layout, as latents of the pipeline's autoencoder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor

from erase.diffusion.batch import Examples
from erase.errors import UserError, refuse
from erase.pictures import DAMAGED, as_rgb


@torch.no_grad()
def captioned_images(folder: Path, pipeline: Any) -> tuple[Examples, str]:
    """Every image of a folder with its caption, the square in its middle at the pipeline's size.

    They are encoded one by one, to save memory. And the SHA-256 of pictures and captions in their order, which is the
    same whatever device encodes them.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    if not folder.is_dir():
        raise UserError(f"retain.images: {folder} is no folder")
    try:
        data = load_dataset("imagefolder", data_dir=str(folder), split="train")
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise UserError(f"retain.images: {folder} cannot be read as an image folder: {error}") from None
    if "text" not in data.column_names:
        raise UserError(
            f"retain.images: {folder} has no captions; add metadata.jsonl with `file_name` and `text` in each line"
        )
    captions = data["text"]
    refuse(
        f"retain.images: row {index + 1} of {folder} has no caption; give each image a `text`"
        for index, text in enumerate(captions)
        if not isinstance(text, str) or not text.strip()
    )
    vae, size = pipeline.vae, pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    processor, latents = VaeImageProcessor(vae_scale_factor=pipeline.vae_scale_factor), []
    digest = hashlib.sha256()
    for number in range(len(data)):
        try:
            image = as_rgb(data[number]["image"])
        except DAMAGED as error:
            what = f"image {number + 1} of {folder}, {captions[number]!r}"
            raise UserError(f"retain.images: {what}, cannot be read: {error}; remove it") from None
        digest.update(repr((captions[number], image.size)).encode() + image.tobytes())
        pixels = processor.preprocess([image], height=size, width=size, resize_mode="crop")
        encoded = vae.encode(pixels.to(vae.device)).latent_dist.mode() * vae.config.scaling_factor
        latents.append(encoded.cpu())
    return Examples(torch.cat(latents), tuple(captions)), digest.hexdigest()
