"""Instructions and what they lead to: one-step edits of a scene, and dialogues that build a scene thing by thing."""

from dataclasses import dataclass, replace
from random import Random

from sightline.data.scenes.alter import KINDS, Alteration, alter, full, name
from sightline.data.scenes.graph import RELATIONS, Scene
from sightline.data.scenes.language import PHRASES, Sentence, Speech, naming
from sightline.data.scenes.splits import Split, pick, shuffled


@dataclass(frozen=True)
class Edit:
    """A scene, an instruction and the scene that it leads to, under the same camera and light.

    The words of `instruction` are tied to the numbers of the things of `source` (of `target` for what is added).
    """

    kind: str
    source: Scene
    target: Scene
    instruction: Sentence
    done: Alteration


@dataclass(frozen=True)
class Turn:
    """One turn of a dialogue: what is asked for, the scene after it, and the number of the thing that was added."""

    instruction: Sentence
    scene: Scene
    added: int


@dataclass(frozen=True)
class Dialogue:
    """A scene built up from empty ground; things keep their numbers from turn to turn."""

    start: Scene
    turns: tuple[Turn, ...]


def draw_edit(random: Random, split: Split, scene: Scene, kind: str) -> Edit:
    """An edit of the kind asked for (color, material, size, shape, add, drop, move); where the scene does not allow
    it, of another kind."""
    for tried in (kind, *shuffled(random, KINDS)):
        done = alter(random, split, scene, tried)
        if done:
            return Edit(tried, scene, done.after, instruct(random, done), done)
    raise ValueError(f"nothing in this scene of {len(scene)} things can be named and edited; give other scenes")


def instruct(random: Random, done: Alteration) -> Sentence:
    """The instruction that asks for an alteration."""
    before, k = done.before, done.thing
    speech = Speech()
    if done.kind == "add":
        speech.say("add", (k,)).say(f"a {full(done.after.things[k])}", (k,))
        return _where(speech, random, done).mark(".").sentence()
    if done.kind == "drop":
        speech.say(pick(random, ("remove", "delete", "take away")), (k,))
        return name(speech, before, k, random).mark(".").sentence()
    if done.kind == "move":
        name(speech.say("move", (k,)), before, k, random)
        if not done.beside:
            return speech.say("somewhere else", (k,)).mark(".").sentence()
        return _where(speech, random, done).mark(".").sentence()
    if done.kind == "shape":
        name(speech.say("turn", (k,)), before, k, random)
        return speech.say("into").say(f"a {done.value}", (k,)).mark(".").sentence()
    verb = {"material": "turn", "size": "make"}.get(done.kind) or pick(random, ("make", "turn"))
    name(speech.say(verb, (k,)), before, k, random)
    value = f"into {done.value}" if done.kind == "material" else done.value
    return speech.say(value, (k,)).mark(".").sentence()


def _where(speech: Speech, random: Random, done: Alteration) -> Speech:
    if done.beside is None:
        return speech
    relation, other = done.beside
    return name(speech.say(PHRASES[relation], (done.thing, other)), done.before, other, random)


def draw_dialogue(random: Random, scene: Scene) -> Dialogue:
    """The turns that build a scene in random order, each placing its thing relative to an earlier one."""
    order = shuffled(random, scene.things)
    now = replace(scene, things=())
    start, turns = now, []
    for number, thing in enumerate(order):
        now = now.plus(thing)
        turns.append(Turn(_ask(random, now, number), now, number))
    return Dialogue(start, tuple(turns))


def _ask(random: Random, now: Scene, k: int) -> Sentence:
    speech = Speech().say("add", (k,)).say(f"a {full(now.things[k])}", (k,))
    known = replace(now, things=now.things[:k])
    able = [(r, b) for b in range(k) for r in RELATIONS if now.is_clear(r, k, b) and (b == k - 1 or naming(known, b))]
    if able:
        relation, b = pick(random, able)
        speech.say(PHRASES[relation], (k, b))
        if b == k - 1 and (naming(known, b) is None or random.random() < 0.4):
            speech.say("it", (b,))
        else:
            name(speech, known, b, random)
    else:
        speech.say(region(now, k), (k,))
    return speech.mark(".").sentence()


def region(scene: Scene, k: int) -> str:
    """Which third of the picture a thing stands in, across."""
    x = scene.projected[k][0]
    return "on the left" if x < -0.3 else "on the right" if x > 0.3 else "in the middle"
