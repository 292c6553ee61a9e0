"""Segmenter: equal to the published implementation, class tokens after the patches, any size, void unheard."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import sightline
from sightline.checkpoints import segmenter as converter
from sightline.decoding.windows import sliding_logits
from sightline.systems import segmenter
from sightline.systems.efficientnet_lite import efficientnet_lite0
from sightline.systems.segmenter import (
    VOID,
    LinearDecoder,
    MaskTransformer,
    Segmenter,
    decoder_of,
    enlarged,
    padded,
    pixel_loss,
)
from sightline.systems.segmenter_hybrid import STAGES, Convolutions, Refine, SegmenterHybrid


def small(**more: object) -> Segmenter:
    torch.manual_seed(0)
    arguments = {"image_size": 32, "patch": 8, "dim": 24, "depth": 1, "heads": 3, "classes": 5, "decoder_heads": 3}
    model = Segmenter(**{**arguments, **more})  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def hybrid(**more: object) -> SegmenterHybrid:
    torch.manual_seed(0)
    arguments = {"image_size": (64, 96), "dim": 16, "depth": 1, "heads": 2, "classes": 4, "decoder_depth": 1}
    return SegmenterHybrid(**{**arguments, **more}).eval()  # type: ignore[arg-type]


class Kit:
    """The figures of the published implementation, with each decoder."""

    def __init__(self, shared: Path) -> None:
        folder = shared / "golden" / "segmenter"
        self.given, self.wanted = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
        sizes = json.loads((folder / "config.json").read_text("utf-8"))["hyper_parameters"]
        state = load_file(folder / "weights.safetensors")
        encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
        mask = {name: value for name, value in state.items() if name.startswith("decoder.")}
        linear = {name.replace("linear_decoder/", "decoder."): v for name, v in state.items() if "linear_" in name}
        told = {"heads": sizes["n_heads"]}
        self.mask = converter.convert(encoder | mask, {}, decoder_heads=sizes["dec_heads"], **told).build()
        self.linear = converter.convert(encoder | linear, {}, **told).build()

    def check(self, name: str, mine: Tensor) -> None:
        stored = self.wanted[name]
        assert mine.shape == stored.shape
        assert (mine - stored).abs().max() <= 1e-5 * max(1.0, float(stored.abs().max())), name


@pytest.mark.parametrize("which", [0, 1])
def test_equal_to_the_published_implementation(shared: Path, which: int) -> None:
    kit = Kit(shared)
    images = kit.given[f"images_{which}"]
    assert isinstance(kit.mask, Segmenter)
    assert isinstance(kit.linear, Segmenter)
    last = kit.mask.decoder.layers[-1]
    with torch.no_grad():
        with sightline.record(kit.mask) as seen:
            kit.check(f"masks_{which}", kit.mask.masks(images))
        kit.check(f"encoder_tokens_{which}", kit.mask.encoder.tokens(padded(images, 8)))
        kit.check(f"logits_{which}", kit.mask(images))
        kit.check(f"linear_masks_{which}", kit.linear.masks(images))
    kit.check(f"cls_attention_{which}", seen[0].weights[:, :, 0])
    assert seen[-1].weights.shape[1] == last.attention.heads
    kit.check(f"class_attention_{which}", seen[-1].weights[:, :, -6:])


def test_other_epsilons_would_be_noticed(shared: Path) -> None:
    kit = Kit(shared)
    for module in kit.mask.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    with torch.no_grad(), pytest.raises(AssertionError):
        kit.check("masks_0", kit.mask.masks(kit.given["images_0"]))


def test_mask_transformer_is_the_papers_product() -> None:
    decoder = small().decoder
    assert isinstance(decoder, MaskTransformer)
    patches = torch.randn(2, 7, 24)
    tokens = torch.cat([decoder.enter(patches), decoder.class_tokens.expand(2, 5, 24)], dim=1)
    for layer in decoder.layers:
        tokens = layer(tokens)
    tokens = decoder.norm(tokens)
    for image in range(2):
        for patch in range(7):
            seen = tokens[image, patch] @ decoder.patch_projection
            products = torch.stack(
                [
                    F.cosine_similarity(seen, tokens[image, 7 + number] @ decoder.class_projection, dim=0)
                    for number in range(5)
                ]
            )
            spread = ((products - products.mean()).square().mean() + 1e-5).sqrt()
            wanted = (products - products.mean()) / spread * decoder.mask_norm.weight + decoder.mask_norm.bias
            torch.testing.assert_close(decoder(patches)[image, patch], wanted, atol=1e-4, rtol=1e-4)


def test_patches_may_stand_in_any_order_in_the_decoder() -> None:
    for depth in (0, 1):
        decoder = small(decoder_depth=depth).decoder
        patches, order = torch.randn(2, 9, 24), torch.randperm(9)
        torch.testing.assert_close(decoder(patches[:, order]), decoder(patches)[:, order], atol=1e-5, rtol=1e-5)


def test_a_class_is_its_token() -> None:
    decoder = small(decoder_depth=2).decoder
    patches, order = torch.randn(1, 6, 24), torch.tensor([3, 1, 4, 0, 2])
    before = decoder(patches)
    with torch.no_grad():
        decoder.class_tokens.copy_(decoder.class_tokens[:, order])
        decoder.mask_norm.weight.copy_(decoder.mask_norm.weight[order])
        decoder.mask_norm.bias.copy_(decoder.mask_norm.bias[order])
    torch.testing.assert_close(decoder(patches), before[:, :, order], atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 45), st.integers(1, 45), st.integers(0, 2), st.integers(0, 1))
def test_any_size_of_picture_gives_logits_of_its_size(height: int, width: int, depth: int, registers: int) -> None:
    model = small(decoder_depth=depth, registers=registers)
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        masks, logits = model.masks(images), model(images)
    assert masks.shape == (2, 5, -(-height // 8), -(-width // 8))
    assert logits.shape == (2, 5, height, width)
    whole = F.interpolate(masks, scale_factor=8, mode="bilinear")
    torch.testing.assert_close(logits, whole[:, :, :height, :width])


def test_padding_is_zeros_at_the_right_and_at_the_bottom() -> None:
    images = torch.rand(1, 3, 9, 16) + 1
    whole = padded(images, 8)
    assert whole.shape == (1, 3, 16, 16)
    assert torch.equal(whole[:, :, :9], images)
    assert whole[:, :, 9:].abs().max() == 0
    model = small()
    torch.testing.assert_close(model(images), model(whole)[:, :, :9])
    assert torch.equal(padded(whole, 8), whole)


def test_class_token_and_registers_are_no_patches() -> None:
    model = small(registers=2, decoder_depth=0)
    images = torch.randn(1, 3, 16, 24)
    tokens = model.encoder.tokens(images)
    assert tokens.shape[1] == 1 + 2 + 6
    wanted = model.decoder(tokens[:, 3:]).transpose(1, 2).reshape(1, 5, 2, 3)
    torch.testing.assert_close(model.masks(images), wanted)


def test_row_by_row() -> None:
    model = small(depth=0, decoder_depth=0)
    images = torch.zeros(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 8:16, 16:24] = 1.0  # the patch of row 1, column 2
    difference = (model.masks(changed) - model.masks(images)).abs().sum(dim=1)[0]
    assert difference.nonzero().tolist() == [[1, 2]]


def test_pictures_of_a_batch_do_not_disturb_each_other() -> None:
    for model in (small(), hybrid()):
        images = torch.randn(3, 3, 40, 70)
        with torch.no_grad():
            together = model(images)
            for row in range(3):
                torch.testing.assert_close(model(images[row : row + 1])[0], together[row], atol=1e-4, rtol=1e-4)


def test_loss_is_the_cross_entropy_of_labelled_pixels() -> None:
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    labels[0, :2] = VOID
    each = []
    for image in range(2):
        known = labels[image] != VOID
        chances = logits[image].log_softmax(dim=0)
        losses = [-chances[labels[image, y, x], y, x] for y, x in known.nonzero().tolist()]
        each.append(torch.stack(losses).mean())
    parts = pixel_loss(logits, labels)
    torch.testing.assert_close(parts["loss"], torch.stack(each).mean())
    hits = [((logits[i].argmax(0) == labels[i])[labels[i] != VOID]).float().mean() for i in range(2)]
    torch.testing.assert_close(parts["accuracy"], torch.stack(hits).mean())


def test_classes_may_weigh_differently() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[1, 0] = VOID
    weights = torch.tensor([0.5, 3.0, 0.0])
    known = labels != VOID
    each = torch.where(known, F.cross_entropy(logits, labels, reduction="none", ignore_index=VOID), 0.0)
    each = each * weights[labels.where(known, torch.tensor(0))]
    wanted = (each.sum(dim=(1, 2)) / known.sum(dim=(1, 2))).mean()
    torch.testing.assert_close(pixel_loss(logits, labels, weights)["loss"], wanted)
    torch.testing.assert_close(pixel_loss(logits, labels, torch.ones(3)), pixel_loss(logits, labels))


def test_void_pixels_teach_nothing() -> None:
    model = small()
    images, labels = torch.randn(2, 3, 16, 16), torch.full((2, 16, 16), VOID)
    parts = model.loss({"images": images, "labels": labels})
    assert parts["loss"] == 0
    parts["loss"].backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.parameters())
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    pixel_loss(logits, torch.tensor([[[0, VOID], [2, VOID]]]))["loss"].backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(dim=1)[0] > 0).tolist() == [[True, False], [True, False]]


def test_no_gpu_is_waited_for_to_look_at_labels() -> None:
    """A "meta" tensor has no values: whatever would read some on the CPU fails."""
    logits, labels = torch.randn(2, 3, 4, 5, device="meta"), torch.zeros(2, 4, 5, dtype=torch.long, device="meta")
    assert {part.shape for part in pixel_loss(logits, labels).values()} == {torch.Size([])}


@pytest.mark.parametrize("wrong", [3, 254, -1])
def test_labels_that_are_no_class_are_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 2, or are 255 for void; given {wrong}"):
        pixel_loss(torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [wrong, VOID]]]))


@pytest.mark.parametrize("decoder_depth", [0, 2])
def test_gradients_reach_every_parameter(decoder_depth: int) -> None:
    model = small(decoder_depth=decoder_depth)
    model.loss({"images": torch.randn(2, 3, 32, 32), "labels": torch.randint(0, 5, (2, 32, 32))})["loss"].backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert still <= {name for name, _ in model.named_parameters() if name.endswith("key.bias")}  # softmax ignores it


@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        # what the authors' README says of T, S, B and L with the mask transformer, an unused ImageNet head included
        (segmenter.segmenter_tiny_16, 7),
        (segmenter.segmenter_small_16, 27),
        (segmenter.segmenter_base_16, 106),
        (segmenter.segmenter_large_16, 334),
    ],
)
def test_presets_have_about_the_published_sizes(preset: object, millions: int) -> None:
    with torch.device("meta"):
        model = preset(classes=150)  # type: ignore[operator]
    assert sum(one.numel() for one in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)


def test_every_preset_builds_and_takes_overrides() -> None:
    presets = [one for name, one in vars(segmenter).items() if name.startswith("segmenter_")]
    assert len(presets) == 8
    for preset in presets:
        with torch.device("meta"):
            model = preset(classes=3, depth=1, image_size=(64, 96))
        assert preset.__name__.endswith(f"_{model.patch}")
        assert model.encoder.layers[0].attention_norm.eps == 1e-5
        linear = isinstance(model.decoder, LinearDecoder)
        assert linear is (preset is segmenter.segmenter_base_8)
    assert len(inspect.signature(Segmenter).parameters) < 12


def test_decoders_that_make_no_sense_are_refused() -> None:
    assert isinstance(decoder_of(classes=3, memory_dim=8, depth=0), LinearDecoder)
    wide = decoder_of(classes=3, memory_dim=192, depth=1)
    assert isinstance(wide, MaskTransformer)
    assert wide.layers[0].attention.heads == 3  # one for 64 channels
    for wrong in ({"depth": -1}, {"classes": 1}):
        with pytest.raises(ValueError, match="given"):
            decoder_of(**{"classes": 3, "memory_dim": 8, "depth": 1, **wrong})  # type: ignore[arg-type]


def test_dropout_of_the_decoder_sleeps_in_evaluation() -> None:
    model, images = small(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        model.train()
        assert not torch.equal(model(images), model(images))


def test_enlarged_is_bilinear_and_cut() -> None:
    masks = torch.arange(4.0).view(1, 1, 2, 2)
    grown = enlarged(masks, (7, 5), 4)
    assert grown.shape == (1, 1, 7, 5)
    assert grown[0, 0, 0, 0] == 0
    assert grown[0, 0, 2, 2] == pytest.approx(0.125 + 2 * 0.125)  # an eighth of the way across and down


def test_windows_of_the_whole_picture_are_the_model() -> None:
    model, images = small(), torch.randn(2, 3, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(sliding_logits(model, images, window=(32, 40), stride=(16, 20)), model(images))


@pytest.mark.parametrize("build", [small, hybrid])
def test_saved_and_read_back(tmp_path: Path, build: object) -> None:
    model = build()  # type: ignore[operator]
    model.save_pretrained(tmp_path)
    read = type(model).from_pretrained(tmp_path).eval()
    images = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        assert torch.equal(read(images), model(images))
    again = sightline.load_checkpoint(tmp_path)
    assert type(again) is type(model)


# -- the hybrid --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 100), st.integers(1, 100))
def test_the_hybrid_takes_any_size(height: int, width: int) -> None:
    model = hybrid()
    images = torch.randn(1, 3, height, width)
    with torch.no_grad():
        masks, logits = model.masks(images), model(images)
    assert masks.shape == (1, 4, 8 * -(-height // 32), 8 * -(-width // 32))
    assert logits.shape == (1, 4, height, width)


def test_the_hybrids_stages_are_those_of_the_network() -> None:
    torch.manual_seed(0)
    features, network = Convolutions(), efficientnet_lite0(classes=0).eval()
    network.stem.load_state_dict(features.stem.state_dict())
    for mine, theirs in zip(features.blocks, network.blocks[:15], strict=True):
        theirs.load_state_dict(mine.state_dict())
    images, stages = torch.randn(1, 3, 64, 96), {}
    with torch.no_grad():
        values = network.stem(images)
        for block in network.blocks[:15]:
            values = block(values)
            stages[images.shape[2] // values.shape[2]] = values  # the last block of each stride
        found = features.eval()(images)
    assert list(found) == [4, 8, 16, 32]
    for stride, value in found.items():
        assert value.shape == (1, STAGES[stride][1], 64 // stride, 96 // stride)
        torch.testing.assert_close(value, stages[stride], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"multiples of 32, given \(64, 90\)"):
        features(torch.randn(1, 3, 64, 90))


def test_the_hybrids_patches_are_two_stages_added() -> None:
    model = hybrid(depth=0)
    stages = {16: torch.randn(1, 112, 4, 6), 32: torch.randn(1, 192, 2, 3)}
    near, far = (to(stages[stride]) for to, stride in zip(model.to_patches, (16, 32), strict=True))
    wanted = near + F.interpolate(far, size=(4, 6), mode="bilinear")
    wanted = wanted.flatten(2).transpose(1, 2) + model.positions(64, 96)
    found = model.patches(stages)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), model.norm(wanted), atol=1e-5, rtol=1e-5)


def test_refining_adds_each_finer_map_in_its_place() -> None:
    torch.manual_seed(0)
    refine = Refine(dim=8)
    stages = {8: torch.zeros(1, 40, 8, 8), 4: torch.zeros(1, 24, 16, 16)}
    changed = {8: stages[8], 4: stages[4].clone()}
    changed[4][0, :, 12, 3] = 1.0
    patches = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        moved = (refine(patches, changed) - refine(patches, stages)).abs().sum(dim=1)[0] > 1e-7
    assert refine(patches, stages).shape == (1, 8, 16, 16)
    rows, columns = (places.tolist() for places in moved.nonzero(as_tuple=True))
    assert (min(rows), max(rows), min(columns), max(columns)) == (10, 14, 1, 5)  # as far as a filter of 5 x 5 reaches


def test_the_hybrids_class_tokens_are_compared_with_the_refined_cells() -> None:
    model = hybrid()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        stages = model.features(images)
        tokens = model.patches(stages).flatten(2).transpose(1, 2)
        decoder = model.decoder
        assert isinstance(decoder, MaskTransformer)
        together = torch.cat([decoder.enter(tokens), decoder.class_tokens], dim=1)
        for layer in decoder.layers:
            together = layer(together)
        together = decoder.norm(together)
        cells = model.refine(together[:, :24].transpose(1, 2).reshape(1, 16, 4, 6), stages)
        for row, column in ((0, 0), (7, 11), (15, 23)):
            cell = cells[0, :, row, column] @ decoder.patch_projection
            named = together[0, 24:] @ decoder.class_projection
            wanted = decoder.mask_norm(F.cosine_similarity(cell[None], named, dim=1))
            torch.testing.assert_close(model.masks(images)[0, :, row, column], wanted, atol=1e-4, rtol=1e-4)


def test_the_hybrids_norms_keep_their_statistics_in_training() -> None:
    model = hybrid().train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.loss({"images": torch.randn(2, 3, 64, 96), "labels": torch.randint(0, 4, (2, 64, 96))})["loss"].backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    still = {n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0}
    assert still <= {n for n, _ in model.named_parameters() if n.endswith("key.bias")}
