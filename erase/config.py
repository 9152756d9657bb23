"""Reads a run's settings: a YAML file, any key overridden on the command line, all mistakes reported at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from erase.errors import UserError

SECRET = re.compile("token|password|secret|api_?key", re.IGNORECASE)
"""Keys whose value no message repeats: none is a setting of ours."""

KIND = re.compile(r"[a-z]+\[.*\]$")
"""What pydantic calls the kinds of value that a key may have, such as `tuple[str, ...]`: no key of the user's."""
Settings = TypeVar("Settings")
Tree = dict[str, Any]
Schema = Mapping[str, Any]
SCHEMAS: dict[type, Schema] = {}
"""Of the classes that were asked for."""


def schema_of(cls: type[Any]) -> Schema:
    """What keys a class has, as JSON Schema; made once, for that takes longer than to read a file by it."""
    if cls not in SCHEMAS:
        SCHEMAS[cls] = TypeAdapter(cls).json_schema()
    return SCHEMAS[cls]


def load(cls: type[Settings], file: Path | None, overrides: Iterable[str] = ()) -> Settings:
    """The settings of a file and of overrides such as ``update.mode=exact``, validated as ``cls``.

    ``update=weighted_sum`` is short for ``update.name=weighted_sum``.
    """
    schema = schema_of(cls)
    tree = _in_full(read_yaml(file) if file else {}, schema)
    return build(cls, merge(tree, [_by_name(override, schema) for override in overrides]))


def read_yaml(file: Path, key: str = "--config") -> Tree:
    """A YAML mapping as plain Python; numbers such as 1e-4 are numbers, a repeated key is an error.

    ``key`` is the setting that names the file, for messages.
    """
    try:
        loaded = OmegaConf.load(file)
    except FileNotFoundError:
        raise UserError(f"{key} {file}: there is no such file") from None
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key} {file}: cannot be read as YAML: {error}") from None
    tree = OmegaConf.to_container(loaded)
    if not isinstance(tree, dict):
        raise UserError(f"{key} {file}: must hold a mapping of keys to values, found a {type(tree).__name__}")
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
            _make_room(config, key)
            OmegaConf.update(config, key, value, merge=False)
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            raise UserError(f"--{key}: cannot be set to {value!r}: {error}") from None
    merged = OmegaConf.to_container(config)
    return {str(key): value for key, value in merged.items()} if isinstance(merged, dict) else {}


def _drop_former_components(config: Any, pairs: Sequence[tuple[str, Any]]) -> None:
    for key, value in pairs:
        if key.endswith(".name") and OmegaConf.select(config, key) not in (None, value):
            OmegaConf.update(config, key.removesuffix(".name"), {"name": value}, merge=False)


def _make_room(config: Any, key: str) -> None:
    """Adds an entry to a list where a key names the one after its last."""
    for part in key.split("."):
        if isinstance(config, ListConfig) and part.isdecimal():
            if int(part) > len(config):
                raise UserError(f"--{key}: the list has {len(config)} entries, so the next one is {len(config)}")
            if int(part) == len(config):
                config.append({})
            config = config[int(part)]
        else:
            config = config.get(part) if isinstance(config, DictConfig) else None


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
    adapter, schema = TypeAdapter(cls), schema_of(cls)
    tree = _in_full(tree, schema)
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        raise UserError(*(_explain(problem, tree, schema) for problem in _roots(error.errors()))) from None


def _roots(problems: Sequence[Any]) -> list[Any]:
    """Without lists that are too short because an entry of theirs is wrong."""
    places = [problem["loc"] for problem in problems]
    return [p for p in problems if p["type"] != "too_short" or not any(_lies_in(place, p["loc"]) for place in places)]


def _lies_in(place: Sequence[str | int], block: Sequence[str | int]) -> bool:
    return len(place) > len(block) and place[: len(block)] == block


def resolve(schema: Schema, definitions: Schema) -> Schema:
    """What a schema says, with what it refers to."""
    return {**schema, **definitions[schema["$ref"].rsplit("/", 1)[-1]]} if "$ref" in schema else schema


def variants(schema: Schema) -> dict[str, Schema]:
    """The choices that a ``name`` selects from."""
    return {name: {"$ref": place} for name, place in schema.get("discriminator", {}).get("mapping", {}).items()}


def _in_full(tree: Any, schema: Schema, definitions: Schema | None = None) -> Any:
    """The tree without the short ways of saying things.

    A bare word stands for the choice of that name; a block without a ``name`` is the default choice with other values;
    a block of indices from 0, which the command line makes of ``targets.0.concept``, is a list.
    """
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    schema = resolve(schema, definitions)
    for part in schema.get("anyOf", ()):
        tree = _in_full(tree, part, definitions)
    if "items" in schema:
        entries = _entries(tree)
        return [_in_full(entry, schema["items"], definitions) for entry in entries] if entries is not None else tree
    choices = variants(schema)
    if choices and isinstance(tree, str):
        tree = {"name": tree}
    if not isinstance(tree, Mapping):
        return tree
    if choices and "name" not in tree and isinstance(schema.get("default"), Mapping):
        tree = {"name": schema["default"]["name"], **tree}
    name = tree.get("name")
    known = resolve(choices.get(name, {}) if isinstance(name, str) else {}, definitions) if choices else schema
    inside = known.get("properties", {})
    return {key: _in_full(value, inside.get(key, {}), definitions) for key, value in tree.items()}


def _entries(tree: Any) -> list[Any] | None:
    """A list, or what stands under its indices; ``None`` of anything else."""
    if isinstance(tree, list | tuple):
        return list(tree)
    indices = [str(index) for index in range(len(tree))] if isinstance(tree, Mapping) else []
    named = {str(key): value for key, value in tree.items()} if indices else {}
    return [named[index] for index in indices] if indices and named.keys() == set(indices) else None


def _at(path: Sequence[str], schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """What may stand at a key, whichever choices are made on the way to it."""
    schema = resolve(schema, definitions)
    parts = [*schema.get("anyOf", ())]
    if path:
        key, *rest = path
        inside = schema.get("properties", {}).get(key, schema.get("items", {}) if key.isdecimal() else {})
        parts += variants(schema).values()
        if inside:
            yield from _at(rest, inside, definitions)
    else:
        yield schema
    for part in parts:
        yield from _at(path, part, definitions)


def _by_name(override: str, schema: Schema) -> str:
    """An override that gives a choice's bare name, with its ``.name`` added; any other as it is."""
    key, value = split(override)
    places = _at(key.split("."), schema, schema.get("$defs", {})) if isinstance(value, str) else ()
    return override.replace("=", ".name=", 1) if any(map(variants, places)) else override


def keys(cls: type) -> set[str]:
    """The name of every key that ``cls`` or a component in it knows."""
    return _keys(schema_of(cls))


def _keys(schema: Schema) -> set[str]:
    return {key for part in (schema, *schema.get("$defs", {}).values()) for key in part.get("properties", {})}


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


def _explain(problem: Mapping[str, Any], tree: Mapping[str, Any], schema: Schema) -> str:
    """One mistake in words; the location's parts that name a variant of a choice are left out."""
    location = _location(problem["loc"], tree)
    key, found, kind = ".".join(location) or "the configuration", problem["input"], problem["type"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        value = "" if SECRET.search(location[-1]) else f" (value {found!r})"
        return f"{key}: unknown key{value}; {_suggestion(location, problem['loc'], schema)}"
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        allowed = context["expected_tags"].replace("'", "")
        return f"{key}.name: found {context['tag']!r}; known: {allowed}"
    if kind == "union_tag_not_found":
        return f"{key}: needs a `name` key that says which one; found {found!r}"
    if kind == "missing":
        return f"{key}: must be given; `--help` says what it means"
    if kind in ("tuple_type", "list_type") and isinstance(found, Mapping):
        return f"{key}: found {found!r}; must be a list, or its entries one by one: {key}.0, {key}.1, without gaps"
    if kind in ("tuple_type", "list_type"):
        return f"{key}: found {found!r}; must be a list, such as [{found}]"
    if kind == "string_type" and isinstance(found, bool | int | float):
        return f"{key}: found {found!r}, as YAML reads it; must be text: put it between quotes"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: found {found!r}; {message if kind == 'value_error' else message[:1].lower() + message[1:]}"


def _suggestion(location: Sequence[str], parts: Sequence[str | int], schema: Schema) -> str:
    """What is known in place of a key: the choices that have it, or one that is written alike."""
    *block, last = location
    definitions = schema.get("$defs", {})
    choices = [choice for place in _at(block, schema, definitions) for choice in variants(place).items()]
    owners = [name for name, choice in choices if last in resolve(choice, definitions)["properties"]]
    if owners:
        return f"{'.'.join(block)}.name {parts[-2]} has none; it belongs to {', '.join(dict.fromkeys(owners))}"
    close = difflib.get_close_matches(last, _keys(schema) - {last}, 1)
    return f"did you mean {close[0]}?" if close else "`--help` lists all"


def _location(parts: Sequence[str | int], tree: object) -> list[str]:
    """The key's path in the tree: pydantic adds a choice's name, which is no key of the user's."""
    path: list[str] = []
    for index, part in enumerate(parts):
        here = (isinstance(tree, Mapping) and part in tree) or (isinstance(tree, list) and isinstance(part, int))
        names_choice = isinstance(tree, Mapping) and tree.get("name") == part
        if here or (index == len(parts) - 1 and not names_choice and not KIND.match(str(part))):
            path.append(str(part))
            tree = tree[part] if here else None  # type: ignore[index]
    return path
