import pytest

from sightline.recipes.plan import TrainingError, command_of, new_plan, recipe_of


def test_overrides_go_to_the_settings_or_the_system() -> None:
    plan = new_plan("vit", "folder:x", False, {"steps": "12", "rate": "2e-3", "dim": 96})
    assert plan["settings"]["steps"] == 12
    assert plan["settings"]["rate"] == 2e-3
    assert plan["sizes"] == {"dim": 96}
    assert "steps=12" in command_of(plan)
    assert "dim=96" in command_of(plan)


def test_tiny_is_what_the_recipe_says() -> None:
    recipe = recipe_of("vit")
    plan = new_plan("vit", "folder:x", True, {"steps": 7})
    assert plan["settings"]["batch"] == recipe.TINY["batch"]
    assert plan["settings"]["steps"] == 7
    assert plan["sizes"] == recipe.TINY_SYSTEM


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"stepz": 1}, r"no setting 'stepz'; there are: .*steps"),
        ({"steps": "many"}, r"steps='many': expected int"),
        ({"steps": 2.5}, r"steps=2\.5: expected a whole number"),
        ({"batch": 0}, r"batch=0: expected 1 or more"),
        ({"precision": "8"}, r"expected 32-true or bf16-mixed"),
    ],
)
def test_bad_settings_are_refused(given: dict, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        new_plan("vit", "folder:x", False, given)


def test_an_unknown_recipe_and_no_data_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"no recipe for 'resnet'; there are: vit, vit_control"):
        new_plan("resnet", "folder:x", False, {})
    with pytest.raises(TrainingError, match="no data given"):
        new_plan("vit", None, False, {})
