"""What an audit checks beside its settings: whether its seed counts, and by which keys a mistake is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from erase.errors import UserError
from erase.generation.prompts import PromptRow, evaluation_seed


def gives_seeds(seed: int, rows: Sequence[PromptRow]) -> bool:
    """Whether the rows' seeds are those that ``seed`` gives a set without its own."""
    return all(row.seed == evaluation_seed(seed, index) for index, row in enumerate(rows))


def idle_seed(seed: int, rows: Sequence[PromptRow]) -> Iterator[str]:
    """A seed that would change no picture; the default is let pass."""
    if seed and not gives_seeds(seed, rows):
        yield (
            f"seed: found {seed}; each of these prompts has a seed of its own, so it would change nothing; leave it "
            "out, or take the column of seeds out of the set; images_per_prompt makes more pictures of each prompt"
        )


@contextmanager
def renamed(keys: Mapping[str, str]) -> Iterator[None]:
    """What the body refuses by a key of ``keys`` is told by the key that the user gave."""
    try:
        yield
    except UserError as error:
        told = (problem.partition(":") for problem in error.problems)
        raise UserError(*(f"{keys.get(key, key)}{colon}{rest}" for key, colon, rest in told)) from None
