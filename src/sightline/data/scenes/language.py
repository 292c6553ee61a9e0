"""Words about scenes, each tied to the things it speaks of: captions at three levels of detail, and names of things."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from random import Random

from sightline.data.scenes.graph import SHAPES, Scene
from sightline.data.scenes.splits import pick

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PHRASES = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}
LEVELS = (1, 2, 3)
_ORDER = ("size", "color", "material", "shape")

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Sentence:
    """A sentence and what it is about.

    `words` are lower-case, without punctuation (what `caption_tokens` makes of `text`).  `objects[k]` are the things
    that word k speaks of: of "left" both things it relates, of "two" all that are counted, of "the" none.
    """

    text: str
    words: tuple[str, ...]
    objects: tuple[Ids, ...]

    def __str__(self) -> str:
        return self.text


class Speech:
    """Builds a sentence word by word."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.objects: list[Ids] = []
        self._text = ""

    def say(self, words: str, things: Iterable[int] = ()) -> "Speech":
        """Adds words; all of them but articles and the like speak of `things`."""
        for word in words.split():
            self.words.append(word)
            self.objects.append(() if word in _EMPTY else tuple(things))
        self._text += (" " if self._text else "") + words
        return self

    def mark(self, mark: str) -> "Speech":
        self._text += mark
        return self

    def sentence(self) -> Sentence:
        return Sentence(self._text, tuple(self.words), tuple(self.objects))


_EMPTY = frozenset(("a", "the", "of", "in", "into", "on", "to", "is", "are", "and", "there", "nothing", "made"))


def plural(count: int, noun: str) -> str:
    """The noun as it follows a number."""
    return noun if count == 1 else noun + "s"


def captions(scene: Scene) -> tuple[Sentence, Sentence, Sentence]:
    """Three captions, each with more detail: what kinds of things there are; every thing by color and kind, from left
    to right; every thing by all its attributes, and how it stands to the one before."""
    if not scene.things:
        nothing = Speech().say("there is nothing").mark(".").sentence()
        return nothing, nothing, nothing
    return _kinds(scene), _names(scene), _everything(scene)


def _list(speech: Speech, number: int, last: int) -> None:
    """What stands before item `number` of a list."""
    if number and number == last:
        speech.say("and")
    elif number:
        speech.mark(",")


def _kinds(scene: Scene) -> Sentence:
    shapes = dict.fromkeys((*SHAPES, *(t.shape for t in scene.things)))
    groups = [(shape, scene.matching(shape=shape)) for shape in shapes]
    groups = sorted((g for g in groups if g[1]), key=lambda g: -len(g[1]))
    speech = Speech().say("there is" if len(groups[0][1]) == 1 else "there are")
    for number, (shape, things) in enumerate(groups):
        _list(speech, number, len(groups) - 1)
        speech.say("a" if len(things) == 1 else NUMBERS[len(things)], things).say(plural(len(things), shape), things)
    return speech.mark(".").sentence()


def _names(scene: Scene) -> Sentence:
    speech = Speech()
    for number, k in enumerate(scene.left_to_right):
        _list(speech, number, len(scene) - 1)
        speech.say(f"a {scene.things[k].color} {scene.things[k].shape}", (k,))
    return speech.mark(".").sentence()


def _everything(scene: Scene) -> Sentence:
    speech = Speech()
    before = -1
    for number, k in enumerate(scene.left_to_right):
        _list(speech, number, len(scene) - 1)
        if before >= 0:
            clear = [name for name in ("behind", "front", "right") if scene.is_clear(name, k, before)]
            speech.say(PHRASES[clear[0]] if clear else "beside", (k, before)).say("it", (before,))
        thing = scene.things[k]
        speech.say(f"a {thing.size} {thing.color} {thing.material} {thing.shape}", (k,))
        before = k
    return speech.mark(".").sentence()


def describe(attributes: dict[str, str]) -> str:
    """Attributes as a noun phrase without article: "small red cube", "metal object"."""
    adjectives = [attributes[name] for name in _ORDER[:3] if name in attributes]
    return " ".join([*adjectives, attributes.get("shape", "object")])


def naming(scene: Scene, index: int, without: str = "", random: Random | None = None) -> dict[str, str] | None:
    """The fewest attributes that tell a thing from all others of its scene (one such set at random; without `random`
    the first, in the order size, color, material, shape); None where none do.  `without` is not used."""
    every = scene.things[index].attributes
    names = [name for name in _ORDER if name != without]
    for few in range(1, len(names) + 1):
        sets = [{n: every[n] for n in chosen} for chosen in combinations(names, few)]
        telling = [attributes for attributes in sets if scene.matching(**attributes) == (index,)]
        if telling:
            return pick(random, telling) if random else telling[0]
    return None
