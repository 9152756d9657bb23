"""What must not leave this machine: access tokens, local paths, user names."""

from __future__ import annotations

import getpass
import os.path
import re
from pathlib import Path
from typing import Any

from huggingface_hub import get_token

from erase.errors import HIDDEN, TOKEN

LOCAL = re.compile(r"(?:(?<![\w./~@$}-])|(?<=file://))(?:~[\w.-]*|\.\.)?(?:/[^\s/\"'`,;:|<>()\[\]{}=]+)+/?")
"""A path from the root, from a home or upwards; ``owner/name``, ``a/b.png`` and addresses are none."""
QUOTED = re.compile(r"(?<![\w\"'])(['\"])((?:~[\w.-]*|\.\.)?/[^'\"\n]+)\1")
"""A path between quotes, as a command line has one with spaces in it."""
PLACE = "path/to"
OPTION = re.compile(r"(--[\w.-]+=)(.+)", re.DOTALL)
"""An entry of a command's list whose value, with all its spaces, follows the key."""
PUBLIC = re.compile(r"(https?://\S+|(?<![^\s\"'=,(\[{])\w[\w.-]*/\w[\w.-]*(?![^\s\"',)\]}]))")
"""An address, or a word that may be the Hub's ``owner/name``."""
WHOLE = re.compile(r"(?:~[\w.-]*|\.\.)?/.+", re.DOTALL)


def without_token(text: str) -> str:
    """The text with every access token blotted out: the one in use, and what looks like one."""
    token = get_token()
    return TOKEN.sub(HIDDEN, text.replace(token, HIDDEN) if token else text)


def scrub(text: str) -> str:
    """The text without tokens, and with ``path/to/NAME`` for each path of this machine."""
    text = without_token(text)
    if option := OPTION.fullmatch(text):
        return option[1] + scrub(option[2])
    if "\n" not in text and WHOLE.fullmatch(text) and not text.startswith("//"):
        return _place(text)  # a path with spaces in it, too
    text = QUOTED.sub(lambda found: f"{found[1]}{_place(found[2])}{found[1]}", text)
    text = LOCAL.sub(lambda found: _place(found[0]), text)
    parts = PUBLIC.split(text)
    parts[::2] = map(_without_names, parts[::2])
    parts[1::2] = (_without_names(part) if os.path.exists(part) else part for part in parts[1::2])
    return "".join(parts)


def scrub_tree(value: Any) -> Any:
    """Plain data with every string scrubbed, keys too."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub_tree(key): scrub_tree(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_tree(entry) for entry in value]
    return value


def leaks(text: str) -> list[str]:
    """What a text still says of this machine: the kinds of it, not the words."""
    found = ["an access token"] if without_token(text) != text else []
    places = {str(place) for place in (Path.home(), Path.cwd()) if len(place.parts) > 2}
    if any(place in text for place in places):
        found.append("a path of this machine")
    if any(re.search(rf"[/\\]{re.escape(name)}[/\\]", text) for name in user_names()):
        found.append("the user's name")
    return found


def user_names() -> list[str]:
    """Names of the user that say who it is."""
    try:
        names = {getpass.getuser(), Path.home().name}
    except (KeyError, OSError, RuntimeError):
        return []
    return sorted(name for name in names if len(name) > 1 and name not in ("root", "user", "home"))


def _without_names(text: str) -> str:
    """The text with ``user`` for each name of the user that stands in a path."""
    for name in user_names():
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?=[/\\@])|(?<=[/\\~]){re.escape(name)}(?![\w.-])", "user", text)
    return text


def _place(path: str) -> str:
    name = Path(path).name
    return f"{PLACE}/{name}" if name and name not in (*user_names(), "..") and name[0] != "~" else f"{PLACE}/folder"
