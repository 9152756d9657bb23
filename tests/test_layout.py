"""The house rules: sizes, floors, names, tables and what the wheel holds, read from the sources alone."""

from __future__ import annotations

import ast
import importlib.metadata
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools import find_packages

from erase.classification import losses as classifier_losses
from erase.classification.data import DATA
from erase.classification.forget_sets import FORGET
from erase.classification.masks import MASKS
from erase.classification.starts import STARTS
from erase.diffusion.losses import FORGET_LOSSES, RETAIN_LOSSES
from erase.parameters import PARAMETERS
from erase.updates import UPDATES

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LAYERS: list[str] = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
"""The floors, highest first: the table that import-linter reads."""
PACKAGE = sorted((ROOT / "erase").rglob("*.py"))
SOURCES = [*PACKAGE, *sorted((ROOT / "pipelines").rglob("*.py"))]
MAX_FILE, MAX_FUNCTION, REPEATED = 300, 40, 6
TABLES: dict[str, dict[str, Any]] = {
    "update": UPDATES,
    "parameters": PARAMETERS,
    "forget_loss": FORGET_LOSSES,
    "retain_loss": RETAIN_LOSSES,
    "classifier forget_loss": classifier_losses.FORGET_LOSSES,
    "classifier retain_loss": classifier_losses.RETAIN_LOSSES,
    "start": STARTS,
    "mask": MASKS,
    "data": DATA,
    "forget": FORGET,
}
"""The key of a config, after the domain where two have it, and the closed table that its `name` selects from."""
ENTRIES = [(key, name) for key, table in TABLES.items() for name in table]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def nodes(files: list[Path]) -> Iterator[tuple[Path, ast.AST]]:
    for file in files:
        for node in ast.walk(tree(file)):
            yield file, node


def place(file: Path, node: ast.AST) -> str:
    return f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def body_length(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return length


def test_there_are_sources_to_check() -> None:
    assert len(PACKAGE) > 20


def test_files_are_short() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert {str(f.relative_to(ROOT)): n for f, n in lengths.items() if n > MAX_FILE} == {}


def test_functions_are_short() -> None:
    functions = [(place(f, n), body_length(n)) for f, n in nodes(SOURCES) if isinstance(n, Function)]
    assert [(where, length) for where, length in functions if length > MAX_FUNCTION] == []


def test_nothing_is_asserted_in_the_package() -> None:
    assert [place(f, n) for f, n in nodes(PACKAGE) if isinstance(n, ast.Assert)] == []


def test_no_exception_is_caught_blindly() -> None:
    def blind(handler: ast.ExceptHandler) -> bool:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(c is None or ast.unparse(c) in ("Exception", "BaseException") for c in caught)

    handlers = [(f, n) for f, n in nodes(PACKAGE) if isinstance(n, ast.ExceptHandler)]
    assert [place(f, n) for f, n in handlers if blind(n)] == []


def test_imports_are_absolute() -> None:
    imports = [(f, n) for f, n in nodes(SOURCES) if isinstance(n, ast.ImportFrom)]
    assert [place(f, n) for f, n in imports if n.level > 0] == []


def test_every_module_says_what_it_is() -> None:
    assert [str(f.relative_to(ROOT)) for f in PACKAGE if not ast.get_docstring(tree(f))] == []


def test_no_module_shadows_another_distribution() -> None:
    """`accelerate launch erase/train.py` puts erase/ itself first on sys.path."""
    own = {p.stem for p in (ROOT / "erase").iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("**/*.py")))}
    taken = (set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())) - {"__init__"}
    taken |= {"datasets", "diffusers", "evaluate", "tokenizers", "transformers"}
    assert own & taken == set()


# Floors


def floors() -> dict[str, tuple[int, str]]:
    """Each module directly in erase/: its floor, 0 the highest, and the sign between it and its siblings."""
    found = {}
    for floor, layer in enumerate(LAYERS):
        sign = ":" if ":" in layer else "|"
        for name in layer.split(sign):
            found[name.strip().strip("()")] = (floor, sign)
    return found


def imported_modules(node: ast.AST) -> Iterator[str]:
    """The modules directly in erase/ that a statement imports; `from erase import embedded` is one too."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module == "erase":
        names = [f"erase.{alias.name}" for alias in node.names]
    else:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    yield from (name.split(".")[1] for name in names if name.startswith("erase."))


def forbidden(importer: str, imported: str) -> bool:
    known = floors()
    if importer == imported or not {importer, imported} <= set(known):  # without a floor: refused above
        return False
    (above, sign), (below, _) = known[importer], known[imported]
    return above > below or (above == below and sign == "|")


def test_every_module_has_a_floor() -> None:
    present = {file.relative_to(ROOT / "erase").parts[0].removesuffix(".py") for file in PACKAGE} - {"__init__"}
    assert present == set(floors())


def test_modules_import_from_lower_floors_only() -> None:
    inside = [file for file in PACKAGE if file != ROOT / "erase" / "__init__.py"]
    found = [
        f"{place(file, node)} imports erase.{name}"
        for file, node in nodes(inside)
        for name in imported_modules(node)
        if forbidden(file.relative_to(ROOT / "erase").parts[0].removesuffix(".py"), name)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("importer", "imported", "wrong"),
    [
        ("updates", "training", True),  # upward
        ("training", "updates", False),
        ("updates", "parameters", True),  # siblings
        ("config", "errors", False),  # siblings that may
        ("updates", "updates", False),  # itself
    ],
)
def test_the_floor_check_finds_what_is_forbidden(importer: str, imported: str, wrong: bool) -> None:
    assert forbidden(importer, imported) is wrong


# Tables


def selected(settings: object) -> Iterator[tuple[str, str]]:
    """Each (key, name) such as ("update", "lur") anywhere in a config."""
    if isinstance(settings, list):
        for entry in settings:
            yield from selected(entry)
    if isinstance(settings, dict):
        for key, value in settings.items():
            if isinstance(value, dict) and "name" in value:
                yield str(key), str(value["name"])
            yield from selected(value)


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def is_classifier(settings: Any) -> bool:
    return bool(settings.get("task") == "classification")


@pytest.fixture(scope="module")
def configured() -> set[tuple[str, str]]:
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(files) > 0, "configs/ holds no YAML file"
    found = {pair for file in files for pair in selected(read(file))}
    of_classifiers = {pair for file in files if is_classifier(read(file)) for pair in selected(read(file))}
    return found | {(f"classifier {key}", name) for key, name in of_classifiers}


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """Every name that a unit test imports from the package."""
    every = [node for _, node in nodes(sorted((ROOT / "tests" / "unit").rglob("*.py")))]
    imports = [node for node in every if isinstance(node, ast.ImportFrom) and str(node.module).startswith("erase.")]
    return {alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize(("key", "name"), ENTRIES)
def test_each_table_entry_has_a_config(configured: set[tuple[str, str]], key: str, name: str) -> None:
    assert (key, name) in configured


@pytest.mark.parametrize(("key", "name"), ENTRIES)
def test_each_table_entry_has_a_test(tested: set[str], key: str, name: str) -> None:
    assert TABLES[key][name].__name__ in tested


# Repetition


def code_lines(file: Path) -> list[tuple[int, str]]:
    """Stripped lines with their numbers, without comments, imports and blank lines."""
    source = file.read_text(encoding="utf-8")
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[row - 1] = ""
    return [(row, line.strip()) for row, line in enumerate(lines, start=1) if line.strip()]


def test_no_block_is_repeated_in_two_files() -> None:
    seen: dict[tuple[str, ...], dict[Path, int]] = defaultdict(dict)
    for file in SOURCES:
        lines = code_lines(file)
        for start in range(len(lines) - REPEATED + 1):
            block = tuple(text for _, text in lines[start : start + REPEATED])
            seen[block].setdefault(file, lines[start][0])
    shared = [{f"{f.relative_to(ROOT)}:{row}" for f, row in files.items()} for files in seen.values() if len(files) > 1]
    assert shared == []


# What is published


def tracked_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_one_machine() -> None:
    folders = "|".join(("work", "root", "home", "tmp"))
    pattern = re.compile(rf"(?<![\w./~$}}-])/(?:{folders})/".encode())
    found = []
    for file in tracked_files():
        content = file.read_bytes()
        if b"\0" not in content:
            lines = enumerate(content.splitlines(), start=1)
            found += [f"{file.relative_to(ROOT)}:{row}" for row, line in lines if pattern.search(line)]
    assert found == []


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    options = PYPROJECT["tool"]["setuptools"]["packages"]["find"]
    assert options["namespaces"] is False
    packages = set(find_packages(str(ROOT), include=options["include"]))
    assert {package.split(".")[0] for package in packages} == {"erase"}
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in PACKAGE}
    assert packages == folders, "a folder of sources without __init__.py is left out"


@pytest.mark.parametrize("name", ["erase/shapes/weights/pipeline/unet/x.safetensors", "erase/shapes/build/check.py"])
def test_git_does_not_ignore_a_part_of_the_package(name: str) -> None:
    tracked_files()  # skips outside a checkout
    command = ["git", "check-ignore", "--quiet", "--no-index", name]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == 1
