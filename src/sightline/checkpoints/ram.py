"""kevinzakka/recurrent-visual-attention: its current weights, and the shipped ones whose location head is older."""

from collections.abc import Collection, Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from sightline.checkpoints.convert import Converted, rename, require, settle
from sightline.systems.ram import RAM

_LAYERS = {
    "sensor.fc1": "glimpse.what_in",
    "sensor.fc2": "glimpse.where_in",
    "sensor.fc3": "glimpse.what_out",
    "sensor.fc4": "glimpse.where_out",
    "rnn.i2h": "core.from_glimpse",
    "rnn.h2h": "core.from_state",
    "baseliner.fc": "baseline",
    "classifier.fc": "classifier",
}
_NEW_HEAD = {"locator.fc": "locator.inner", "locator.fc_lt": "locator.out"}
_OLD_HEAD = {"locator.fc": "locator.out"}


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises the glimpse sensor's and the core's names."""
    return {"sensor.fc1.weight", "rnn.i2h.weight", "locator.fc.weight"} <= set(keys)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts either form: a location head of one layer is taken as the paper's `locator=0`.

    Weights do not show scales, channels, glimpses, std, factor and image size: the caller's, else one scale, one
    channel, six glimpses, 0.17, 2 and 28, those of the shipped file.  Raises ValueError where no patch fits.
    """
    two_layers = "locator.fc_lt.weight" in state
    layers = _LAYERS | (_NEW_HEAD if two_layers else _OLD_HEAD)
    names = {f"{old}.{kind}": f"{new}.{kind}" for old, new in layers.items() for kind in ("weight", "bias")}
    renamed = rename(state, names)
    what, reading = require(state, "sensor.fc1.weight", 2).shape
    unseen = {"image_size": 28, "channels": 1, "scales": 1, "factor": 2, "glimpses": 6, "std": 0.17}
    told = {name: overrides.get(name, usual) for name, usual in unseen.items()}
    parts = told["scales"] * told["channels"]
    patch = isqrt(reading // parts) if isinstance(parts, int) and parts > 0 else 0
    if patch < 1 or parts * patch**2 != reading:
        raise ValueError(
            f"a reading of {reading} numbers is no square patch at scales={told['scales']}, "
            f"channels={told['channels']}: give the scales= and channels= of training"
        )
    shown = told | {
        "patch": patch,
        "what": what,
        "where": len(require(state, "sensor.fc2.weight", 2)),
        "locator": len(require(state, "locator.fc.weight", 2)) if two_layers else 0,
        "classes": len(require(state, "classifier.fc.weight", 2)),
    }
    return Converted(RAM, settle(RAM, shown, overrides), renamed)
