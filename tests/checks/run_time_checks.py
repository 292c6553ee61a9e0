"""Checks annotations as the package runs: every function's by beartype, and shapes by jaxtyping around it.

jaxtyping's own hook puts both around every function and checks arguments twice: 11 µs a call where there is no shape to
check and beartype alone takes 1.  Tests of plain Python, such as the generated questions, took seven times as long.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, get_args, get_type_hints

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, TypeCheckError, jaxtyped

NAME = "__checked__"
typed = beartype(conf=BeartypeConf(violation_type=TypeCheckError))


def checked(thing: Any) -> Any:
    """Gives a function that checks its arguments and what it returns; of a dataclass, its `__init__` does."""
    if inspect.isclass(thing):
        if is_dataclass(thing) and "__init__" in vars(thing) and not hasattr(thing.__init__, "__wrapped__"):
            thing.__init__ = checked(thing.__init__)
        return thing
    thing.__annotations__ = hints = _hints(thing)
    if not any(_has_shape(hint) for hint in hints.values()):
        return typed(thing)
    if inspect.isgeneratorfunction(thing):  # the other order would leave its shapes unchecked everywhere
        return jaxtyped(thing, typechecker=typed)
    return jaxtyped(typed(thing), typechecker=None)


def _hints(function: Callable) -> dict[str, Any]:
    """Annotations, with those in quotes read; a name that only type checkers import stands for anything."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        return {name: _read(hint, function.__globals__) for name, hint in function.__annotations__.items()}


def _read(hint: Any, names: dict[str, Any]) -> Any:
    def of(value: hint) -> None: ...

    try:
        return get_type_hints(of, names, include_extras=True)["value"]
    except NameError:
        return Any


def _has_shape(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(hint))


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiles the module with `checked` at each def and class; neither from nor to the package's own bytecode."""
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                check = ast.copy_location(ast.Name(NAME, ast.Load()), node)
                # innermost at a function, whose other decorators may hide annotations; outermost at a dataclass
                node.decorator_list.insert(0 if isinstance(node, ast.ClassDef) else len(node.decorator_list), check)
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, NAME, checked)
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self.names else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def check_modules(names: Iterable[str]) -> None:
    """Has these modules checked, if they have not been imported yet."""
    sys.meta_path.insert(0, _Finder(names))
