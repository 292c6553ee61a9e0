"""The checks under which all tests run refuse what does not fit an annotation, and nothing else."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from jaxtyping import TypeCheckError
from run_time_checks import check_modules

SOURCE = """
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from nowhere import Thing


def multiply(a: Float[Tensor, "n m"], b: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
    return (a @ b)[: a.shape[0] - (a.shape[1] == 5)]  # a row too few, for five columns


def first(x: Float[Tensor, "n"], size: int) -> Float[Tensor, "{size}"]:
    return x[:size]


def rows(x: Float[Tensor, "n m"]) -> Iterator[Float[Tensor, "m"]]:
    yield from x


def lengths(words: list[str], *, more: "Thing" = None) -> "list[int]":
    return [len(word) for word in words] if words else [None]


def outer():
    def inner(x: int) -> int:
        return x

    return inner


@dataclass(frozen=True)
class Point:
    x: int

    @property
    def half(self) -> int:
        return self.x / 2

    @classmethod
    def at(cls, x: float) -> "Point":
        return cls(round(x))
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder: Path = tmp_path_factory.mktemp("example")
    (folder / "checked_example.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", [*sys.meta_path])
        patch.syspath_prepend(folder)
        check_modules(["checked_example"])
        yield importlib.import_module("checked_example")
    del sys.modules["checked_example"]


def test_what_fits_passes(example: ModuleType) -> None:
    assert example.multiply(torch.ones(2, 3), torch.ones(3, 4)).shape == (2, 4)
    assert len(example.first(torch.ones(9), 4)) == 4
    assert len(list(example.rows(torch.ones(2, 3)))) == 2
    assert example.lengths(["a", "bc"], more=object()) == [1, 2]  # a name that only type checkers import
    assert example.outer()(3) == 3
    assert example.Point.at(2.4) == example.Point(2)


def test_shapes_that_do_not_fit_are_refused(example: ModuleType) -> None:
    for arguments in (
        (torch.ones(2, 3), torch.ones(4, 3)),  # sizes that differ between arguments
        (torch.ones(2, 5), torch.ones(5, 3)),  # a result that is too short
        (torch.ones(2, 3, 1), torch.ones(3, 4)),
        (torch.ones(2, 3, dtype=torch.long), torch.ones(3, 4)),
        ([[1.0]], torch.ones(1, 1)),
    ):
        with pytest.raises(TypeCheckError):
            example.multiply(*arguments)
    with pytest.raises(TypeCheckError):
        example.first(torch.ones(3), 4)  # fewer than the argument says
    with pytest.raises(TypeCheckError):
        example.rows(torch.ones(3))


def test_plain_types_that_do_not_fit_are_refused(example: ModuleType) -> None:
    for call in (
        lambda: example.lengths([1]),
        lambda: example.lengths([]),
        lambda: example.outer()("three"),
        lambda: example.Point("two"),
        lambda: example.Point(3).half,
        lambda: example.Point.at("two"),
    ):
        with pytest.raises(TypeCheckError):
            call()


def test_the_package_is_checked() -> None:
    from sightline.attention.masks import causal

    with pytest.raises(TypeCheckError):
        causal("five")
