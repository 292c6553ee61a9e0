"""Reference attention of `transformers` models: their eager code, or a few lines written out here."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision


def call(model: nn.Module, inputs: dict[str, Any], **more: Any) -> Any:
    """Runs the model without gradients, from the same seed: ViLT draws which patches it reads."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model(**inputs, **more)


def eager(model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """Output of the same weights in an eager model, and what its modules returned beside hidden states, by site name.

    Built anew: some models choose the class of their attention when they are made.
    """
    twin = type(model)._from_config(copy.deepcopy(model.config), attn_implementation="eager").eval()
    twin.load_state_dict(model.state_dict())
    returned: dict[str, Tensor] = {}

    def keep(path: str, _module: nn.Module, _args: Any, output: Any) -> None:
        beside = output[1:] if isinstance(output, tuple) else ()
        for tensor in beside:
            if isinstance(tensor, Tensor) and tensor.dim() >= 3 and (tensor.sum(-1) - 1).abs().max() < 1e-3:
                returned[numbered(path, returned)] = tensor  # T5 returns its position bias first
                break

    for path, module in twin.named_modules():
        module.register_forward_hook(partial(keep, path))
    return call(twin, inputs, output_attentions=True, return_dict=True), returned


def numbered(path: str, taken: dict[str, Tensor]) -> str:
    """The name of a site whose module has run before."""
    again = 1 + sum(name == path or name.startswith(f"{path}#") for name in taken)
    return path if again == 1 else f"{path}#{again}"


def siglip_head(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """The attention-pooling head: softmax(q k^T / sqrt(d)) from the projections of its nn.MultiheadAttention."""
    head = model.vision_model.head
    with torch.no_grad():
        tokens = model.vision_model(inputs["pixel_values"]).last_hidden_state
        heads, width = head.attention.num_heads, tokens.shape[-1]
        projection, bias = head.attention.in_proj_weight, head.attention.in_proj_bias
        query = head.probe.expand(len(tokens), -1, -1) @ projection[:width].T + bias[:width]
        key = tokens @ projection[width : 2 * width].T + bias[width : 2 * width]
        query, key = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
        scores = query @ key.transpose(-2, -1) / (width / heads) ** 0.5
    return {"vision_model.head.attention": scores.softmax(-1)}


def qwen_windows(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Qwen2.5-VL's tower: one softmax over all patches, those of other windows hidden (cu_seqlens bounds them)."""
    found: dict[str, Tensor] = {}

    def look(path: str, module: nn.Module, args: tuple, named: dict[str, Any]) -> None:
        tokens = args[0] if args else named["hidden_states"]
        shape = (len(tokens), 3, module.num_heads, -1)
        query, key, _ = module.qkv(tokens).reshape(shape).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *named["position_embeddings"])
        window = torch.bucketize(torch.arange(len(tokens)), named["cu_seqlens"], right=True)
        scores = torch.einsum("qhd,khd->hqk", query, key) * module.scaling
        found[path] = scores.masked_fill(window[:, None] != window, float("-inf")).softmax(-1)[None]

    handles = [
        block.attn.register_forward_pre_hook(partial(look, f"model.visual.blocks.{i}.attn"), with_kwargs=True)
        for i, block in enumerate(model.model.visual.blocks)
    ]
    call(model, inputs)
    for handle in handles:
        handle.remove()
    return found


def dropout_inputs(ending: str, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """What the dropout on the weights was given, for modules whose own caller drops what they return."""
    found: dict[str, Tensor] = {}

    def look(path: str, _module: nn.Module, args: tuple) -> None:
        if args[0].dim() == 4:
            found[numbered(path, found)] = args[0]

    named = [(path, m) for path, m in model.named_modules() if path.endswith(ending)]
    handles = [m.register_forward_pre_hook(partial(look, path.rpartition(".")[0])) for path, m in named]
    call(model, inputs)
    for handle in handles:
        handle.remove()
    return found


def unwindow(weights: Tensor, batch: int, side: int, window: int, shift: int) -> Tensor:
    """(batch * windows, heads, w*w, w*w) to (batch, heads, side*side, side*side), cell by cell.

    The grid is padded at its end to whole windows, then rolled by -shift, then cut.
    """
    padded = -(-side // window) * window
    heads, per_image = weights.shape[1], (padded // window) ** 2
    whole = torch.zeros(batch, heads, side * side, side * side)
    for number in range(per_image):
        top, left = divmod(number, padded // window)
        cells = [
            ((top * window + y + shift) % padded, (left * window + x + shift) % padded)
            for y in range(window)
            for x in range(window)
        ]
        for i, (y, x) in enumerate(cells):
            for j, (v, u) in enumerate(cells):
                if max(y, x, v, u) < side:
                    whole[:, :, y * side + x, v * side + u] = weights[number::per_image, :, i, j]
    return whole


def swin_in_place(name: str, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Eager weights put back on the grid: stages of 16 and 8 cells a side, windows of 4, each second shifted."""
    returned = eager(model, inputs)[1]
    found = {}
    for stage, side in ((0, 16), (1, 8)):
        for block in (0, 1):
            path = f"encoder.layers.{stage}.blocks.{block}.{name}"
            found[path] = unwindow(returned[path], 2, side, 4, 2 * block)
    return found


def sam_in_place(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """SAM's tower: an 8 x 8 grid padded to windows of 3, then a layer over the whole grid."""
    returned = eager(model, inputs)[1]
    found = {path: weights.reshape(-1, 4, *weights.shape[-2:]) for path, weights in returned.items()}
    found["vision_encoder.layers.0.attn"] = unwindow(found["vision_encoder.layers.0.attn"], 2, 8, 3, 0)
    return found


def leaves(output: Any) -> Iterator[Tensor]:
    """Every floating tensor of a model's output."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from leaves(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from leaves(value)


def visible(inputs: dict[str, Any], site: Any) -> Tensor:
    """Rows that may attend somewhere, (batch, queries): all but padding on the left of a causal model."""
    mask = inputs.get("attention_mask")
    if mask is None or site.queries != mask.shape[1] or bool(mask[:, 0].all()):
        return torch.ones(site.batch, site.queries, dtype=torch.bool)
    return mask.bool()
