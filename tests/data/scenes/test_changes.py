"""Changes, edits, dialogues and queries do what they say, and nothing else."""

import re
from collections import Counter
from dataclasses import asdict

import pytest

from sightline.data.scenes import Scenes
from sightline.data.scenes.alter import KINDS, alter
from sightline.data.scenes.changes import CHANGES
from sightline.data.scenes.composed import alike

SCENES = Scenes(seed=31, objects=(3, 6))


def differences(change) -> Counter[str]:
    """What differs between the scenes of a change, by their things alone."""
    before = dict(enumerate(change.before.things))
    after = dict(zip(change.after_ids, change.after.things, strict=True))
    found: Counter[str] = Counter()
    for k in before.keys() | after.keys():
        if k not in after:
            found["drop"] += 1
        elif k not in before:
            found["add"] += 1
        elif before[k] != after[k]:
            old, new = asdict(before[k]), asdict(after[k])
            changed = {key for key in old if old[key] != new[key]}
            found["move" if changed <= {"x", "y"} else "+".join(sorted(changed))] += 1
    return found


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_of_its_kind_and_nothing_else(kind: str) -> None:
    asked = 0
    for i in range(12):
        change = SCENES.change(i, kind)
        assert differences(change) == Counter(change.kinds)
        assert change.distractor.things == change.before.things
        assert change.distractor.light != change.before.light
        assert change.after.light != change.before.light
        assert set(change.changed_ids) <= set(range(len(change.before) + 3))
        assert len(change.changed_ids) == len(change.kinds)
        asked += change.kinds == (() if kind == "none" else (kind,)) or (kind == "several" and len(change.kinds) > 1)
    assert asked >= 10


def test_any_change_is_of_all_kinds() -> None:
    kinds = Counter(change.kinds if len(change.kinds) < 2 else "several" for change in map(SCENES.change, range(60)))
    assert len(kinds) == len(CHANGES)


def test_captions_of_changes_are_true(see) -> None:
    told = 0
    for i in range(40):
        change = SCENES.change(i, CHANGES[i % 5])
        seen, now = see(change.before), see(change.after)
        (kind,), (thing,) = change.kinds, change.changed_ids
        for sentence in map(str, change.captions):
            text = sentence.rstrip(".")
            if kind == "add":
                phrase = re.sub(r"^(there is now|someone added) | has (been added|appeared)", "", text)
                noun, *place = re.split(r" (?=left of|right of|in front of|behind)", phrase)
                new = change.after_ids.index(thing)
                assert new in now.matching(noun)
                if place:
                    relation, anchor = seen.place(place[0])
                    assert now.margin(relation, new, change.after_ids.index(anchor)) > 0
                continue
            phrase = re.sub(r"^someone removed ", "", text)
            noun = re.split(r" (?:became|changed|turned|is|has|moved)\b", phrase)[0]
            assert seen.the(noun) == thing
            if kind in ("color", "material") and not phrase.endswith("location"):
                value = phrase.split()[-1]
                assert now.attributes[change.after_ids.index(thing)][kind] == value
                assert seen.attributes[thing][kind] != value
            told += 1
    assert told > 60


def test_words_of_changes_are_tied_to_identities() -> None:
    for i in range(20):
        change = SCENES.change(i, "several")
        spoken = {k for sentence in change.captions for things in sentence.objects for k in things}
        assert set(change.changed_ids) <= spoken
        assert spoken <= set(range(len(change.before))) | set(change.after_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_edits_do_what_the_instruction_says(kind: str, see) -> None:
    done = 0
    for i in range(15):
        edit = SCENES.edit(i, kind)
        if edit.kind != kind:
            continue
        done += 1
        assert edit.source.camera == edit.target.camera
        assert edit.source.light == edit.target.light
        text, source, target = str(edit.instruction).rstrip("."), see(edit.source), see(edit.target)
        relation = next((r for r in ("left of", "right of", "in front of", "behind") if f" {r} " in text), None)
        head, _, tail = text.partition(f" {relation} ")
        words = head.split()
        if kind == "add":
            new = len(edit.source)
            assert edit.target.things[:new] == edit.source.things
            assert new in target.matching(" ".join(words[1:]))
            assert relation is None or target.margin(relation, new, source.the(tail)) > 0.5
            continue
        noun = " ".join(words[words.index("the") : next(n for n, w in enumerate(words) if w in SHAPES) + 1])
        thing = source.the(noun)
        rest = [t for k, t in enumerate(edit.source.things) if k != thing]
        if kind == "drop":
            assert list(edit.target.things) == rest
            continue
        assert [t for k, t in enumerate(edit.target.things) if k != thing] == rest
        if kind == "move":
            assert source.attributes[thing] == target.attributes[thing]
            assert relation is None or target.margin(relation, thing, source.the(tail)) > 0.5
            assert relation is None or not source.margin(relation, thing, source.the(tail)) > 0.55
        else:
            assert target.attributes[thing] == source.attributes[thing] | {kind: words[-1]}
    assert done >= 8


SHAPES = ("cube", "sphere", "cylinder", "cone", "dome")


def test_dialogues_build_the_scene(see) -> None:
    placed = 0
    for i in range(25):
        scene, talk = SCENES.scene(i), SCENES.dialogue(i)
        assert len(talk.start) == 0
        assert sorted(map(repr, talk.turns[-1].scene.things)) == sorted(map(repr, scene.things))
        before = talk.start
        for number, turn in enumerate(talk.turns):
            assert turn.scene.things[:-1] == before.things
            assert turn.added == number
            seen = see(turn.scene)
            phrase = str(turn.instruction).removeprefix("add ").rstrip(".")
            noun = " ".join(phrase.split()[:5])
            assert number in seen.matching(noun)
            place = phrase.removeprefix(noun).strip()
            if place.startswith(("on the", "in the")):
                assert (seen.across[number] < -0.3 * 0.365) == (place == "on the left")
            else:
                relation = next(r for r in ("left of", "right of", "in front of", "behind") if place.startswith(r))
                anchor = place.removeprefix(relation).strip()
                known = see(before)
                other = number - 1 if anchor == "it" else known.the(anchor)
                assert seen.margin(relation, number, other) > 0.5
                placed += 1
            before = turn.scene
    assert placed > 40


@pytest.mark.parametrize("kind", KINDS)
def test_queries_have_one_target(kind: str) -> None:
    for i in range(8):
        query = SCENES.query(i, kind)
        members = query.members
        assert len(members) == 6
        for k, a in enumerate(members):
            assert not any(alike(a, b) for b in members[:k])
        assert query.target.camera != query.reference.camera or query.target.light != query.reference.light
        # every negative is one alteration away from the reference, or at most two from the target
        for negative in query.negatives:
            old, new = set(query.reference.things), set(negative.things)
            assert len(old - new) <= 1
            assert len(new - old) <= 1


def test_negatives_do_not_fulfil_the_wish(see) -> None:
    moved = 0
    for i in range(25):
        query = SCENES.query(i, "move")
        text = str(query.text).rstrip(".")
        relation = next((r for r in ("left of", "right of", "in front of", "behind") if f" {r} " in text), None)
        if query.kind != "move" or relation is None:
            continue
        anchor = see(query.reference).the(text.partition(f" {relation} ")[2])
        assert see(query.target).margin(relation, query.thing, anchor) > 0
        for negative in query.negatives:
            same = [t.attributes for t in negative.things] == [t.attributes for t in query.reference.things]
            assert not same or not see(negative).margin(relation, query.thing, anchor) > 0
        moved += 1
    assert moved > 8


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of color"):
        SCENES.change(0, "shrink")
    with pytest.raises(ValueError, match="expected one of color"):
        SCENES.edit(0, "shrink")
    with pytest.raises(ValueError, match="expected one of color"):
        alter(SCENES.random(0, "x"), SCENES.split, SCENES.scene(0), "none")


def test_scenes_too_small_for_a_query_say_so() -> None:
    small = Scenes(seed=3, objects=(1, 1))
    assert small.edit(0).kind in KINDS
