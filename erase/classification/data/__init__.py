"""Where the pictures come from; the table is closed."""

from __future__ import annotations

from erase.classification.data.digits import Digits
from erase.classification.data.folder import Folder
from erase.classification.data.hub import HubImages
from erase.classification.data.shapes import Shapes
from erase.classification.data.source import Source

Data = Digits | Shapes | HubImages | Folder
DATA: dict[str, type[Data]] = {"digits": Digits, "shapes": Shapes, "hub": HubImages, "folder": Folder}

__all__ = ["DATA", "Data", "Digits", "Folder", "HubImages", "Shapes", "Source"]
