"""Splits by name: which combinations of attributes and which kinds of things a split may show, and must show.

    train  val  test              neither held-out combinations nor held-out kinds
    train-combinations  …         every scene shows at least one held-out combination of color and shape
    train-kinds  …                every scene shows at least one thing of a held-out kind (cone, dome)
    train-all  …                  combinations as they come (none held out), the three common kinds

The part before the dash only chooses other random scenes; the part after it says what is in them.
"""

from dataclasses import dataclass
from random import Random
from typing import TypeVar

from sightline.data.scenes.graph import COLORS, MATERIALS, NOVEL_SHAPES, SHAPES, SIZES, Thing

Item = TypeVar("Item")

PARTS = ("train", "val", "test")
SORTS = ("", "combinations", "kinds", "all")
SPLITS = tuple(f"{part}-{sort}".rstrip("-") for part in PARTS for sort in SORTS)

# one in five of the 24 pairs of color and shape; every shape, and every color of these, is seen in other pairs
HELD_OUT = frozenset(
    {("red", "cube"), ("cyan", "cube"), ("green", "sphere"), ("yellow", "cylinder"), ("purple", "cylinder")}
)


@dataclass(frozen=True)
class Split:
    """What the name of a split means.  Raises ValueError for a name that is none."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in SPLITS:
            known = ", ".join(PARTS)
            raise ValueError(
                f"split {self.name!r}: expected one of {known}, alone or followed by -{', -'.join(SORTS[1:])}"
            )

    @property
    def sort(self) -> str:
        return self.name.partition("-")[2]

    @property
    def shapes(self) -> tuple[str, ...]:
        return SHAPES + NOVEL_SHAPES if self.sort == "kinds" else SHAPES

    def allows(self, color: str, shape: str) -> bool:
        """Whether a thing of this color and shape may be seen, or named, in this split."""
        return shape in self.shapes and (self.sort in ("combinations", "all") or (color, shape) not in HELD_OUT)

    def is_held_out(self, thing: Thing) -> bool:
        """Whether this is what the split is named for."""
        if self.sort == "combinations":
            return (thing.color, thing.shape) in HELD_OUT
        return self.sort == "kinds" and thing.shape in NOVEL_SHAPES

    @property
    def must_show(self) -> bool:
        return self.sort in ("combinations", "kinds")

    def draw(self, random: Random, held_out: bool = False) -> dict[str, str]:
        """Attributes of one thing; `held_out` asks for one of those that the split is named for."""
        while True:
            shape, color = pick(random, self.shapes), pick(random, COLORS)
            thing = Thing(shape, color, pick(random, MATERIALS), pick(random, SIZES), 0.0, 0.0)
            if self.allows(color, shape) and (not held_out or self.is_held_out(thing)):
                return thing.attributes


def pick(random: Random, options: tuple[Item, ...] | list[Item]) -> Item:
    """One of the options; only `random.random` is used, whose sequence Python keeps from version to version."""
    return options[int(random.random() * len(options))]


def shuffled(random: Random, items: tuple[Item, ...] | list[Item]) -> list[Item]:
    """The items in random order (see `pick` for why not `random.shuffle`)."""
    left, out = list(items), []
    while left:
        out.append(left.pop(int(random.random() * len(left))))
    return out
