"""The real client in a process of its own: where the Hub is, is read when huggingface_hub is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.hub_server import HubServer
from tests.launch import ROOT, environment, wait_until

TOKEN = "hf_planted0123456789abcdefghijklmnop"
HURRY = "import time; time.sleep = lambda seconds: None\n"
"""Waits between tries cost nothing; the server's own, in another process, are real."""


def client_environment(server: HubServer, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """Nothing of this machine's own caches or tokens; no Xet, which speaks another protocol."""
    kept = {key: value for key, value in environment().items() if not key.startswith(("HF_", "HUGGING"))}
    found = kept | {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    found |= {"PYTHONPATH": os.pathsep.join([str(ROOT), kept.get("PYTHONPATH", "")]), "TQDM_DISABLE": "1"}
    return found | ({"HF_TOKEN": token} if token else {})


def client(
    server: HubServer, folder: Path, script: str, *arguments: str, token: str | None = TOKEN, **more: str
) -> subprocess.CompletedProcess[str]:
    """A script of Python, run in a folder to its end."""
    (folder / "home").mkdir(exist_ok=True)
    variables = client_environment(server, folder / "home", token) | more
    command = [sys.executable, "-c", HURRY + script, *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def client_killed(server: HubServer, folder: Path, script: str, *arguments: str, when: Callable[[], bool]) -> int:
    """The same, killed as soon as something is so; its exit code."""
    variables = client_environment(server, folder / "home")
    command = [sys.executable, "-c", HURRY + script, *arguments]
    process = subprocess.Popen(command, cwd=folder, env=variables)
    try:
        wait_until(process, when)
    finally:
        process.kill()
    return process.wait()
