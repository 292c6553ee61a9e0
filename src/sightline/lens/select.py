"""Which rows, sites and heads of a model's attention to keep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from torch import Tensor


class Row:
    """A named query row, resolved against each attention call: `CLS` is the first, `LAST` the last."""

    def __init__(self, name: str, position: int) -> None:
        self.name = name
        self.position = position

    def __repr__(self) -> str:
        return f"sightline.{self.name}"


CLS = Row("CLS", 0)
"""The class token's row: query 0.  Models without a class token have a patch there; `Site.heat` refuses then."""
LAST = Row("LAST", -1)
"""The last row of each call: the token being generated, in a causal language model."""


@dataclass(frozen=True)
class SiteInfo:
    """What a callable choice of `queries` is told about one attention call, before anything is kept."""

    path: str
    batch: int
    heads: int
    queries: int
    keys: int


Choice = Row | int | slice | Sequence[int] | Tensor | Callable[[SiteInfo], Any] | None


@dataclass(frozen=True)
class Plan:
    """What a recording keeps; checked once, when it is made."""

    queries: Choice = None
    sites: str | Sequence[str] = "*"
    heads: Sequence[int] | int | None = None
    gradients: bool = False
    limit: int = 2**30
    hold: bool = True  # a survey holds nothing

    def __post_init__(self) -> None:
        if not isinstance(self.limit, int) or self.limit <= 0:
            raise ValueError(f"limit is a number of bytes above 0 (default {2**30}), got {self.limit!r}")
        if not _is_choice(self.queries):
            raise ValueError(
                f"queries={self.queries!r}: give sightline.CLS, sightline.LAST, an index, a list of indices, a slice, "
                "a function of a site, or None for all rows"
            )
        if _names_no_row(self.queries):
            raise ValueError(
                f"queries={self.queries!r} names no row, so nothing would be kept: give at least one index, or None "
                "for all rows (slice(0, 0) keeps none, sightline.survey(model, ...) lists the sites)"
            )
        globs = [self.sites] if isinstance(self.sites, str) else self.sites
        if not isinstance(globs, Sequence | set) or not all(isinstance(glob, str) for glob in globs):
            raise ValueError(
                f"sites={self.sites!r}: give a glob on module paths, such as '*.3.*', or several; numbers choose "
                "afterwards: seen[0]"
            )

    def wants(self, path: str) -> bool:
        """Is the site at this module path among `sites` (globs; a leading "!" excludes)?"""
        patterns = [self.sites] if isinstance(self.sites, str) else list(self.sites)
        chosen = [p for p in patterns if not p.startswith("!")] or ["*"]
        return any(fnmatchcase(path, p) for p in chosen) and not any(
            fnmatchcase(path, p[1:]) for p in patterns if p.startswith("!")
        )

    def head_list(self, heads: int) -> list[int] | None:
        """Kept heads in 0..heads-1, or None for all.  Raises ValueError for a head that the site does not have."""
        if self.heads is None:
            return None
        asked = [self.heads] if isinstance(self.heads, int) else list(self.heads)
        kept = [h + heads if h < 0 else h for h in asked]
        if not kept or any(not 0 <= h < heads for h in kept):
            raise ValueError(f"heads={self.heads!r}: this site has heads 0 to {heads - 1}")
        return kept

    def refusal(self, kept: int, seen: Sequence[Any]) -> str:
        """Why a recording that keeps `kept` bytes after these calls is refused, and what would cost less."""
        last = seen[-1]
        row = sum(c.batch * c.heads * c.keys * 4 for c in seen)
        return (
            f"recording would keep more than limit={self.limit:,} bytes: {kept:,} after {len(seen)} sites "
            f"({last.path}: {last.batch} x {last.heads} heads x {last.queries} x {last.keys}). Cheaper: one row a "
            f"site, queries=sightline.CLS or LAST, keeps {row:,} bytes for the same sites; "
            f"sites='*.{_last_number(last.path)}.*' or heads=[0] keep fewer; sightline.survey(model, ...) lists what "
            "each choice costs; or raise limit="
        )


@lru_cache(maxsize=256, typed=True)
def _plan(*given: Any) -> Plan:
    return Plan(*given)


def plan_of(*given: Any) -> Plan:
    """`Plan(*given)`, made once for equal choices that have a hash."""
    try:
        return _plan(*given)
    except TypeError:  # a list of rows, of globs, of heads
        return Plan(*given)


def _is_choice(choice: Any) -> bool:
    if choice is None or isinstance(choice, Row | int | slice | Tensor) or callable(choice):
        return True
    if isinstance(choice, str | bytes | float):
        return False
    try:
        return all(hasattr(index, "__index__") for index in choice)
    except TypeError:
        return False


def _names_no_row(choice: Choice) -> bool:
    """Whether it is an empty collection of indices; what a slice or a function leaves is known at each site only."""
    if isinstance(choice, Tensor):
        return choice.numel() == 0
    return hasattr(choice, "__len__") and len(choice) == 0  # type: ignore[arg-type]


def _last_number(path: str) -> str:
    numbers = [part for part in path.split(".") if part.isdigit()]
    return numbers[-1] if numbers else "*"


def resolve(choice: Choice, queries: int, offset: int = 0) -> slice | list[int]:
    """Rows of a call with `queries` queries whose first one is token `offset`, as a slice or a list of indices.

    An index counts tokens of the whole attention; one that lies outside this call (another window holds it)
    is left out here and checked when the recording ends.
    """
    if choice is None:
        return slice(0, queries)
    if isinstance(choice, Row):
        start = choice.position % queries
        return slice(start, start + 1)
    if isinstance(choice, slice) and offset and (choice.start or 0) >= 0 and (choice.stop is None or choice.stop >= 0):
        return [i - offset for i in range(*choice.indices(offset + queries)) if i >= offset]
    if isinstance(choice, slice):
        start, stop, step = choice.indices(queries)
        return slice(start, stop, step) if step > 0 else list(range(start, stop, step))
    if isinstance(choice, Tensor):
        choice = choice.flatten().tolist()
    wanted = [choice] if isinstance(choice, int) else [int(i) for i in choice]  # type: ignore[union-attr]
    local = [i - offset if i >= 0 else i + queries for i in wanted]
    return [i for i in local if 0 <= i < queries]
