"""Questions about scenes with four choices of which exactly one is right.

Telling questions have four answers in words, pointing questions four things to point at (Visual7W's two tasks).  A
relation is asked for only where it clearly holds, and a wrong choice clearly does not hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sightline.data.scenes.graph import COLORS, EPSILON, MATERIALS, RELATIONS, Scene
from sightline.data.scenes.language import NUMBERS, PHRASES, Ids, Sentence, Speech, describe, naming, plural
from sightline.data.scenes.splits import Split, pick, shuffled

CHOICES = 4
_APART = 0.4  # the nearest thing is nearer than any other by this much, more than sizes make a difference


@dataclass(frozen=True)
class Question:
    """A telling question.

    kind     the first words: what, where, how many, which
    asked    what it takes to answer: color, make, relation, place, number, distance
    text     the question; its words are tied to things
    choices  four answers, their words tied to things where they name some
    right    which of the choices is right
    about    the things that one has to look at to answer
    """

    kind: str
    asked: str
    text: Sentence
    choices: tuple[Sentence, ...]
    right: int
    about: Ids

    @property
    def answer(self) -> Sentence:
        return self.choices[self.right]

    @property
    def names_object(self) -> bool:
        """Whether the answer is a thing, and not a color, a number or a place."""
        return self.asked in ("relation", "distance", "make")


@dataclass(frozen=True)
class Pointing:
    """A pointing question: `choices` are four things of the scene (`views.boxes(…)[choices]` their boxes)."""

    kind: str
    asked: str
    text: Sentence
    choices: Ids
    right: int
    about: Ids

    @property
    def answer(self) -> int:
        return self.choices[self.right]


def fails(scene: Scene, relation: str, a: int, b: int) -> bool:
    """Whether a is clearly not `relation` of b: on the other side along the ground, and in the picture."""
    if a == b:
        return True
    if scene.offset(relation, a, b) > -EPSILON:
        return False
    apart = scene.projected[a][0] - scene.projected[b][0]
    return {"left": apart > 0.03, "right": apart < -0.03}.get(relation, True)


def _name(speech: Speech, scene: Scene, index: int, random: Random, without: str = "") -> Speech | None:
    attributes = naming(scene, index, without, random)
    return speech.say(f"the {describe(attributes)}", (index,)) if attributes else None


def _full(scene: Scene, index: int) -> Sentence | None:
    """A thing by color and shape, with more where two share these."""
    every = scene.things[index].attributes
    for names in (("color", "shape"), ("size", "color", "shape"), ("color", "material", "shape"), tuple(every)):
        attributes = {name: every[name] for name in names}
        if scene.matching(**attributes) == (index,):
            return Speech().say(f"the {describe(attributes)}", (index,)).sentence()
    return None


def _telling(
    random: Random, kind: str, asked: str, speech: Speech, right: Sentence, wrong: list[Sentence], about: Ids
) -> Question | None:
    texts = {str(right): right}
    for choice in wrong:
        texts.setdefault(str(choice), choice)
    if len(texts) < CHOICES:
        return None
    choices = shuffled(random, list(texts.values())[:CHOICES])
    return Question(kind, asked, speech.mark("?").sentence(), tuple(choices), choices.index(right), about)


def _word(text: str, things: Ids = ()) -> Sentence:
    return Speech().say(text, things).sentence()


def ask_color(scene: Scene, split: Split, random: Random) -> Question | None:
    """what color is the small cube?"""
    for k in shuffled(random, list(range(len(scene)))):
        speech = _name(Speech().say("what color is", (k,)), scene, k, random, without="color")
        if speech:
            here = shuffled(random, [t.color for t in scene.things])
            others = [c for c in (*here, *shuffled(random, COLORS)) if c != scene.things[k].color]
            right = _word(scene.things[k].color, (k,))
            return _telling(random, "what", "color", speech, right, [_word(c) for c in others], (k,))
    return None


def ask_make(scene: Scene, split: Split, random: Random) -> Question | None:
    """what is the small red object?  Its material and shape."""
    for k in shuffled(random, list(range(len(scene)))):
        thing = scene.things[k]
        for attributes in ({"color": thing.color}, {"size": thing.size, "color": thing.color}):
            if scene.matching(**attributes) != (k,):
                continue
            made = [f"a {m} {s}" for m in MATERIALS for s in split.shapes if (m, s) != (thing.material, thing.shape)]
            speech = Speech().say("what is", ()).say(f"the {describe(attributes)}", (k,))
            right = _word(f"a {thing.material} {thing.shape}", (k,))
            return _telling(random, "what", "make", speech, right, [_word(m) for m in shuffled(random, made)], (k,))
    return None


def _absent(scene: Scene, split: Split, random: Random, many: int) -> list[Sentence]:
    """Names of things that the scene does not hold, though the split might."""
    found: list[Sentence] = []
    for _ in range(50):
        drawn = split.draw(random)
        attributes = {name: drawn[name] for name in ("color", "shape")}
        if not scene.matching(**attributes):
            found.append(_word(f"the {describe(attributes)}"))
        if len(found) == many:
            break
    return found


def ask_relation(scene: Scene, split: Split, random: Random) -> Question | None:
    """what is left of the red cube?"""
    for b in shuffled(random, list(range(len(scene)))):
        for relation in shuffled(random, RELATIONS):
            true = [k for k in range(len(scene)) if scene.is_clear(relation, k, b) and _full(scene, k)]
            speech = _name(Speech().say("what is").say(PHRASES[relation], (b,)), scene, b, random)
            if not true or speech is None:
                continue
            a = pick(random, true)
            false = [k for k in range(len(scene)) if k != b and fails(scene, relation, k, b)]
            wrong = [name for k in shuffled(random, false) if (name := _full(scene, k))]
            right = _full(scene, a)
            if right:
                wrong += _absent(scene, split, random, CHOICES - 1)
                return _telling(random, "what", "relation", speech, right, wrong, (a, b))
    return None


def ask_place(scene: Scene, split: Split, random: Random) -> Question | None:
    """where is the red cube?  left of the blue sphere"""
    for a in shuffled(random, list(range(len(scene)))):
        speech = _name(Speech().say("where is", (a,)), scene, a, random)
        if speech is None:
            continue
        true: list[tuple[Sentence, Ids]] = []
        false: list[Sentence] = []
        for b in range(len(scene)):
            attributes = naming(scene, b) if b != a else None
            if attributes is None:
                continue
            for relation in RELATIONS:
                said = Speech().say(PHRASES[relation], (a, b)).say(f"the {describe(attributes)}", (b,)).sentence()
                if scene.is_clear(relation, a, b):
                    true.append((said, (a, b)))
                elif fails(scene, relation, a, b):
                    false.append(said)
        if true and len(false) >= CHOICES - 1:
            right, about = pick(random, true)
            return _telling(random, "where", "place", speech, right, shuffled(random, false), about)
    return None


def ask_number(scene: Scene, split: Split, random: Random) -> Question | None:
    """how many metal objects are there?"""
    drawn = pick(random, scene.things).attributes if scene.things and random.random() < 0.8 else split.draw(random)
    names = pick(random, (("shape",), ("color",), ("material",), ("size",), ("material", "shape"), ("size", "shape")))
    attributes = {name: drawn[name] for name in names}
    counted = scene.matching(**attributes)
    speech = Speech().say("how many", counted).say(plural(2, describe(attributes)), counted).say("are there")
    return _number(scene, random, speech, counted)


def ask_number_beside(scene: Scene, split: Split, random: Random) -> Question | None:
    """how many objects are left of the red cube?"""
    for b in shuffled(random, list(range(len(scene)))):
        for relation in shuffled(random, RELATIONS):
            others = [k for k in range(len(scene)) if k != b]
            counted = tuple(k for k in others if scene.is_clear(relation, k, b))
            if not all(k in counted or fails(scene, relation, k, b) for k in others):
                continue
            speech = Speech().say("how many objects", counted).say("are").say(PHRASES[relation], (b,))
            if _name(speech, scene, b, random):
                return _number(scene, random, speech, counted)
    return None


def _number(scene: Scene, random: Random, speech: Speech, counted: Ids) -> Question | None:
    right = len(counted)
    low = max(0, right - int(random.random() * CHOICES))  # the place of the right number says nothing
    low = min(low, len(NUMBERS) - CHOICES)
    wrong = [_word(NUMBERS[n]) for n in range(low, low + CHOICES) if n != right]
    return _telling(random, "how many", "number", speech, _word(NUMBERS[right], counted), wrong, counted)


def _extreme(scene: Scene, end: str) -> int | None:
    """The thing nearest to (or farthest from) the camera, where it is so beyond doubt."""
    far = scene.distances
    order = sorted(range(len(scene)), key=far.__getitem__, reverse=end != "closest to")
    return order[0] if len(order) > 1 and abs(far[order[0]] - far[order[1]]) >= _APART else None


def ask_distance(scene: Scene, split: Split, random: Random) -> Question | None:
    """which object is closest to the camera?"""
    end = pick(random, ("closest to", "farthest from"))
    k = _extreme(scene, end)
    right = None if k is None else _full(scene, k)
    if k is None or right is None:
        return None
    others = [name for j in shuffled(random, list(range(len(scene)))) if j != k and (name := _full(scene, j))]
    others += _absent(scene, split, random, CHOICES - 1)
    speech = Speech().say("which object is", ()).say(end).say("the camera")
    return _telling(random, "which", "distance", speech, right, others, (k,))


def _pointing(random: Random, asked: str, speech: Speech, right: int, wrong: list[int], about: Ids) -> Pointing | None:
    if len(wrong) < CHOICES - 1:
        return None
    choices = shuffled(random, [right, *wrong[: CHOICES - 1]])
    return Pointing("which", asked, speech.mark("?").sentence(), tuple(choices), choices.index(right), about)


def point_at_name(scene: Scene, split: Split, random: Random) -> Pointing | None:
    """which object is the small red cube?  The most similar things are the other choices."""
    for k in shuffled(random, list(range(len(scene)))):
        speech = _name(Speech().say("which object is", ()), scene, k, random)
        if speech:
            mine = scene.things[k].attributes.items()
            others = shuffled(random, [j for j in range(len(scene)) if j != k])
            others.sort(key=lambda j: -len(mine & scene.things[j].attributes.items()))
            return _pointing(random, "name", speech, k, others, (k,))
    return None


def point_at_attribute(scene: Scene, split: Split, random: Random) -> Pointing | None:
    """which of these objects is made of metal?  Which is yellow?  Which is a sphere?"""
    for k in shuffled(random, list(range(len(scene)))):
        for name in shuffled(random, ("size", "color", "material", "shape")):
            value = getattr(scene.things[k], name)
            others = [j for j in range(len(scene)) if getattr(scene.things[j], name) != value]
            if len(others) >= CHOICES - 1:
                told = {"material": f"made of {value}", "shape": f"a {value}"}.get(name, value)
                speech = Speech().say("which of these objects is", ()).say(told, (k,))
                return _pointing(random, name, speech, k, shuffled(random, others), (k,))
    return None


def point_at_relation(scene: Scene, split: Split, random: Random) -> Pointing | None:
    """which object is left of the red cube?"""
    for b in shuffled(random, list(range(len(scene)))):
        for relation in shuffled(random, RELATIONS):
            true = [k for k in range(len(scene)) if scene.is_clear(relation, k, b)]
            false = [k for k in range(len(scene)) if fails(scene, relation, k, b)]
            speech = Speech().say("which of these objects is").say(PHRASES[relation], (b,))
            if true and len(false) >= CHOICES - 1 and _name(speech, scene, b, random):
                a = pick(random, true)
                return _pointing(random, "relation", speech, a, shuffled(random, false), (a, b))
    return None


def point_at_distance(scene: Scene, split: Split, random: Random) -> Pointing | None:
    """which object is closest to the camera?"""
    end = pick(random, ("closest to", "farthest from"))
    k = _extreme(scene, end)
    if k is None:
        return None
    others = shuffled(random, [j for j in range(len(scene)) if j != k])
    speech = Speech().say("which object is", ()).say(end).say("the camera")
    return _pointing(random, "distance", speech, k, others, (k,))


TELLING: tuple[Callable[[Scene, Split, Random], Question | None], ...] = (
    ask_color, ask_make, ask_relation, ask_place, ask_number, ask_number_beside, ask_distance,
)  # fmt: skip
POINTING: tuple[Callable[[Scene, Split, Random], Pointing | None], ...] = (
    point_at_name, point_at_attribute, point_at_relation, point_at_distance,
)  # fmt: skip


def telling(scene: Scene, split: Split, random: Random) -> tuple[Question, ...]:
    """One telling question of every sort that the scene allows without ambiguity."""
    return tuple(question for ask in TELLING if (question := ask(scene, split, random)))


def pointing(scene: Scene, split: Split, random: Random) -> tuple[Pointing, ...]:
    """One pointing question of every sort that the scene allows; none for fewer than four things."""
    return tuple(question for point in POINTING if (question := point(scene, split, random)))
