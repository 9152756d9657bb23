"""Measures the embedded models on drawings and seeds that no training used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from tqdm.auto import tqdm
from transformers import ResNetForImageClassification

from erase.shapes.build.classifier import predict, truth
from erase.shapes.build.drawings import COMBINATIONS, Drawings, make_drawings
from erase.shapes.build.nothings import KINDS, make_nothings

HELD_OUT_SEED = 1_000_001
IMAGE_SEEDS = (2_000_001, 2_000_002, 2_000_003, 2_000_004)
STEPS, GUIDANCE = 15, 4.0


def check_models(folder: Path) -> dict[str, Any]:
    """All figures of the models in ``folder``, each a share 0 to 1, with what it was measured on."""
    held_out = make_drawings(9, HELD_OUT_SEED)
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "pipeline", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    classifier = ResNetForImageClassification.from_pretrained(folder / "classifier").float().eval()
    return {
        "classifier": {
            "drawings": len(held_out),
            "accuracy": accuracy(classifier, held_out.images, held_out.combination),
            "none": check_nothings(classifier, held_out, pipeline),
        },
        "pipeline": check_pipeline(pipeline, classifier),
        "clip": {"drawings": len(held_out), "rank_1_of_240": check_clip(folder / "clip", held_out)},
    }


def accuracy(classifier: ResNetForImageClassification, images: Tensor, combination: Tensor) -> dict[str, float]:
    """Domain to the share of pictures whose label is the combination's."""
    labels = truth()
    return {
        d: (seen == labels[d][combination]).float().mean().item() for d, seen in predict(classifier, images).items()
    }


def check_nothings(classifier: ResNetForImageClassification, held_out: Drawings, pipeline: Any) -> dict[str, Any]:
    """Kind to domain to the share of 400 pictures that are called ``none``."""
    shares = {}
    for index, kind in enumerate(KINDS):
        images = make_nothings(kind, held_out, 400, HELD_OUT_SEED + 1 + index, pipeline)
        shares[kind] = accuracy(classifier, images, torch.full((len(images),), len(COMBINATIONS)))
    return shares


def check_pipeline(pipeline: Any, classifier: ResNetForImageClassification) -> dict[str, Any]:
    """The classifier's agreement with the prompt: full captions, four seeds each; and every shorter caption once."""
    full = [(index, seed) for seed in IMAGE_SEEDS for index in range(len(COMBINATIONS))]
    images = sample(pipeline, [COMBINATIONS[index].text for index, _ in full], [i * 10 + s for i, s in full])
    agreed = accuracy(classifier, images, torch.tensor([index for index, _ in full]))
    return {"images": len(full), "steps": STEPS, "guidance_scale": GUIDANCE, "accuracy": agreed} | check_short(
        pipeline, classifier
    )


def check_short(pipeline: Any, classifier: ResNetForImageClassification) -> dict[str, Any]:
    """Captions such as "a star", 8 images each: the share that shows the word."""
    from erase.embedded import VOCABULARY

    words = [(domain, word) for domain, words in VOCABULARY.domains.items() for word in words]
    prompts = [VOCABULARY.concept_prompt(word) for _, word in words for _ in range(8)]
    seen = predict(classifier, sample(pipeline, prompts, [IMAGE_SEEDS[0] - 10_000 - i for i in range(len(prompts))]))
    shares: dict[str, float] = {}
    for position, (domain, word) in enumerate(words):
        labels = seen[domain][8 * position : 8 * position + 8]
        shares[word] = (labels == VOCABULARY.domains[domain].index(word)).float().mean().item()
    return {"short_captions": sum(shares.values()) / len(shares), "short_captions_each": shares}


@torch.no_grad()
def sample(pipeline: Any, prompts: list[str], seeds: list[int], batch_size: int = 40) -> Tensor:
    """``[n, 3, h, w]`` in [-1, 1]."""
    parts = []
    for start in tqdm(range(0, len(prompts), batch_size), desc="images"):
        chunk = slice(start, start + batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[chunk]]
        made = pipeline(
            prompts[chunk], num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators, output_type="pt"
        )
        parts.append(made.images * 2 - 1)
    return torch.cat(parts)


@torch.no_grad()
def check_clip(folder: Path, held_out: Drawings) -> float:
    """The share of drawings whose own caption, of all 240 full ones, scores highest."""
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    text = model.eval().encode_text(tokenizer([c.text for c in COMBINATIONS]), normalize=True)
    images = torch.cat([model.encode_image(part, normalize=True) for part in held_out.images.split(256)])
    return ((images @ text.T).argmax(1) == held_out.combination).float().mean().item()
