"""The Hub's HTTP API as huggingface_hub uses it without Xet: what each request is answered."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.hub_state import LARGE, Refused, State

REPO = r"(?P<repo>[^/]+/[^/]+)"
DATE = "2026-01-01T00:00:00.000Z"
Answer = dict[str, Any] | list[dict[str, Any]] | bytes


@dataclass
class Request:
    """A request, taken apart."""

    state: State
    url: str
    """The server's."""
    token: str | None
    query: dict[str, str]
    body: bytes
    found: dict[str, str]
    """The path's parts by name."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the answer."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Route = Callable[[Request], Answer]
ROUTES: list[tuple[re.Pattern[str], Route]] = []


def route(pattern: str) -> Callable[[Route], Route]:
    """Declares what answers ``METHOD path``."""

    def add(answer: Route) -> Route:
        ROUTES.append((re.compile(pattern), answer))
        return answer

    return add


@route("GET /api/whoami-v2")
def whoami(request: Request) -> Answer:
    user = request.state.user(request.token)
    access: dict[str, Any] = {"displayName": "test", "role": user.role}
    if user.scoped is not None:
        access |= {"role": "fineGrained", "fineGrained": {"scoped": list(user.scoped), "global": []}}
    orgs = [{"type": "org", "name": org, "roleInOrg": "write"} for org in user.orgs]
    return {"type": "user", "name": user.name, "orgs": orgs, "auth": {"type": "access_token", "accessToken": access}}


@route("POST /api/repos/create")
def create(request: Request) -> Answer:
    asked = request.json
    owner = asked["organization"] or request.state.user(request.token).name
    name = f"{owner}/{asked['name']}"
    request.state.create(name, asked.get("visibility") == "private", request.token)
    return {"url": f"{request.url}/{name}", "name": name}


@route("POST /api/validate-yaml")
def validate(request: Request) -> Answer:
    if not request.json["content"].startswith("---\n"):
        raise Refused(400, "the card has no metadata")
    return {"errors": [], "warnings": []}


@route(f"GET /api/models/{REPO}/auth-check(?P<write>/write)?")
def auth_check(request: Request) -> Answer:
    repo = request.state.repo(request.found["repo"], request.token)
    if "write" in request.found:
        request.state.check_write(repo.name, request.token)
    return {}


@route(f"GET /api/models/{REPO}(/revision/(?P<revision>[^/]+))?")
def info(request: Request) -> Answer:
    repo = request.state.repo(request.found["repo"], request.token)
    commit = repo.at(request.found.get("revision", "main"))
    siblings = [{"rfilename": path} for path in sorted(commit.files)]
    return {"id": repo.name, "sha": commit.oid, "private": repo.private, "siblings": siblings, "tags": []}


@route(f"GET /api/models/{REPO}/tree/(?P<revision>[^/]+)")
def tree(request: Request) -> Answer:
    commit = request.state.repo(request.found["repo"], request.token).at(request.found["revision"])
    return [describe(path, content) for path, content in sorted(commit.files.items())]


def describe(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@route(f"GET /api/models/{REPO}/discussions")
def discussions(request: Request) -> Answer:
    repo = request.state.repo(request.found["repo"], request.token)
    common = {"status": "open", "isPullRequest": True, "createdAt": DATE, "repo": {"name": repo.name, "type": "model"}}
    found = [{**common, **pull} for pull in repo.pulls if pull["author"]["name"] == request.query["author"]]
    return {"count": len(found), "start": 0, "discussions": found}


@route(f"POST /api/models/{REPO}/branch/(?P<branch>[^/]+)")
def branch(request: Request) -> Answer:
    repo = request.state.repo(request.found["repo"], request.token)
    request.state.check_write(repo.name, request.token)
    if request.found["branch"] in repo.refs:
        raise Refused(409, "Reference already exists")
    repo.refs[request.found["branch"]] = repo.refs["main"]
    return {}


@route(f"POST /api/models/{REPO}/preupload/(?P<revision>[^/]+)")
def preupload(request: Request) -> Answer:
    repo = request.state.repo(request.found["repo"], request.token)
    request.state.check_write(repo.name, request.token, "create_pr" in request.query)
    there, files = repo.at(request.found["revision"]).files, []
    for asked in request.json["files"]:
        large, content = asked["path"].endswith(LARGE), there.get(asked["path"])
        oid = None if content is None else hashlib.sha256(content).hexdigest() if large else git_hash(content)
        mode = "lfs" if large else "regular"
        files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": files}


@route(rf"POST /{REPO}\.git/info/lfs/objects/batch")
def batch(request: Request) -> Answer:
    state, asked = request.state, request.json
    state.check_write(state.repo(request.found["repo"], request.token).name, request.token, "ref" not in asked)
    objects = []
    for one in asked["objects"]:
        entry = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] not in state.objects:
            entry["actions"] = upload_actions(request, one["oid"], one["size"])
        objects.append(entry)
    return {"transfer": "basic", "objects": objects}


def upload_actions(request: Request, oid: str, size: int) -> dict[str, Any]:
    """Where a large file goes: in one piece, or in parts."""
    verify, chunk = {"href": f"{request.url}/lfs/verify", "header": {}}, request.state.chunk
    if chunk is None or size <= chunk:
        return {"upload": {"href": f"{request.url}/lfs/object/{oid}", "header": {}}, "verify": verify}
    places = {f"{n + 1}": f"{request.url}/lfs/part/{oid}/{n + 1}" for n in range(-(-size // chunk))}
    upload = {"href": f"{request.url}/lfs/complete/{oid}", "header": {"chunk_size": str(chunk), **places}}
    return {"upload": upload, "verify": verify}


@route("PUT /lfs/object/(?P<oid>[0-9a-f]{64})")
def put_object(request: Request) -> Answer:
    request.state.store(request.found["oid"], request.body)
    return b""


@route("PUT /lfs/part/(?P<oid>[0-9a-f]{64})/(?P<number>[0-9]+)")
def put_part(request: Request) -> Answer:
    request.state.parts.setdefault(request.found["oid"], {})[int(request.found["number"])] = request.body
    request.headers["Etag"] = git_hash(request.body)
    return b""


@route("POST /lfs/complete/(?P<oid>[0-9a-f]{64})")
def complete(request: Request) -> Answer:
    parts, oid = request.state.parts.pop(request.found["oid"]), request.found["oid"]
    if [(p["partNumber"], p["etag"]) for p in request.json["parts"]] != [
        (n, git_hash(parts[n])) for n in sorted(parts)
    ]:
        raise Refused(400, "the parts are others")
    request.state.store(oid, b"".join(parts[number] for number in sorted(parts)))
    return {}


@route("POST /lfs/verify")
def verify(request: Request) -> Answer:
    request.state.user(request.token)
    if len(request.state.objects.get(request.json["oid"], b"")) != request.json["size"]:
        raise Refused(404, "no such object")
    return {}


@route(f"POST /api/models/{REPO}/commit/(?P<revision>[^/]+)")
def commit(request: Request) -> Answer:
    state, pull = request.state, "create_pr" in request.query
    repo = state.repo(request.found["repo"], request.token)
    user = state.check_write(repo.name, request.token, pull)
    lines = [json.loads(line) for line in request.body.splitlines()]
    made = state.commit(repo, request.found["revision"], lines, user, pull)
    url = f"{request.url}/{repo.name}"
    where = f"{url}/discussions/{made['number']}" if pull else None
    answer = {"success": True, "commitOid": made["commitOid"], "commitUrl": f"{url}/commit/{made['commitOid']}"}
    return answer | {"pullRequestUrl": where}


@route(f"(GET|HEAD) /{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(request: Request) -> Answer:
    commit = request.state.repo(request.found["repo"], request.token).at(request.found["revision"])
    path = request.found["path"]
    if path not in commit.files:
        raise Refused(404, "Entry not found", "EntryNotFound")
    content = commit.files[path]
    etag = hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else git_hash(content)
    request.headers |= {"X-Repo-Commit": commit.oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    return content
