"""One thing of a scene made different: added, dropped, moved, or of another color, material, size or shape."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sightline.data.scenes.graph import COLORS, MATERIALS, RELATIONS, SIZES, Scene, Thing
from sightline.data.scenes.language import Speech, describe, naming
from sightline.data.scenes.layout import MOST_THINGS, is_seen, place, stands_free
from sightline.data.scenes.splits import Split, pick, shuffled

KINDS = ("color", "material", "size", "shape", "add", "drop", "move")
_FAR_ENOUGH = 1.4  # a move is farther than any jitter of the camera makes a thing seem to go


@dataclass(frozen=True)
class Alteration:
    """One difference between two scenes of the same camera and light.

    `thing` is its number in `before` (for "add": in `after`), `value` the new color, material, size or shape, and
    `beside` the relation and the thing of `before` next to which something was added or moved, where one is told.
    """

    kind: str
    before: Scene
    after: Scene
    thing: int
    value: str = ""
    beside: tuple[str, int] | None = None

    def is_told_truly(self, scene: Scene) -> bool:
        """Whether what is said about where something was added or moved to also holds in another view of `after`."""
        return self.beside is None or scene.holds(self.beside[0], self.thing, self.beside[1])

    def number_after(self, number: int) -> int | None:
        """Number in `after` of a thing of `before`; None for the one that was dropped."""
        if self.kind != "drop" or number < self.thing:
            return number
        return None if number == self.thing else number - 1


def is_sound(scene: Scene) -> bool:
    """Whether nothing touches, hides or leaves the picture."""
    things = scene.things
    return is_seen(things, scene.camera) and all(stands_free(things[:k], things[k]) for k in range(len(things)))


def alter(random: Random, split: Split, scene: Scene, kind: str, thing: int | None = None) -> Alteration | None:
    """A random alteration of this kind, of the thing given or of any that can be named; None where there is none.

    The new scene keeps to the split as the old one does, and a thing that was told apart by name stays so in the
    instruction.  Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "add":
        return _add(random, split, scene)
    able = [thing] if thing is not None else shuffled(random, list(range(len(scene))))
    make: Callable[[Random, Split, Scene, int], Alteration | None]
    make = _drop if kind == "drop" else _move if kind == "move" else _recast(kind)
    for k in able:
        done = make(random, split, scene, k) if naming(scene, k) else None
        if done and (not split.must_show or any(split.is_held_out(t) for t in done.after.things)):
            return done
    return None


def _recast(kind: str) -> Callable[[Random, Split, Scene, int], Alteration | None]:
    def make(random: Random, split: Split, scene: Scene, k: int) -> Alteration | None:
        options = {"color": COLORS, "material": MATERIALS, "size": SIZES, "shape": split.shapes}[kind]
        for value in shuffled(random, options):
            after = scene.change(k, **{kind: value})
            new = after.things[k]
            if value != getattr(scene.things[k], kind) and split.allows(new.color, new.shape) and is_sound(after):
                return Alteration(kind, scene, after, k, value)
        return None

    return make


def _drop(random: Random, split: Split, scene: Scene, k: int) -> Alteration | None:
    return Alteration("drop", scene, scene.without(k), k) if len(scene) > 1 else None


def _add(random: Random, split: Split, scene: Scene) -> Alteration | None:
    if len(scene) >= MOST_THINGS:
        return None
    for _ in range(8):
        new = place(random, scene.things, scene.camera, split.draw(random))
        if new:
            after = scene.plus(new)
            return Alteration("add", scene, after, len(scene), beside=_beside(random, after, len(scene)))
    return None


def _move(random: Random, split: Split, scene: Scene, k: int) -> Alteration | None:
    old, rest = scene.things[k], scene.things[:k] + scene.things[k + 1 :]
    for _ in range(12):
        new = place(random, rest, scene.camera, old.attributes)
        if new and math.hypot(new.x - old.x, new.y - old.y) >= _FAR_ENOUGH:
            after = scene.change(k, x=new.x, y=new.y)
            if is_sound(after):
                return Alteration("move", scene, after, k, beside=_beside(random, after, k, scene))
    return None


def _beside(random: Random, after: Scene, k: int, before: Scene | None = None) -> tuple[str, int] | None:
    """A relation in which thing k clearly stands now (and did not before) to another one that has a name."""
    found = []
    for b in range(len(after)):
        if b == k or not naming(before or after, b):
            continue
        new = [r for r in RELATIONS if after.is_clear(r, k, b) and not (before and before.is_clear(r, k, b))]
        found += [(relation, b) for relation in new]
    return pick(random, found) if found else None


def name(speech: Speech, scene: Scene, number: int, random: Random) -> Speech:
    """Says "the small red cube": what tells the thing from the others, and always its shape."""
    thing = scene.things[number]
    attributes = (naming(scene, number, random=random) or thing.attributes) | {"shape": thing.shape}
    return speech.say(f"the {describe(attributes)}", (number,))


def full(thing: Thing) -> str:
    """All attributes of a thing: "small red rubber cube"."""
    return describe(thing.attributes)
