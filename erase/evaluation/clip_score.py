"""CLIP score: how well a picture fits its prompt, by an open_clip model."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from erase.errors import UserError


class ClipScore:
    """100 x cosine of the picture's and the prompt's features (Hessel et al. 2021, without the factor 2.5)."""

    def __init__(self, model: str, context_length: int | None = None) -> None:
        try:
            self.model, self.preprocess = open_clip.create_model_from_pretrained(model)
            self.tokenizer = open_clip.get_tokenizer(model, context_length=context_length)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"clip: {model} cannot be loaded: {error}") from None
        self.model.float().eval()

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str], batch_size: int = 128) -> list[float]:
        """One score a picture, -100 to 100."""
        scores: list[float] = []
        for start in range(0, len(images), batch_size):
            stop = start + batch_size
            shown, said = self.embed(images[start:stop]), self.read(prompts[start:stop])
            scores += (100 * (shown * said).sum(-1)).tolist()
        return scores

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, width]`` unit features of pictures."""
        pixels = torch.stack([self.preprocess(image.convert("RGB")) for image in images])
        return self.model.encode_image(pixels, normalize=True)

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Tensor:
        """``[n, width]`` unit features of prompts."""
        return self.model.encode_text(self.tokenizer(list(prompts)), normalize=True)
