"""The `variant.yml` that lies beside Segmenter's published weights: plain values, read without running anything."""

from pathlib import Path
from typing import Any

import yaml

NAME = "variant.yml"


class _Plain(yaml.SafeLoader):
    """YAML's safe values and tuples, which the published files use for sizes."""


def _tuple(loader: _Plain, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_Plain.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_variant(folder: Path) -> dict[str, Any]:
    """Reads `variant.yml` of a folder, {} where there is none.

    Raises ValueError for a file that is no mapping or asks for Python objects.
    """
    file = folder / NAME
    if not file.is_file():
        return {}
    try:
        with file.open(encoding="utf-8") as opened:
            held = yaml.load(opened, Loader=_Plain)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not readable as plain YAML ({reason}): download it again") from error
    if not isinstance(held, dict):
        raise ValueError(f"{file} must hold a mapping, found {type(held).__name__}")
    return held
