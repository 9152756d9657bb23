"""Prompt embeddings: each distinct prompt is read once, as long as memory for it lasts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

MEMORY = 2**28
"""Bytes that embeddings may take: 1,137 prompts of Stable Diffusion 1.5 in float32."""


TOGETHER = 8
"""Prompts that are encoded at once."""


class PromptEmbeddings:
    """A pipeline's hidden states of prompts; beyond ``memory`` bytes the prompt that was longest unused goes.

    Prompts are encoded in batches of one size, filled up with the empty prompt: of another size, the rounding of a
    prompt could depend on how many happen to be read with it.
    """

    def __init__(self, pipeline: Any, memory: int = MEMORY) -> None:
        self.pipeline, self.memory = pipeline, memory
        self.encoded = 0
        """How many times a prompt was encoded."""
        self._states: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """``[b, tokens, width]``"""
        asked = dict.fromkeys(prompts)
        found = {prompt: self._states[prompt] for prompt in asked if prompt in self._states}
        missing = [prompt for prompt in asked if prompt not in found]
        for start in range(0, len(missing), TOGETHER):
            found |= self._encode(missing[start : start + TOGETHER])
        self._keep({prompt: found[prompt] for prompt in asked})
        return torch.stack([found[prompt] for prompt in prompts])

    def _encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """``[tokens, width]`` each."""
        filled = [*prompts, *[""] * (TOGETHER - len(prompts))]
        states, _ = self.pipeline.encode_prompt(filled, self.pipeline.device, 1, False)
        self.encoded += len(prompts)
        return {prompt: state.clone() for prompt, state in zip(prompts, states, strict=False)}

    def _keep(self, used: Mapping[str, Tensor]) -> None:
        for prompt, state in used.items():
            self._states[prompt] = state
            self._states.move_to_end(prompt)
            while len(self._states) > 1 and len(self._states) * state.nbytes > self.memory:
                self._states.popitem(last=False)

    def __len__(self) -> int:
        """Prompts that are held now."""
        return len(self._states)
