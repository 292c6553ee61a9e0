"""What is wrong with data by its name is told before torch is there, and as the readers would have it."""

from pathlib import Path

import pytest

from sightline.data import captions, labelled, questions, segmented
from sightline.recipes import known
from sightline.recipes.plan import NAMES, recipe_of
from sightline.recipes.settings import TrainingError
from sightline.recipes.sources import KINDS, check_source


def test_the_kinds_are_those_of_the_readers() -> None:
    for name, module in (("pictures", labelled), ("segmentations", segmented), ("captions", captions)):
        assert set(KINDS[name]) == set(module.KINDS)
    assert set(KINDS["answers"]) == {"scenes", *questions.KINDS}


@pytest.mark.parametrize("system", NAMES)
def test_every_recipe_refuses_another_kind_itself_and_names_what_is_named_here(system: str) -> None:
    with pytest.raises(TrainingError, match=r"data 'nosuch:x': expected KIND:PATH for") as early:
        check_source(system, "nosuch:x")
    kinds = str(early.value).rpartition("one of ")[2].split(", ")
    with pytest.raises(ValueError, match="nosuch:x") as late:
        recipe_of(system).open_data("nosuch:x", "train")
    # what a recipe opens by itself, beside a reader of many kinds, is not among those that this reader names
    for kind in set(kinds) - ({"placed", "scenes"} if len(kinds) > 1 else set()):
        assert kind in str(late.value)


@pytest.mark.parametrize(
    ("system", "data"),
    [
        ("vit", "cifar10:HERE"),
        ("vit", "8*folder:HERE+cifar10:HERE"),
        ("dino", "memory96:folder:HERE+memory96:photos:HERE+hub:owner/name+world:100"),
        ("ps_vit", "placed64:HERE+HERE"),
        ("ps_vit_control", "folder:HERE"),
        ("ram", "cluttered60:HERE"),
        ("ram", "mnist28:HERE"),
        ("segmenter_hybrid", "camvid:HERE"),
        ("show_attend_tell", "flickr8k:HERE#efficientnet_lite0@320"),
        ("visual7w", "daquar:HERE#efficientnet_lite0"),
        ("visual7w_pointing", "scenes:800"),
        ("transformer", "multi30k:HERE:fr-en"),
        ("seq2seq", "transduction:copy"),
        ("world_captions", "scenes:3000#efficientnet_lite0:11"),
    ],
)
def test_what_may_be_there_passes_and_what_is_not_there_is_told(system: str, data: str, tmp_path: Path) -> None:
    check_source(system, data.replace("HERE", str(tmp_path)))
    if "HERE" in data:
        with pytest.raises(TrainingError, match=r"nowhere: no such folder") as refused:
            check_source(system, data.replace("HERE", str(tmp_path / "nowhere")))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("system", "data", "told"),
    [
        ("ram", "folder:x", "data 'folder:x': expected KIND:PATH for ram, KIND one of mnist, translated, cluttered"),
        ("vit", "cifar11:x", "data 'cifar11:x': expected"),
        ("vit", "world:10+nosuch:x", "data 'nosuch:x': expected"),
        ("visual7w_pointing", "daquar:x", "for visual7w_pointing, KIND one of scenes"),
        ("dino", "world:many", "data world:many: expected the number of scenes, 10 or more"),
        ("vit", "world:٣٠", "data world:٣٠: expected the number of scenes"),
        ("vit", "world:10#x", "data world:10#x: expected the number of scenes"),
        ("segmenter", "world:5", "data world:5: expected the number of scenes, 10 or more"),
        ("segmenter", "8*camvid:x", "data '8\\*camvid:x': expected"),
    ],
)
def test_wrong_kinds_are_refused_with_those_there_are(system: str, data: str, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        check_source(system, data)


def test_without_source_nothing_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known._tree.cache_clear()
    monkeypatch.setattr(known, "_HOME", tmp_path)
    check_source("vit", "nosuch:x")
    known._tree.cache_clear()
