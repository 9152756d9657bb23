"""Uploads a folder to the Hub: all of it in one commit, or none of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from erase.errors import UserError
from erase.publication.destination import Destination, Published, check_destination, check_names, may_write
from erase.publication.privacy import without_token

WAITS = (1.0, 4.0, 16.0, 60.0)
"""Seconds before each further try; the client itself tries each large file several times before."""
PATIENCE = 120.0
"""Seconds without a sign of life, after which a request is given up and made again."""
LONGEST = 300.0
"""Seconds that are waited at the Hub's own request."""
PASSING = (408, 409, 429, 500, 502, 503, 504)
"""Answers that may be others the next time. 409: somebody commits at this moment, perhaps an earlier try of ours. Not
412: somebody has committed since the upload began."""
KEPT = (".gitattributes",)
"""Files of a repository that are the Hub's own."""
AGAIN = "what is uploaded already is not sent again"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
Result = TypeVar("Result")
Failure = (HfHubHTTPError, httpx2.TransportError, OSError, RuntimeError, ValueError, LookupError)


def check_write_access(to: Destination) -> str:
    """The user's name; refuses a destination that could not be written to. Makes nothing."""
    check_destination(to)
    return persist(to, lambda: _check_write_access(HfApi(library_name="erase"), to))


def _check_write_access(api: HfApi, to: Destination) -> str:
    who = api.whoami()
    if to.create_pr:
        api.auth_check(to.repo_id)
        return str(who["name"])
    try:
        api.auth_check(to.repo_id, write=True)
    except RepositoryNotFoundError:
        if not may_write(who, to):
            remedy = f"give a token with the right to write there, or a repo_id of your own, {who['name']}/NAME"
            raise UserError(f"repo_id: the token of {who['name']} may not write to {to.owner}; {remedy}") from None
    return str(who["name"])


def upload(folder: Path, names: Sequence[str], to: Destination, summary: str) -> Published:
    """Puts files of a folder into one commit, or into one pull request.

    Until that commit the branch stays as it was. A repository or a branch that had to be made for it stays, without
    the files, if the upload fails; running again goes on from there.

    Raises:
        UserError: with what went wrong and what to do; never with the token.
    """
    check_names(folder, list(names))
    user = check_write_access(to)
    api = HfApi(library_name="erase")
    persist(to, lambda: _open(api, to))
    parent = persist(to, lambda: api.model_info(to.repo_id, revision=to.revision).sha)
    return persist(to, lambda: _commit(api, folder, names, to, summary, user, parent))


def _open(api: HfApi, to: Destination) -> None:
    """The repository and the branch are there afterwards."""
    if not to.create_pr:
        api.create_repo(to.repo_id, private=to.private or None, exist_ok=True)
        if to.revision not in (None, "main"):
            api.create_branch(to.repo_id, branch=to.revision, exist_ok=True)
    if to.private and not api.model_info(to.repo_id).private:
        raise UserError(f"private: {to.repo_id} is there and public; make it private in its settings, or leave it out")


def _commit(
    api: HfApi, folder: Path, names: Sequence[str], to: Destination, summary: str, user: str, parent: str | None
) -> Published:
    """One try, on what the branch was when the upload began: a commit of somebody else since then is not buried.

    If an earlier try succeeded unheard, nothing is left to change, and its commit is found.
    """
    if to.create_pr and (found := _pull_request(api, to, summary, user)):
        return found
    head = api.model_info(to.repo_id, revision=to.revision)
    others = sorted({file.rfilename for file in head.siblings or ()} - {*names, *KEPT})
    if others and not to.replace:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        remedy = "--replace takes them out in the same commit (its history keeps them), or give another repo_id"
        raise UserError(f"repo_id: {to.repo_id} holds files that are no part of this publication: {shown}; {remedy}")
    operations = [CommitOperationDelete(name) for name in others]
    made = api.create_commit(
        to.repo_id,
        [*operations, *(CommitOperationAdd(name, folder / name) for name in names)],
        commit_message=summary,
        revision=to.revision,
        create_pr=to.create_pr,
        parent_commit=parent,
    )
    published = Published(to.repo_id, str(made.oid), str(made.commit_url), made.pr_url)
    _check_whole(api, names, published)
    return published


def _pull_request(api: HfApi, to: Destination, summary: str, user: str) -> Published | None:
    """The open pull request of these very files, which their hash in the summary tells."""
    found = api.get_repo_discussions(to.repo_id, author=user, discussion_type="pull_request", discussion_status="open")
    for pull in found:
        if pull.title == summary:
            made = api.model_info(to.repo_id, revision=pull.git_reference)
            return Published(to.repo_id, str(made.sha), f"{pull.endpoint}/{to.repo_id}/commit/{made.sha}", pull.url)
    return None


def _check_whole(api: HfApi, names: Sequence[str], made: Published) -> None:
    """Refuses a commit that lacks a file, such as one that the repository's .gitignore names."""
    there = {file.rfilename for file in api.model_info(made.repo_id, revision=made.commit).siblings or ()}
    missing = sorted(set(names) - there)
    if missing:
        raise UserError(f"{made.repo_id}: the Hub left out {missing[0]}; look for it in the repository's .gitignore")


def persist(to: Destination, work: Callable[[], Result]) -> Result:
    """Does the work, again after failures that may pass: no connection, no answer, 429, 5xx."""
    for wait in (*WAITS, None):
        try:
            get_session().timeout = PATIENCE
            return work()
        except Failure as error:
            cause = _cause(error)
            if wait is None or not _may_pass(cause):
                raise UserError(without_token(_explain(cause, to))) from None
            time.sleep(max(wait, _asked_wait(cause)))
    raise UserError(f"{to.repo_id}: was not tried")


def _cause(error: BaseException) -> BaseException:
    """The error of the connection or of the Hub inside of others."""
    inside: BaseException | None = error
    while inside is not None:
        if isinstance(inside, HfHubHTTPError | httpx2.TransportError | OfflineModeIsEnabled):
            return inside
        inside = inside.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _may_pass(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in PASSING
    return isinstance(error, httpx2.TransportError | JSONDecodeError | RuntimeError)


def _asked_wait(error: BaseException) -> float:
    """Seconds that the Hub asks to wait; 0 if it does not."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(LONGEST, float(asked)) if asked.isdigit() else 0.0


def _explain(error: BaseException, to: Destination) -> str:
    """What went wrong, and what to do about it."""
    status, said = _status(error), _said(error)
    if isinstance(error, LocalTokenNotFoundError):
        return f"repo_id: no access token on this machine; {LOG_IN}"
    if isinstance(error, OfflineModeIsEnabled):
        return "repo_id: HF_HUB_OFFLINE is set, so nothing is uploaded; unset it, or write to a --local_dir"
    if isinstance(error, RevisionNotFoundError):
        return f"revision: {to.repo_id} has no {to.revision or 'main'} ({said}); give a branch that it has"
    if isinstance(error, RepositoryNotFoundError):
        return f"repo_id: {to.repo_id} is not there, or this token may not see it ({said}); check the name, or {LOG_IN}"
    if isinstance(error, httpx2.TransportError):
        return f"repo_id: no connection to {constants.ENDPOINT} ({said}); try again: {AGAIN}"
    if status is None:
        return f"repo_id: the upload to {to.repo_id} failed: {said}"
    return f"repo_id: {_meaning(status, to)} ({said})"


def _meaning(status: int, to: Destination) -> str:
    """An answer of the Hub in words, with the remedy."""
    if status == 401:
        return f"the Hub does not know this access token: it may have expired; {LOG_IN} to a valid one"
    if status == 403:
        return (
            f"this access token may not write to {to.repo_id}; give one with the right to write to {to.owner}, "
            "another repo_id, or --create_pr to ask its owner"
        )
    if status in (409, 412):
        return f"{to.repo_id} was changed by somebody else meanwhile; nothing of it was overwritten; run again"
    if status == 429:
        return f"the Hub asks for fewer requests; wait some minutes and run again: {AGAIN}"
    if status >= 500:
        return f"the Hub has trouble of its own, {status}; run again later: {AGAIN}"
    return f"the Hub refused the upload, {status}"


def _said(error: BaseException) -> str:
    """The error's own words in a line."""
    words: Any = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())
