"""A recording end to end: what can be made of ViT, SigLIP, Swin and BART, beside eager references of a few lines."""

import sys
import threading
from pathlib import Path

import pytest
import torch
import transformers as tf
from PIL import Image
from skimage import data
from torch import Tensor, nn

import sightline
from sightline.lens import Recording

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
ENCODER_DECODER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 50,
    "max_position_embeddings": 32,
}  # fmt: skip
WINDOWED = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}


def made(build, config, kind: str = "sdpa") -> nn.Module:
    config._attn_implementation = kind
    torch.manual_seed(0)
    model = build(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.25)
    return model


def vit(kind: str = "sdpa") -> nn.Module:
    return made(tf.ViTForImageClassification, tf.ViTConfig(**SIZES, num_labels=5), kind)


def siglip(kind: str = "sdpa") -> nn.Module:
    return made(tf.SiglipVisionModel, tf.SiglipVisionConfig(**SIZES), kind)


def swin(kind: str = "sdpa") -> nn.Module:
    return made(tf.SwinForImageClassification, tf.SwinConfig(**WINDOWED, num_labels=5), kind)


def bart(kind: str = "sdpa") -> nn.Module:
    return made(tf.BartModel, tf.BartConfig(**ENCODER_DECODER), kind)


PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
WORDS = {"input_ids": torch.arange(3, 21).view(2, 9), "decoder_input_ids": torch.arange(5, 15).view(2, 5)}


def recorded(model: nn.Module, **choices) -> tuple[Recording, object]:
    with sightline.record(model, **choices) as seen:
        output = model(**WORDS) if isinstance(model, tf.BartModel) else model(PIXELS)
    return seen, output


def through(maps: list[Tensor], residual: float = 0.5) -> Tensor:
    """Rollout (Abnar & Zuidema 2020) written out: (batch, N, N)."""
    eye = torch.eye(maps[0].shape[-1])
    rolled = eye.expand(len(maps[0]), -1, -1)
    for weights in maps:
        rolled = (residual * eye + (1 - residual) * weights) @ rolled
    return rolled


# -- combining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [vit, siglip])
def test_rollout_equals_the_eager_one(build) -> None:
    seen, _ = recorded(build())
    maps = [one.mean(1).detach() for one in build("eager")(PIXELS, output_attentions=True).attentions]
    torch.testing.assert_close(seen.rollout(), through(maps), atol=2e-6, rtol=0)
    torch.testing.assert_close(seen.rollout(rows=[0, -1]), through(maps)[:, [0, -1]], atol=2e-6, rtol=0)
    torch.testing.assert_close(seen.rollout(residual=0.2, start=1), through(maps[1:], 0.2), atol=2e-6, rtol=0)
    torch.testing.assert_close(seen.rollout(seen[:2]), through(maps[:2]), atol=2e-6, rtol=0)
    strongest = [one.amax(1) for one in build("eager")(PIXELS, output_attentions=True).attentions]
    strongest = [(one / one.sum(-1, keepdim=True)).detach() for one in strongest]
    torch.testing.assert_close(seen.rollout(fusion="max"), through(strongest), atol=2e-6, rtol=0)


def test_rollout_of_swin_goes_stage_by_stage() -> None:
    seen, _ = recorded(swin())
    with pytest.raises(ValueError, match="do not see the same tokens"):
        seen.rollout()
    stage = [site for site in seen if site.queries == 64]
    torch.testing.assert_close(
        seen.rollout(stage), through([site.weights.mean(1) for site in stage]), atol=2e-6, rtol=0
    )


def test_gradient_maps_equal_autograd_on_the_eager_matrices() -> None:
    seen, out = recorded(vit(), gradients=True)
    eager = vit("eager")(PIXELS, output_attentions=True)
    slopes = torch.autograd.grad(eager.logits[:, 2].sum(), eager.attentions)
    gained = torch.zeros(2, 17, 17)
    for layer, (weights, slope) in enumerate(zip(eager.attentions, slopes, strict=True)):
        bar = (weights * slope).clamp(min=0).mean(1).detach()
        gained = gained + bar + bar @ gained
        torch.testing.assert_close(seen.grad_weighted(out.logits[:, 2], layer), bar, atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(seen[layer].weight_gradient(out.logits[:, 2].sum()), slope, atol=2e-6, rtol=1e-3)
    torch.testing.assert_close(seen.grad_rollout(out.logits[:, 2]), torch.eye(17) + gained, atol=1e-6, rtol=1e-4)
    found = seen.grad_rollout(out.logits[:, 2], rows=0, identity=False)
    torch.testing.assert_close(found, gained[:, :1], atol=1e-6, rtol=1e-3)


def test_cross_rollout_equals_the_block_matrix() -> None:
    seen, _ = recorded(bart())
    eager = bart("eager")(**WORDS, output_attentions=True)
    source = through([one.mean(1).detach() for one in eager.encoder_attentions])
    target, reached = torch.eye(5).expand(2, -1, -1), torch.zeros(2, 5, 9)
    for own, cross in zip(eager.decoder_attentions, eager.cross_attentions, strict=True):
        mixed = 0.5 * torch.eye(5) + 0.5 * own.mean(1).detach()
        target, reached = mixed @ target, mixed @ reached
        target, reached = 0.5 * target, 0.5 * reached + 0.5 * cross.mean(1).detach() @ source
    found = seen.cross_rollout()
    torch.testing.assert_close(found.source, reached, atol=2e-6, rtol=0)
    torch.testing.assert_close(found.target, target, atol=2e-6, rtol=0)
    assert [len(group) for group in seen.encoder_decoder()] == [2, 3, 3]
    torch.testing.assert_close(seen.cross_rollout(rows=4).source, reached[:, 4:], atol=2e-6, rtol=0)


def test_encoder_and_decoder_are_told_apart_where_layers_are_nested() -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    model = made(tf.T5Model, tf.T5Config(**sizes, vocab_size=50, decoder_start_token_id=0))
    with sightline.record(model) as seen:
        model(**WORDS)
    encoder, decoder, cross = seen.encoder_decoder()
    assert [len(group) for group in (encoder, decoder, cross)] == [2, 2, 2]
    assert all(site.path.startswith("encoder.") for site in encoder)


def test_nn_transformer_is_an_encoder_decoder_too() -> None:
    model = nn.Transformer(16, 2, 2, 2, 16, batch_first=True).eval()
    with sightline.record(model) as seen:
        model(torch.randn(1, 6, 16), torch.randn(1, 4, 16))
    assert [len(group) for group in seen.encoder_decoder()] == [2, 2, 2]
    found = seen.cross_rollout()
    torch.testing.assert_close(found.source.sum(-1) + found.target.sum(-1), torch.ones(1, 4), atol=1e-5, rtol=0)


# -- pictures ----------------------------------------------------------------------------------------------------------


def red(picture: Image.Image) -> Tensor:
    return torch.tensor(list(picture.convert("RGB").tobytes()), dtype=torch.uint8)


@pytest.mark.parametrize("build", [vit, siglip, swin])
def test_overlay_montage_page_and_notebook(build, tmp_path: Path) -> None:
    seen, _ = recorded(build())
    photograph = Image.fromarray(data.astronaut())
    own, given = seen.overlay(), seen.overlay(photograph, title="An astronaut")
    assert given.height > own.height
    own.save(tmp_path / "look.png")
    with Image.open(tmp_path / "look.png") as read:
        assert read.size == own.size
    assert seen.montage(photograph).width > 300
    text = seen.to_html(tmp_path / "look.html", photograph).read_text(encoding="utf-8")
    assert all(site.name in text for site in seen)
    assert "http://" not in text.replace("http://www.w3.org", "")
    shown = seen._repr_html_()
    assert shown.count('<img src="data:image/') == 1
    assert all(site.name in shown for site in seen)
    assert repr(seen) == str(seen)
    assert seen[0].name in str(seen)


def test_overlay_draws_the_map_that_was_asked_for() -> None:
    seen, _ = recorded(vit())
    pictures = {
        name: red(seen.overlay(**choices))
        for name, choices in {
            "auto": {}, "rollout": {"method": "rollout"}, "raw": {"method": "raw"}, "item": {"item": 1},
            "head": {"method": "raw", "head": 1}, "row": {"query": (3, 0)}, "layer": {"method": "raw", "layer": 0},
        }.items()
    }  # fmt: skip
    assert torch.equal(pictures["auto"], pictures["rollout"])
    others = [pictures[name] for name in pictures if name != "auto"]
    for number, one in enumerate(others):
        assert not any(one.shape == other.shape and torch.equal(one, other) for other in others[:number])


def test_montage_shows_every_layer_that_kept_its_row() -> None:
    whole, _ = recorded(vit())
    row, _ = recorded(vit(), queries=sightline.CLS)
    # a row alone is multiplied and scaled in another order: equal to a rounding, which may move a pixel to the next
    # colour of the table, two levels of red away
    for all_rows, alone in zip(whole, row, strict=True):
        assert torch.allclose(all_rows.weights[:, :, :1], alone.weights, atol=1e-6)
    apart = (red(whole.montage()).float() - red(row.montage()).float()).abs()
    assert apart.max() <= 2
    assert (apart > 1).float().mean() < 1e-5
    some, _ = recorded(vit(), sites="*.1.*")
    assert some.montage().height < whole.montage().height
    other, _ = recorded(vit(), queries=5)
    with pytest.raises(ValueError, match=r"queries=sightline\.CLS"):
        other.montage()


def test_text_is_shown_as_a_table_and_never_as_a_picture(tmp_path: Path) -> None:
    seen, _ = recorded(bart())
    shown = seen._repr_html_()
    assert "<img" not in shown
    assert "decoder.layers.2.encoder_attn" in shown
    for make in (seen.heat, seen.overlay, seen.montage):
        with pytest.raises(ValueError, match="no attention site of BartModel lies on an image"):
            make()
    with pytest.raises(ValueError, match="given no image; pass the picture"):
        seen.to_html(tmp_path / "page.html")
    with pytest.raises(ValueError, match="holds no image"):
        seen.check()
    assert not (tmp_path / "page.html").exists()


# -- the check ---------------------------------------------------------------------------------------------------------


def test_check_runs_on_what_was_recorded_and_stays_with_the_recording() -> None:
    model = vit()
    seen, _ = recorded(model, queries=sightline.CLS)
    found = seen.check(seeds=3)
    again = seen.check(model, PIXELS, heat=seen.heat(), seeds=3)
    assert torch.equal(found.effect.without, again.effect.without)
    assert seen.checked[0] is again
    assert found.verdict in found.summary()
    other = seen.check(heat=seen.heat(query="class", layer=0, method="raw"), seeds=3)
    assert not torch.equal(other.effect.region, found.effect.region)
    assert other.effect.whole.allclose(found.effect.whole)


def test_check_of_another_image_of_the_batch_and_of_a_video() -> None:
    model = vit()
    seen, out = recorded(model)
    answers = out.logits.softmax(-1).amax(-1)
    for item in (0, 1):
        assert seen.check(item=item, seeds=2, steps=3).effect.whole.item() == pytest.approx(
            answers[item].item(), abs=1e-5
        )
    assert sorted(seen.checked) == [0, 1]
    clips = made(tf.VideoMAEModel, tf.VideoMAEConfig(**SIZES, num_frames=4, tubelet_size=2))
    with sightline.record(clips) as video:
        clips(torch.randn(1, 4, 3, 32, 32))
    with pytest.raises(ValueError, match="a video of shape"):
        video.check()


# -- what is asked too early or too often ------------------------------------------------------------------------------


def test_two_runs_need_a_choice() -> None:
    model = vit()
    with sightline.record(model) as seen:
        model(PIXELS)
        model(PIXELS.flip(-1))
    for make in (seen.rollout, seen.only_pass, seen.encoder_decoder, seen.cross_rollout):
        with pytest.raises(ValueError, match=r"2 times.*seen\.passes\[0\]"):
            make()
    first, second = (seen.rollout(sites, rows=0) for sites in seen.passes)
    alone, _ = recorded(model)
    torch.testing.assert_close(first, alone.rollout(rows=0), atol=1e-6, rtol=0)
    assert not torch.allclose(first, second)


def test_a_single_sequence_has_no_cross_rollout() -> None:
    seen, _ = recorded(vit())
    with pytest.raises(ValueError, match="made no cross-attention"):
        seen.cross_rollout()


def test_sites_by_name_and_bytes() -> None:
    seen, _ = recorded(vit())
    assert seen.site("vit.layers.1.attention") is seen[1]
    with pytest.raises(KeyError, match=r"vit\.layers\.0\.attention"):
        seen.site("nose")
    assert seen.bytes == sum(site.bytes for site in seen) > 0
    assert seen[1:] == [seen[1], seen[2]]
    assert seen.batch == 2


def test_gradients_must_be_asked_for() -> None:
    seen, out = recorded(vit())
    for make in (seen.grad_weighted, seen.grad_rollout):
        with pytest.raises(ValueError, match="gradients=True"):
            make(out.logits[0, 0])


def test_threads_that_share_a_record_do_not_end_each_others_blocks() -> None:
    model, both = vit(), threading.Barrier(2, timeout=60)
    watch = sightline.record(model, queries=0)

    def first_to_enter(entered: threading.Event, seen: list[Recording]) -> None:
        with watch as found:
            entered.set()
            both.wait()  # the other block has begun
            model(PIXELS)
        seen.append(found)
        both.wait()  # and ends after this one

    entered, seen = threading.Event(), []
    other = threading.Thread(target=first_to_enter, args=(entered, seen))
    other.start()
    entered.wait(60)
    with watch as mine:
        both.wait()
        both.wait()
        model(PIXELS)
    other.join(60)
    assert len(seen[0]) == len(mine) == 3
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_block_that_could_not_begin_leaves_the_one_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit()
    watch = sightline.record(model, queries=0)
    with watch as outer:
        with monkeypatch.context() as broken:
            broken.setattr(sys.modules["sightline.lens.record"], "attach", lambda *given: 1 / 0)
            with pytest.raises(ZeroDivisionError), watch:
                pytest.fail("began")
        model(PIXELS)
    assert len(outer) == 3


def test_one_record_serves_several_blocks() -> None:
    model, seen = vit(), []
    watch = sightline.record(model, queries=0)
    for pixels in (PIXELS, 2 * PIXELS):
        with watch as found:
            model(pixels)
        seen.append(found)
    first, second = seen
    assert first is not second
    assert not torch.equal(first[0].weights, second[0].weights)
    with sightline.record(model, queries=0) as again:
        model(PIXELS)
    assert torch.equal(first[0].weights, again[0].weights)
    with watch as outer, watch as inner:
        model(PIXELS)
    assert len(outer) == len(inner) == 3
    with pytest.raises(KeyError, match="mine"), watch:
        raise KeyError("mine")


def test_a_site_is_had_by_number_or_name_and_others_are_refused_in_words() -> None:
    seen, _ = recorded(vit())
    assert seen[seen[1].name] is seen[1]
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=f"no site {wrong}: the recording has 3 attention sites, from 0 on"):
            seen[wrong]
    with pytest.raises(KeyError, match="no site 'head'; there are"):
        seen["head"]


def test_what_cannot_be_drawn_or_differentiated_says_why() -> None:
    seen, _ = recorded(vit(), gradients=True)
    with pytest.raises(TypeError, match="takes the model first"):
        seen.check(PIXELS)
    model = vit()
    with torch.no_grad(), sightline.record(model, gradients=True) as blind:
        score = model(PIXELS).logits[0, 0]
    with pytest.raises(ValueError, match=r"without torch\.no_grad"):
        blind.heat(method="gradient", score=score)
    with sightline.record(model) as broken:
        model(PIXELS * float("nan"))
    with pytest.raises(ValueError, match="NaN in the picture or the weights"):
        broken.overlay(Image.new("RGB", (32, 32)))
