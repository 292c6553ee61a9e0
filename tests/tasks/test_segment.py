"""A class for every pixel: as the model says, in any size, with where each class token looked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from sightline.data.camvid import PALETTE
from sightline.data.photographs import sample_photographs
from sightline.lens.record import record
from sightline.systems.segmenter import Segmenter
from sightline.systems.segmenter_hybrid import SegmenterHybrid
from sightline.tasks import segment as task
from sightline.tasks.drawn_street import drawn_street
from sightline.tasks.segment import SegmentError, open_segmenter, segment

CLASSES = ("sky", "road", "tree", "car")


def save(folder: Path, network: Segmenter | SegmenterHybrid, short: int = 0, **more: Any) -> Path:
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if not name.startswith("features."):
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    colours = [bytes(colour).hex() for colour in PALETTE[:4].tolist()]
    card = {"classes": list(CLASSES), "palette": colours, "mean": [0.5] * 3, "std": [0.5] * 3, "short": short} | more
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return folder


def small(**more: Any) -> Segmenter:
    sizes = {"image_size": (48, 64), "patch": 8, "dim": 24, "depth": 1, "heads": 3, "classes": 4, "decoder_heads": 2}
    return Segmenter(**sizes | more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("mask"), small())


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = SegmenterHybrid(image_size=(64, 96), dim=16, depth=1, heads=2, classes=4, decoder_depth=1)
    return save(tmp_path_factory.mktemp("hybrid"), network, short=64)


def test_the_mask_is_what_the_network_says(folder: Path) -> None:
    opened = open_segmenter(folder)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
    found = segment(pixels, system=opened)
    given = (torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        chances = opened.system(given).softmax(dim=1)[0]
    assert np.array_equal(found.mask, chances.argmax(dim=0).numpy())
    np.testing.assert_allclose(found.chance, chances.amax(dim=0).numpy(), atol=1e-5)
    for name, share in found.areas.items():
        chosen = found.mask == CLASSES.index(name)
        assert share == pytest.approx(chosen.mean())
        assert found.sure[name] == pytest.approx(found.chance[chosen].mean(), rel=1e-4)
    assert sum(found.areas.values()) == pytest.approx(1)
    assert list(found.areas.values()) == sorted(found.areas.values(), reverse=True)


def test_attention_is_that_of_the_class_tokens_in_the_last_layer(folder: Path) -> None:
    opened = open_segmenter(folder)
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    found = segment(pixels, system=opened)
    given = (torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.no_grad(), record(opened.system) as seen:
        opened.system(given)
    rows = seen[-1].weights[0].mean(dim=0)[-4:, :48].unflatten(1, (6, 8))
    assert found.attention is not None
    assert found.attention.words == tuple(found.areas)
    for name, heat in zip(found.attention.words, found.attention.maps, strict=True):
        np.testing.assert_allclose(heat, rows[CLASSES.index(name)], atol=1e-5)


@pytest.mark.parametrize("which", ["folder", "hybrid"])
@pytest.mark.parametrize("size", [(1, 1), (30, 200), (301, 77), (90, 120)])
def test_pictures_of_any_size(which: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    image = Image.effect_noise(size, 60)
    found = segment(image, system=request.getfixturevalue(which))
    assert found.mask.shape == found.chance.shape == (size[1], size[0])
    assert found.attention is not None
    assert found.mask.dtype == np.uint8
    assert all(np.isfinite(heat).all() and heat.sum() <= 1.001 for heat in found.attention.maps)


def test_scales_and_mirroring_are_those_of_the_published_inference(hybrid: Path) -> None:
    image = Image.open(sample_photographs()[0]).resize((120, 80))
    plain, many = segment(image, system=hybrid), segment(image, system=hybrid, scales=(0.8, 1, 1.5), flip=True)
    assert not np.array_equal(plain.chance, many.chance)
    mirrored = segment(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), system=hybrid, scales=(0.8, 1, 1.5), flip=True)
    np.testing.assert_allclose(mirrored.chance[:, ::-1], many.chance, atol=1e-3)


def test_smooth_windows_differ_where_they_overlap_and_nowhere_else(folder: Path) -> None:
    opened, random = open_segmenter(folder), np.random.default_rng(3)
    one, many = (Image.fromarray(random.integers(0, 256, (height, 64, 3), np.uint8)) for height in (48, 96))
    plain, smooth = (segment(one, system=opened, smooth=choice) for choice in (False, True))
    assert np.array_equal(plain.mask, smooth.mask)
    assert np.array_equal(plain.chance, smooth.chance)
    plain, smooth = (segment(many, system=opened, smooth=choice) for choice in (False, True))
    assert np.array_equal(segment(many, system=opened).chance, smooth.chance)  # no seam unless it is asked for
    np.testing.assert_allclose(plain.chance[:24], smooth.chance[:24], atol=1e-5)  # the first of three windows alone
    assert np.abs(plain.chance[24:72] - smooth.chance[24:72]).max() > 1e-3


def test_large_photographs_are_segmented_reduced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "MOST", 4 * 60 * 80)
    image = Image.effect_noise((320, 240), 60)
    found = segment(image, system=folder)
    assert found.mask.shape == (240, 320)
    reduced = segment(image.convert("RGB").resize((80, 60), Image.Resampling.LANCZOS), system=folder)
    assert np.array_equal(found.mask[2::4, 2::4], reduced.mask)


@pytest.mark.parametrize("which", ["folder", "hybrid"])
def test_scales_count_too(which: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for 4 classes of 128 x 96 pixels, a picture of 64 x 48 is read at most at scale 2, whatever is asked.

    The hybrid's short side of 64 is 4/3 of the picture's.
    """
    given: list[list[float]] = []
    compute = task.class_probabilities

    def watched(*args: Any, scales: list[float], **more: Any) -> torch.Tensor:
        given.append(scales)
        return compute(*args, scales=scales, **more)

    monkeypatch.setattr(task, "class_probabilities", watched)
    monkeypatch.setattr(task, "MOST", 4 * 128 * 96)
    image, base = Image.effect_noise((64, 48), 60), 4 / 3 if which == "hybrid" else 1.0
    found = segment(image, system=request.getfixturevalue(which), scales=(0.5, 1, 4))
    assert found.mask.shape == (48, 64)
    assert given[0] == pytest.approx([0.5 * base, base, 2.0])


@pytest.mark.parametrize("size", [(9000, 10), (10, 9000), (3000, 60)])
def test_strips_that_would_become_enormous_are_refused_before_they_are_read(
    hybrid: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "class_probabilities", None)
    monkeypatch.setattr(task, "_class_maps", None)
    width, height = (round(side * 64 / min(size)) for side in size)
    if size[0] < size[1]:  # a window is wider than tall
        width, height = 96, 96 * 900
    told = f"a picture of {size[0]} x {size[1]} would become {width} x {height} .* cut it into pieces"
    with pytest.raises(SegmentError, match=told) as caught:
        segment(Image.effect_noise(size, 60), system=hybrid)
    assert "\n" not in str(caught.value)
    assert "scales" not in str(caught.value)


def test_scales_decide_what_a_strip_becomes(hybrid: Path) -> None:
    strip = Image.effect_noise((300, 20), 60)
    assert segment(strip, system=hybrid).mask.shape == (20, 300)
    with pytest.raises(SegmentError, match="or ask for smaller scales"):
        segment(strip, system=hybrid, scales=(1, 4))


def test_a_linear_decoder_names_pixels_without_attention(tmp_path: Path) -> None:
    found = segment(sample_photographs()[0], system=save(tmp_path, small(decoder_depth=0)))
    assert found.attention is None
    found.save(tmp_path / "a.html")
    assert "token" not in (tmp_path / "a.html").read_text("utf-8")


def test_saved_as_mask_picture_and_page(folder: Path, tmp_path: Path) -> None:
    photograph = sample_photographs()[0]
    found = sightline.segment(photograph, system=folder)
    with Image.open(found.save(tmp_path / "cat.mask.png")) as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), found.mask)
        shown = np.asarray(mask.convert("RGB"))
        assert np.array_equal(shown, PALETTE[:4][found.mask])
    assert Image.open(found.save(tmp_path / "cat.png")).width > 300
    page = found.save(tmp_path / "cat.html").read_text("utf-8")
    assert "cat.jpg" in page
    assert str(found).startswith(next(iter(found.areas)))
    assert "<img" in found._repr_html_()
    with pytest.raises(AttributeError):
        found.mask = None  # type: ignore[misc]


def test_a_run_folder_opens_its_weights(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").symlink_to(folder)
    assert open_segmenter(tmp_path).classes == CLASSES


def test_a_published_folder_tells_its_data_windows_and_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = []

    def load(place: Path, source: str) -> Segmenter:  # how such weights are read is tested with their converter
        sources.append((place, source))
        return small(classes=150).eval()

    monkeypatch.setattr(task, "load_checkpoint", load)
    variant = (
        "dataset_kwargs: {dataset: ade20k, normalization: deit}\n"
        "inference_kwargs: {im_size: 48, window_size: 48, window_stride: 40}\n"
        "net_kwargs: {n_heads: 1, image_size: [48, 64]}\n"
    )
    (tmp_path / "variant.yml").write_text(variant)
    opened = open_segmenter(tmp_path)
    assert sources == [(tmp_path, "segmenter")]
    assert (opened.window, opened.stride, opened.short) == ((48, 48), (40, 40), 48)
    assert opened.mean == (0.485, 0.456, 0.406)
    assert opened.classes[:3] == ("wall", "building", "sky")
    assert segment(sample_photographs()[0], system=opened).mask.shape[0] > 100
    (tmp_path / "variant.yml").write_text(variant.replace("ade20k", "moon"))
    with pytest.raises(SegmentError, match="dataset 'moon' with normalization 'deit'; expected one of ade20k"):
        open_segmenter(tmp_path)
    (tmp_path / "variant.yml").write_text(variant.replace("ade20k", "cityscapes"))
    with pytest.raises(SegmentError, match="the weights know 150 classes, what lies beside them names 19"):
        open_segmenter(tmp_path)


def test_what_cannot_segment_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SegmentError, match="no segmenter 'nowhere': expected a bundled name"):
        open_segmenter("nowhere")
    with pytest.raises(SegmentError, match="expected a bundled name"):
        open_segmenter("vit_b")
    for scales in ((), (0.0,), (9.0,)):
        with pytest.raises(SegmentError, match=r"scales lie between 0\.1 and 4"):
            segment(sample_photographs()[0], system=folder, scales=scales)
    broken = save(tmp_path / "broken", small())
    for text, told in (("{", "no card of a segmenter's run"), ('{"classes": []}', "lacks 'palette'"), ("3", "no card")):
        (broken / "card.json").write_text(text)
        with pytest.raises(SegmentError, match=told) as caught:
            open_segmenter(broken)
        assert "\n" not in str(caught.value)
    other = save(tmp_path / "other", small(classes=5))
    with pytest.raises(SegmentError, match="the weights know 5 classes, what lies beside them names 4"):
        open_segmenter(other)
    with pytest.raises(ValueError, match="no such file"):
        segment(tmp_path / "nothing.jpg", system=folder)


def test_class_maps_have_the_shape_of_the_picture_and_are_shares(folder: Path) -> None:
    maps = task._class_maps(open_segmenter(folder), Image.effect_noise((200, 100), 60).convert("RGB"))
    assert maps is not None
    assert maps.shape[0] == 4
    assert maps.shape[2] == pytest.approx(2 * maps.shape[1], abs=1)
    whole = maps.sum(axis=(1, 2))
    assert ((whole > 0) & (whole < 1)).all()  # the rest went to other class tokens


def test_the_drawn_street_is_the_same_street_again_and_segmented_like_any_picture(hybrid: Path) -> None:
    street = drawn_street(120)
    assert street.size == (160, 120)
    assert np.array_equal(np.asarray(street), np.asarray(drawn_street(120)))
    assert not np.array_equal(np.asarray(street), np.asarray(drawn_street(120, seed=1)))
    top, bottom = np.asarray(street, dtype=float)[3].mean(axis=0), np.asarray(street, dtype=float)[-3].mean(axis=0)
    assert top[2] > 1.3 * bottom[2]  # sky above, road below
    assert segment(street, system=hybrid).mask.shape == (120, 160)
