"""Signals: the first is remembered, the second acts, and afterwards nothing has changed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import torch

from erase.training.interruption import Interrupted, Interruption

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_remembered_and_the_body_goes_on(number: signal.Signals) -> None:
    interruption = Interruption()
    with interruption.listen():
        assert not interruption.agreed(CPU)
        signal.raise_signal(number)
        assert interruption.received == number
        assert interruption.agreed(CPU)


def test_the_handlers_of_before_are_put_back_also_when_the_body_raises() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), Interruption().listen():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_of_the_body_ctrl_c_is_pythons_own() -> None:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        interruption = Interruption()
        with interruption.listen():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not interruption.agreed(CPU)
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    program = f"""
import signal
from erase.training.interruption import Interruption
with Interruption().listen():
    signal.raise_signal({int(number)})
    print("first", flush=True)
    signal.raise_signal({int(number)})
    print("second", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "first\n", done.stderr
    assert done.returncode == -number


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_is_the_shells(number: signal.Signals, code: int) -> None:
    assert Interrupted("how to go on", number).exit_code == code
