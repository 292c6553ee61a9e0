"""What converters share: renaming with nothing lost, and sizes that shapes show or a person must tell."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sightline.checkpoints.read import shorten

# published widths whose heads are not 64 wide: ViT-H, ViT-g, ViT-G
_HEADS_OF_WIDTH = {1280: 16, 1408: 16, 1664: 16}


class Untold(ValueError):
    """Weights alone do not tell what they are: `reason` says what is missing, `advice` which keyword would tell."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}: {advice}")
        self.reason, self.advice = reason, advice


class Converted(NamedTuple):
    """A system, the constructor keywords that the weights show, and its state dict in Sightline's names."""

    system: type[nn.Module]
    arguments: dict[str, Any]
    state: dict[str, Tensor]

    def build(self) -> nn.Module:
        """Builds the system and loads the state strictly; random number generators stay untouched."""
        with torch.device("meta"):
            model = self.system(**self.arguments)
        self._compare(model)
        model.load_state_dict(self.state, strict=True, assign=True)
        return model.eval()

    def _compare(self, model: nn.Module) -> None:
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in self.state.items()}
        wrong = [
            f"{name} is {given.get(name, 'missing')}, expected {wanted.get(name, 'nothing')}"
            for name in sorted(wanted | given)
            if given.get(name) != wanted.get(name)
        ]
        if wrong:
            raise ValueError(f"these weights do not fit {self.system.__name__}({self.arguments}): {shorten(wrong, 4)}")


def rename(state: Mapping[str, Tensor], names: Mapping[str, str | tuple[str, ...]]) -> dict[str, Tensor]:
    """Moves every tensor of `state` to its new name; a tuple of names splits the tensor along its first axis.

    Raises ValueError naming every tensor that is missing and every one that is left over.
    """
    missing = [name for name in names if name not in state]
    extra = [name for name in state if name not in names]
    if missing or extra:
        parts = [f"missing: {shorten(missing)}"] * bool(missing) + [f"left over: {shorten(extra)}"] * bool(extra)
        raise ValueError(f"the checkpoint does not fit ({'; '.join(parts)}): is it the source you named?")
    renamed: dict[str, Tensor] = {}
    for name, target in names.items():
        if isinstance(target, str):
            renamed[target] = state[name]
            continue
        if len(state[name]) % len(target):
            raise ValueError(f"{name} has {len(state[name])} rows, which do not split into {len(target)}")
        # copies, as views of one storage could not be saved again
        parts_of = [part.clone() for part in state[name].chunk(len(target))]
        renamed.update(zip(target, parts_of, strict=True))
    return renamed


def settle(system: type[nn.Module], shown: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Joins what the weights show with what the caller says; None in `shown` means that they do not show it.

    Raises ValueError for a keyword that the system does not have or that contradicts the weights.
    """
    known = [name for name in inspect.signature(system).parameters if name not in ("self", "args", "kwargs")]
    for name, value in overrides.items():
        if name not in known:
            raise ValueError(f"{system.__name__} has no keyword {name!r}; it takes {', '.join(known)}")
        free = name in ("positions", "eps") or shown.get(name) is None
        if not free and shown[name] != value:
            raise ValueError(f"the weights show {name}={shown[name]}, but {name}={value} was given: leave it out")
    return {**shown, **overrides}


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """Counts the layers numbered in names such as `prefix` + "3.norm1.weight"."""
    numbers = {name.removeprefix(prefix).split(".")[0].split("/")[0] for name in state if name.startswith(prefix)}
    return len({number for number in numbers if number.isdecimal()})


def require(state: Mapping[str, Tensor], name: str, axes: int) -> Tensor:
    """Gives a tensor whose shape shows sizes; ValueError where it is missing or has other axes."""
    if name not in state:
        raise ValueError(
            f"the checkpoint has no {name!r}: is it the source you named? It has {shorten(list(state), 4)}"
        )
    if state[name].ndim != axes:
        raise ValueError(f"{name} must have {axes} axes, found shape {tuple(state[name].shape)}")
    return state[name]


def patch_of(kernel: Tensor, name: str) -> int:
    """Tells the patch side from a convolution kernel (dim, 3, patch, patch); ValueError for another form."""
    _, channels, height, width = kernel.shape
    if channels != 3 or height != width:
        raise ValueError(f"{name} has shape {tuple(kernel.shape)}; this library reads RGB images in square patches")
    return height


def choose_heads(dim: int, overrides: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Tells the number of heads, which shapes do not show: the caller's, the config's, or 64 channels each.

    Raises ValueError naming `heads=` where none of these answers.
    """
    heads = overrides.get("heads", config.get("num_attention_heads"))
    if heads is None and dim % 64:
        raise Untold(f"weights of width {dim} do not show their number of heads", "give heads=...")
    heads = _HEADS_OF_WIDTH.get(dim, dim // 64) if heads is None else heads
    if not isinstance(heads, int) or heads < 1 or dim % heads:
        raise ValueError(f"heads must divide the width {dim}, given heads={heads}")
    return heads


def choose_image_size(
    positions: int, patch: int, overrides: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[int, int]:
    """Tells (height, width) of the images that `positions` patch positions were learned at.

    The caller's `image_size`, else the config's, else a square.  Raises ValueError naming `image_size=`
    where the count is no square or contradicts what is given.
    """
    given = overrides.get("image_size", config.get("image_size"))
    if given is None:
        side = round(positions**0.5)
        if side * side != positions:
            pairs = [(n, positions // n) for n in range(1, positions + 1) if positions % n == 0]
            sizes = ", ".join(str((rows * patch, columns * patch)) for rows, columns in pairs)
            raise ValueError(
                f"{positions} positions are no square grid: give image_size=(height, width), one of {sizes}"
            )
        return (side * patch, side * patch)
    height, width = (given, given) if isinstance(given, int) else (int(side) for side in given)
    if (height // patch) * (width // patch) != positions:
        raise ValueError(
            f"image_size={(height, width)} makes {height // patch} x {width // patch} patches, but "
            f"the weights hold {positions} positions: give the image_size=(height, width) of training"
        )
    return (height, width)


def without_biases(names: dict[str, Any], state: Mapping[str, Tensor], dim: int) -> dict[str, Tensor]:
    """Drops query, key and value biases from `names` if the checkpoint has none at all; gives zeros for them.

    A model built with qkv_bias=False equals one whose biases are zero.
    """
    biases = [name for name, target in names.items() if _is_input_bias(target)]
    if any(name in state for name in biases):
        return {}
    zeros: dict[str, Tensor] = {}
    for name in biases:
        target = names.pop(name)
        zeros.update({one: torch.zeros(dim) for one in ((target,) if isinstance(target, str) else target)})
    return zeros


def _is_input_bias(target: str | tuple[str, ...]) -> bool:
    first = target if isinstance(target, str) else target[0]
    return first.endswith((".query.bias", ".key.bias", ".value.bias"))
