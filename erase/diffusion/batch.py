"""One batch of an objective: everything random about a loss is already in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from erase.diffusion.conditioning import Conditioning, look_up
from erase.diffusion.stacked import Stacked
from erase.randomness import generator

Part = TypeVar("Part", Tensor, Conditioning)


@dataclass(frozen=True)
class Batch:
    """Noised latents, and what the prompts say that a loss may look at."""

    latents: Tensor
    """``[b, 4, h, w]``, in the schedule's unit scale."""
    noise: Tensor
    """``[b, 4, h, w]`` standard normal."""
    timesteps: Tensor
    """``[b]`` int64, 0 (clean) to 999 (noise)."""
    prompt: Conditioning
    """Of the ``b`` prompts that the student is shown."""
    concept: Conditioning | None
    """Of the prompts that say the concept; forget batches only."""
    anchor: Conditioning | None
    """Of the anchors' prompts, where the targets have one."""
    baseline: Conditioning
    """Of the same without the concept: of its neutral wording, or of the empty prompt."""
    shows: Tensor
    """``[b]`` bool, false where the picture was made without the prompt's concept."""
    weight: Tensor
    """``[b]`` weight of the example's target; 1 for retain batches."""
    texts: tuple[str, ...]
    """The prompts, for messages."""
    target: Tensor | None = None
    """``[b, 4, h, w]`` what the student is to predict, once the loss has worked it out."""

    def with_target(self, target: Tensor) -> Batch:
        """The same batch with its target."""
        return replace(self, target=target)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{name: value.to(device) if hasattr(value, "to") else value for name, value in moved.items()})


@dataclass(frozen=True)
class Examples:
    """The pool that an objective's batches are drawn from."""

    latents: Tensor | Stacked
    """``[n, 4, h, w]``, on the CPU, as large sets lie in files."""
    prompts: tuple[str, ...]
    concepts: tuple[str, ...] | None = None
    """Each example's prompt that says the concept: its own, or the concept alone."""
    anchors: tuple[str, ...] | None = None
    """Each example's anchor prompt."""
    weights: tuple[float, ...] | None = None
    baselines: tuple[str, ...] | None = None
    """Each example's prompt that says the same without the concept; default: the empty prompt."""
    shows: tuple[bool, ...] | None = None
    """Whether each example's picture shows what its prompt says; default: all do."""

    def __len__(self) -> int:
        return len(self.prompts)

    def texts(self) -> list[str]:
        """Every prompt that a batch may look up."""
        return [*self.prompts, *(self.concepts or ()), *(self.baselines or ()), *(self.anchors or ()), ""]

    def draw(self, count: int, told: Mapping[str, Conditioning], last_timestep: int, *stream: str | int) -> Batch:
        """``count`` examples, on the CPU; the stream (a seed and names) settles which, their noise and timesteps.

        The timesteps are stratified: one in each of ``count`` equal parts of the schedule.
        """
        seed, *purpose = stream
        rng = generator(int(seed), *purpose)
        pools = -(-count // len(self))
        chosen = torch.cat([torch.randperm(len(self), generator=rng) for _ in range(pools)])[:count]
        noise = torch.randn(count, *self.latents.shape[1:], generator=rng)
        parts = (torch.arange(count) + torch.rand(count, generator=rng)) / count
        picked = [int(index) for index in chosen]

        def say(texts: tuple[str, ...]) -> Conditioning:
            return look_up(told, [texts[index] for index in picked])

        return Batch(
            latents=self.latents[chosen],
            noise=noise,
            timesteps=(parts * last_timestep).long().clamp(max=last_timestep - 1),
            prompt=say(self.prompts),
            concept=None if self.concepts is None else say(self.concepts),
            anchor=None if self.anchors is None else say(self.anchors),
            baseline=told[""].expand(count) if self.baselines is None else say(self.baselines),
            shows=torch.tensor([self.shows[i] if self.shows else True for i in picked]),
            weight=torch.tensor([self.weights[i] if self.weights else 1.0 for i in picked]),
            texts=tuple(self.prompts[index] for index in picked),
        )


def joined(parts: Sequence[Examples]) -> Examples:
    """The parts' examples one after the other; a field is given by all of them or by none."""

    def together(name: str) -> tuple[Any, ...] | None:
        values = [getattr(part, name) for part in parts]
        given = [value for value in values if value is not None]
        if given and len(given) < len(parts):
            raise ValueError(f"{len(given)} of {len(parts)} parts have {name}")
        return tuple(item for value in given for item in value) if given else None

    latents = Stacked([part.latents for part in parts])
    return Examples(latents, **{f.name: together(f.name) for f in fields(Examples) if f.name != "latents"})  # type: ignore[arg-type]


def split(batch: Batch, start: int, stop: int) -> Batch:
    """The examples from ``start`` to ``stop``."""

    def cut(value: Part | None) -> Part | None:
        return None if value is None else value[start:stop]

    return Batch(
        latents=batch.latents[start:stop],
        noise=batch.noise[start:stop],
        timesteps=batch.timesteps[start:stop],
        prompt=batch.prompt[start:stop],
        concept=cut(batch.concept),
        anchor=cut(batch.anchor),
        baseline=batch.baseline[start:stop],
        shows=batch.shows[start:stop],
        weight=batch.weight[start:stop],
        texts=batch.texts[start:stop],
        target=cut(batch.target),
    )
