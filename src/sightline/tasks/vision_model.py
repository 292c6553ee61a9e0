"""A model that looks at pictures, from whatever names it, with the preprocessing it was trained with."""

import inspect
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from PIL import Image
from torch import Tensor, nn

from sightline.systems.vit import VisionTransformer
from sightline.tasks.methods import no_plain_model

Prepare = Callable[[Image.Image], tuple[Tensor, Image.Image]]
MOST_PATCHES = 16_384  # a square of 1,024 pixels in patches of 8
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# where models of text and image keep the part that takes pixels alone
_TOWERS = ("vision_model", "model.vision_tower", "vision_tower", "model.vision_model", "visual_model")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
# weights that no attention depends on; a checkpoint without them can still be looked through
_HEADS = ("pooler", "classifier", "head", "logit_scale", "lm_head", "cls.")


class ModelError(ValueError):
    """The model cannot be had, or cannot be given a picture alone; the message says what to give instead."""


@dataclass(frozen=True)
class VisionModel:
    """A model in evaluation mode, its preprocessing and its class names.

    ``prepare`` takes an RGB picture and gives the pixels (1, 3, height, width) and the part of the picture
    that those pixels show, since many models see only a centred crop.  ``names`` is None where the model does
    not classify, and ``features`` says that it gives features instead.  ``resized(side)`` is the preparation that
    shows the whole picture, its shape kept, with a shorter side of ``side`` pixels; None where the model takes
    pictures of one size.
    """

    name: str
    model: nn.Module
    prepare: Prepare
    names: tuple[str, ...] | None = None
    note: str = ""
    features: bool = False
    resized: Callable[[int], Prepare] | None = None


def open_vision_model(spec: Any = None, prepare: Prepare | None = None) -> VisionModel:
    """Open a bundled name (None: "vit"), a folder, a weights file, a hub id or an ``nn.Module``.

    Folders and hub ids in the layout of transformers become that model with its own image processor;
    everything else goes through ``sightline.load_checkpoint``.  Code that comes with a checkpoint is never
    run. Raises ``ModelError`` in one line when there is no such model or when it needs more than a picture.
    """
    if isinstance(spec, VisionModel):
        return spec
    if isinstance(spec, nn.Module):
        return _from_module(spec, prepare)
    if spec is not None and not isinstance(spec, str | Path):
        raise ModelError(f"model: a bundled name, folder, hub id or nn.Module was expected, got {type(spec).__name__}")
    from sightline.checkpoints.bundled import bundled_names, names_bundled

    name = str(spec or "vit")
    path = Path(name).expanduser()
    if names_bundled(name):
        found = _from_bundled(name)
    elif path.is_dir():
        found = _from_folder(path, name)
    elif path.is_file():
        found = _from_checkpoint(name)
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        found = _from_hub(name)
    else:
        known = ", ".join(bundled_names()) or "none in this installation"
        raise ModelError(f"model {name!r}: no bundled name ({known}), no folder or file here, no hub id (owner/name)")
    return replace(found, prepare=prepare) if prepare else found


def plain_prepare(
    size: tuple[int, int],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Prepare:
    """Preprocessing that shows the whole picture: resize to ``size`` (height, width), subtract mean, divide
    by std."""

    def prepare(image: Image.Image) -> tuple[Tensor, Image.Image]:
        return _pixels(image, size, mean, std, resample), image

    return prepare


def whole_prepare(side: int, patch: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Prepare:
    """Preprocessing that shows the whole picture in its own shape, as whole patches.

    The shorter side becomes ``side`` pixels and the longer one follows, both rounded to whole patches.  Raises
    ``ModelError`` for a side below one patch and for a picture so long that it would have more than 16,384 patches.
    """
    if side < patch:
        raise ModelError(f"size {side}: expected the shorter side in pixels, at least one patch of {patch}")

    def prepare(image: Image.Image) -> tuple[Tensor, Image.Image]:
        scale = side / min(image.size)
        width, height = (max(patch, round(scale * length / patch) * patch) for length in image.size)
        if width * height > MOST_PATCHES * patch**2:
            raise ModelError(
                f"size {side}: a picture of {width} x {height} pixels has {width * height // patch**2:,} patches of "
                f"{patch}, more than {MOST_PATCHES:,}; give a smaller size"
            )
        return _pixels(image, (height, width), mean, std, Image.Resampling.BICUBIC), image

    return prepare


def _pixels(
    image: Image.Image,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    resample: Image.Resampling,
) -> Tensor:
    import numpy as np

    height, width = size
    values = np.asarray(image.resize((width, height), resample), dtype=np.float32) / 255
    centred = (values - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(centred).permute(2, 0, 1)[None].contiguous()


def _ready(model: nn.Module) -> nn.Module:
    model = model.eval().requires_grad_(False)
    return model.cuda() if torch.cuda.is_available() else model


def _pair(size: Any) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else (int(size), int(size))


def _from_module(model: nn.Module, prepare: Prepare | None) -> VisionModel:
    config = getattr(model, "config", None)
    size = getattr(config, "image_size", None) or getattr(model, "image_size", None) or 224
    names = _label_names(config) if type(model).__name__.endswith("ForImageClassification") else None
    note = "" if prepare else f"preprocessing assumed: {size} pixels, ImageNet mean and deviation"
    prepare = prepare or plain_prepare(_pair(size))
    return VisionModel(type(model).__name__, model, prepare, names, note, _gives_features(model))


def _gives_features(model: nn.Module) -> bool:
    return isinstance(model, VisionTransformer) and isinstance(model.head, nn.Identity)


def _from_card(name: str, model: nn.Module, card: dict[str, Any]) -> VisionModel:
    size = card.get("image_size") or card.get("size") or getattr(model, "image_size", 224)
    colours = tuple(card.get("mean", IMAGENET_MEAN)), tuple(card.get("std", IMAGENET_STD))
    names, resized = card.get("classes"), None
    if isinstance(model, VisionTransformer):
        resized = partial(whole_prepare, patch=model.patches.patch, mean=colours[0], std=colours[1])
    # a card may say at which size its maps are best looked at
    looks = card.get("look_size")
    prepare = resized(looks) if resized and looks else plain_prepare(_pair(size), *colours)
    named = tuple(names) if names else None
    # what a narrow classifier knows, beside which an answer about anything else means nothing
    knows = f"It knows {card['knows']}." if "knows" in card else ""
    return VisionModel(name, _ready(model), prepare, named, knows, _gives_features(model), resized)


def _from_bundled(name: str) -> VisionModel:
    from sightline.checkpoints import bundled, bundled_card

    card = bundled_card(name)
    model = bundled(name) if "mean" in card else None
    told = no_plain_model(name, card, isinstance(model, VisionTransformer))
    if model is None or told:
        raise ModelError(told)
    return _from_card(name, model, card)


def _from_checkpoint(name: str) -> VisionModel:
    from sightline.checkpoints import load_checkpoint
    from sightline.checkpoints.bundled import card_in
    from sightline.checkpoints.convert import Untold

    try:
        card, model = card_in(Path(name)), load_checkpoint(name)
    except Untold as error:  # its advice is for load_checkpoint's callers, who can give more keywords
        raise ModelError(f"model {name!r}: {error.reason}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name!r}: {_first_line(error)}") from error
    told = no_plain_model(name, card, isinstance(model, VisionTransformer)) if "system" in card else ""
    given = inspect.signature(model.forward).parameters.values()
    needed = [one.name for one in given if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if not told and len(needed) > 1:
        told = f"model {name!r}: a {type(model).__name__} takes {', '.join(needed)}, not a picture alone"
    if told:
        raise ModelError(told)
    return _from_card(name, model, card)


def _from_folder(path: Path, name: str) -> VisionModel:
    from sightline.checkpoints.bundled import weights_in

    path = weights_in(path)
    config = path / "config.json"
    if not config.is_file():
        if not any(path.iterdir()):
            raise ModelError(f"model {name!r}: the folder is empty")
        return _from_checkpoint(str(path))
    try:
        told = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"model {name!r}: config.json is not JSON ({error})") from error
    return _from_transformers(str(path), name) if "model_type" in told else _from_checkpoint(str(path))


def _from_hub(name: str) -> VisionModel:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str) and any((Path(cached).parent / file).exists() for file in _WEIGHTS):
        return _from_folder(Path(cached).parent, name)  # no question to the network for what lies here
    unreachable = (
        f"model {name!r}: not in the local cache, and the hub cannot be reached; "
        "give a folder, or a bundled name (see `sightline systems`)"
    )
    if not _hub_answers():
        raise ModelError(unreachable)
    try:
        config = json.loads(Path(hf_hub_download(name, "config.json")).read_text("utf-8"))
    except LocalEntryNotFoundError as error:
        raise ModelError(unreachable) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"model {name!r}: cannot be had from the hub ({_first_line(error)})") from error
    return _from_transformers(name, name) if "model_type" in config else _from_checkpoint(name)


def _hub_answers() -> bool:
    """Whether the hub's address can be connected to; its own client would try for half a minute before it
    says no."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    if getproxies():
        return True  # only the proxy knows
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _from_transformers(source: str, name: str) -> VisionModel:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        published = (config.architectures or [""])[0]
        kind = getattr(transformers, published, transformers.AutoModel)
        model, loading = kind.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"model {name!r}: transformers cannot open it ({_first_line(error)})") from error
    missing = sorted(loading["missing_keys"])
    needed = [key for key in missing if not any(part in key for part in _HEADS)]
    if needed:
        raise ModelError(f"model {name!r}: the weights lack {len(needed)} tensors, {needed[0]} among them")
    names = _label_names(config) if published.endswith("ForImageClassification") and not missing else None
    note = f"weights without {missing[0].split('.')[0]}: no classes given" if missing else ""
    model, part = _vision_part(model, name)
    return VisionModel(
        name, _ready(model), _processor_prepare(source, name, model), None if part else names, part or note
    )


def _label_names(config: Any) -> tuple[str, ...] | None:
    names = getattr(config, "id2label", None)
    return tuple(names[key] for key in sorted(names)) if names else None


def _vision_part(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    parameters = list(inspect.signature(model.forward).parameters)
    if parameters and parameters[0] in ("pixel_values", "x", "images", "image"):
        return model, ""
    for path in _TOWERS:
        try:
            tower = model.get_submodule(path)
        except AttributeError:
            continue
        return tower, f"only its image part ({path}) is looked through; it was given no text"
    first = parameters[0] if parameters else "nothing"
    raise ModelError(
        f"model {name!r}: {type(model).__name__} takes {first}, not a picture; "
        "call it yourself inside `with sightline.record(model) as seen`"
    )


def _processor_prepare(source: str, name: str, model: nn.Module) -> Prepare:
    """The checkpoint's own image processor, and the crop of the picture that it lets through."""
    import transformers

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        size = getattr(getattr(model, "config", None), "image_size", None)
        if size is None:
            raise ModelError(f"model {name!r}: no usable preprocessor_config.json ({_first_line(error)})") from error
        return plain_prepare(_pair(size))

    def prepare(image: Image.Image) -> tuple[Tensor, Image.Image]:
        pixels = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"])
        if pixels.ndim != 4 or pixels.shape[0] != 1:
            raise ModelError(
                f"model {name!r}: its processor gives {tuple(pixels.shape)}, not one picture; "
                "call the model yourself inside `with sightline.record(model) as seen`"
            )
        return pixels, image.crop(seen_box(image.size, processor)) if _crops(processor) else image

    return prepare


def _crops(processor: Any) -> bool:
    return bool(getattr(processor, "do_center_crop", False))


def seen_box(size: tuple[int, int], processor: Any) -> tuple[int, int, int, int]:
    """The (left, top, right, bottom) of the original picture that a resize and a centred crop let through."""
    width, height = size
    target, crop = dict(processor.size or {}), dict(processor.crop_size or {})
    if not getattr(processor, "do_resize", True):
        across, down = 1.0, 1.0
    elif target.get("shortest_edge"):
        across = down = target["shortest_edge"] / min(width, height)
    elif target.get("height") and target.get("width"):
        across, down = target["width"] / width, target["height"] / height
    else:
        raise ModelError(f"a processor that resizes by {target} and crops: which part it sees is not known")
    half_width = float(crop.get("width") or crop["shortest_edge"]) / across / 2
    half_height = float(crop.get("height") or crop["shortest_edge"]) / down / 2
    return (
        round(width / 2 - half_width),
        round(height / 2 - half_height),
        round(width / 2 + half_width),
        round(height / 2 + half_height),
    )
