"""What the words of a command line name, judged before anything slow is imported: a wrong one is told at once."""

import json
from pathlib import Path
from typing import Any

from sightline.cli.failures import Misuse

# of transformers, those of which every layer looks at the picture
_PLAIN = ("vit", "deit", "dinov2", "dinov2_with_registers", "beit")


def check_named(name: str, kind: str, beside: str = "", begins: str = "", files: tuple[str, ...] = ()) -> None:
    """Raises `Misuse` unless `name` can be a `kind` of system: a bundled name, a folder or file here, or a hub id.

    Of the bundled names those count that begin so and whose weights have the file `beside` them (none named: all).  A
    folder, or the `weights` of a run's, has one of `files` (none named: `beside`, or any); and the system that its card
    names begins so too.
    """
    from sightline.checkpoints.bundled import bundled_folder, bundled_names, weights_in

    names = bundled_names()
    fitting = [one for one in names if one.startswith(begins) and (bundled_folder(one) / beside).exists()]
    is_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    needed, place = files or tuple(filter(None, (beside,))), Path(name).expanduser()
    known = ", ".join(fitting) or "none in this build"
    if name not in fitting and place.is_dir():
        folder = weights_in(place)
        if needed and not any((folder / file).is_file() for file in needed):
            raise Misuse(f"no {kind} {name!r}: the folder has no {' or '.join(needed)}; bundled is {known}")
        system = _read(folder / "card.json").get("system")
        if begins and isinstance(system, str) and not system.startswith(begins):
            raise Misuse(f"no {kind} {name!r}: its card says that it holds {system}; bundled is {known}")
    if name in fitting or (name not in names and (is_id or Path(name).expanduser().exists())):
        return
    raise Misuse(f"no {kind} {name!r}: no bundled name ({known}), no folder or file here, no hub id (owner/name)")


def learned_from(system: str) -> str:
    """What bundled weights learned from, by their card; "" for others: who brought them knows."""
    from sightline.checkpoints.bundled import bundled_card, bundled_names

    return str(bundled_card(system)["data"]) if system in bundled_names() else ""


def weights_folder(name: str) -> Path | None:
    """The folder of weights that a run's folder, a folder of weights or a bundled name stands for; a folder that holds
    weights comes first.  None for other names."""
    from sightline.checkpoints.bundled import bundled_folder, names_bundled, weights_in

    folder = Path(name)
    if folder.is_dir() and not names_bundled(name):
        return weights_in(folder)
    return bundled_folder(name) if names_bundled(name) else None


def check_model(model: str | None, classes: bool = False) -> None:
    """Raises `Misuse` for bundled weights that are of no plain image model; where `classes` are to be named, for those
    of a Vision Transformer that has none, as its card tells."""
    from sightline.checkpoints.bundled import bundled_card, names_bundled
    from sightline.tasks.methods import no_plain_model

    config, card = _told(model, "config.json"), _told(model, "card.json")
    plain = _is_ours(config)
    if names_bundled(str(model)):
        told = no_plain_model(str(model), bundled_card(str(model)), plain)
        if told:
            raise Misuse(told)
    if classes and plain and card and not card.get("classes"):
        raise Misuse(f"model {model!r} gives no named classes; give one that was trained to classify")


def check_part(layer: int, head: str | int, method: str, model: str | None) -> None:
    """Raises `Misuse` for a layer or a head that there is not, where the config.json of a Vision Transformer tells how
    many, and for a head beside a method that fuses them."""
    config = _told(model, "config.json")
    if _is_ours(config):
        count, heads = config["depth"], config.get("heads")
    elif config.get("model_type") in _PLAIN:
        count, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    else:
        return
    if isinstance(count, int) and not -count <= layer < count:
        raise Misuse(f"--layer {layer}: layers 0 to {count - 1} look at the picture; -1 is the last")
    if head != "mean" and method in ("rollout", "gradient", "grad_rollout"):
        raise Misuse(f"--head {head} belongs to --method raw; {method} fuses heads in its own way")
    if isinstance(head, int) and isinstance(heads, int) and not -heads <= head < heads:
        raise Misuse(
            f"--head {head}: each layer has {heads} heads; give one from 0 to {heads - 1}, or mean, max or min"
        )


def _is_ours(config: dict[str, Any]) -> bool:
    """Whether a config.json is of this package's Vision Transformer; a segmenter has more."""
    return {"patch", "positions", "depth"} <= config.keys() and "decoder_depth" not in config


def _told(model: str | None, file: str) -> dict[str, Any]:
    """What a JSON file beside a model's weights tells; nothing where it cannot be read: who opens it says what is
    wrong."""
    from sightline.tasks.methods import usual_model

    folder = weights_folder(str(Path(model or usual_model()).expanduser()))
    return {} if folder is None else _read(folder / file)


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
