"""A transformers image classifier as the judge of which concept a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoModelForImageClassification

from erase.errors import UserError

Labels = dict[str, str]
"""Domain to label, for one picture."""


class ConceptClassifier:
    """Names such as ``object/star`` put a label into a domain; a softmax is taken within each."""

    def __init__(self, folder: str | Path) -> None:
        try:
            self.model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True).float().eval()
            self.processor = AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"classifier: {folder} cannot be loaded: {error}") from None
        self.domains: dict[str, dict[int, str]] = {}
        for index, name in sorted(self.model.config.id2label.items()):
            domain, _, label = name.rpartition("/")
            self.domains.setdefault(domain or "label", {})[int(index)] = label

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], batch_size: int = 256) -> list[Labels]:
        """The most likely label of each picture in each domain."""
        found: list[Labels] = []
        for start in range(0, len(images), batch_size):
            inputs = self.processor(list(images[start : start + batch_size]), return_tensors="pt")
            logits = self.model(**inputs).logits
            best = {domain: logits[:, list(labels)].argmax(1).tolist() for domain, labels in self.domains.items()}
            found += [
                {domain: list(labels.values())[best[domain][row]] for domain, labels in self.domains.items()}
                for row in range(len(logits))
            ]
        return found
