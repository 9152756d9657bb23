"""What is blotted out before anything is published, and what is left alone."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erase.errors import UserError
from erase.publication.contents import check_private
from erase.publication.privacy import leaks, scrub, scrub_tree, without_token

TOKEN = "hf_planted0123456789abcdefghijklmnop"


@pytest.fixture
def alice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.setenv("HOME", "/srv/users/alice")
    assert getpass.getuser() == "alice" and Path.home() == Path("/srv/users/alice")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/models/sd15", "path/to/sd15"),
        ("/data", "path/to/data"),
        ("~/models/sd15", "path/to/sd15"),
        ("~alice/models/sd15", "path/to/sd15"),
        ("../models/sd15", "path/to/sd15"),
        ("/srv/users/alice", "path/to/folder"),
        ("/srv/users/alice/my models/sd 15", "path/to/sd 15"),
        ("erase train --config /srv/users/alice/x.yaml --seed 1", "erase train --config path/to/x.yaml --seed 1"),
        ("--prompts='/a/b.csv',/c/d", "--prompts='path/to/b.csv',path/to/d"),
        ("--erased '/data/acme client/model' --seed 1", "--erased 'path/to/model' --seed 1"),
        ("--config=/srv/users/alice/Acme Secret Project/run.yaml", "--config=path/to/run.yaml"),
        ('{"note": "/data/acme client/model"}', '{"note": "path/to/model"}'),
        ("local-dir:/data/acme/clip", "local-dir:path/to/clip"),
        ("file:///data/acme/clip", "file://path/to/clip"),
        ("data/alice/x.csv", "data/user/x.csv"),
        ("alice@host:x", "user@host:x"),
        (f"token {TOKEN}.", "token [token]."),
    ],
)
def test_paths_names_and_tokens_are_replaced(alice: None, text: str, expected: str) -> None:
    assert scrub(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "runs/star",
        "alice/sd-without-star",
        "erase audit --base alice/sd15 --erased alice/sd-without-star --target star",
        "--base=alice/sd15",
        '--metrics [{"name": "clip_score", "model": "alice/clip"}]',
        "https://huggingface.co/alice/model/tree/main",
        "a red star",
        "1/2 and 3/4",
        "and/or",
        "alice in wonderland",
        "Linux-6.1-x86_64-with-glibc2.36",
        "concept/object",
        "// comment",
        "hf_hub",
        "",
    ],
)
def test_what_is_no_secret_stays(alice: None, text: str) -> None:
    assert scrub(text) == text


def test_a_folder_that_is_there_is_no_hub_id(alice: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice" / "sd15").mkdir(parents=True)
    assert scrub("erase audit --base alice/sd15 --seed 1") == "erase audit --base user/sd15 --seed 1"
    assert scrub("alice/sd15") == "user/sd15"


def test_a_tree_is_scrubbed_to_its_leaves_and_keys() -> None:
    tree = {"a": [{"/data/x": "/data/y"}], "n": 1, "none": None, "t": ("/data/z", True)}
    assert scrub_tree(tree) == {
        "a": [{"path/to/x": "path/to/y"}],
        "n": 1,
        "none": None,
        "t": ["path/to/z", True],
    }


def test_the_token_in_use_is_blotted_out_whatever_it_looks_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "opensesame")
    assert without_token("say opensesame") == "say [token]"


def test_a_text_that_names_this_machine_is_not_published(alice: None, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": "/srv/users/alice/y"}')
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors", {"note": "/srv/users/alice/y"})
    save_file({"w": torch.ones(1)}, tmp_path / "clean.safetensors", {"note": "path/to/y"})
    check_private(tmp_path, ["clean.safetensors"])
    for name in ("a.json", "w.safetensors"):
        with pytest.raises(UserError, match=f"{name}: it would publish a path of this machine"):
            check_private(tmp_path, ["clean.safetensors", name])


def test_leaks_are_found_and_not_repeated(alice: None) -> None:
    assert leaks("nothing here, path/to/x") == []
    assert leaks(f"{TOKEN}") == ["an access token"]
    found = leaks("/srv/users/alice/x")
    assert found == ["a path of this machine", "the user's name"] and "alice" not in str(found)
    assert leaks(f"{Path.cwd()}/x")[:1] == (["a path of this machine"] if len(Path.cwd().parts) > 2 else [])
