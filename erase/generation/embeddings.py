"""Prompt embeddings: each distinct prompt is read once, as long as memory for it lasts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MEMORY = 2**28
"""Bytes that embeddings may take: 1,137 prompts of Stable Diffusion 1.5 in float32."""


class PromptEmbeddings:
    """A pipeline's hidden states of prompts; beyond ``memory`` bytes the prompt that was longest unused goes.

    Each prompt is encoded alone: in a batch, rounding would depend on which prompts happen to be read with it.
    """

    def __init__(self, pipeline: Any, memory: int = MEMORY) -> None:
        self.pipeline, self.memory = pipeline, memory
        self.encoded = 0
        """How many times a prompt was encoded."""
        self._states: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """``[b, tokens, width]``"""
        return torch.stack([self._state(prompt) for prompt in prompts])

    def _state(self, prompt: str) -> Tensor:
        """``[tokens, width]``"""
        state = self._states.get(prompt)
        if state is None:
            embedded, _ = self.pipeline.encode_prompt(prompt, self.pipeline.device, 1, False)
            state = self._states[prompt] = embedded[0]
            self.encoded += 1
            while len(self._states) > 1 and len(self._states) * state.nbytes > self.memory:
                self._states.popitem(last=False)
        self._states.move_to_end(prompt)
        return state

    def __len__(self) -> int:
        """Prompts that are held now."""
        return len(self._states)
