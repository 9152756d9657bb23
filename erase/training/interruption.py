"""Ctrl-C and SIGTERM end a run between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from erase.gradients import mean_over_processes


class Interrupted(Exception):
    """The run was asked to stop and has saved itself; the message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Interruption:
    """Remembers the first signal; a second one acts as if nobody had listened."""

    def __init__(self) -> None:
        self.received = 0

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM while the body runs."""
        before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number

    def agreed(self, device: torch.device) -> bool:
        """Whether any process was signalled: all of them stop after the same step."""
        return mean_over_processes(float(self.received), device) > 0
