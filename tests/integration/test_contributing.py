"""The examples in CONTRIBUTING.md do what they say."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.launch import ROOT, environment

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)


def blocks(language: str, *holding: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language and all(word in text for word in holding)]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_each_yaml_block_can_be_read(text: str) -> None:
    assert isinstance(yaml.safe_load(text), dict)


def test_the_update_rule_that_is_added_passes_its_test(tmp_path: Path) -> None:
    """In a copy of the package's sources: the file, the table's two lines, and the test, as the text says."""
    (rule,) = blocks("python", "class ForgetAlone")
    (table,) = blocks("python", "UPDATES:")
    (test,) = blocks("python", "def test_gradient_is_the_forget_gradient")
    skip = shutil.ignore_patterns("__pycache__", "weights")
    for name in ("erase", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    (tmp_path / "erase" / "updates" / "forget_alone.py").write_text(rule)
    added = (tmp_path / "erase" / "updates" / "__init__.py").open("a")
    with added:
        added.write(f"from erase.updates.forget_alone import ForgetAlone  # noqa: E402\n{table}")
    file = tmp_path / "tests" / "unit" / "updates" / "test_forget_alone.py"
    file.write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(file)]
    found = environment() | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=found, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "1 passed" in done.stdout
    check = "from erase.updates import UPDATES; print('forget_alone' in UPDATES)"
    shown = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=found, capture_output=True, text=True)
    assert shown.stdout == "True\n", shown.stderr


def test_the_loss_that_is_added_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks("python", "ClassVar", "def target")
    (tmp_path / "neutral_redirection.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("neutral_redirection").NeutralRedirection().needs_direction
