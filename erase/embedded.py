"""Shapes World, the model that comes with the package: its words, and where its weights are."""

from __future__ import annotations

from pathlib import Path

from erase.vocabulary import Vocabulary

NAME = "shapes"
"""What a user writes for the embedded model wherever a model is asked for."""
VOCABULARY = Vocabulary(
    domains={
        "object": ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon"),
        "color": ("red", "green", "blue", "yellow", "purple", "cyan"),
        "style": ("flat", "outline", "dotted", "striped", "gradient"),
    },
    templates=(
        "a {color} {object} in {style} style",
        "a {color} {object}",
        "a {object} in {style} style",
        "a {color} shape in {style} style",
        "a {object}",
        "a {color} shape",
        "a shape in {style} style",
        "a shape",
    ),
)
FULL_TEMPLATE = VOCABULARY.templates[0]
NONE = "none"
"""The label, in every domain, of a picture that shows nothing of Shapes World."""
IMAGE_SIZE = 32
"""Pixels a side."""
DEFAULT_CONFIG = Path(__file__).parent / "shapes" / "default.yaml"
"""The settings of the default erasure; `--config shapes` on the command line."""
WEIGHTS = Path(__file__).parent / "shapes" / "weights"
"""The folder of the trained models: ``pipeline``, ``classifier`` and ``clip``."""
