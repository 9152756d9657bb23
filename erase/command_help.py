"""`--help`: every key with its meaning, range and default, read from the settings' own declarations."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from pydantic import TypeAdapter
from pydantic.dataclasses import is_pydantic_dataclass

from erase.config import Schema, resolve, variants

BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
MEANINGS = {"dry_run": "checks everything and says what would be done; does nothing and writes nothing"}
"""Of the flags."""


def describe_settings(
    name: str, settings: type, flags: Sequence[str], config: str = "a YAML file of the keys below", see: str = ""
) -> str:
    """The help text of a command: what it does, ``--config``, the flags, what else to ``see``, and every key."""
    schema = {**TypeAdapter(settings).json_schema()}
    schema["properties"] = _with_inherited_meanings(settings, schema["properties"])
    summary = (settings.__doc__ or "").strip().splitlines()[0].replace("``", "`")
    head = [
        f"erase {name} --config FILE [--KEY VALUE ...]",
        f"\n{summary}",
        *([see] if see else []),
        "\nEvery key stands in the YAML file or on the command line, where a nested one is written with dots, and the",
        "entries of a list with numbers from 0. Where one of several choices is asked for, its name alone will do.",
        "  --config  path",
        *_meaning(config),
    ]
    for flag in flags:
        head += [f"  --{flag}", *_meaning(MEANINGS[flag])]
    return "\n".join([*head, "", *_keys(schema, schema.get("$defs", {}), "")])


def _meaning(text: str) -> list[str]:
    return [textwrap.indent(textwrap.fill(text, 100), " " * 8)]


def _with_inherited_meanings(settings: type, properties: Schema) -> Schema:
    """The keys with their descriptions: those of a base class are declared there."""
    bases = [base for base in settings.__mro__[1:] if is_pydantic_dataclass(base)]
    declared = [TypeAdapter(base).json_schema()["properties"] for base in bases]
    meanings = {key: value["description"] for keys in declared for key, value in keys.items() if "description" in value}
    return {
        key: {"description": meanings[key], **value} if key in meanings else value for key, value in properties.items()
    }


def _keys(schema: Schema, definitions: Schema, prefix: str) -> Iterator[str]:
    required = schema.get("required", [])
    for key, declared in schema.get("properties", {}).items():
        resolved = resolve(declared, definitions)
        default = f", default {_default(declared)}" if "default" in declared else ""
        default = ", must be given" if key in required else default
        yield f"  --{prefix}{key}  {_kind(resolved, definitions)}{default}"
        if "description" in declared:
            yield from _meaning(declared["description"])
        yield from _inside(resolved, definitions, f"{prefix}{key}.")


def _inside(schema: Schema, definitions: Schema, prefix: str) -> Iterator[str]:
    """The keys of a nested block, of each variant of a choice, or of a list's entries."""
    if "properties" in schema:
        yield from _keys(schema, definitions, prefix)
    for name, choice in variants(schema).items():
        variant = resolve(choice, definitions)
        rest = {key: value for key, value in variant["properties"].items() if key != "name"}
        yield f"    {prefix}name={name}: {variant.get('description', '').splitlines()[0]}"
        yield from _keys({**variant, "properties": rest}, definitions, prefix)
    for part in schema.get("anyOf", ()):
        yield from _inside(resolve(part, definitions), definitions, prefix)
    entries = schema.get("items")
    if isinstance(entries, Mapping):
        yield from _inside(resolve(entries, definitions), definitions, f"{prefix}0.")


def _kind(schema: Schema, definitions: Schema) -> str:
    if "discriminator" in schema:
        return "choice: " + " | ".join(variants(schema))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(_kind(resolve(part, definitions), definitions) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return "list"
    limits = [f"{sign} {schema[bound]:g}" for bound, sign in BOUNDS if bound in schema]
    kind = {"object": "block", "null": "none"}.get(schema.get("type", ""), schema.get("format") or schema.get("type"))
    return " ".join([str(kind), *limits])


def _default(declared: Schema) -> str:
    default = declared["default"]
    if isinstance(default, Mapping):
        return str(default.get("name", "as below"))
    return json.dumps(default)
