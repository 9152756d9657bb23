"""What is done to the weights before the first step; the table is closed."""

from __future__ import annotations

from erase.classification.starts.influence_unlearning import InfluenceUnlearning
from erase.classification.starts.selective_dampening import SelectiveDampening
from erase.classification.starts.trim import Trim
from erase.classification.starts.whole import Scratch, Trained

Start = Trained | Scratch | Trim | SelectiveDampening | InfluenceUnlearning
STARTS: dict[str, type[Start]] = {
    "trained": Trained,
    "scratch": Scratch,
    "trim": Trim,
    "selective_dampening": SelectiveDampening,
    "influence_unlearning": InfluenceUnlearning,
}

__all__ = ["STARTS", "InfluenceUnlearning", "Scratch", "SelectiveDampening", "Start", "Trained", "Trim"]
