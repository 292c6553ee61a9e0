"""What a run may start from: weights of the same sizes whose numbers mean the same."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from sightline.recipes.plan import TrainingError
from sightline.recipes.weights import recipe_around, start_from


def around(folder: Path, words: list[str], size: int = 3) -> tuple[SimpleNamespace, SimpleNamespace]:
    """A recipe's file and a recipe with a vocabulary beside its weights."""
    file = SimpleNamespace(
        describe=lambda recipe, data: {"pictures": data},
        save_beside=lambda recipe, place: (place / "words.json").write_text(json.dumps(recipe.words)),
    )
    settings = SimpleNamespace(init=str(folder))
    return file, SimpleNamespace(settings=settings, words=words, system=nn.Linear(size, 2))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file, recipe = around(tmp_path, ["a", "dog"])
    save_model(recipe.system, str(tmp_path / "model.safetensors"))
    (tmp_path / "card.json").write_text(json.dumps(file.describe(recipe, 5)))
    file.save_beside(recipe, tmp_path)
    return tmp_path


def test_weights_are_taken_where_the_vocabulary_is_the_same(saved: Path) -> None:
    file, recipe = around(saved, ["a", "dog"])
    before = recipe.system.weight.clone()
    start_from(file, recipe, 7)  # other data of the same words
    assert not torch.equal(recipe.system.weight, before)


def test_another_vocabulary_and_other_sizes_are_refused(saved: Path) -> None:
    with pytest.raises(TrainingError, match=r"its words\.json is not the one that the data gives"):
        start_from(*around(saved, ["a", "cat"]), 5)
    with pytest.raises(TrainingError, match="is of other sizes than this run"):
        start_from(*around(saved, ["a", "dog"], size=4), 5)
    (saved / "words.json").unlink()
    with pytest.raises(TrainingError, match=r"its words\.json is not"):
        start_from(*around(saved, ["a", "dog"]), 5)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no card\.json; expected the `weights` folder of a run"):
        recipe_around(tmp_path)
