"""Every question has exactly one right choice, by an evaluator of its own (conftest)."""

import re
from collections import Counter

import pytest

from sightline.data.scenes import Scenes
from sightline.data.scenes.language import NUMBERS

CLEARLY = 0.15


def is_true(seen, question: str, choice: str) -> bool | None:
    """Whether a choice answers a telling question; None where that is a matter of opinion."""
    if match := re.fullmatch(r"what color is (the .*)\?", question):
        return seen.attributes[seen.the(match[1])]["color"] == choice
    if match := re.fullmatch(r"what is (the .*)\?", question):
        return seen.the(match[1]) in seen.matching(choice)
    if match := re.fullmatch(r"what is (.*)\?", question):
        relation, anchor = seen.place(match[1])
        found = seen.matching(choice)
        if not found:
            return False
        assert len(found) == 1
        return False if found[0] == anchor else decided(seen.margin(relation, found[0], anchor))
    if match := re.fullmatch(r"where is (the .*)\?", question):
        return decided(seen.margin(seen.place(choice)[0], seen.the(match[1]), seen.place(choice)[1]))
    if (match := re.fullmatch(r"how many objects are (.*)\?", question)) and match[1] != "there":
        relation, anchor = seen.place(match[1])
        others = [decided(seen.margin(relation, k, anchor)) for k in range(len(seen.distance)) if k != anchor]
        return None if None in others else NUMBERS.index(choice) == sum(others)
    if match := re.fullmatch(r"how many (.*) are there\?", question):
        return NUMBERS.index(choice) == len(seen.matching(match[1]))
    if match := re.fullmatch(r"which object is (closest to|farthest from) the camera\?", question):
        found = seen.matching(choice)
        return bool(found) and extreme(seen, found, match[1])
    raise AssertionError(f"a question of unknown form: {question!r}")


def decided(margin: float) -> bool | None:
    return True if margin > CLEARLY else False if margin < -CLEARLY else None


def extreme(seen, found: list[int], end: str) -> bool | None:
    assert len(found) == 1
    order = seen.distance.argsort() if end == "closest to" else (-seen.distance).argsort()
    apart = abs(seen.distance[order[0]] - seen.distance[order[1]])
    return None if apart < CLEARLY else bool(found[0] == order[0])


def is_pointed(seen, question: str, thing: int) -> bool | None:
    if match := re.fullmatch(r"which object is (closest to|farthest from) the camera\?", question):
        return extreme(seen, [thing], match[1])
    if match := re.fullmatch(r"which object is (the .*)\?", question):
        return seen.the(match[1]) == thing
    match = re.fullmatch(r"which of these objects is (.*)\?", question)
    assert match, f"a question of unknown form: {question!r}"
    told = match[1].removeprefix("made of ")
    if " the " not in told:
        return thing in seen.matching(told)
    relation, anchor = seen.place(told)
    return False if thing == anchor else decided(seen.margin(relation, thing, anchor))


@pytest.mark.parametrize("split", ["train", "test-combinations", "val-kinds"])
def test_telling_questions_have_one_right_choice(split: str, see) -> None:
    scenes = Scenes(seed=3, split=split, objects=(2, 8))
    asked: Counter[str] = Counter()
    for i in range(60):
        seen = see(scenes.scene(i))
        for q in scenes.questions(i):
            assert len(q.choices) == 4 == len({str(choice) for choice in q.choices})
            truths = [is_true(seen, str(q.text), str(choice)) for choice in q.choices]
            assert truths == [k == q.right for k in range(4)], f"scene {i}: {q.text} {[str(c) for c in q.choices]}"
            asked[q.asked] += 1
    assert min(asked[kind] for kind in ("color", "make", "relation", "place", "number", "distance")) > 15


@pytest.mark.parametrize("split", ["train", "test-kinds"])
def test_pointing_questions_have_one_right_choice(split: str, see) -> None:
    scenes = Scenes(seed=4, split=split, objects=(4, 8))
    asked: Counter[str] = Counter()
    for i in range(60):
        seen = see(scenes.scene(i))
        for q in scenes.pointing(i):
            assert len(set(q.choices)) == 4
            truths = [is_pointed(seen, str(q.text), thing) for thing in q.choices]
            assert truths == [k == q.right for k in range(4)], f"scene {i}: {q.text} {q.choices}"
            asked[q.asked] += 1
    assert min(asked[kind] for kind in ("name", "relation", "distance", "color", "shape")) > 8


def test_the_evaluator_can_say_no(see) -> None:
    scenes = Scenes(seed=3, objects=(3, 6))
    wrong = 0
    for i in range(20):
        seen = see(scenes.scene(i))
        told = [is_true(seen, "how many metal objects are there?", word) for word in NUMBERS]
        assert sum(bool(t) for t in told) == 1
        for q in scenes.questions(i):
            wrong += sum(is_true(seen, str(q.text), str(c)) is False for c in q.choices)
    assert wrong > 100


def test_the_right_choice_is_anywhere() -> None:
    scenes = Scenes(seed=1, objects=(4, 7))
    places = Counter(q.right for i in range(60) for q in (*scenes.questions(i), *scenes.pointing(i)))
    share = [places[k] / places.total() for k in range(4)]
    assert max(share) < 0.32, share


def test_numbers_cannot_be_guessed_from_their_rank() -> None:
    scenes = Scenes(seed=1, objects=(3, 6))
    ranks: Counter[int] = Counter()
    for i in range(60):
        for q in scenes.questions(i):
            if q.asked == "number":
                ranks[sorted(NUMBERS.index(str(c)) for c in q.choices).index(NUMBERS.index(str(q.answer)))] += 1
    assert max(ranks.values()) / ranks.total() < 0.5, ranks


def test_words_and_answers_are_tied_to_things(see) -> None:
    scenes = Scenes(seed=5, objects=(4, 7))
    for i in range(30):
        scene = scenes.scene(i)
        for q in scenes.questions(i):
            for sentence in (q.text, q.answer):
                for word, things in zip(sentence.words, sentence.objects, strict=True):
                    if word in ("cube", "sphere", "cylinder"):
                        assert all(scene.things[k].shape == word for k in things)
                        assert len(things) == 1
            assert set(q.about) <= set(range(len(scene)))
            if q.asked in ("relation", "distance"):
                assert seen_in(q.answer.objects) == {q.about[0]}


def seen_in(objects) -> set[int]:
    return {k for things in objects for k in things}


def test_scenes_of_one_thing_have_no_pointing_question() -> None:
    scenes = Scenes(objects=(1, 3))
    assert all(scenes.pointing(i) == () for i in range(20))
    assert any(scenes.questions(i) for i in range(20))
