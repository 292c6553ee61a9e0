"""What a model's own parts say of its tokens: patch size, special tokens, which part of it an attention site
belongs to.

Facts only, in plain values; `place.py` turns them into a `Layout`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Learned tokens that models put before their patches, in the order in which every known model puts them.
_BEFORE = {
    "class": re.compile(r"^(cls|class)(_?(token|tok|embedding|embed|emb))?s?$"),
    "distillation": re.compile(r"^(dist|distill|distillation)_?(token|tok)s?$"),
    "register": re.compile(r"^(reg|register|registers|storage)(_?(token|tok)s?)?$"),
}
_AFTER = re.compile(r"^(det|detection)_tokens?$")  # YOLOS: after the patches
_IMAGE_TOKENS = (
    "image_token_id",
    "image_token_index",
    "media_token_id",
    "video_token_id",
    "video_token_index",
)
_GRIDS = ("image_grid_thw", "video_grid_thw", "grid_thw")


@dataclass(frozen=True)
class Vision:
    """The image side of a model: stride of its tokens in (frames, height, width) pixels and its special
    tokens."""

    module: nn.Module
    patch: tuple[int, int, int]
    hierarchical: bool
    before: tuple[str, ...]
    after: int


def config_of(module: nn.Module) -> Any:
    """The module's configuration object, or None."""
    config = getattr(module, "config", None)
    return None if config is None or isinstance(config, (Tensor, nn.Module)) else config


def setting(source: Any, *names: str) -> Any:
    """The first of the named settings that `source` (a configuration, a mapping or a module) has, else
    None."""
    for name in names:
        found = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
        if found is not None and not isinstance(found, nn.Module):
            return found
    return None


def ancestors(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules on the way to `path`, the nearest first and the model itself last."""
    chain = [model]
    for part in path.split("#")[0].split("."):
        below = dict(chain[0].named_children()).get(part)
        if below is None:
            break
        chain.insert(0, below)
    return chain


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of an int or a sequence of two."""
    if isinstance(value, Iterable):
        numbers = [int(v) for v in value]
        return (numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[-2], numbers[-1])
    return int(value), int(value)


def is_text(module: nn.Module) -> bool:
    """Whether this module's own configuration is that of a text model."""
    config = config_of(module)
    if config is None or setting(config, "vision_config", "patch_size", "patch_sizes", "num_channels", "encoder"):
        return False
    return setting(config, "vocab_size") is not None


def image_token(model: nn.Module, path: str) -> list[int]:
    """Ids that stand for image (or video) tokens inside a language sequence, from any configuration on the
    way."""
    configs = [config_of(module) for module in ancestors(model, path)]
    found = [setting(c, name) for name in _IMAGE_TOKENS for c in configs if c is not None]
    return list(dict.fromkeys(int(token) for token in found if isinstance(token, int)))


def grids(inputs: Mapping[str, Any] | None) -> list[tuple[int, int, int]] | None:
    """(frames, height, width) in patches of every image, where the processor says so (the Qwen-VL family)."""
    for name in _GRIDS:
        value = (inputs or {}).get(name)
        if value is not None:
            return [(int(t), int(h), int(w)) for t, h, w in torch.as_tensor(value).reshape(-1, 3).tolist()]
    return None


def merge_size(module: nn.Module) -> int:
    """Side of the square of patches that one language token stands for (1 where nothing is merged)."""
    for part in module.modules():
        for source in (part, config_of(part)):
            if source is not None and isinstance(setting(source, "spatial_merge_size"), int):
                return int(setting(source, "spatial_merge_size"))
    return 1


def _stem(module: nn.Module, channels: int) -> nn.Module | None:
    """The convolution nearest to the root that reads the image's channels."""
    best: tuple[int, nn.Module] | None = None
    for name, part in module.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d)) and part.in_channels == channels:
            depth = name.count(".")
            if best is None or depth < best[0]:
                best = (depth, part)
    return None if best is None else best[1]


def special_tokens(module: nn.Module) -> tuple[tuple[str, ...], int]:
    """Names of the learned tokens before the patches, in order, and the number of those after them."""
    counts = dict.fromkeys(_BEFORE, 0)
    after = 0
    for name, parameter in module.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        count = 1 if parameter.dim() < 2 else int(parameter.shape[-2])
        if leaf == "prefix_tokens":  # our own ViT keeps both in one parameter
            counts["class"], counts["distillation"] = min(count, 1), max(count - 1, 0)
        for kind, pattern in _BEFORE.items():
            if pattern.match(leaf):
                counts[kind] = max(counts[kind], count)
        if _AFTER.match(leaf):
            after = max(after, count)
    names = [
        kind if total == 1 and kind != "register" else f"{kind} {i + 1}"
        for kind, total in counts.items()
        for i in range(total)
    ]
    declared = setting(module, "num_prefix_tokens")  # timm's own count wins: it knows what its forward uses
    if isinstance(declared, int) and declared != len(names):
        names = (names + [f"special {i + 1}" for i in range(len(names), declared)])[:declared]
    return tuple(names), after


def _hierarchical(module: nn.Module, stem: nn.Module | None) -> bool:
    config = config_of(module)
    if config is not None and setting(config, "depths", "patch_sizes", "sr_ratios", "blocks_per_stage"):
        return True
    for part in module.modules():
        if type(part).__name__.lower().endswith(("merging", "downsample")):
            return True
        if (
            isinstance(part, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))
            and part is not stem
            and max(pair(part.stride)) > 1
        ):
            return True
    return False


def _describe(module: nn.Module, channels: int) -> Vision | None:
    stem, config = _stem(module, channels), config_of(module)
    # A list: one size per stage (Segformer, PVT); the stem's stride is the first of them.
    size = setting(config, "patch_size") if config is not None else setting(module, "patch_size")
    if stem is not None:
        stride = [int(s) for s in stem.stride]  # type: ignore[union-attr]
        patch = (stride[0] if len(stride) == 3 else 1, stride[-2], stride[-1])
    elif isinstance(size, (int, tuple, list)):
        patch = (int(setting(config, "temporal_patch_size", "tubelet_size") or 1), *pair(size))
    else:
        return None
    before, after = special_tokens(module)
    return Vision(module, patch, _hierarchical(module, stem), before, after)


def find_vision(model: nn.Module, path: str, channels: int) -> Vision | None:
    """The image side that a site belongs to: its nearest ancestor that reads pixels, else the first such part."""
    chain = ancestors(model, path)
    for level, module in enumerate(chain):
        if _stem(module, channels) is None:
            continue
        # A model may hold an image tower beside a text part: a site of the text part looks at that tower.
        towers = [c for c in module.children() if _stem(c, channels) is not None]
        if towers and (is_composite(module) or any(is_text(m) for m in chain[:level])):
            return _describe(_narrow(towers[0], channels), channels)
        return _describe(module, channels)
    for module in [*chain, *model.modules()]:  # patches embedded by a linear layer
        if setting(config_of(module), "patch_size") is not None:
            return _describe(module, channels)
    return None


def is_composite(module: nn.Module) -> bool:
    """Whether this module joins an image model and a text model."""
    config = config_of(module)
    return config is not None and setting(config, "vision_config", "encoder") is not None


def _narrow(module: nn.Module, channels: int) -> nn.Module:
    while is_composite(module) or config_of(module) is None:
        below = [c for c in module.children() if _stem(c, channels) is not None]
        if len(below) != 1 or isinstance(below[0], (nn.Conv2d, nn.Conv3d)) or special_tokens(module)[0]:
            break
        module = below[0]
    return module


def packed_order(tower: nn.Module, height: int, width: int) -> list[int]:
    """Where each patch, row by row, of a frame of height x width patches stands in a Qwen-VL tower's
    sequence.

    The patches of one merged square lie together; Qwen2.5-VL moreover sorts the squares by window, also for
    its layers with full attention (`get_vision_window_index` of transformers).
    """
    merge, config = merge_size(tower), config_of(tower)
    rows, columns = height // merge, width // merge
    side = max(rows, columns)
    if setting(config, "fullatt_block_indexes") is not None:
        side = int(setting(config, "window_size")) // merge // pair(setting(config, "patch_size"))[0]
    order, place = [0] * (height * width), 0
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            for y in range(top, min(top + side, rows)):
                for x in range(left, min(left + side, columns)):
                    for i in range(merge):
                        for j in range(merge):
                            order[(y * merge + i) * width + x * merge + j] = place
                            place += 1
    return order
