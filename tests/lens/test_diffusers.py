"""Diffusion models of `diffusers`: recorded weights equal those that a plain attention processor, written here, sees.

The plain processors replace the model's own for a second run: projections, softmax, product, nothing fused.
"""

from typing import Any

import pytest
import torch
from eager_reference import call, leaves
from tiny_models import sharpen
from torch import Tensor, nn

import sightline

diffusers = pytest.importorskip("diffusers")


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split(tokens: Tensor, heads: int) -> Tensor:
    """(batch, tokens, heads * width) to (batch, heads, tokens, width)."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


class Plain:
    """softmax(q k^T / sqrt(d)) v, from an attention module's own projections; remembers the weights of each module.

    `first`: which of the two streams of a joint attention comes first, "image" (SD3) or "text" (Flux).
    """

    def __init__(self, first: str = "image") -> None:
        self.first = first
        self.weights: dict[int, Tensor] = {}

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> Any:
        assert attention_mask is None
        joint = encoder_hidden_states is not None and getattr(attn, "add_k_proj", None) is not None
        source = hidden_states if joint or encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (split(x, attn.heads) for x in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)))
        q, k = (norm(x) if norm is not None else x for norm, x in ((attn.norm_q, q), (attn.norm_k, k)))
        if joint:
            other = [
                split(p(encoder_hidden_states), attn.heads) for p in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            ]
            if attn.norm_added_q is not None:
                other[0], other[1] = attn.norm_added_q(other[0]), attn.norm_added_k(other[1])
            pairs = zip((q, k, v), other, strict=True)
            q, k, v = (torch.cat((a, b) if self.first == "image" else (b, a), dim=2) for a, b in pairs)
        if image_rotary_emb is not None:
            q, k = rotate(q, *image_rotary_emb), rotate(k, *image_rotary_emb)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        self.weights[id(attn)] = weights
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        if not joint:
            return mixed if getattr(attn, "pre_only", False) else attn.to_out[0](mixed)
        image, text = hidden_states.shape[1], encoder_hidden_states.shape[1]
        if self.first == "image":
            seen, read = mixed.split([image, text], dim=1)
        else:
            read, seen = mixed.split([text, image], dim=1)
        return attn.to_out[0](seen), read if getattr(attn, "context_pre_only", False) else attn.to_add_out(read)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of neighbouring channels by their position's angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return x * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin


def unet() -> tuple[nn.Module, dict[str, Any]]:
    model = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=4,  # in this class, the number of heads
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return sharpen(model, gain=1.0), {
        "sample": noise(2, 4, 8, 8),
        "timestep": 5,
        "encoder_hidden_states": noise(2, 6, 12, seed=2),
    }


def sd3(**more: Any) -> tuple[nn.Module, dict[str, Any]]:
    model = diffusers.SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        in_channels=4,
        out_channels=4,
        **more,
    )
    return sharpen(model, gain=0.7), {
        "hidden_states": noise(2, 4, 8, 8),
        "encoder_hidden_states": noise(2, 6, 12, seed=2),
        "pooled_projections": noise(2, 10, seed=3),
        "timestep": torch.tensor([5, 5]),
    }


def flux() -> tuple[nn.Module, dict[str, Any]]:
    model = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(4, 6, 6),
    )
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0))
    return sharpen(model, gain=1.0), {
        "hidden_states": noise(2, 16, 4),
        "encoder_hidden_states": noise(2, 6, 12, seed=2),
        "pooled_projections": noise(2, 10, seed=3),
        "timestep": torch.tensor([0.5, 0.5]),
        "img_ids": places,
        "txt_ids": torch.zeros(6, 3),
    }


def recorded(model: nn.Module, inputs: dict[str, Any], first: str = "image") -> Any:
    """Records a run, having checked its output and every site's weights against the plain processor."""
    before = list(leaves(call(model, inputs)))
    with sightline.record(model) as seen:
        after = list(leaves(call(model, inputs)))
    for plain, watched in zip(before, after, strict=True):
        torch.testing.assert_close(watched, plain, atol=1e-6, rtol=1e-6)
    processor = Plain(first)
    model.set_attn_processor(processor)
    for plain, written in zip(before, leaves(call(model, inputs)), strict=True):
        torch.testing.assert_close(written, plain, atol=1e-4, rtol=1e-3)  # the reference computes the same model
    modules = dict(model.named_modules())
    assert len(seen) == len(processor.weights)
    for site in seen:
        reference = processor.weights[id(modules[site.path])]
        torch.testing.assert_close(site.weights, reference, atol=1e-5, rtol=0)
        assert reference.amax(-1).mean() > 1.2 / reference.shape[-1], "a uniform reference proves nothing"
    return seen


def test_unet_tells_self_from_cross_attention() -> None:
    model, inputs = unet()
    seen = recorded(model, inputs)
    assert len(seen) == 8  # down 1, middle 1, up 2 transformer blocks, each with two
    for site in seen:
        assert site.kind == ("cross" if site.path.endswith("attn2") else "self"), site
        assert site.keys == (6 if site.kind == "cross" else site.queries)
    assert {site.queries for site in seen} == {64, 16}


def test_unet_is_told_apart_when_text_and_pixels_are_equally_many() -> None:
    model, inputs = unet()
    seen = recorded(model, {**inputs, "encoder_hidden_states": noise(2, 64, 12, seed=2)})
    kinds = {site.path.rpartition(".")[2]: site.kind for site in seen}
    assert kinds == {"attn1": "self", "attn2": "cross"}


def test_unet_cross_attention_alone_one_word_for_every_pixel() -> None:
    model, inputs = unet()
    full = recorded(model, inputs)
    model, inputs = unet()
    with sightline.record(model, sites="*attn2", queries=[1], heads=[2]) as seen:
        call(model, inputs)
    assert [site.path for site in seen] == [site.path for site in full if site.kind == "cross"]
    for site in seen:
        torch.testing.assert_close(site.weights, full.site(site.path).weights[:, 2:3, 1:2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", [None, "rms_norm"])
def test_sd3_joint_attention(norm: str | None) -> None:
    seen = recorded(*sd3(qk_norm=norm))
    assert [site.path for site in seen] == ["transformer_blocks.0.attn", "transformer_blocks.1.attn"]
    for site in seen:
        assert (site.kind, site.heads, site.queries, site.keys) == ("joint", 2, 22, 22)  # 4 x 4 patches and 6 words


def test_sd35_blocks_with_a_second_attention_over_the_image_alone() -> None:
    seen = recorded(*sd3(dual_attention_layers=(0,)))
    assert [(site.path, site.kind, site.keys) for site in seen] == [
        ("transformer_blocks.0.attn", "joint", 22),
        ("transformer_blocks.0.attn2", "self", 16),
        ("transformer_blocks.1.attn", "joint", 22),
    ]


def test_flux_joint_blocks_and_single_stream_blocks() -> None:
    """A single-stream block is handed words and image as one sequence: self attention of all of them."""
    seen = recorded(*flux(), first="text")
    assert [(site.path, site.kind, site.keys) for site in seen] == [
        ("transformer_blocks.0.attn", "joint", 22),
        ("single_transformer_blocks.0.attn", "self", 22),
    ]


def test_steps_of_a_sampler_are_passes() -> None:
    model, inputs = unet()
    with sightline.record(model, sites="*attn2", queries=sightline.CLS) as seen:
        for step in (5, 3, 1):
            call(model, {**inputs, "timestep": step})
    assert [len(sites) for sites in seen.passes] == [4, 4, 4]
    assert not torch.equal(seen.passes[0][0].weights, seen.passes[2][0].weights)
