"""Tokens to pixels: which key of an attention site lies where on the image, for any model, without user code.

A `Layout` is the answer for one site.  `infer_layout` finds it from the model's own parts (patch embedding,
special tokens, configuration), the image's size and the number of tokens; it never guesses: where more than
one answer fits, or none does, it raises and prints the candidates.  Windowed attention is put back in place
by `windows.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sightline.lens.layout import Layout
from sightline.lens.place_models import (
    Vision,
    ancestors,
    config_of,
    find_vision,
    grids,
    is_text,
    packed_order,
    setting,
)

# Parts of module paths that name attention from one sequence to another.
_CROSSED = ("cross", "encoder_attn", "encdec", "multihead_attn", "attn2")


def image_shape(pixels: Tensor | Sequence[int] | None) -> tuple[int, int, int, int] | None:
    """(channels, frames, height, width) of images (B, C, H, W) or clips (B, T, C, H, W) or (B, C, T, H, W)."""
    shape = None if pixels is None else tuple(pixels.shape if isinstance(pixels, Tensor) else pixels)
    if shape is None or len(shape) not in (4, 5):
        return None
    if len(shape) == 4:
        return shape[1], 1, shape[2], shape[3]
    frames, channels = shape[1:3]
    if frames in (1, 3) and channels not in (1, 3):
        frames, channels = channels, frames
    return channels, frames, shape[3], shape[4]


def infer_layout(
    model: nn.Module,
    tokens: int,
    pixels: Tensor | Sequence[int] | None = None,
    *,
    path: str = "",
    inputs: Mapping[str, Any] | None = None,
    layout: Layout | None = None,
) -> Layout:
    """How `tokens` keys of the site at module `path` lie on the image: `pixels`, or their shape.

    `inputs` are the root call's keyword arguments: a language sequence is placed through its `input_ids` and,
    where the processor made them, `image_grid_thw`, `image_sizes` or `spatial_shapes`.  `layout` settles it
    by hand. Raises ValueError where the keys are not an image, or where not exactly one layout fits: it
    prints the candidates.
    """
    if layout is not None:
        if layout.tokens != tokens and not (layout.offset or layout.suffix):
            raise ValueError(f"{layout} has {layout.tokens} tokens, the site {path!r} has {tokens}")
        return layout
    inputs = inputs or {}
    where = f"the {tokens} keys of {path or type(model).__name__!r}"
    latents = setting(inputs, "sample", "hidden_states")  # what diffusion models call their image
    shape, packed = image_shape(latents if pixels is None else pixels), grids(inputs)
    if shape is None and packed is None and setting(inputs, "spatial_shapes", "img_ids") is None:
        raise ValueError(
            f"{where} cannot be placed: no image was given (pixels of 4 or 5 dims with 3 channels), inputs "
            f"{sorted(map(str, inputs))}. Text and sound have no grid; settle it with "
            f"layout=Layout(height, width, prefix=1)"
        )
    from sightline.lens.sequences import sequence_layout

    chain = ancestors(model, path)
    crossed = any(word in path.lower() for word in _CROSSED)
    found = None if crossed else sequence_layout(model, tokens, shape, path, inputs, where)
    if found is not None:
        return found
    _refuse_queries(chain, tokens, path, crossed, where)
    _refuse_words(chain, tokens, path, crossed, inputs, where)
    vision = find_vision(model, path, shape[0] if shape else 3)
    if vision is not None and packed is not None:
        return _packed(vision, packed, tokens, where)
    if setting(inputs, "spatial_shapes") is not None:
        height, width = torch.as_tensor(inputs["spatial_shapes"]).reshape(-1, 2)[0].tolist()
        return Layout(height, width, suffix=tokens - height * width)  # SigLIP 2: padding patches come last
    if vision is None or shape is None:
        raise ValueError(f"{where}: no patch embedding was found in {type(model).__name__}. {_help(tokens, shape)}")
    return _choose(list(fitting(vision, shape, tokens, path)), vision, shape, tokens, where)


def _refuse_words(
    chain: list[nn.Module], tokens: int, path: str, crossed: bool, inputs: Mapping[str, Any], where: str
) -> None:
    """Raises for keys that are words: those of a text model, or of the prompt that a diffusion model reads."""
    prompt = setting(inputs, "encoder_hidden_states")
    if crossed and "attn2" in path and isinstance(prompt, Tensor) and prompt.shape[1] == tokens:
        raise ValueError(f"{where} are the words of the prompt; its queries are the places on the image")
    if not crossed and any(is_text(m) for m in chain):
        raise ValueError(f"{where} are words, not patches: {type(chain[1]).__name__} belongs to a text model")


def _refuse_queries(chain: list[nn.Module], tokens: int, path: str, crossed: bool, where: str) -> None:
    """Raises for keys that could fill a grid and are no places: patches drawn at random, learned queries."""
    moved = next((m for m in chain if getattr(m, "moves_points", False)), None)
    if moved is not None and not path.endswith("points"):
        raise ValueError(
            f"{where} are points that {type(moved).__name__} moves over the image, no cells of a grid; the sites named "
            "'points' tell where each look read, and sightline.look draws them"
        )
    decoding = "decoder" in path.lower()
    for config in filter(None, map(config_of, chain)):
        if setting(config, "masked_unit_size") is not None:
            raise ValueError(f"{where}: Hiera keeps its tokens by mask unit, in an order that is not known here")
        if setting(config, "mask_ratio") is not None and not decoding:  # ViTMAE, also with mask_ratio=0
            raise ValueError(
                f"{where} are patches that {type(chain[-1]).__name__} draws at random, in random order; settle "
                "it with layout=Layout(height, width, prefix=1, order=...), or use these weights in a plain ViT"
            )
        queries = setting(config, "num_queries", "num_query_tokens", "num_latents")
        if tokens == queries and not crossed and (decoding or "qformer" in path.lower()):
            raise ValueError(f"{where} are learned queries, not places on the image; see the cross attention")
    if any(setting(m, "window_size") and setting(m, "q_stride", "query_stride") for m in chain[:-1]):
        raise ValueError(f"{where} are one window whose queries are pooled (SAM 2): no place is known for them")


def fitting(vision: Vision, shape: tuple[int, int, int, int], tokens: int, path: str) -> Iterator[Layout]:
    """Every layout that explains the number of tokens by what the model is made of."""
    _, frames, height, width = shape
    config = config_of(vision.module)
    video = vision.patch[0] > 1 or setting(config, "num_frames", "tubelet_size") is not None or frames == 1
    clip = max(frames // vision.patch[0], 1) if video else 1
    if clip > 1 and "tempor" in path.lower():
        if tokens in (clip, clip + 1):
            yield Layout(1, 1, frames=clip, prefix=tokens - clip)
        return
    joint = setting(config, "attention_type") == "joint_space_time"
    for step in [2**k for k in range(8)] if vision.hierarchical else [1]:
        for rows, columns in cells(vision, height, width, step):
            for images in dict.fromkeys((clip, 1)):
                rest = tokens - images * rows * columns
                if rest not in (0, len(vision.before), len(vision.before) + vision.after):
                    continue
                prefix = len(vision.before) if rest else 0
                order = None
                if joint and images > 1:  # TimeSformer's tokens: all times of a place, then the next place
                    order = tuple(p * images + t for t in range(images) for p in range(rows * columns))
                names = vision.before if rest else ()
                yield Layout(rows, columns, prefix, rest - prefix, images, 0, order, names)


def cells(vision: Vision, height: int, width: int, step: int = 1) -> list[tuple[int, int]]:
    """(rows, columns) of the token grid at 1/step of the patch grid, cut off or padded at the border."""
    _, tall, wide = vision.patch
    cut = (height // tall // step, width // wide // step)
    padded = (math.ceil(height / (tall * step)), math.ceil(width / (wide * step)))
    options = [cut, padded] if vision.hierarchical or setting(vision.module, "pad") else [cut]
    return [grid for grid in dict.fromkeys(options) if min(grid) > 0]


def _packed(vision: Vision, packed: list[tuple[int, int, int]], tokens: int, where: str) -> Layout:
    """Keys in the vision tower of a Qwen-VL model: every frame of every image, one after the other."""
    if tokens == packed[0][1] * packed[0][2]:  # the call of a single frame
        packed = [(1, *packed[0][1:])]
    if tokens != sum(math.prod(grid) for grid in packed):
        raise ValueError(
            f"{where} do not fit the image grids {packed} (frames, rows, columns of patches). "
            "Settle it with layout=Layout(height, width, order=...)"
        )
    found, start = [], 0
    for frames, height, width in packed:
        one = packed_order(vision.module, height, width)
        order = [place + frame * height * width for frame in range(frames) for place in one]
        start, rest = start + len(order), tokens - start - len(order)
        kept = None if order == list(range(len(order))) else tuple(order)
        found.append(Layout(height, width, 0, rest, frames, start - len(order), kept))
    return replace(found[0], tiles=tuple(found[1:]))


def _choose(found: list[Layout], vision: Vision, shape: tuple[int, int, int, int], tokens: int, where: str) -> Layout:
    found = list(dict.fromkeys(found))
    if len(found) == 1:
        return found[0]
    _, frames, height, width = shape
    known = f"patches of {vision.patch[1]} x {vision.patch[2]} pixels, special tokens before them: " + (
        ", ".join(vision.before) or "none"
    )
    clip = f"{frames} frames of " if frames > 1 else ""
    raise ValueError(
        f"{where} on {clip}{height} x {width} pixels (height x width): {len(found) or 'no'} layouts fit what "
        f"{type(vision.module).__name__} shows ({known}). {_help(tokens, shape, found)}"
    )


def _help(tokens: int, shape: tuple[int, int, int, int] | None, found: Sequence[Layout] = ()) -> str:
    """The candidates, best first, and the argument that settles it."""
    candidates = list(found)
    if not candidates and shape is not None:
        for prefix in range(min(tokens, 9)):
            grid = near_aspect(tokens - prefix, shape[2], shape[3])
            if grid is not None:
                candidates.append(Layout(*grid, prefix=prefix))
    listed = "; ".join(map(str, candidates[:6])) or "none of the image's proportions"
    example = str(candidates[0]) if candidates else "Layout(height, width, prefix=1)"
    return f"Candidates: {listed}. Settle it with layout={example}"


def near_aspect(patches: int, height: int, width: int) -> tuple[int, int] | None:
    """(rows, columns) of so many patches with about the proportions of the image, for a list of candidates."""
    if patches < 1:
        return None
    rows = max(round(math.sqrt(patches * height / width)), 1)
    if patches % rows:
        return None
    columns = patches // rows
    return (rows, columns) if abs(rows / columns * width / height - 1) < 0.15 else None


def merged(vision: Vision | None, count: int, height: int, width: int) -> tuple[int, int] | None:
    """(rows, columns) of `count` tokens that each stand for a square of m x m patches, where exactly one m fits."""
    if vision is None:
        return None
    found = set()
    for side in range(1, 17):
        rows, columns = height // vision.patch[1], width // vision.patch[2]
        found |= {(rows // side, columns // side), (math.ceil(rows / side), math.ceil(columns / side))}
    fits = [grid for grid in found if grid[0] * grid[1] == count]
    return fits[0] if len(fits) == 1 else None
