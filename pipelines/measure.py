"""What a call costs: its seconds, and the most memory that its tensors take at one time."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from erase.provenance import describe_environment


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds of one call, to the end of what it started on the device."""
    _wait(device)
    begin = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_on_gpu(call: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that tensors took on a GPU during a call; what was there before counts."""
    _wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    _wait(device)
    return torch.cuda.max_memory_allocated(device)


def peak_on_cpu(call: Callable[[], Any]) -> int:
    """The most bytes that were allocated during a call and not yet freed, in tensors and inside kernels.

    From torch's own allocator, event by event, so it is exact and the same each time. What was there before does not
    count, and to free it gains nothing.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted((e["args"] for e in events if e["name"] == "[memory]"), key=lambda e: e["Ev Idx"])
    sizes: dict[int, int] = {}
    live = peak = 0
    for event in memory:
        if event["Bytes"] > 0:
            sizes[event["Addr"]] = event["Bytes"]
            live += event["Bytes"]
        else:
            live -= sizes.pop(event["Addr"], 0)  # what was there before is not known here
        peak = max(peak, live)
    return peak


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure belongs to; neither the machine's name nor any of its folders."""
    environment = describe_environment()
    environment.pop("command")  # may name a folder
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        **environment,
    }


def _cpu_model() -> str:
    """The processor's name, or at least its kind."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
