"""What a Hub on 127.0.0.1 holds: users, repositories, commits, large files; and the faults that a test asks of it."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n"
LARGE = (".safetensors", ".png")


class Refused(Exception):
    """An answer other than 200: status, the Hub's error code (may be empty) and message."""

    def __init__(self, status: int, message: str, code: str = "", **more: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}
        self.body: dict[str, Any] = {"error": message, **more}


@dataclass(frozen=True)
class User:
    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()
    scoped: tuple[Mapping[str, Any], ...] | None = None
    """Of a fine-grained token."""


@dataclass
class Commit:
    oid: str
    parent: str | None
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    name: str
    private: bool
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)

    def add(self, ref: str, parent: str | None, message: str, files: dict[str, bytes]) -> Commit:
        seed = repr((self.name, parent, message, sorted(files), len(self.commits)))
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), parent, message, files)
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid
        return commit

    def at(self, revision: str) -> Commit:
        oid = self.refs.get(revision, revision)
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]


@dataclass
class Fault:
    """What goes wrong with requests that match, after ``skip`` of them, ``times`` times."""

    request: str
    """A pattern of ``METHOD path``."""
    action: str
    """A status such as ``500``; ``cut``: the connection ends in the middle of what is sent; ``lose``: the work is
    done and the answer lost; ``slow``: the answer comes late; ``first``: ``work`` is done before it."""
    times: int = 1
    skip: int = 0
    message: str = ""
    seconds: float = 0.0
    work: Callable[[], object] = field(default=lambda: None, compare=False)


@dataclass
class State:
    """All that the server knows; ``lock`` is held while a request is worked on."""

    users: dict[str, User]
    """By token."""
    chunk: int | None = None
    """Large files above this many bytes go up in parts of it."""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fault_of(self, request: str) -> Fault | None:
        """The fault that this request meets, if any; it is used up by that."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.request, request):
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                return fault
        return None

    def count(self, pattern: str) -> int:
        """How many requests there were that match."""
        return sum(bool(re.search(pattern, line)) for line in self.log)

    def user(self, token: str | None) -> User:
        if token is None:
            raise Refused(401, "Invalid username or password.")
        if token not in self.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def repo(self, name: str, token: str | None) -> Repo:
        """A repository that the user may read; another is said not to be there."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and not self.owns(name, token)):
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        return repo

    def owns(self, name: str, token: str | None) -> bool:
        user, owner = self.users.get(token or ""), name.split("/")[0]
        return user is not None and owner in (user.name, *user.orgs)

    def check_write(self, name: str, token: str | None, pull: bool = False) -> User:
        user = self.user(token)
        if user.role == "read" or not (pull or self.owns(name, token)):
            raise Refused(403, f"You don't have the rights to write to {name}")
        return user

    def create(self, name: str, private: bool, token: str | None) -> None:
        self.check_write(name, token)
        if name in self.repos:
            raise Refused(409, "You already created this model repo", url=f"https://huggingface.co/{name}")
        self.repos[name] = Repo(name, private)
        self.repos[name].add("main", None, "initial commit", {".gitattributes": ATTRIBUTES})

    def store(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "the content has another SHA-256")
        self.objects[oid] = content

    def commit(self, repo: Repo, ref: str, lines: list[dict[str, Any]], user: User, pull: bool) -> dict[str, Any]:
        """Applies the operations as a whole, or refuses."""
        head, header = repo.at(ref), next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, head.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines:
            self.apply(files, line["key"], line["value"])
        number = len(repo.pulls) + 1
        commit = repo.add(f"refs/pr/{number}" if pull else ref, head.oid, header["summary"], files)
        if pull:
            repo.pulls.append({"num": number, "title": header["summary"], "author": {"name": user.name}})
        return {"commitOid": commit.oid, "number": number if pull else None}

    def apply(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise Refused(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
            files[value["path"]] = self.objects[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
