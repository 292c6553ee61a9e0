import dataclasses
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
from torch import nn

from sightline.recipes import machines
from sightline.recipes import plan as plans
from sightline.recipes.plan import NAMES, TrainingError, command_of, new_plan, recipe_of


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
    with pytest.raises(TrainingError, match=r"no recipe for 'resnet'; there are: .*vit"):
        new_plan("resnet", "folder:x", False, {})
    with pytest.raises(TrainingError, match="no data given"):
        new_plan("vit", None, False, {})


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_offers_the_interface(name: str) -> None:
    recipe = recipe_of(name)
    fields = {field.name for field in dataclasses.fields(recipe.Settings)}
    assert fields >= {"steps", "batch", "rate", "seed", "precision", "save_every", "init"}
    assert recipe.HELD.startswith("val_")
    assert issubclass(recipe.Recipe, lightning.LightningModule)
    for function in ("open_data", "build", "read_batch", "measure", "describe", "draw_samples"):
        assert callable(getattr(recipe, function)), function
    assert hasattr(recipe, "save_beside") <= hasattr(recipe, "load_beside")
    plan = new_plan(name, "kind:path", True, {})
    assert recipe.Settings(**plan["settings"]).steps == recipe.TINY["steps"]
    for key, value in plan["sizes"].items():  # each is an argument of the system, of a kind that the shell can give
        assert new_plan(name, "kind:path", False, {key: str(value)})["sizes"] == {key: value}


class System(nn.Module):
    def __init__(
        self, *, size: int = 3, share: float = 0.5, kind: str = "soft", gated: bool = True, words: Any
    ) -> None:
        super().__init__()


def build(data: object, *, encoder: str = "small", side: tuple[int, int] = (2, 3), **sizes: Any) -> System:
    return System(words=3, **sizes)


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 1
    batch: int = 1
    save_every: int = 1
    precision: str = "32-true"
    clip: bool = False


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = SimpleNamespace(build=build, Settings=Settings, TINY={}, TINY_SYSTEM={})
    monkeypatch.setattr(plans, "recipe_of", lambda name: recipe)


@pytest.mark.usefixtures("made_up")
def test_values_become_the_kind_of_their_default() -> None:
    given = {"size": "4", "share": "1", "kind": "hard", "gated": "false", "words": "[1, 2]", "encoder": "b"}
    plan = new_plan("any", "kind:path", False, given | {"side": (4, 5), "clip": True})
    expected = {
        "size": 4,
        "share": 1.0,
        "kind": "hard",
        "gated": False,
        "words": [1, 2],
        "encoder": "b",
        "side": (4, 5),
    }
    assert plan["sizes"] == expected
    assert plan["settings"]["clip"] is True
    with pytest.raises(TrainingError, match="gated='no': expected true or false"):
        new_plan("any", "kind:path", False, {"gated": "no"})
    with pytest.raises(TrainingError, match=r"no setting 'sizes'; there are: .*clip, encoder, gated, kind"):
        new_plan("any", "kind:path", False, {"sizes": 3})


def test_the_command_names_machines_other_than_one() -> None:
    plan = new_plan("vit", "folder:x", False, {}) | {"machines": {"devices": 2, "nodes": 1, "strategy": "fsdp"}}
    assert command_of(plan).startswith("sightline train vit --data 'folder:x' --devices 2 --strategy fsdp steps=")
    plan["machines"] = plans.ALONE
    assert "--" not in command_of(plan).replace("--data", "")


def test_words_that_mean_something_to_the_shell_stay_words() -> None:
    sizes = new_plan("seq2seq", "multi30k:somewhere", True, {"attention": None})["sizes"]
    assert sizes["attention"] == "none"


@pytest.mark.parametrize(("native", "taken"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bfloat16_is_taken_only_where_it_is_computed(native: bool, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "halves", lambda: native)
    plan = new_plan("vit", "folder:photos", False, {"precision": "bf16-mixed"})
    assert machines.fitted(plan)["settings"]["precision"] == taken
