"""One door for weights: finds out where they come from and builds the system they belong to."""

from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from sightline.checkpoints import (
    annotated_transformer,
    arctic_captions,
    dino,
    dinov2,
    efficientnet_lite,
    jax_vit,
    marian,
    own,
    ps_vit,
    ram,
    segmenter,
    timm_vit,
    transformers_vit,
    tutorial_captions,
)
from sightline.checkpoints.convert import Untold
from sightline.checkpoints.read import Contents, read, shorten

# A source is a module with matches(keys, config) and convert(state, config, **overrides).  The first that
# matches is taken, so the more specific stand first.
SOURCES: dict[str, ModuleType] = {
    "sightline": own,
    "jax-vit": jax_vit,
    "ram": ram,
    "segmenter": segmenter,
    "ps-vit": ps_vit,
    "transformers-vit": transformers_vit,
    "dinov2": dinov2,
    "dino": dino,
    "timm-vit": timm_vit,
    "efficientnet-lite": efficientnet_lite,
    "arctic-captions": arctic_captions,
    "annotated-transformer": annotated_transformer,
    "marian": marian,
    "tutorial-captions": tutorial_captions,
}


def load_checkpoint(path: str | Path, source: str | None = None, **overrides: Any) -> nn.Module:
    """Builds a system from published or own weights and gives it in evaluation mode.

    `path` is a file (.safetensors, .pth, .pt, .bin, .npz), a folder (transformers' or `save_pretrained`'s),
    or a hub id, read from the cache when offline.  `source` names where the weights come from ("timm-vit",
    "transformers-vit", "jax-vit", "dino", "dinov2", "sightline"); by default their names tell.  `overrides`
    are keywords of the system's constructor for what shapes cannot show, such as `heads=6` or
    `image_size=(height, width)`.

    Loading is strict and never unpickles objects.  Raises FileNotFoundError where nothing is found and
    ValueError for a broken file, an unknown source, and weights that are missing or left over, by name.
    """
    contents = read(path)
    if source is None:
        source = next((name for name, one in SOURCES.items() if one.matches(contents.state, contents.config)), None)
        if source is None:
            names = shorten(list(contents.state), 4)
            raise Untold(
                f"{contents.origin}: these weights' names ({names}) belong to no known source{_config_too(contents)}",
                f"if you know better, give source=, one of {', '.join(SOURCES)}",
            )
    elif source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, given {source!r}")
    try:
        return SOURCES[source].convert(contents.state, contents.config, **overrides).build()
    except Untold as error:
        raise Untold(f"{contents.origin} as {source}: {error.reason}{_config_too(contents)}", error.advice) from error
    except ValueError as error:
        raise ValueError(f"{contents.origin} as {source}: {error}") from error


def _config_too(contents: Contents) -> str:
    """What else is missing where weights were copied alone: the file that would tell what they are."""
    if contents.config:
        return ""
    return ", and no config.json lies beside them; put the one that they were saved with there"
