"""The parts of a UNet, by the names of its parameters."""

from __future__ import annotations

STAGES = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


def block_of(name: str) -> str:
    """``down.attention`` for ``down_blocks.1.attentions.0. ...``; ``other`` outside of the three stages.

    What is no attention in a stage is convolution: its residual blocks and samplers.
    """
    parts = name.split(".")
    stage = next((STAGES[part] for part in parts if part in STAGES), None)
    if stage is None:
        return "other"
    return f"{stage}.{'attention' if 'attentions' in parts else 'convolution'}"
