"""What the words of a command line name, judged before anything slow is imported: a wrong one is told at once."""

import json
from pathlib import Path

from sightline.cli.failures import Misuse

# of transformers, those of which every layer looks at the picture
_PLAIN = ("vit", "deit", "dinov2", "dinov2_with_registers", "beit")


def check_named(name: str, kind: str, beside: str = "", begins: str = "") -> None:
    """Raises `Misuse` unless `name` can be a `kind` of system: a bundled name, a folder or file here, or a hub id.

    Of the bundled names those count that begin so and whose weights have the file `beside` them (none named: all).
    """
    from sightline.checkpoints.bundled import bundled_folder, bundled_names

    names = bundled_names()
    fitting = [one for one in names if one.startswith(begins) and (bundled_folder(one) / beside).exists()]
    is_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if name in fitting or (name not in names and (is_id or Path(name).expanduser().exists())):
        return
    known = ", ".join(fitting) or "none in this build"
    raise Misuse(f"no {kind} {name!r}: no bundled name ({known}), no folder or file here, no hub id (owner/name)")


def learned_from(system: str) -> str:
    """What bundled weights learned from, by their card; "" for others: who brought them knows."""
    from sightline.checkpoints.bundled import bundled_card, bundled_names

    return str(bundled_card(system)["data"]) if system in bundled_names() else ""


def weights_folder(name: str) -> Path | None:
    """The folder of weights that a run's folder, a folder of weights or a bundled name stands for; a folder comes
    first.  None for other names."""
    folder = Path(name)
    if folder.is_dir():
        return folder / "weights" if (folder / "weights").is_dir() else folder
    from sightline.checkpoints.bundled import bundled_folder, bundled_names

    return bundled_folder(name) if name in bundled_names() else None


def check_layer(layer: int, model: str | None) -> None:
    """Raises `Misuse` for a layer that there is not, where the config.json of a Vision Transformer tells how many."""
    from sightline.tasks.methods import usual_model

    folder = weights_folder(str(Path(model or usual_model()).expanduser()))
    if folder is None:
        return
    try:
        config = dict(json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return  # who opens it says what is wrong
    ours = {"patch", "positions", "depth"} <= config.keys() and "decoder_depth" not in config  # a segmenter has more
    count = config["depth"] if ours else config.get("num_hidden_layers") if config.get("model_type") in _PLAIN else None
    if isinstance(count, int) and not -count <= layer < count:
        raise Misuse(f"--layer {layer}: layers 0 to {count - 1} look at the picture; -1 is the last")
