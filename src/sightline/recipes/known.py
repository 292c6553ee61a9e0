"""The settings and sizes that a recipe knows, read from its source: importing it, and torch, would take seconds.

The text is read as Python reads it: a name is a class or function of the file, another name for one, or imported from
a file of the package; what a recipe lacks is its frame's.  `plan.py` judges the run again by the real recipe.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sightline.recipes.plan import check_name
from sightline.recipes.settings import settled

_HOME = Path(__file__).resolve().parents[2]  # the folder that the package lies in
Found = tuple[str, Any]  # in which module something stands, and its node


def check_plan(system: str, overrides: dict[str, Any]) -> None:
    """Raises TrainingError, before anything slow is imported, for what `new_plan` would refuse of `overrides`."""
    check_name(system)
    try:
        settings, arguments = known_settings(system), known_arguments(system)
    except (OSError, LookupError):  # without its source the recipe itself has to be asked, later
        return
    settled(system, settings, {}, arguments, overrides)


def known_settings(system: str) -> dict[str, Any]:
    """The fields of a recipe's `Settings` with their defaults, or 1 of the right kind where one is no plain value."""
    return _fields(_part(system, "Settings"))


def known_arguments(system: str) -> dict[str, Any]:
    """The keywords of the class that a recipe builds, and of `build` itself, with plain defaults, else None."""
    module, build = _part(system, "build")
    made = _init(module, ast.unparse(build.returns))
    return {name: value for node in (made, build) if node for name, value in _defaults(node)}


def home_of(system: str, part: str) -> str:
    """The module of `recipes` in which a recipe's part is written; LookupError where that cannot be read."""
    return _part(system, part)[0].rpartition(".")[2]


def _part(system: str, name: str) -> Found:
    module = f"sightline.recipes.{system}"
    while True:
        try:
            return _find(module, name)
        except LookupError:
            module = _find(module, "FRAME")[0]


def _find(module: str, dotted: str) -> Found:
    """Where a name of a module leads; LookupError where it leads out of the package."""
    first, _, rest = dotted.partition(".")
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == first:
            return module, node
        if isinstance(node, ast.Assign):  # another name for it, or several: a, b = c, d
            left, right = (one.elts if isinstance(one, ast.Tuple) else [one] for one in (node.targets[0], node.value))
            for target, value in zip(left, right, strict=False):
                if ast.unparse(target) == first:
                    return _find(module, ast.unparse(value))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sightline"):
            for alias in node.names:
                if first == (alias.asname or alias.name):
                    inner = f"{node.module}.{alias.name}"
                    if not _file(inner).is_file():
                        return _find(str(node.module), alias.name)
                    return _find(inner, rest) if rest else (inner, None)
    raise LookupError(f"{module} has no {first} of the package")


def _fields(found: Found) -> dict[str, Any]:
    module, node = found
    fields: dict[str, Any] = {}
    for base in node.bases:
        fields |= _fields(_find(module, ast.unparse(base)))
    kinds = {"int": 1, "float": 1.0, "str": "", "bool": False}
    for line in node.body:
        if isinstance(line, ast.AnnAssign):
            fields[ast.unparse(line.target)] = _plain(line.value, kinds.get(ast.unparse(line.annotation)))
    return fields


def _init(module: str, name: str) -> ast.FunctionDef | None:
    """The `__init__` of a class, or the first of its bases'; None where that is no class of the package."""
    try:
        module, node = _find(module, name)
    except LookupError:  # such as nn.Module
        return None
    own = (line for line in node.body if isinstance(line, ast.FunctionDef) and line.name == "__init__")
    inherited = (_init(module, ast.unparse(base)) for base in node.bases)
    return next(own, None) or next(filter(None, inherited), None)


def _defaults(node: ast.FunctionDef) -> Iterator[tuple[str, Any]]:
    given = node.args
    placed = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    for one, value in [*zip(given.args, placed, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]:
        if one.arg not in ("self", "data"):
            # where a pair may stand for a number, the default's kind would not say so
            pair = one.annotation is not None and "Sequence" in ast.unparse(one.annotation)
            yield one.arg, None if pair else _plain(value, None)


def _plain(node: ast.expr | None, otherwise: Any) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else otherwise
    except ValueError:
        return otherwise


def _file(module: str) -> Path:
    return _HOME / Path(*module.split(".")).with_suffix(".py")


@lru_cache(maxsize=64)
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text("utf-8"))
