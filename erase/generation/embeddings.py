"""What a model is told of its prompts: each distinct prompt is read once, as long as memory for it lasts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from erase.diffusion.conditioning import Conditioning, encode, together

MEMORY = 2**28
"""Bytes that embeddings may take: 1,134 prompts of Stable Diffusion 1.5 in float32, 422 of SDXL."""
TOGETHER = 8
"""Prompts that are encoded at once."""


class PromptEmbeddings:
    """A pipeline's conditioning of prompts; beyond ``memory`` bytes the prompt that was longest unused goes.

    Prompts are encoded in batches of one size, filled up with the empty prompt: of another size, the rounding of a
    prompt could depend on how many happen to be read with it.
    """

    def __init__(self, pipeline: Any, memory: int = MEMORY) -> None:
        self.pipeline, self.memory = pipeline, memory
        self.encoded = 0
        """How many times a prompt was encoded."""
        self._told: OrderedDict[str, Conditioning] = OrderedDict()

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """Of ``b`` prompts, in their order."""
        asked = dict.fromkeys(prompts)
        found = {prompt: self._told[prompt] for prompt in asked if prompt in self._told}
        missing = [prompt for prompt in asked if prompt not in found]
        for start in range(0, len(missing), TOGETHER):
            found |= self._encode(missing[start : start + TOGETHER])
        self._keep({prompt: found[prompt] for prompt in asked})
        return together([found[prompt] for prompt in prompts])

    def _encode(self, prompts: Sequence[str]) -> dict[str, Conditioning]:
        """``b`` = 1 each."""
        filled = [*prompts, *[""] * (TOGETHER - len(prompts))]
        told = encode(self.pipeline, filled)
        self.encoded += len(prompts)
        return {prompt: told[row : row + 1].clone() for row, prompt in enumerate(prompts)}

    def _keep(self, used: Mapping[str, Conditioning]) -> None:
        for prompt, told in used.items():
            self._told[prompt] = told
            self._told.move_to_end(prompt)
            while len(self._told) > 1 and len(self._told) * told.nbytes > self.memory:
                self._told.popitem(last=False)

    def __len__(self) -> int:
        """Prompts that are held now."""
        return len(self._told)
