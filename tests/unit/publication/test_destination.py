"""Where a publication may go, and which files may go there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erase.errors import UserError
from erase.publication.destination import Destination, Published, check_destination, check_names, may_write


@pytest.mark.parametrize("name", ["me/model", "my-org/sd_1.5-without.star"])
def test_names_of_the_hub_are_taken(name: str) -> None:
    check_destination(Destination(name, revision="feature/star"))


@pytest.mark.parametrize(
    "name",
    ["model", "me/a/b", "../x", "me/..", "me/../x", "/etc/passwd", "me/", "/me", "me/x y", "me/x\n", "https://a/b"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="repo_id"):
        check_destination(Destination(name))


@pytest.mark.parametrize("revision", ["../main", "a..b", "a//b", "/a", "a/", "a b", "a.lock", "-a", "", "a@{b", "."])
def test_what_is_no_branch_is_refused(revision: str) -> None:
    with pytest.raises(UserError, match="revision"):
        check_destination(Destination("me/model", revision=revision))


def test_a_pull_request_is_made_to_main() -> None:
    check_destination(Destination("me/model", create_pr=True, revision="main"))
    with pytest.raises(UserError, match="pull request"):
        check_destination(Destination("me/model", create_pr=True, revision="dev"))


@pytest.mark.parametrize(
    "name",
    [
        *("a.bin", "a.pt", "a.ckpt", "a.pth", "a.pkl", "a.py", "a", "../a.json", "x/../a.json", "/a.json", ".a.json"),
        *(".git/a.json", "x\\a.json", "absent.json", "link.json"),
    ],
)
def test_files_that_must_not_go_up_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "a.json").write_text("{}")
    (folder / "link.json").symlink_to(tmp_path / "a.json")
    for there in ("a.bin", "a.pt", "a.ckpt", "a.pth", "a.pkl", "a.py", "a", ".a.json"):
        (folder / there).write_text("")
    with pytest.raises(UserError, match=r"upload|link"):
        check_names(folder, [name])


def test_weights_texts_and_pictures_go_up(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    names = ["unet/a.safetensors", "a.json", "a.txt", "README.md", "a.png", "a.yaml"]
    for name in names:
        (tmp_path / name).write_text("")
    check_names(tmp_path, names)


def who(role: str = "write", scoped: Any = None) -> dict[str, Any]:
    access: dict[str, Any] = {"role": role}
    if scoped is not None:
        access["fineGrained"] = {"scoped": scoped}
    orgs = [{"name": "lab", "roleInOrg": "write"}, {"name": "museum", "roleInOrg": "read"}]
    return {"name": "me", "orgs": orgs, "auth": {"accessToken": access}}


def scope(name: str, *permissions: str) -> dict[str, Any]:
    return {"entity": {"type": "user", "name": name}, "permissions": list(permissions)}


@pytest.mark.parametrize(
    ("user", "repo", "allowed"),
    [
        (who(), "me/x", True),
        (who(), "lab/x", True),
        (who(), "museum/x", False),
        (who(), "you/x", False),
        (who("read"), "me/x", False),
        (who("fineGrained", [scope("me", "repo.content.read", "repo.write")]), "me/x", True),
        (who("fineGrained", [scope("me", "repo.content.read")]), "me/x", False),
        (who("fineGrained", [scope("lab", "repo.write")]), "me/x", False),
        (who("fineGrained", [scope("me/x", "repo.write")]), "me/x", True),
        (who("fineGrained", []), "me/x", False),
    ],
)
def test_a_token_s_rights_are_read_from_what_the_hub_says(user: dict[str, Any], repo: str, allowed: bool) -> None:
    assert may_write(user, Destination(repo)) is allowed


def test_a_pull_request_is_what_to_look_at_where_there_is_one() -> None:
    assert Published("me/x", "1", "commit").url == "commit"
    assert Published("me/x", "1", "commit", "pull").url == "pull"
