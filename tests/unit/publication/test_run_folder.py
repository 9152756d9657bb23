"""What `erase publish` says of a folder that it cannot publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase.errors import UserError
from erase.publication.run_folder import open_run


def refused(folder: Path, provenance: Any) -> str:
    (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        open_run(folder)
    return str(caught.value)


def test_a_classifiers_run_is_refused_with_another_way(tmp_path: Path) -> None:
    found = refused(tmp_path, {"config": {"task": "classification"}, "forgotten": {}})
    assert found.startswith(f"run: {tmp_path} holds a classifier (task classification)") and "hf upload" in found


@pytest.mark.parametrize("provenance", [{}, [], None, {"base": 3}, {"config": "classification"}, {"config": {}}])
def test_what_is_no_run_is_refused_with_what_to_give(tmp_path: Path, provenance: Any) -> None:
    found = refused(tmp_path, provenance)
    assert "is damaged or of another kind of run" in found
    assert found.endswith("give the output_dir of a finished erase train of a diffusion model")
