"""One map on the image: which site, row, heads and method, on tiny random models beside their own eager maps."""

import pytest
import torch
import transformers as tf
from torch import Tensor, nn

import sightline
from sightline.lens import Layout, Recording
from sightline.lens.heat import can_roll, fuse_heads, heat, image_sites, mean_row, picture_of, resolve_query

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


def made(build, config, kind: str = "sdpa") -> nn.Module:
    """A random model whose attention is far from even."""
    config._attn_implementation = kind
    torch.manual_seed(0)
    model = build(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.25)
    return model


def vit(kind: str = "sdpa") -> nn.Module:
    return made(tf.ViTForImageClassification, tf.ViTConfig(**SIZES, num_labels=5), kind)


def pictures(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def recorded(model: nn.Module, pixels: Tensor, **choices) -> tuple[Recording, Tensor]:
    with sightline.record(model, **choices) as seen:
        output = model(pixels)
    return seen, output.logits if "logits" in output else output.last_hidden_state


def eager_maps(pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    out = vit("eager")(pixels, output_attentions=True)
    return out.logits, out.attentions


def close(found: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    torch.testing.assert_close(found, expected.detach().float(), atol=2e-6 * scale, rtol=1e-4)


def test_raw_rows_of_every_layer_and_head_equal_the_eager_maps() -> None:
    pixels = pictures(2, 3, 32, 32)
    seen, _ = recorded(vit(), pixels)
    _, maps = eager_maps(pixels)
    for layer in range(-3, 3):
        for head in range(-4, 4):
            found = seen.heat(method="raw", layer=layer, head=head, item=1)
            close(found, maps[layer][1, head, 0, 1:].view(4, 4))
    for name, fused in (("mean", maps[1].mean(1)), ("max", maps[1].amax(1)), ("min", maps[1].amin(1))):
        close(seen.heat(method="raw", layer=1, head=name), fused[0, 0, 1:].view(4, 4))


def test_whose_row_is_meant() -> None:
    pixels = pictures(1, 3, 32, 32)
    seen, _ = recorded(vit(), pixels)
    rows = eager_maps(pixels)[1][2][0].mean(0)
    for query, row in (
        (None, rows[0]), ("class", rows[0]), (sightline.CLS, rows[0]), (0, rows[0]), (7, rows[7]), (-1, rows[16]),
        (sightline.LAST, rows[16]), ((2, 3), rows[1 + 2 * 4 + 3]), ("mean", rows.mean(0)),
    ):  # fmt: skip
        close(seen.heat(method="raw", query=query), row[1:].view(4, 4))


def test_rollout_gradient_and_gradient_rollout_equal_the_eager_ones() -> None:
    pixels = pictures(2, 3, 32, 32)
    seen, logits = recorded(vit(), pixels, gradients=True)
    eager_logits, maps = eager_maps(pixels)
    slopes = torch.autograd.grad(eager_logits[1, 3], maps)
    rolled, gained = torch.eye(17), torch.zeros(17, 17)
    for weights, slope in zip(maps, slopes, strict=True):
        rolled = (0.5 * torch.eye(17) + 0.5 * weights[1].mean(0)) @ rolled
        bar = (weights * slope)[1].clamp(min=0).mean(0)
        gained = gained + bar + bar @ gained
    for query, row in ((None, 0), ((0, 1), 2)):
        close(seen.heat(method="rollout", item=1, query=query), rolled[row, 1:].view(4, 4))
        found = seen.heat(method="grad_rollout", item=1, query=query, score=logits[1, 3])
        close(found, gained[row, 1:].view(4, 4), 1e-2)
    for layer in range(3):
        bar = (maps[layer] * slopes[layer])[1].clamp(min=0).mean(0)
        found = seen.heat(method="gradient", layer=layer, item=1, score=logits[1, 3])
        close(found, bar[0, 1:].view(4, 4), 1e-2)
        assert float(found.max()) > 0


def test_auto_is_rollout_only_where_a_class_row_can_be_rolled() -> None:
    pixels = pictures(1, 3, 32, 32)
    whole, _ = recorded(vit(), pixels)
    assert can_roll(image_sites(whole), None)
    assert torch.equal(whole.heat(), whole.heat(method="rollout"))
    assert torch.equal(whole.heat(query=(1, 1)), whole.heat(method="raw", query=(1, 1)))
    row, _ = recorded(vit(), pixels, queries=sightline.CLS)
    assert not can_roll(image_sites(row), None)
    close(row.heat(), whole.heat(method="raw"))


def test_a_layer_or_head_that_was_asked_for_is_shown() -> None:
    seen, _ = recorded(vit(), pictures(1, 3, 32, 32))
    assert torch.equal(seen.heat(layer=0), seen.heat(method="raw", layer=0))
    assert torch.equal(seen.heat(head=2), seen.heat(method="raw", head=2))
    for choice in ({"head": 2}, {"layer": 0}):
        with pytest.raises(ValueError, match='belongs to method="raw"'):
            seen.heat(method="rollout", **choice)


def test_a_picture_that_is_not_square() -> None:
    model, pixels = vit(), pictures(1, 3, 24, 48)
    with sightline.record(model) as seen:
        model(pixels, interpolate_pos_encoding=True)
    eager = vit("eager")(pixels, interpolate_pos_encoding=True, output_attentions=True).attentions
    assert seen.heat().shape == (3, 6)
    close(seen.heat(method="raw", query=(2, 5)), eager[-1][0].mean(0)[18, 1:].view(3, 6))


def test_no_class_token_means_the_mean_over_all_rows() -> None:
    config = tf.SiglipVisionConfig(**SIZES)
    pixels = pictures(2, 3, 32, 32)
    seen, _ = recorded(made(tf.SiglipVisionModel, config), pixels)
    eager = made(tf.SiglipVisionModel, tf.SiglipVisionConfig(**SIZES), "eager")
    maps = eager(pixels, output_attentions=True).attentions
    close(seen.heat(layer=1), maps[1][0].mean((0, 1)).view(4, 4))
    close(seen.heat(layer=1, query=(3, 3), method="raw"), maps[1][0].mean(0)[15].view(4, 4))
    assert seen[-1].kind == "cross"  # the pooling head: its one query is learned, its row is the map
    close(seen.heat(), seen[-1].weights[0].mean(0)[0].view(4, 4))
    for layer in (0, -1):
        with pytest.raises(ValueError, match=r"no class token.*\(row, column\)"):
            seen.heat(layer=layer, query="class")


def test_the_mean_over_all_rows_is_not_told_of_one_row() -> None:
    model = made(tf.SiglipVisionModel, tf.SiglipVisionConfig(**SIZES))
    seen, _ = recorded(model, pictures(1, 3, 32, 32), queries=sightline.CLS)
    with pytest.raises(ValueError, match="kept 1 of 16"):
        seen.heat(layer=0)


def test_windows_are_whole_pictures_again() -> None:
    config = tf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=4)
    seen, _ = recorded(made(tf.SwinModel, config), pictures(2, 3, 32, 32))
    first = seen.heat(layer=0, query=(1, 6))
    assert first.shape == (8, 8)
    assert bool((first[:4, 4:] > 0).all())
    assert float(first[:4, 4:].sum()) == pytest.approx(1, abs=1e-5)
    assert seen.heat().shape == (4, 4)
    assert not can_roll(image_sites(seen), None)
    with pytest.raises(ValueError, match="windowed"):
        seen[0].weight_gradient(torch.tensor(1.0, requires_grad=True))


def test_a_video_is_the_mean_over_its_frames() -> None:
    config = tf.VideoMAEConfig(**SIZES, num_frames=4, tubelet_size=2)
    seen, _ = recorded(made(tf.VideoMAEModel, config), pictures(1, 4, 3, 32, 32))
    row = mean_row(seen[-1])[0].mean(0)
    close(seen.heat(), row.view(2, 4, 4).mean(0))
    assert picture_of(seen.pixels).size == (32, 32)


def test_a_layout_given_by_hand_settles_the_place() -> None:
    class Lone(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    x = torch.randn(1, 2, 14, 8)
    model = Lone()
    with sightline.record(model, layout=Layout(3, 4, prefix=2)) as seen:
        model(x)
    close(seen.heat(method="raw", head=1), seen[0].weights[0, 1, 0, 2:].view(3, 4))
    assert seen.heat(query=(2, 3), method="raw").shape == (3, 4)


def test_fused_heads_and_bad_names() -> None:
    weights = torch.rand(2, 3, 5)
    assert torch.equal(fuse_heads(weights, 1), weights[:, 1])
    assert torch.equal(fuse_heads(weights, -1), weights[:, 2])
    for bad in (3, -4, "median"):
        with pytest.raises(ValueError, match="number from 0 to 2"):
            fuse_heads(weights, bad)


def test_refusals_say_what_there_is() -> None:
    seen, logits = recorded(vit(), pictures(1, 3, 32, 32), gradients=True)
    for choice, message in (
        ({"layer": 3}, "3 sites lie on the image, 0 to 2"),
        ({"layer": -4}, "0 to 2"),
        ({"method": "gradient"}, "needs score="),
        ({"method": "grad_rollout"}, "needs score="),
        ({"method": "raw", "head": 4}, r"head 4: layer 2 \(.*2.*\) has 4 heads; .* from 0 to 3"),
        ({"method": "raw", "head": 4, "layer": -3}, r"head 4: layer 0 \("),
        ({"query": (4, 0)}, "outside 4 x 4 patches"),
        ({"query": "nose"}, '"class", "mean"'),
        ({"query": 17}, "row 17 was not kept"),
        ({"method": "gradient", "score": logits}, r"shape \(1, 5\)"),
        ({"method": "gradient", "score": logits[0, 0].detach()}, "no gradient"),
    ):
        with pytest.raises(ValueError, match=message):
            heat(seen, **choice)
    plain, other = recorded(vit(), pictures(1, 3, 32, 32))
    with pytest.raises(ValueError, match="gradients=True"):
        plain.heat(method="gradient", score=other[0, 0])
    row, _ = recorded(vit(), pictures(1, 3, 32, 32), queries=5)
    with pytest.raises(ValueError, match=r"row 0 was not kept \(kept: 5\)"):
        row.heat()
    with pytest.raises(ValueError, match=r"kept 1 of 17 rows.*queries=None"):
        row.heat(method="rollout")


def test_gradient_of_a_row_that_was_not_kept_is_refused() -> None:
    seen, logits = recorded(vit(), pictures(1, 3, 32, 32), queries=sightline.CLS, gradients=True)
    with pytest.raises(ValueError, match="row 6 was not kept"):
        seen.heat(method="gradient", query=(1, 1), score=logits[0, 0])


def test_an_image_that_is_not_in_the_batch_is_refused() -> None:
    seen, _ = recorded(vit(), pictures(2, 3, 32, 32))
    with pytest.raises(ValueError, match="2 images, 0 to 1"):
        seen.heat(item=2)


def test_text_has_no_map() -> None:
    sizes = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "decoder_ffn_dim": 16, "vocab_size": 20}
    model = made(tf.BartModel, tf.BartConfig(**sizes, **layers, max_position_embeddings=16))
    with sightline.record(model) as seen:
        model(input_ids=torch.arange(3, 9)[None])
    with pytest.raises(ValueError, match=r"no attention site of BartModel.*layout="):
        seen.heat()


def test_queries_are_resolved_on_the_grid() -> None:
    seen, _ = recorded(vit(), pictures(1, 3, 32, 32))
    placed = image_sites(seen)[0]
    assert [resolve_query(placed, q) for q in (None, "class", "mean", -1, 3)] == [0, 0, None, 16, 3]
    assert resolve_query(placed, (3, 3)) == 16


def test_the_picture_a_model_was_given_can_be_drawn() -> None:
    pixels = torch.linspace(-2, 2, 3 * 8 * 12).view(1, 3, 8, 12)
    shown = picture_of(pixels)
    assert shown.size == (12, 8)
    assert shown.getpixel((0, 0)) == (0, 0, 0)
    assert shown.getpixel((11, 7)) == (255, 255, 255)
    flat = picture_of(torch.zeros(1, 3, 4, 4))
    assert flat.getextrema() == ((0, 0), (0, 0), (0, 0))
