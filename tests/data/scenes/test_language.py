"""Captions: true at every level, every content word tied to what it speaks of."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.scenes import Scenes
from sightline.data.scenes.language import NUMBERS, naming
from sightline.data.vocabulary import caption_tokens


def test_words_are_what_the_tokenizer_makes_of_the_text() -> None:
    scenes = Scenes(seed=2, objects=(1, 8))
    for i in range(20):
        said = [*scenes.captions(i), *(q.text for q in scenes.questions(i)), *scenes.change(i).captions]
        for sentence in (*said, scenes.edit(i).instruction):
            assert list(sentence.words) == caption_tokens(sentence.text)
            assert len(sentence.objects) == len(sentence.words)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9), split=st.sampled_from(["train", "test-kinds", "val-combinations"]))
def test_captions_are_true(see, words, relations, seed: int, split: str) -> None:

    scenes = Scenes(seed=seed, split=split, objects=(1, 7), count=1)
    scene, seen = scenes.scene(0), see(scenes.scene(0))
    kinds, names, full = scenes.captions(0)
    total = 0
    for phrase in re.split(r", | and ", re.sub(r"^there (is|are) |\.$", "", kinds.text)):
        number, shape = phrase.split()
        count = 1 if number == "a" else NUMBERS.index(number)
        assert len(seen.matching(shape)) == count
        total += count
    assert total == len(scene)

    order = [int(k) for k in seen.across.argsort()]
    listed = re.split(r", | and ", names.text.rstrip("."))
    assert listed == [f"a {scene.things[k].color} {scene.things[k].shape}" for k in order]

    for place, phrase in enumerate(re.split(r", | and ", full.text.rstrip("."))):
        relation = next((r for r in (*relations, "beside") if phrase.startswith(f"{r} it ")), "")
        assert bool(relation) == bool(place)
        if relation in relations:
            assert seen.margin(relation, order[place], order[place - 1]) > 0.3
        attributes = phrase.partition(" it ")[2] if relation else phrase
        assert order[place] in seen.matching(attributes)
        assert len(attributes.split()) == 1 + len(words)


def test_every_content_word_is_tied(see) -> None:
    scenes = Scenes(seed=7, objects=(2, 7))
    tied = 0
    for i in range(60):
        scene = scenes.scene(i)
        for level, caption in enumerate(scenes.captions(i), 1):
            for word, things in zip(caption.words, caption.objects, strict=True):
                if word in ("a", "and", "there", "is", "are", "of", "in"):
                    assert things == ()
                elif word in NUMBERS:
                    assert len(things) == NUMBERS.index(word)
                elif word not in ("left", "right", "front", "behind", "beside", "it"):
                    assert things
                    assert all(word.removesuffix("s") in scene.things[k].attributes.values() for k in things)
                    tied += 1
                else:
                    assert len(things) == (1 if word == "it" else 2)
            if level > 1:
                assert {k for things in caption.objects for k in things} == set(range(len(scene)))
    assert tied > 1000


def test_naming_is_the_shortest_that_tells_apart() -> None:
    scenes = Scenes(seed=9, objects=(3, 8))
    named = 0
    for i in range(80):
        scene = scenes.scene(i)
        for k, thing in enumerate(scene.things):
            found = naming(scene, k)
            if found is None:
                assert any(o.attributes == thing.attributes for j, o in enumerate(scene.things) if j != k)
                continue
            assert scene.matching(**found) == (k,)
            for name in found:
                fewer = {key: value for key, value in found.items() if key != name}
                assert scene.matching(**fewer) != (k,)
            named += 1
            without = naming(scene, k, without="color")
            assert without is None or "color" not in without
    assert named > 200
