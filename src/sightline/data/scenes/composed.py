"""Composed queries: a picture and a wish ("make the red sphere blue") that together name one picture among near
doubles."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from sightline.data.scenes.alter import KINDS, Alteration, alter
from sightline.data.scenes.edits import draw_edit
from sightline.data.scenes.graph import Scene
from sightline.data.scenes.language import Sentence
from sightline.data.scenes.layout import nudge_view
from sightline.data.scenes.splits import Split, pick, shuffled

NEGATIVES = 4


@dataclass(frozen=True)
class Query:
    """A reference picture, a wish, the one target, and near doubles of the reference that do not fulfil the wish.

    The words of `text` are tied to things of `reference` (of `target` for what is added).  Target and negatives are
    seen by jittered cameras in jittered light, so that no comparison of pixels finds the target.
    """

    kind: str
    reference: Scene
    text: Sentence
    target: Scene
    negatives: tuple[Scene, ...]
    thing: int

    @property
    def members(self) -> tuple[Scene, ...]:
        """The six of a subset as in CIRR: the reference, the target, the negatives."""
        return (self.reference, self.target, *self.negatives)


def draw_query(random: Random, split: Split, scene: Scene, kind: str) -> Query:
    """A query of the kind asked for (see `alter.KINDS`) or, where the scene does not allow it, of another kind."""
    edit = draw_edit(random, split, scene, kind)
    negatives: list[Scene] = []
    for near in _near(random, split, edit.done):
        doubles = (scene, edit.target, *negatives)
        if all(not alike(near, other) for other in doubles) and not fulfils(edit.done, near):
            negatives.append(near)
        if len(negatives) == NEGATIVES:
            break
    if len(negatives) < NEGATIVES:
        raise ValueError(f"this scene of {len(scene)} things has too few near doubles; give scenes of three or more")
    target = nudge_view(random, edit.target, edit.done.is_told_truly)
    wrong = [nudge_view(random, one, lambda seen: not fulfils(edit.done, seen)) for one in negatives]
    return Query(edit.kind, scene, edit.instruction, target, tuple(wrong), edit.done.thing)


def alike(a: Scene, b: Scene) -> bool:
    """Whether two scenes hold the same things, in any order (things that stand apart by a move are different)."""
    return sorted(a.things, key=repr) == sorted(b.things, key=repr)


def _near(random: Random, split: Split, done: Alteration) -> Iterator[Scene]:
    """Scenes that differ from the reference, or from the target, by one alteration; the most confusing first."""
    scene, k = done.before, done.thing
    mine = None if done.kind == "add" else k
    others = [j for j in shuffled(random, list(range(len(scene)))) if j != mine]
    kinds = [kind for kind in shuffled(random, KINDS) if kind not in (done.kind, "move")]
    wanted = [(done.kind, mine)]  # the same thing, another value or place
    wanted += [(done.kind, j) for j in others[:2]]  # another thing
    wanted += [(kind, None if kind == "add" else mine) for kind in kinds[:2]]
    wanted += [(pick(random, KINDS), None) for _ in range(40)]
    for kind, thing in wanted:
        one = alter(random, split, scene, kind, thing)
        if one:
            yield one.after


def fulfils(done: Alteration, scene: Scene) -> bool:
    """Whether a scene could be meant by the wish: the things of the target, in the relation told."""
    if done.kind not in ("add", "move"):
        return alike(scene, done.after)
    # the wish leaves open where exactly
    if _kinds(scene) != _kinds(done.after):
        return False
    if done.kind == "add" or done.beside is None:
        return True
    relation, other = done.beside
    return scene.offset(relation, done.thing, other) > 0


def _kinds(scene: Scene) -> list[tuple[str, ...]]:
    return sorted(tuple(thing.attributes.values()) for thing in scene.things)
