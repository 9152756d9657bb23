"""The upload against a Hub on 127.0.0.1 that fails in every way: nothing half-published, and again is enough."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.hub_client import TOKEN, client, client_killed
from tests.hub_server import HubServer, hub
from tests.hub_state import Fault, State, User

REPO = "me/sd-without-star"
FILES = ["README.md", "results.json", "unet/a.safetensors", "unet/b.safetensors"]
UPLOAD = """
import json, sys
from pathlib import Path
from erase.errors import UserError
from erase.publication import hub
from erase.publication.destination import Destination
hub.PATIENCE = 2.0
folder, names, given = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
try:
    print(json.dumps(vars(hub.upload(folder, names, Destination(**given), "Erase star, abc"))))
except UserError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    users = {TOKEN: User("me", orgs=("lab",)), "hf_reader0000000000": User("me", "read"), "hf_other00000": User("you")}
    with hub(State(users)) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A publication of four small files, two of them large ones to the Hub."""
    place = tmp_path / "ready"
    (place / "unet").mkdir(parents=True)
    (place / "README.md").write_text("---\ntags: [erase]\n---\n# A model\n")
    (place / "results.json").write_text("{}\n")
    rng = np.random.default_rng(0)
    (place / "unet" / "a.safetensors").write_bytes(rng.bytes(300_000))
    (place / "unet" / "b.safetensors").write_bytes(rng.bytes(1_000))
    return place


def upload(
    server: HubServer, folder: Path, token: str | None = TOKEN, **given: object
) -> subprocess.CompletedProcess[str]:
    destination = json.dumps({"repo_id": REPO, **given})
    return client(server, folder.parent, UPLOAD, str(folder), json.dumps(FILES), destination, token=token)


def published(server: HubServer, ref: str = "main", repo: str = REPO) -> dict[str, bytes]:
    """What a reader finds, without the Hub's own file."""
    files = server.state.repos[repo].at(ref).files
    return {name: content for name, content in files.items() if name != ".gitattributes"}


def commits(server: HubServer) -> list[str]:
    """Summaries of a repository's commits, but for the one that made it."""
    return [commit.message for commit in server.state.repos[REPO].commits.values()][1:]


def whole(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def assert_nothing_published(server: HubServer) -> None:
    assert REPO not in server.state.repos or (published(server) == {} and commits(server) == [])


@pytest.mark.parametrize("chunk", [None, 65_536], ids=["in one piece", "in parts"])
def test_all_files_come_in_one_commit(server: HubServer, folder: Path, chunk: int | None) -> None:
    server.state.chunk = chunk
    done = upload(server, folder)
    assert done.returncode == 0, done.stderr
    assert published(server) == whole(folder) and commits(server) == ["Erase star, abc"]
    made = json.loads(done.stdout)
    assert made["commit"] == server.state.repos[REPO].refs["main"]
    assert made["commit_url"] == f"{server.url}/{REPO}/commit/{made['commit']}" and made["pull_request"] is None
    assert server.state.count("PUT /lfs/part/") == (5 if chunk else 0)
    assert not server.state.repos[REPO].private


PASSING = {
    "429 from whoami": [Fault("whoami", "429")],
    "429 with a wait": [Fault("/commit/", "429", times=2)],
    "500 when it is made": [Fault("repos/create", "500")],
    "500 from the preupload": [Fault("preupload", "500")],
    "500 in the middle of a file": [Fault("PUT /lfs/object", "500", skip=1)],
    "500 from the commit": [Fault("/commit/", "500", times=2)],
    "a page for an answer, 502": [Fault("validate-yaml", "502", message="<html>bad gateway</html>")],
    "a connection cut in a file": [Fault("PUT /lfs/object", "cut")],
    "a connection cut in the commit": [Fault("/commit/", "cut")],
    "the commit's answer lost": [Fault("/commit/", "lose")],
    "a slow answer": [Fault("/commit/", "slow", seconds=0.5), Fault("PUT /lfs/object", "slow", seconds=0.5)],
    "an answer that never comes": [Fault("/commit/", "slow", seconds=600.0)],
}


@pytest.mark.parametrize("case", PASSING, ids=str)
def test_what_passes_is_tried_again_and_one_commit_is_made(server: HubServer, folder: Path, case: str) -> None:
    server.state.faults = list(PASSING[case])
    done = upload(server, folder)
    assert done.returncode == 0, done.stderr
    assert published(server) == whole(folder) and commits(server) == ["Erase star, abc"]
    assert all(fault.times == 0 for fault in server.state.faults)


STAYING = {
    "401": ("/commit/", "401", ["hf auth login", "HF_TOKEN"]),
    "403": ("/commit/", "403", ["may not write to me/sd-without-star", "--create_pr"]),
    "403 from the preupload": ("preupload", "403", ["may not write"]),
    "409": ("/commit/", "409", ["changed by somebody else", "run again"]),
    "412": ("/commit/", "412", ["changed by somebody else", "run again"]),
    "429": ("/commit/", "429", ["wait some minutes", "run again"]),
    "500": ("/commit/", "500", ["trouble of its own", "run again"]),
    "500 in a file": ("PUT /lfs/object", "500", ["trouble of its own", "run again"]),
    "cut in a file": ("PUT /lfs/object", "cut", ["no connection", "try again"]),
    "cut in the commit": ("/commit/", "cut", ["no connection", "try again"]),
    "no connection": (".", "cut", ["no connection", "127.0.0.1"]),
}


@pytest.mark.parametrize("case", STAYING, ids=str)
def test_what_stays_leaves_nothing_and_the_next_run_publishes(server: HubServer, folder: Path, case: str) -> None:
    request, action, words = STAYING[case]
    server.state.faults = [Fault(request, action, times=1000)]
    failed = upload(server, folder)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    message = failed.stderr.splitlines()[-1]
    assert message.startswith("repo_id: ") and [word for word in words if word not in message] == []
    assert_nothing_published(server)
    server.state.faults = []
    assert upload(server, folder).returncode == 0
    assert published(server) == whole(folder) and commits(server) == ["Erase star, abc"]


@pytest.mark.parametrize("request_of", ["PUT /lfs/object", "/commit/"])
def test_a_killed_upload_leaves_nothing_and_the_next_run_publishes(
    server: HubServer, folder: Path, request_of: str
) -> None:
    server.state.faults = [Fault(request_of, "cut", times=1000)]
    arguments = [str(folder), json.dumps(FILES), json.dumps({"repo_id": REPO})]
    code = client_killed(server, folder.parent, UPLOAD, *arguments, when=lambda: server.state.count(request_of) > 0)
    assert code == -signal.SIGKILL
    assert_nothing_published(server)
    server.state.faults = []
    assert upload(server, folder).returncode == 0 and published(server) == whole(folder)


def test_what_is_uploaded_is_not_sent_again(server: HubServer, folder: Path) -> None:
    server.state.faults = [Fault("/commit/", "403")]
    assert upload(server, folder).returncode == 1
    sent = server.state.count("PUT /lfs/object")
    assert sent == 2 and upload(server, folder).returncode == 0
    assert server.state.count("PUT /lfs/object") == sent


def test_the_same_files_again_make_no_commit(server: HubServer, folder: Path) -> None:
    first, second = upload(server, folder), upload(server, folder)
    assert json.loads(first.stdout)["commit"] == json.loads(second.stdout)["commit"] and len(commits(server)) == 1


def test_a_token_shows_nowhere(server: HubServer, folder: Path) -> None:
    """Not even when the Hub's own message says it."""
    server.state.faults = [Fault("/commit/", "403", message=f"the token {TOKEN} is too weak")]
    failed = upload(server, folder)
    assert "[token] is too weak" in failed.stderr and TOKEN not in failed.stderr + failed.stdout
    server.state.faults = [Fault("/commit/", "500", times=2, message=f"Bearer {TOKEN}")]
    done = upload(server, folder)
    assert done.returncode == 0 and TOKEN not in done.stderr + done.stdout
    assert all(TOKEN.encode() not in content for content in published(server).values())


def test_a_private_repository_is_made_private_and_a_public_one_is_refused(server: HubServer, folder: Path) -> None:
    assert upload(server, folder, private=True).returncode == 0 and server.state.repos[REPO].private
    server.state.repos[REPO].private = False
    refused = upload(server, folder, private=True)
    assert refused.returncode == 1 and "is there and public" in refused.stderr and len(commits(server)) == 1


def test_a_repository_of_others_is_asked_by_a_pull_request(server: HubServer, folder: Path) -> None:
    server.state.create(REPO, False, TOKEN)
    refused = upload(server, folder, token="hf_other00000")
    assert refused.returncode == 1 and "--create_pr" in refused.stderr and server.state.count("PUT") == 0
    server.state.faults = [Fault("/commit/", "lose")]
    made = json.loads(upload(server, folder, token="hf_other00000", create_pr=True).stdout)
    assert made["pull_request"] == f"{server.url}/{REPO}/discussions/1"
    assert published(server) == {} and published(server, "refs/pr/1") == whole(folder)
    again = json.loads(upload(server, folder, token="hf_other00000", create_pr=True).stdout)
    assert again == made and len(server.state.repos[REPO].pulls) == 1


def test_a_branch_is_made_and_main_stays(server: HubServer, folder: Path) -> None:
    assert upload(server, folder, revision="second/try").returncode == 0
    assert published(server) == {} and published(server, "second/try") == whole(folder)


def test_files_of_another_publication_are_refused_or_replaced(server: HubServer, folder: Path) -> None:
    server.state.create(REPO, False, TOKEN)
    head = server.state.repos[REPO].at("main")
    server.state.repos[REPO].add("main", head.oid, "older", {**head.files, "model_index.json": b"{}"})
    refused = upload(server, folder)
    assert refused.returncode == 1 and "model_index.json" in refused.stderr and "--replace" in refused.stderr
    assert published(server) == {"model_index.json": b"{}"}
    assert upload(server, folder, replace=True).returncode == 0 and published(server) == whole(folder)


RIGHTS = {
    "no token": (None, REPO, ["no access token", "hf auth login"]),
    "an unknown token": ("hf_expired000000", REPO, ["does not know this access token", "hf auth login"]),
    "a token that only reads": ("hf_reader0000000000", REPO, ["may not write to me"]),
    "another's name": (TOKEN, "you/model", ["may not write to you", "me/NAME"]),
}


@pytest.mark.parametrize("case", RIGHTS, ids=str)
def test_the_right_to_write_is_looked_at_first(server: HubServer, folder: Path, case: str) -> None:
    token, repo, words = RIGHTS[case]
    failed = upload(server, folder, token=token, repo_id=repo)
    assert failed.returncode == 1 and [word for word in words if word not in failed.stderr] == []
    assert server.state.repos == {} and server.state.count("POST|PUT") == 0
    assert (token or "hf_") not in failed.stderr


def test_an_organization_is_written_to_by_its_members(server: HubServer, folder: Path) -> None:
    assert upload(server, folder, repo_id="lab/model").returncode == 0
    assert published(server, repo="lab/model") == whole(folder)


def test_offline_is_said(server: HubServer, folder: Path) -> None:
    arguments = [str(folder), json.dumps(FILES), json.dumps({"repo_id": REPO})]
    failed = client(server, folder.parent, UPLOAD, *arguments, HF_HUB_OFFLINE="1")
    assert failed.returncode == 1 and "HF_HUB_OFFLINE" in failed.stderr and "--local_dir" in failed.stderr


@pytest.mark.parametrize("file", ["theirs.json", "results.json"])
def test_a_commit_that_another_made_meanwhile_is_not_buried(server: HubServer, folder: Path, file: str) -> None:
    """It comes after the head was read, and before our commit is worked on: of another file, or of one of ours."""
    assert upload(server, folder).returncode == 0
    repo = server.state.repos[REPO]
    (folder / "results.json").write_text('{"new": 1}\n')

    def other() -> None:
        head = repo.at("main")
        repo.add("main", head.oid, "theirs", {**head.files, file: b"[]\n"})

    server.state.faults = [Fault("/commit/", "first", work=other)]
    done = upload(server, folder)
    assert done.returncode == 1 and "changed by somebody else meanwhile" in done.stderr
    assert repo.at("main").message == "theirs" and repo.at("main").files[file] == b"[]\n"
