"""The weights of an earlier run: a recipe around them to measure, or the start of another run."""

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_model

from sightline.recipes.plan import TrainingError, recipe_of


def recipe_around(folder: Path) -> tuple[Any, Any]:
    """Gives the recipe's file and the recipe around saved weights (a folder with config, safetensors and card).

    Raises ValueError for a folder without a card.
    """
    if not (folder / "card.json").is_file():
        raise ValueError(f"{folder}: no card.json; expected the `weights` folder of a run")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    recipe_file = recipe_of(card.get("recipe", card["system"]))
    network = recipe_file.build(None, **json.loads((folder / "config.json").read_text(encoding="utf-8")))
    load_model(network, str(folder / "model.safetensors"))
    recipe = recipe_file.Recipe(network, recipe_file.Settings(**card.get("settings", {})), None)
    if hasattr(recipe_file, "load_beside"):
        recipe_file.load_beside(recipe, folder)
    return recipe_file, recipe


def start_from(recipe_file: Any, recipe: Any, data: Any) -> None:
    """Gives a recipe's system the weights of an earlier run (`settings.init`: its `weights` folder).

    The sizes must be the same, and so must what the numbers mean: the classes of the card, and each file that the
    recipe saves beside the weights (a vocabulary).  Raises TrainingError where they do not fit.
    """
    weights = recipe.settings.init
    folder = Path(weights)
    if not (folder / "card.json").is_file():
        raise TrainingError(f"init={weights}: no card.json there; give the `weights` folder of a run")
    known = json.loads((folder / "card.json").read_text(encoding="utf-8")).get("classes")
    wanted = recipe_file.describe(recipe, data).get("classes")
    if wanted is not None and list(known or []) != list(wanted):
        raise TrainingError(
            f"init={weights} knows {len(known or [])} classes, which are not the {len(wanted)} of the data"
        )
    if hasattr(recipe_file, "save_beside"):
        with tempfile.TemporaryDirectory() as own:
            recipe_file.save_beside(recipe, Path(own))
            for file in sorted(Path(own).iterdir()):
                earlier = folder / file.name
                if not earlier.is_file() or earlier.read_bytes() != file.read_bytes():
                    raise TrainingError(f"init={weights}: its {file.name} is not the one that the data gives")
    try:
        load_model(recipe.system, str(folder / "model.safetensors"))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"init={weights} is of other sizes than this run ({reason})") from error
