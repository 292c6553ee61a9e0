"""What a split holds out is neither shown nor named, anywhere."""

import re

import pytest

from sightline.data.scenes import Scenes, Split
from sightline.data.scenes.graph import COLORS, NOVEL_SHAPES, SHAPES
from sightline.data.scenes.splits import HELD_OUT, SPLITS


def test_one_in_five_pairs_is_held_out() -> None:
    assert len(HELD_OUT) / (len(COLORS) * len(SHAPES)) == pytest.approx(0.2, abs=0.02)
    for shape in SHAPES:  # every shape and every color is seen in training
        assert sum((color, shape) not in HELD_OUT for color in COLORS) >= 6
    for color in COLORS:
        assert sum((color, shape) not in HELD_OUT for shape in SHAPES) >= 2


def everything(scenes: Scenes, i: int):
    """All scenes and all sentences that a scene number gives rise to."""
    change, edit, talk, query = scenes.change(i), scenes.edit(i), scenes.dialogue(i), scenes.query(i)
    several = scenes.change(i, "several")
    shown = [scenes.scene(i), change.before, change.after, change.distractor, several.after, edit.source, edit.target]
    shown += [turn.scene for turn in talk.turns] + list(query.members)
    said = [*scenes.captions(i), *change.captions, *several.captions, edit.instruction, query.text]
    said += [turn.instruction for turn in talk.turns]
    for q in scenes.questions(i):
        said += [q.text, *q.choices]
    said += [q.text for q in scenes.pointing(i)]
    return shown, [str(sentence) for sentence in said]


def named_pairs(text: str) -> set[tuple[str, str]]:
    """Colors and shapes that a text joins in one noun phrase."""
    colors, shapes = "|".join(COLORS), "|".join((*SHAPES, *NOVEL_SHAPES))
    return set(re.findall(rf"\b({colors})(?: rubber| metal)? ({shapes})s?\b", text))


def test_the_search_for_names_finds_them() -> None:
    assert named_pairs("the red metal cube, cyan cubes") == {("red", "cube"), ("cyan", "cube")}


@pytest.mark.parametrize("split", ["train", "val", "test", "train-kinds", "test-kinds"])
def test_held_out_pairs_never_leak(split: str) -> None:
    scenes = Scenes(seed=21, split=split, objects=(3, 6))
    for i in range(12):
        shown, said = everything(scenes, i)
        for scene in shown:
            assert not {(t.color, t.shape) for t in scene.things} & HELD_OUT
        assert not {pair for text in said for pair in named_pairs(text)} & HELD_OUT


@pytest.mark.parametrize("split", ["train", "val-combinations", "test-all"])
def test_held_out_kinds_never_leak(split: str) -> None:
    scenes = Scenes(seed=22, split=split, objects=(3, 6))
    for i in range(12):
        shown, said = everything(scenes, i)
        assert not {t.shape for scene in shown for t in scene.things} & set(NOVEL_SHAPES)
        assert not re.search("|".join(NOVEL_SHAPES), " ".join(said))


@pytest.mark.parametrize("split", ["train-combinations", "test-combinations", "val-kinds"])
def test_every_scene_shows_what_its_split_is_named_for(split: str) -> None:
    scenes = Scenes(seed=23, split=split, objects=(3, 5))
    for i in range(12):
        change, edit, query = scenes.change(i), scenes.edit(i), scenes.query(i)
        for scene in (scenes.scene(i), change.before, change.after, edit.target, *query.members):
            assert any(Split(split).is_held_out(thing) for thing in scene.things)


def test_split_all_shows_every_pair() -> None:
    scenes = Scenes(split="train-all")
    shown = {(t.color, t.shape) for i in range(150) for t in scenes.scene(i).things}
    assert len(shown) == len(COLORS) * len(SHAPES)


@pytest.mark.parametrize("name", SPLITS)
def test_every_name_of_a_split_works(name: str) -> None:
    assert len(Scenes(split=name, objects=(1, 1)).scene(0)) == 1
