"""Reads a run's settings: a YAML file, any key overridden on the command line, all mistakes reported at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from erase.errors import UserError

SECRET = re.compile("token|password|secret|api_?key", re.IGNORECASE)
"""Keys whose value no message repeats: none is a setting of ours."""

Settings = TypeVar("Settings")
Tree = dict[str, Any]


def load(cls: type[Settings], file: Path | None, overrides: Iterable[str] = ()) -> Settings:
    """The settings of a file and of overrides such as ``update.mode=exact``, validated as ``cls``."""
    tree = _with_names(read_yaml(file) if file else {}, TypeAdapter(cls).json_schema())
    return build(cls, merge(tree, overrides))


def read_yaml(file: Path) -> Tree:
    """A YAML mapping as plain Python; numbers such as 1e-4 are numbers, a repeated key is an error."""
    try:
        loaded = OmegaConf.load(file)
    except FileNotFoundError:
        raise UserError(f"--config {file}: there is no such file") from None
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {file}: cannot be read as YAML: {error}") from None
    tree = OmegaConf.to_container(loaded)
    if not isinstance(tree, dict):
        raise UserError(f"--config {file}: must hold a mapping of keys to values, found a {type(tree).__name__}")
    return {str(key): value for key, value in tree.items()}


def merge(tree: Tree, overrides: Iterable[str]) -> Tree:
    """Sets each ``dotted.key=value`` in the tree.

    Where an override chooses another component (``update.name=weighted_sum``), the file's keys of the one
    before are dropped: they belong to it.
    """
    pairs = [split(override) for override in overrides]
    try:
        config = OmegaConf.create(tree)
        _drop_former_components(config, pairs)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise UserError(f"the configuration cannot be changed as asked: {error}") from None
    for key, value in pairs:
        try:
            OmegaConf.update(config, key, value, merge=False)
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise UserError(f"--{key}: cannot be set to {value!r}: {error}") from None
    merged = OmegaConf.to_container(config)
    return {str(key): value for key, value in merged.items()} if isinstance(merged, dict) else {}


def _drop_former_components(config: Any, pairs: Sequence[tuple[str, Any]]) -> None:
    for key, value in pairs:
        if key.endswith(".name") and OmegaConf.select(config, key) not in (None, value):
            OmegaConf.update(config, key.removesuffix(".name"), {"name": value}, merge=False)


def split(override: str) -> tuple[str, Any]:
    """``key=value`` as the key and the value that YAML reads there."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"{override!r} is not KEY=VALUE")
    if " #" in text and text.lstrip()[0] not in "'\"[{":
        return key, text
    try:
        value = OmegaConf.create(f"value: {text}") if text else OmegaConf.create({"value": ""})
        plain = OmegaConf.to_container(value)
    except (YAMLError, OmegaConfBaseException):
        return key, text
    return key, plain["value"] if isinstance(plain, dict) else text


def build(cls: type[Settings], tree: Mapping[str, Any]) -> Settings:
    """``cls`` from a tree; a :class:`UserError` names every wrong key, its value and what is allowed."""
    adapter = TypeAdapter(cls)
    tree = _with_names(tree, adapter.json_schema())
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        known = keys(cls)
        raise UserError(*(_explain(problem, tree, known) for problem in error.errors())) from None


def _with_names(tree: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> Any:
    """A block without a ``name`` is the default choice with other values: the default's name is filled in."""
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    if "$ref" in schema:
        schema = {**schema, **definitions[schema["$ref"].rsplit("/", 1)[-1]]}
    if not isinstance(tree, Mapping):
        return tree
    tree = dict(tree)
    if "discriminator" in schema:
        if "name" not in tree and isinstance(schema.get("default"), Mapping):
            tree["name"] = schema["default"]["name"]
        name = tree.get("name")
        chosen = schema["discriminator"]["mapping"].get(name) if isinstance(name, str) else None
        return tree if chosen is None else _with_names(tree, {"$ref": chosen}, definitions)
    known = schema.get("properties", {})
    return {key: _with_names(value, known.get(key, {}), definitions) for key, value in tree.items()}


def keys(cls: type) -> set[str]:
    """The name of every key that ``cls`` or a component in it knows."""
    schema = TypeAdapter(cls).json_schema()
    objects = [schema, *schema.get("$defs", {}).values()]
    return {key for definition in objects for key in definition.get("properties", {})}


def dump(settings: object) -> Tree:
    """Settings as plain Python, every default filled in: :func:`build` gives them back."""
    return TypeAdapter(type(settings)).dump_python(settings, mode="json")


def differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: left, now right`` for each leaf that differs between two trees."""
    found = []
    for key in sorted({*left, *right}):
        a, b, name = left.get(key), right.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{name}.")
        elif a != b:
            found.append(f"{name}: {a!r} then, {b!r} now")
    return found


def _explain(problem: Mapping[str, Any], tree: Mapping[str, Any], known: set[str]) -> str:
    """One mistake in words; the location's parts that name a variant of a choice are left out."""
    location = _location(problem["loc"], tree)
    key, found, kind = ".".join(location) or "the configuration", problem["input"], problem["type"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        close = difflib.get_close_matches(location[-1], known - {location[-1]}, 1)
        value = "" if SECRET.search(location[-1]) else f" (value {found!r})"
        return f"{key}: unknown key{value}; {f'did you mean {close[0]}?' if close else '`--help` lists all'}"
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        allowed = context["expected_tags"].replace("'", "")
        return f"{key}.name: found {context['tag']!r}; known: {allowed}"
    if kind == "union_tag_not_found":
        return f"{key}: needs a `name` key that says which one; found {found!r}"
    if kind == "missing":
        return f"{key}: must be given; `--help` says what it means"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: found {found!r}; {message if kind == 'value_error' else message[:1].lower() + message[1:]}"


def _location(parts: Sequence[str | int], tree: object) -> list[str]:
    """The key's path in the tree: pydantic adds a choice's name, which is no key of the user's."""
    path: list[str] = []
    for index, part in enumerate(parts):
        here = (isinstance(tree, Mapping) and part in tree) or (isinstance(tree, list) and isinstance(part, int))
        names_choice = isinstance(tree, Mapping) and tree.get("name") == part
        if here or (index == len(parts) - 1 and not names_choice):
            path.append(str(part))
            tree = tree[part] if here else None  # type: ignore[index]
    return path
