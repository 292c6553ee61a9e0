"""Before and after: scenes in which something changed, or nothing did, seen from another side in another light."""

from dataclasses import dataclass, replace
from random import Random

from sightline.data.scenes.alter import Alteration, alter, full, name
from sightline.data.scenes.graph import Scene
from sightline.data.scenes.language import PHRASES, Ids, Sentence, Speech, naming
from sightline.data.scenes.layout import nudge_view
from sightline.data.scenes.splits import Split, pick, shuffled

SINGLE = ("color", "material", "add", "drop", "move")
CHANGES = (*SINGLE, "several", "none")

_SAME = (
    "nothing has changed", "the scene is the same as before", "there is no change", "no change was made",
    "the two scenes seem identical", "the scene remains the same",
)  # fmt: skip
_SAID = {
    "color": (("", "became {}"), ("", "changed to {}"), ("", "turned {}")),
    "material": (("", "became {}"), ("", "changed to {}"), ("", "is now made of {}")),
    "drop": (("", "has disappeared"), ("", "is gone"), ("", "is no longer there"), ("someone removed", "")),
    "move": (("", "moved"), ("", "changed its location"), ("", "is in a different location")),
    "add": (("", "has been added"), ("", "has appeared"), ("there is now", ""), ("someone added", "")),
}


@dataclass(frozen=True)
class Change:
    """A pair of scenes and what is said of it.

    kinds        what changed: color, material, add, drop, move; several for several at once; empty for nothing
    before       the scene
    after        the scene with the change, from a jittered camera in a jittered light
    distractor   the scene without the change, jittered likewise
    captions     sentences about the change; their words are tied to identities
    unchanged    sentences about (before, distractor)
    after_ids    identity of each thing of `after`: its number in `before`, or a new number for what was added
    """

    kinds: tuple[str, ...]
    before: Scene
    after: Scene
    distractor: Scene
    captions: tuple[Sentence, ...]
    unchanged: tuple[Sentence, ...]
    after_ids: tuple[int, ...]

    @property
    def changed_ids(self) -> tuple[int, ...]:
        """Identities of the things that changed, came or went."""
        before, after = dict(enumerate(self.before.things)), dict(zip(self.after_ids, self.after.things, strict=True))
        return tuple(k for k in sorted(before | after) if before.get(k) != after.get(k))


def draw_change(random: Random, split: Split, scene: Scene, kind: str) -> Change:
    """A change of the kind asked for (one of `CHANGES`); where the scene does not allow it, of another single kind.

    Raises ValueError for an unknown kind.
    """
    if kind not in CHANGES:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(CHANGES)}")
    steps, ids = _steps(random, split, scene, kind)
    after = steps[-1].after if steps else scene
    captions = _captions(random, scene, steps, ids)
    same = tuple(_plain(text) for text in _SAME)
    return Change(
        tuple(step.kind for step in steps),
        scene,
        nudge_view(
            random, after, lambda seen: all(s.is_told_truly(replace(seen, things=s.after.things)) for s in steps)
        ),
        nudge_view(random, scene),
        captions or same,
        same,
        ids[-1],
    )


def _plain(text: str) -> Sentence:
    return Speech().say(text).mark(".").sentence()


def _steps(random: Random, split: Split, scene: Scene, kind: str) -> tuple[list[Alteration], list[Ids]]:
    """Alterations one after another, no two of one thing, and the identities of the things before and after each."""
    wanted = {"none": [], "several": shuffled(random, SINGLE)[: pick(random, (2, 3))]}.get(kind, [kind])
    steps: list[Alteration] = []
    ids: list[Ids] = [tuple(range(len(scene)))]
    free = {k for k in ids[0] if naming(scene, k)}  # what is named, or beside what is named, is not altered twice
    for one in wanted:
        for tried in (one, *shuffled(random, SINGLE)):
            now, told = steps[-1].after if steps else scene, ids[-1]
            able = [k for k in shuffled(random, list(range(len(now)))) if told[k] in free]
            options: list[int | None] = [None] if tried == "add" else list(able)
            step = next((s for k in options if (s := alter(random, split, now, tried, k))), None)
            if step is None:
                continue
            if step.beside and told[step.beside[1]] not in free:
                step = replace(step, beside=None)
            new = len(scene) + sum(s.kind == "add" for s in steps)
            mine = new if tried == "add" else told[step.thing]
            free -= {mine} | ({told[step.beside[1]]} if step.beside else set())
            kept = tuple(k for k in told if tried != "drop" or k != mine)
            ids.append((*kept, mine) if tried == "add" else kept)
            steps.append(step)
            break
    return steps, ids


def _captions(random: Random, scene: Scene, steps: list[Alteration], ids: list[Ids]) -> tuple[Sentence, ...]:
    sentences = []
    for number in range(max((len(_SAID[step.kind]) for step in steps), default=0)):
        speech = Speech()
        for k, step in enumerate(steps):
            if k:
                speech.say("and") if k == len(steps) - 1 else speech.mark(",")
            said = _SAID[step.kind]
            frame = said[number] if number < len(said) else pick(random, said)
            _tell(speech, random, scene, step, frame, ids[k], ids[k + 1])
        sentences.append(speech.mark(".").sentence())
    return tuple(dict.fromkeys(sentences))


def _tell(
    speech: Speech, random: Random, scene: Scene, step: Alteration, frame: tuple[str, str], before: Ids, after: Ids
) -> None:
    """Says one alteration; things are named as they were in `scene`, before anything changed."""
    ahead, behind = frame
    told = after[step.thing] if step.kind == "add" else before[step.thing]
    if ahead:
        speech.say(ahead, (told,))
    if step.kind == "add":
        speech.say(f"a {full(step.after.things[step.thing])}", (told,))
    else:
        name(speech, scene, told, random)
    if behind:
        speech.say(behind.format(step.value), (told,))
    if step.beside and (step.kind == "add" or behind == "moved"):
        relation, other = step.beside
        name(speech.say(PHRASES[relation], (told, before[other])), scene, before[other], random)
