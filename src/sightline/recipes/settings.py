"""What was said of a run, KEY=VALUE, on top of what a recipe has; the plain values of `plan.py`."""

import ast
from pathlib import Path
from typing import Any


class TrainingError(ValueError):
    """Training cannot start or go on; the message says why in one line."""


class Stopped(TrainingError):
    """Somebody stopped the training; a shell is told by the usual code."""

    exit_code = 130

    def __init__(self, folder: Path) -> None:
        kept = (folder / "checkpoints" / "last.ckpt").is_file()
        how = f"go on with `sightline train --resume {folder}`" if kept else "no checkpoint yet: start it again"
        super().__init__(f"stopped; {how}")


def settled(
    system: str, settings: dict[str, Any], sizes: dict[str, Any], arguments: dict[str, Any], overrides: dict[str, Any]
) -> dict[str, Any]:
    """Gives settings and sizes after `overrides`, which name a setting or one of the system's `arguments`.

    Both are given with their defaults.  Raises TrainingError as `new_plan` does.
    """
    settings, sizes, accumulate, within = dict(settings), dict(sizes), 1, 0
    for key, value in overrides.items():
        if key == "accumulate":
            accumulate = _converted(key, value, accumulate)
        elif key == "within":
            within = _converted(key, value, within)
        elif key in settings:
            settings[key] = _converted(key, value, settings[key])
        elif key in arguments:
            sizes[key] = _converted(key, value, arguments[key])
        else:
            known = ", ".join(sorted(settings.keys() | arguments.keys() | {"accumulate", "within"}))
            raise TrainingError(f"{system}: no setting {key!r}; there are: {known}")
    counts = {key: settings[key] for key in ("steps", "batch", "save_every")} | {"accumulate": accumulate}
    for key, value in counts.items():
        if value < 1:
            raise TrainingError(f"{key}={value}: expected 1 or more")
    if settings["precision"] not in ("32-true", "bf16-mixed"):
        raise TrainingError(f"precision={settings['precision']!r}: expected 32-true or bf16-mixed")
    plan = {"settings": settings, "sizes": sizes, "accumulate": accumulate}
    return plan | ({"within": within} if within else {})


def _converted(key: str, value: Any, default: Any) -> Any:
    """A value as the kind of the default; where that is none of the plain kinds, as Python writes it."""
    kind = type(default)
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise TrainingError(f"{key}={value!r}: expected true or false")
        return str(value).lower() == "true"
    if kind not in (int, float, str):
        try:
            return ast.literal_eval(value) if isinstance(value, str) else value
        except (ValueError, SyntaxError):
            return value
    if kind is str and (value is None or isinstance(value, bool)):
        return str(value).lower()  # the shell has read a word such as none as what it means elsewhere
    try:
        converted = kind(value)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{key}={value!r}: expected {kind.__name__}") from error
    if kind is int and not isinstance(value, str) and converted != value:
        raise TrainingError(f"{key}={value!r}: expected a whole number")
    return converted
