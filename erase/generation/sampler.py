"""Pixels of a batch from a diffusers pipeline, and how that pipeline is loaded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from erase.diffusion.conditioning import Conditioning, no_prompt
from erase.diffusion.pipelines import load_pipeline, unknown_words, weighted_parts
from erase.errors import UserError, refuse
from erase.generation.embeddings import PromptEmbeddings
from erase.generation.plan import Ask
from erase.generation.prompts import PromptRow
from erase.generation.settings import Generation
from erase.generation.weights import put_weights

SHOWN = 5


class Sampler(Protocol):
    """Makes the images of a batch; all of its asks look alike."""

    def __call__(self, batch: Sequence[Ask]) -> NDArray[np.uint8]:
        """``[b, h, w, 3]``"""


MakeSampler = Callable[[Generation, Path, Sequence[PromptRow], torch.device], Sampler]


class PipelineSampler:
    """Samples with the pipeline itself. An image's noise comes from its own generator, on the CPU."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.embeddings = pipeline, PromptEmbeddings(pipeline)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Ask]) -> NDArray[np.uint8]:
        """``[b, h, w, 3]``; a picture that is not finite is refused, where diffusers would draw it black."""
        look, guided = batch[0].look, batch[0].look.guidance_scale > 1
        prompts = self.embeddings([ask.row.prompt for ask in batch])
        away = no_prompt(self.pipeline, self.embeddings([""])).expand(len(batch)) if guided else None
        pictures = self.pipeline(
            **embeds(prompts, away),
            num_inference_steps=look.steps,
            guidance_scale=look.guidance_scale,
            width=look.width,
            height=look.height,
            generator=[torch.Generator().manual_seed(ask.seed) for ask in batch],
            output_type="pt",
        ).images.float()
        finite = pictures.isfinite().flatten(1).all(1).tolist()
        refuse(
            f"model: the picture of {ask.row.prompt!r}, seed {ask.seed}, is not finite; "
            f"found dtype {self.pipeline.unet.dtype}; float32 has the widest range, else the model is damaged"
            for ask, good in zip(batch, finite, strict=True)
            if not good
        )
        return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def embeds(prompts: Conditioning, away: Conditioning | None) -> dict[str, Any]:
    """A pipeline's arguments for prompts, and for what guidance pushes away from; sizes it works out itself."""
    given: dict[str, Any] = {"prompt_embeds": prompts.states}
    if prompts.pooled is not None:
        given["pooled_prompt_embeds"] = prompts.pooled
    return given if away is None else {**given, **{f"negative_{key}": part for key, part in embeds(away, None).items()}}


def free_memory() -> None:
    """Gives back what models took that nobody uses: an audit loads several, and may follow a training."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_sampler(
    generation: Generation, model: Path, rows: Sequence[PromptRow], device: torch.device
) -> PipelineSampler:
    """The settings' pipeline, without a safety checker, which would black out what an audit has to see."""
    free_memory()
    pipeline = load_pipeline(model, safety_checker=False)
    strange = unknown_words(pipeline, list(dict.fromkeys(row.prompt for row in rows)))
    if strange:
        shown = "; ".join(map(repr, strange[:SHOWN]))
        raise UserError(
            f"prompts: {len(strange)} prompts have a word that the model's tokenizer does not know: {shown}; "
            "use words of its vocabulary"
        )
    if generation.lora:
        put_weights(pipeline, generation.lora)
    for part in weighted_parts(pipeline).values():
        torch.nn.Module.to(
            part, getattr(torch, generation.dtype)
        )  # diffusers' own warns of layers to be left out: none
    return PipelineSampler(pipeline.to(device))
