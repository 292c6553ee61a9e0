"""The generated world as a data set: scene i of a seed and a split, its picture, and everything said about it."""

import operator
from collections.abc import Iterable
from random import Random
from typing import SupportsIndex

from jaxtyping import UInt8
from torch import Tensor

from sightline.data.scenes import language, questions
from sightline.data.scenes.alter import KINDS
from sightline.data.scenes.changes import CHANGES, Change, draw_change
from sightline.data.scenes.composed import Query, draw_query
from sightline.data.scenes.edits import Dialogue, Edit, draw_dialogue, draw_edit
from sightline.data.scenes.graph import Scene
from sightline.data.scenes.language import Sentence
from sightline.data.scenes.layout import MOST_THINGS, draw_scene
from sightline.data.scenes.questions import Pointing, Question
from sightline.data.scenes.render import Views, render, size_of
from sightline.data.scenes.splits import Split, pick


class Scenes:
    """`count` scenes; scene i is a function of (seed, split, objects, i) alone, and its language of scene i.

    `split` names what is shown and what is held out (see `splits`), `size` is the side of the pictures in pixels or
    (height, width), `objects` the fewest and the most things in a scene.  Nothing is stored: scenes are drawn and
    pictures rendered when asked for.  Raises ValueError for an unknown split, sizes outside 16..4096, and numbers of
    things outside 1..10; IndexError for an index outside 0..count-1.
    """

    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        size: int | tuple[int, int] = 64,
        count: int = 10_000,
        objects: tuple[int, int] = (3, 6),
    ) -> None:
        self.seed, self.split, self.size, self.count, self.objects = seed, Split(split), size, count, objects
        size_of(size)
        least, most = objects
        if not 1 <= least <= most <= MOST_THINGS:
            raise ValueError(f"objects {objects}: expected the fewest and the most things, within 1..{MOST_THINGS}")
        if count < 1:
            raise ValueError(f"count {count}: expected at least one scene")

    def __len__(self) -> int:
        return self.count

    def random(self, index: SupportsIndex, purpose: str) -> Random:
        """The source of everything random in scene `index`, one for each purpose."""
        number = operator.index(index)
        if not 0 <= number < self.count:
            raise IndexError(f"scene {number}: there are scenes 0 to {self.count - 1}")
        # seeded by the SHA-512 of this text, on every platform and in every version of Python
        return Random(f"sightline/scenes/1/{self.seed}/{self.split.name}/{number}/{purpose}")

    def scene(self, index: SupportsIndex) -> Scene:
        return draw_scene(self.random(index, "scene"), self.split, *self.objects)

    def views(self, indices: Iterable[SupportsIndex]) -> Views:
        """Pictures of scenes, with the visible pixels, box and depth of every thing in them."""
        return render([self.scene(index) for index in indices], self.size)

    def images(self, indices: Iterable[SupportsIndex]) -> UInt8[Tensor, "n 3 height width"]:
        """Pictures of scenes, as bytes."""
        return self.views(indices).images

    def captions(self, index: SupportsIndex) -> tuple[Sentence, Sentence, Sentence]:
        """Captions of one scene at three levels of detail (`language.captions`)."""
        return language.captions(self.scene(index))

    def questions(self, index: SupportsIndex) -> tuple[Question, ...]:
        """Telling questions: four answers in words, one of them right."""
        return questions.telling(self.scene(index), self.split, self.random(index, "telling"))

    def pointing(self, index: SupportsIndex) -> tuple[Pointing, ...]:
        """Pointing questions: four things, one of them right.  A scene of fewer than four things has none."""
        return questions.pointing(self.scene(index), self.split, self.random(index, "pointing"))

    def change(self, index: SupportsIndex, kind: str | None = None) -> Change:
        """A pair of scenes with a change of one kind (`changes.CHANGES`, by default any), and sentences about it."""
        random = self.random(index, "change")
        return draw_change(random, self.split, self.scene(index), kind or pick(random, CHANGES))

    def edit(self, index: SupportsIndex, kind: str | None = None) -> Edit:
        """A scene, an instruction (`alter.KINDS`, by default any) and the scene it leads to."""
        random = self.random(index, "edit")
        return draw_edit(random, self.split, self.scene(index), kind or pick(random, KINDS))

    def dialogue(self, index: SupportsIndex) -> Dialogue:
        """Instructions that build the scene thing by thing, and the scene after each."""
        return draw_dialogue(self.random(index, "dialogue"), self.scene(index))

    def query(self, index: SupportsIndex, kind: str | None = None) -> Query:
        """A reference, a wish, its target and four near doubles; for scenes of three things or more."""
        random = self.random(index, "query")
        return draw_query(random, self.split, self.scene(index), kind or pick(random, KINDS))
