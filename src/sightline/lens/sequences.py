"""Image tokens inside a language sequence: LLaVA, LLaVA-NeXT, InternVL, Idefics 3, Pixtral, Qwen-VL, GIT,
ViLT."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sightline.lens.layout import Layout, at_positions
from sightline.lens.place import cells, merged
from sightline.lens.place_models import (
    ancestors,
    config_of,
    find_vision,
    grids,
    image_token,
    merge_size,
    pair,
    setting,
)


def sequence_layout(
    model: nn.Module,
    tokens: int,
    shape: tuple[int, int, int, int] | None,
    path: str,
    inputs: Mapping[str, Any],
    where: str,
) -> Layout | None:
    """The layout of the image inside the sequence of words that the site reads; None where it reads no such
    sequence."""
    prompt = inputs.get("encoder_hidden_states")
    if isinstance(prompt, Tensor) and prompt.dim() == 3:
        return _joint_diffusion(model, tokens, shape, prompt.shape[1], inputs)
    ids = inputs.get("input_ids")
    if ids is None or not isinstance(ids, Tensor) or ids.dim() != 2 or tokens < ids.shape[1]:
        return None
    kind = setting(config_of(model), "model_type")
    if kind in ("git", "vilt") and "image_encoder" not in path and shape is not None:
        return _joined(model, tokens, shape, ids.shape[1], kind, where)
    marks = [mark for mark in image_token(model, path) if bool((ids == mark).any())]
    if not marks or in_tower(model, path):
        return None
    at = ids == marks[0]
    if bool((at != at[:1]).any()):
        raise ValueError(f"{where}: the image tokens stand elsewhere in every sequence of the batch; run one at a time")
    places = at[0].nonzero().squeeze(1).tolist()
    packed = grids(inputs)
    if packed is not None:
        merge = merge_size(model)
        views = [(t, h // merge, w // merge) for t, h, w in packed][: max(len(packed) // len(ids), 1)]
        return _views(places, views, tokens, where, main=0)
    if shape is None:
        return None
    if setting(inputs, "image_sizes") is not None:
        found = _any_resolution(model, places, tokens, path, inputs, where)
        if found is not None:
            return found
    return _equal_tiles(model, places, tokens, shape, path, inputs, where)


def in_tower(model: nn.Module, path: str) -> bool:
    """Whether the site lies in the image tower (its keys are patches whatever the words are)."""
    return any(
        setting(config_of(m), "patch_size") is not None and setting(config_of(m), "vision_config") is None
        for m in ancestors(model, path)
    )


def _views(
    places: Sequence[int],
    views: Sequence[tuple[int, int, int]],
    tokens: int,
    where: str,
    main: int,
    prefix: int = 0,
) -> Layout:
    """Several views one after the other in the sequence; `main` is the one to show, the others are its
    `tiles`."""
    counts = [math.prod(view) + prefix for view in views]
    if sum(counts) != len(places):
        raise ValueError(
            f"{where}: {len(places)} image tokens, but the views {list(views)} (frames, rows, "
            f"columns) have {counts}. "
            "Settle it with layout=Layout(height, width, offset=first image token, suffix=tokens after)"
        )
    found, start = [], 0
    for view, count in zip(views, counts, strict=True):
        found.append(at_positions(places[start : start + count], view, tokens, prefix))
        start += count
    chosen = found[main]
    return replace(chosen, tiles=tuple(part for part in found if part is not chosen))


def _equal_tiles(
    model: nn.Module,
    places: Sequence[int],
    tokens: int,
    shape: tuple[int, int, int, int],
    path: str,
    inputs: Mapping[str, Any],
    where: str,
) -> Layout:
    """One image, or as many equal tiles or images as the pixels hold for one sequence."""
    config = config_of(model)
    if setting(config, "num_query_tokens", "perceiver_config", "qformer_config") is not None:
        raise ValueError(
            f"{where}: the {len(places)} image tokens of {type(model).__name__} are learned queries, not places on "
            "the image; see the cross attention of its resampler (sites='*cross*' or '*perceiver*')"
        )
    pixels = setting(inputs, "pixel_values", "pixel_values_videos")
    total = 1
    if isinstance(pixels, Tensor):
        total = math.prod(pixels.shape[:-3]) // len(inputs["input_ids"])
    prefix = 1 if setting(config, "vision_feature_select_strategy") == "full" else 0
    for count in dict.fromkeys((max(total, 1), 1)):
        grid = merged(find_vision(model, path, shape[0]), len(places) // count - prefix, shape[2], shape[3])
        if len(places) % count == 0 and grid is not None:
            # The whole image, made small, follows its tiles; of several images the first one is shown.
            last = setting(config, "model_type") in ("internvl", "idefics3", "smolvlm") and count > 1
            views = [(1, *grid)] * count
            return _views(places, views, tokens, where, main=count - 1 if last else 0, prefix=prefix)
    raise ValueError(
        f"{where}: {len(places)} image tokens have no grid with the proportions of {shape[2]} x {shape[3]} "
        f"pixels ({total} images or tiles). Settle it with layout=Layout(height, width, "
        f"offset={places[0]}, suffix={tokens - places[-1] - 1})"
    )


def _any_resolution(
    model: nn.Module, places: Sequence[int], tokens: int, path: str, inputs: Mapping[str, Any], where: str
) -> Layout | None:
    """LLaVA-NeXT (thumbnail, then the tiles joined, the padding cut off, one token at each row's end) and
    Pixtral."""
    config = config_of(model)
    height, width = torch.as_tensor(inputs["image_sizes"]).reshape(-1, 2)[0].tolist()
    pins = setting(config, "image_grid_pinpoints")
    if pins is None:
        grid = merged(find_vision(model, path, 3), len(places), height, width)
        return None if grid is None else at_positions(places, (1, *grid), tokens)
    vision = setting(config, "vision_config")
    tile = pair(setting(vision, "image_size"))[0]
    side = tile // pair(setting(vision, "patch_size"))[0]
    tall, wide = best_resolution((height, width), [pair(pin) for pin in pins])
    rows, columns = unpadded((height, width), (tall // tile * side, wide // tile * side))
    base = side * side
    if len(places) != base + rows * (columns + 1):
        raise ValueError(
            f"{where}: {len(places)} image tokens; a thumbnail of {base} and {rows} rows of {columns} "
            f"+ 1 were "
            f"expected for an image of {height} x {width}. Settle it with layout=Layout(height, "
            f"width, offset=...)"
        )
    fine = [p for row in range(rows) for p in places[base + row * (columns + 1) :][:columns]]
    thumbnail = at_positions(places[:base], (1, side, side), tokens)
    return replace(at_positions(fine, (1, rows, columns), tokens), tiles=(thumbnail,))


def best_resolution(size: tuple[int, int], pins: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) of the list that keeps most of the image, then wastes least (Liu et al. 2024,
    AnyRes)."""

    def worth(pin: tuple[int, int]) -> tuple[int, int]:
        scale = min(pin[1] / size[1], pin[0] / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return kept, kept - pin[0] * pin[1]

    return max(pins, key=worth)


def unpadded(size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the grid that the image covers when it was fitted into it and the rest padded,
    centred."""
    (height, width), (rows, columns) = size, grid
    if width / height > columns / rows:
        return rows - 2 * ((rows - int(round(height * columns / width, 7))) // 2), columns
    return rows, columns - 2 * ((columns - int(round(width * rows / height, 7))) // 2)


def _joined(
    model: nn.Module, tokens: int, shape: tuple[int, int, int, int], words: int, kind: str, where: str
) -> Layout:
    """Models that join patches and words in one sequence without marks: GIT puts the image first."""
    if kind == "vilt":
        raise ValueError(
            f"{where}: ViLT puts its patches in a random order at every call (torch.multinomial in "
            f"visual_embed), "
            "so their places are not known; settle it with layout=Layout(height, width, order=...)"
        )
    vision = find_vision(model, "", shape[0])
    if vision is None:
        raise ValueError(
            f"{where}: no patch embedding was found; settle it with layout=Layout(height, width, prefix=1)"
        )
    rows, columns = cells(vision, shape[2], shape[3])[0]
    prefix = len(vision.before)
    image = rows * columns + prefix
    if tokens < image + words:
        raise ValueError(
            f"{where}: {words} words and {image} image tokens ({rows} x {columns} patches and {prefix}) were "
            "expected. Settle it with layout=Layout(height, width, prefix=1)"
        )
    return Layout(rows, columns, prefix, tokens - image, prefix_names=vision.before)


def _joint_diffusion(
    model: nn.Module,
    tokens: int,
    shape: tuple[int, int, int, int] | None,
    words: int,
    inputs: Mapping[str, Any],
) -> Layout | None:
    """Diffusion transformers that join prompt and latents: Flux has the prompt first, SD3 the image."""
    numbered = inputs.get("img_ids")
    if numbered is not None and tokens == words + numbered.shape[-2]:
        places = numbered.reshape(-1, 3)[: numbered.shape[-2], 1:].long()
        rows, columns = (int(places[:, axis].unique().numel()) for axis in (0, 1))
        in_rows = torch.equal(places[:, 0] * columns + places[:, 1], torch.arange(rows * columns))
        return Layout(rows, columns, offset=words) if in_rows else None
    if type(model).__name__.startswith("SD3") and shape is not None:
        vision = find_vision(model, "", shape[0])
        rows, columns = (0, 0) if vision is None else cells(vision, shape[2], shape[3])[0]
        if tokens == rows * columns + words:
            return Layout(rows, columns, suffix=words)
    return None
