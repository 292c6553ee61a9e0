"""What is read of a recipe's source is what the recipe itself knows."""

import dataclasses
from pathlib import Path

import pytest

from sightline.recipes import known
from sightline.recipes.known import check_plan, known_arguments, known_settings
from sightline.recipes.plan import NAMES, TrainingError, _arguments, recipe_of


@pytest.mark.parametrize("system", NAMES)
def test_the_source_tells_what_the_recipe_knows(system: str) -> None:
    recipe = recipe_of(system)
    real = dataclasses.asdict(recipe.Settings())
    told = known_settings(system)
    assert {name: type(value) for name, value in told.items()} == {name: type(value) for name, value in real.items()}
    arguments = _arguments(recipe)
    read = known_arguments(system)
    assert read.keys() == arguments.keys()
    for name, default in arguments.items():  # a kind is converted only where the recipe itself would
        assert read[name] is None or type(read[name]) is type(default)


@pytest.mark.parametrize(
    ("system", "given", "said"),
    [
        ("nosuch", {}, "no recipe for 'nosuch'; there are: vit,"),
        ("vit", {"nosuch": 3}, "vit: no setting 'nosuch'; there are: accumulate"),
        ("vit", {"steps": "abc"}, "steps='abc': expected int"),
        ("infomin", {"batch": 0}, "batch=0: expected 1 or more"),
        ("transformer", {"precision": "half"}, "precision='half'"),
    ],
)
def test_wrong_plans_are_refused(system: str, given: dict[str, object], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        check_plan(system, given)


def test_right_plans_pass_and_without_source_nothing_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_plan("vit", {"steps": 20, "dim": 32, "image_size": (32, 48), "accumulate": 2})
    check_plan("dino", {"rate": "1e-3", "patch": 4, "heads": 2})
    known._tree.cache_clear()
    monkeypatch.setattr(known, "_HOME", tmp_path)
    check_plan("vit", {"nosuch": 3})
