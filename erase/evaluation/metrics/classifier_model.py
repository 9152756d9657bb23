"""A transformers image classifier as the judge of which concept a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from erase import embedded
from erase.errors import UserError
from erase.evaluation.metrics.labels import split_by_prefix
from erase.evaluation.metrics.loading import device, hash_weights, library

Labels = dict[str, str]
"""Domain to label, for one picture."""


class ClassifierModel:
    """A folder or a Hub id, read from safetensors alone, without remote code, in float32.

    Names such as ``object/star`` put a label into a domain; a softmax is taken within each.
    """

    def __init__(self, source: str | Path, revision: str | None = None) -> None:
        folder = embedded.WEIGHTS / "classifier" if source == embedded.NAME else source
        self.source, self.revision = str(source), revision
        options: dict[str, Any] = {"revision": revision} if revision else {}
        try:
            model, report = AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **options
            )
            self.processor = AutoImageProcessor.from_pretrained(folder, **options)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"classifier: {source} cannot be loaded: {error}") from None
        if report["missing_keys"]:
            raise UserError(f"classifier: {source} is damaged: its weights lack {sorted(report['missing_keys'])[0]}")
        self.device = device()
        self.model = model.float().eval().requires_grad_(False).to(self.device)
        numbered = {int(index): name for index, name in self.model.config.id2label.items()}
        self.labels = tuple(numbered[index] for index in range(len(numbered)))

    @cached_property
    def domains(self) -> dict[str, dict[int, str]]:
        """Domain to the numbers and names of its labels."""
        found = split_by_prefix(self.labels, "label")
        return {domain: dict(zip(part.indices, part.names, strict=True)) for domain, part in found.items()}

    @torch.no_grad()
    def logits(self, images: Sequence[Image.Image]) -> Tensor:
        """``[n, labels]``."""
        inputs = self.processor([image.convert("RGB") for image in images], return_tensors="pt").to(self.device)
        return self.model(**inputs).logits.float().cpu()

    def __call__(self, images: Sequence[Image.Image], batch_size: int = 256) -> list[Labels]:
        """The most likely label of each picture in each domain."""
        found: list[Labels] = []
        for start in range(0, len(images), batch_size):
            logits = self.logits(images[start : start + batch_size])
            best = {domain: logits[:, list(labels)].argmax(1).tolist() for domain, labels in self.domains.items()}
            found += [
                {domain: list(labels.values())[best[domain][row]] for domain, labels in self.domains.items()}
                for row in range(len(logits))
            ]
        return found

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 of the weights as loaded."""
        return hash_weights(self.model)

    def identity(self) -> dict[str, Any]:
        """Which model this is, and how it reads pictures."""
        return {
            **library("transformers"),
            "model": self.source,
            "revision": self.revision,
            "weights_sha256": self.weights_hash,
            "dtype": "float32",
            "preprocessing": self.processor.to_dict(),
        }


@lru_cache(maxsize=2)
def load_classifier(source: str, revision: str | None = None) -> ClassifierModel:
    """The model, loaded once."""
    return ClassifierModel(source, revision)
