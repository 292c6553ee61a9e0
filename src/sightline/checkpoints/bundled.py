"""The weights that come with the package: trained here, small, usable without a network."""

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names and cards are read without torch, so that a wrong name is told at once
    from torch import nn


SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz")  # of files of weights


def _home() -> Path:
    return Path(str(files("sightline"))) / "weights"


def bundled_names() -> list[str]:
    """Lists the names of the weights in the package."""
    home = _home()
    if not home.is_dir():
        return []
    return sorted(folder.name for folder in home.iterdir() if (folder / "model.safetensors").is_file())


def bundled_folder(name: str) -> Path:
    """Tells where the weights called `name` lie; ValueError, listing the names, for an unknown one."""
    names = bundled_names()
    if name not in names:
        raise ValueError(f"no bundled weights {name!r}; there are: {', '.join(names) or 'none in this build'}")
    return _home() / name


def names_bundled(name: str) -> bool:
    """Whether a name stands for weights of the package: a folder of that name here comes first where it holds some."""
    return name in bundled_names() and not any(file.suffix in SUFFIXES for file in weights_in(Path(name)).glob("*"))


def card_in(folder: Path) -> dict[str, Any]:
    """The card beside weights, {} where there is none; ValueError where it is no JSON object."""
    file = folder / "card.json"
    try:
        card = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); take it from the run again") from error
    if not isinstance(card, dict):
        raise ValueError(f"{file} holds a {type(card).__name__}, no card; take it from the run again")
    return card


def weights_in(folder: Path) -> Path:
    """The folder of weights that a folder stands for: that of a training run holds them, and what they are, in
    `weights`."""
    inner = folder / "weights"
    return inner if any(inner.glob("*.json")) else folder


def bundled_card(name: str) -> dict[str, Any]:
    """Reads how the weights called `name` were trained and what they reached."""
    return json.loads((bundled_folder(name) / "card.json").read_text(encoding="utf-8"))


def bundled(name: str) -> "nn.Module":
    """Builds the system called `name` with its weights from the package, in float32 and evaluation mode."""
    from sightline.checkpoints.load import load_checkpoint

    return load_checkpoint(bundled_folder(name), source="sightline")
