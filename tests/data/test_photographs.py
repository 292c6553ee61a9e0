"""Photographs of every kind that phones and browsers make, and everything that only looks like one."""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from sightline.data import photographs
from sightline.data.photographs import (
    PhotographError,
    check_photograph,
    find_photographs,
    open_photograph,
    remark,
    sample_photographs,
)

RED, WHITE = (220, 30, 40), (255, 255, 255)


def halves(size: tuple[int, int] = (8, 6)) -> Image.Image:
    """Left half red, right half white, so that any turn or mirroring shows."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, size[0] // 2, size[1]))
    return image


def near(pixel: object, wanted: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool(np.abs(np.subtract(pixel, wanted)).max() <= tolerance)  # type: ignore[arg-type]


# -- kinds of picture


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "avif", "jpg", "gif", "ppm", "jp2"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    if suffix == "jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow was built without JPEG 2000")
    path = tmp_path / f"a.{suffix}"
    halves((64, 48)).save(path, quality=95) if suffix in ("jpg", "webp", "avif") else halves((64, 48)).save(path)
    opened = open_photograph(path)
    assert opened.mode == "RGB"
    assert opened.size == (64, 48)
    assert near(opened.getpixel((8, 24)), RED, 30)
    assert near(opened.getpixel((56, 24)), WHITE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_undoes_what_the_camera_did(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3)
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if inverse is None else upright.transpose(Image.Transpose(inverse))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(open_photograph(tmp_path / "a.png")), np.asarray(upright))


def test_exif_rotation_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: turn clockwise
    halves((64, 32)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    opened = open_photograph(tmp_path / "a.jpg")
    assert opened.size == (32, 64)
    assert near(opened.getpixel((16, 4)), RED)
    assert near(opened.getpixel((16, 60)), WHITE)


def test_broken_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert open_photograph(tmp_path / "a.png").size == (8, 6)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 128))
    image.save(tmp_path / "a.png")
    opened = open_photograph(tmp_path / "a.png")
    assert opened.getpixel((0, 0)) == WHITE
    assert near(opened.getpixel((1, 0)), (227, 127, 127), 2)


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.new("LA", (2, 2), (10, 0)).save(tmp_path / "a.png")
    assert open_photograph(tmp_path / "a.png").getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", **({"transparency": 1} if transparent else {}))
    opened = open_photograph(tmp_path / "a.png")
    assert opened.getpixel((0, 0)) == RED
    assert opened.getpixel((1, 0)) == (WHITE if transparent else (0, 0, 255))


def test_transparent_colour_of_an_rgb_png(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png", transparency=RED)
    assert open_photograph(tmp_path / "a.png").getpixel((0, 0)) == WHITE


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert near(open_photograph(tmp_path / "a.jpg").getpixel((8, 8)), (255, 0, 0), 6)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_over_their_whole_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 3 1 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    opened = np.asarray(open_photograph(path))
    assert opened[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_one_bit_and_float_pictures(tmp_path: Path) -> None:
    bits = Image.new("1", (2, 1), 0)
    bits.putpixel((1, 0), 1)
    assert np.asarray(open_photograph(bits))[0, :, 0].tolist() == [0, 255]
    floats = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert np.asarray(open_photograph(floats))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_give_their_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255), (0, 255, 0))]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    assert near(open_photograph(path).getpixel((8, 8)), RED)


# -- sources other than files


def test_the_same_picture_from_every_source(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    wanted = np.asarray(picture)
    picture.save(tmp_path / "a.png")
    bytes_held = (tmp_path / "a.png").read_bytes()
    first = torch.from_numpy(wanted.copy()).permute(2, 0, 1)
    sources = {
        "path": tmp_path / "a.png",
        "str": str(tmp_path / "a.png"),
        "bytes": bytes_held,
        "image": picture,
        "channels last": wanted,
        "channels first": np.moveaxis(wanted, 2, 0),
        "float array": wanted / 255,
        "float 0..255": wanted.astype(np.float32),
        "uint16 array": wanted.astype(np.uint16) * 257,
        "int64 array": wanted.astype(np.int64),
        "tensor": first,
        "batch of one": first[None].float() / 255,
        "bfloat16": (first.float() / 255).to(torch.bfloat16),
        "with gradient": (first.float() / 255).requires_grad_(),
    }
    for name, source in sources.items():
        got = np.asarray(open_photograph(source)).astype(int)
        assert got.shape == wanted.shape, name
        assert np.abs(got - wanted).max() <= (1 if name == "bfloat16" else 0), name


def test_the_given_picture_is_not_the_returned_one() -> None:
    picture = halves()
    open_photograph(picture).putpixel((0, 0), (1, 2, 3))
    assert picture.getpixel((0, 0)) == RED


def test_grey_and_alpha_arrays() -> None:
    assert open_photograph(np.full((4, 5), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert open_photograph(np.full((4, 5, 1), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert open_photograph(torch.full((1, 4, 5), 7, dtype=torch.uint8)).size == (5, 4)
    assert open_photograph(np.zeros((4, 5, 4), np.uint8)).getpixel((0, 0)) == WHITE
    assert open_photograph(np.ones((4, 5), bool)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), "shape (2, 3, 4, 5)"),
        (np.zeros((5, 5, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros(5, np.uint8), "one picture"),
        (np.full((2, 2, 3), np.nan), "not finite"),
        (np.full((2, 2, 3), -1.5), "normalisation"),
        (np.array([["a", "b"]]), "expected numbers"),
        (torch.randn(3, 8, 8) - 5, "normalisation"),
        (None, "NoneType"),
        (3, "int"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        (b"", "nothing in them"),
    ],
)
def test_unusable_sources(source: object, said: str) -> None:
    with pytest.raises(PhotographError, match=said.replace("(", r"\(").replace(")", r"\)")) as caught:
        open_photograph(source)
    assert "\n" not in str(caught.value)


# -- broken files


def png_header(width: int, height: int) -> bytes:
    """A correct PNG that promises a size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def encoded(kind: str) -> bytes:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    held = io.BytesIO()
    noise.save(held, kind)
    return held.getvalue()


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.jpg": (lambda: b"", "empty"),
    "text.jpg": (lambda: b"this is not a picture at all\n" * 9, "not a picture"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "drawing.png": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "paper.png": (lambda: b"%PDF-1.7\n%....", "PDF"),
    "phone.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64, "HEIC"),
    "clip.jpg": (lambda: b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + b"\0" * 64, "video"),
    "truncated.jpg": (lambda: encoded("JPEG")[:2000], "truncated"),
    "truncated.png": (lambda: encoded("PNG")[:2000], "truncated"),
    "truncated.webp": (lambda: encoded("WEBP")[:300], "broken|truncated"),
    "head only.png": (lambda: b"\x89PNG\r\n\x1a\n", "broken"),
    "corrupt.png": (lambda: encoded("PNG")[:40] + b"\xff" * 500 + encoded("PNG")[540:], "broken|truncated"),
    "bomb.png": (lambda: png_header(50_000, 50_000), "2,500,000,000 pixels"),
    "large.png": (lambda: png_header(15_000, 12_000), "15000 x 12000 pixels|180,000,000 pixels"),
    "flat.png": (lambda: png_header(0, 10), "broken|no pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_clear_line(tmp_path: Path, name: str) -> None:
    make, said = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(PhotographError, match=said) as caught:
        open_photograph(path)
    message = str(caught.value)
    assert name in message
    assert "\n" not in message


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_header_tells_is_told_alike_without_decoding(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name][0]())
    with pytest.raises(PhotographError) as whole:
        open_photograph(path)
    told = pytest.raises(PhotographError, match=re.escape(str(whole.value)))
    late = nullcontext() if name in ("truncated.jpg", "truncated.png") else told  # of these the header is whole
    with mock.patch.object(ImageFile.ImageFile, "load", side_effect=AssertionError("decoded")), late:
        check_photograph(path)
    with told:
        check_photograph(path, most=10**9)


def test_pictures_up_to_a_size_are_decoded_and_counted(tmp_path: Path) -> None:
    halves((640, 480)).save(tmp_path / "a.jpg")
    assert [check_photograph(tmp_path / "a.jpg", most) for most in (0, 307_199, 307_200)] == [0, 0, 307_200]


def test_a_header_is_checked_without_decoding(tmp_path: Path) -> None:
    halves((640, 480)).save(tmp_path / "a.jpg")
    with mock.patch.object(ImageFile.ImageFile, "load", side_effect=AssertionError("decoded")):
        check_photograph(tmp_path / "a.jpg")
        with pytest.raises(PhotographError, match="no such file"):
            check_photograph(tmp_path / "b.jpg")


def test_the_limit_lies_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "MOST_PIXELS", 48)
    assert open_photograph(halves((8, 6))).size == (8, 6)
    with pytest.raises(PhotographError, match="8 x 7 pixels, the limit is 48"):
        open_photograph(halves((8, 7)))


def test_missing_folder_and_odd_names(tmp_path: Path) -> None:
    for source, said in [
        (tmp_path / "none.jpg", "no such file"),
        (tmp_path, "folder"),
        ("bad\0name.jpg", "bad\\?name.jpg"),
        ("x" * 5000 + ".jpg", "cannot be read|no such file"),
        ("", "folder|no such file"),
    ]:
        with pytest.raises(PhotographError, match=said) as caught:
            open_photograph(source)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX systems")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PhotographError, match="not a regular file"):
        open_photograph(tmp_path / "pipe.jpg")


def assert_opens_or_tells(data: bytes) -> None:
    told = "one line"
    try:
        with mock.patch.object(photographs, "MOST_PIXELS", 10**6):  # a lucky header must not cost gigabytes
            mode = open_photograph(data).mode
    except PhotographError as error:
        mode, told = "RGB", str(error)
    assert mode == "RGB"
    assert told
    assert "\n" not in told


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"MM\0*"])
    | st.sampled_from([b"RIFF\x20\0\0\0WEBPVP8 ", b"P6 ", b"P5 9 9 255\n", b"8BPS", b"\0\0\1\0", b"\0\0\0\x0cjP  "]),
    tail=st.binary(max_size=200),
)
def test_random_bytes_never_raise_anything_else(head: bytes, tail: bytes) -> None:
    assert_opens_or_tells(head + tail)


WHOLE = {kind: encoded(kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM")}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    places=st.lists(st.integers(0, 600), min_size=1, max_size=8),
    data=st.data(),
)
def test_damaged_pictures_never_raise_anything_else(kind: str, places: list[int], data: st.DataObject) -> None:
    damaged = bytearray(WHOLE[kind])
    for place in places:
        damaged[place % len(damaged)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    assert_opens_or_tells(bytes(damaged[:cut]))


# -- finding


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in [
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.jpg",
        "in/c.webp",
        "in/.git/d.jpg",
        "in/deep/[1].jpg",
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(found: list[Path], album: Path) -> list[str]:
    return [path.relative_to(album).as_posix() for path in found]


def test_folders_are_searched_in_order_without_hidden_files(album: Path) -> None:
    assert names(find_photographs([album]), album) == ["a.PNG", "b.jpg", "in/c.webp", "in/deep/[1].jpg"]


def test_patterns(album: Path) -> None:
    assert names(find_photographs([f"{album}/*"]), album) == [
        "a.PNG",
        "b.jpg",
        "in/c.webp",
        "in/deep/[1].jpg",
    ]
    assert names(find_photographs([f"{album}/**/*.jpg"]), album) == ["b.jpg", "in/deep/[1].jpg"]
    assert names(find_photographs(str(album / "in" / "*.web[pq]")), album) == ["in/c.webp"]


def test_files_are_taken_as_named_and_only_once(album: Path) -> None:
    given_twice = [
        album / "in/deep/[1].jpg",
        album / "notes.txt",
        album / "b.jpg",
        album / "b.jpg",
        album / ".hidden.jpg",
    ]
    assert names(find_photographs(given_twice), album) == [
        "in/deep/[1].jpg",
        "notes.txt",
        "b.jpg",
        ".hidden.jpg",
    ]


def test_the_same_file_by_two_ways_is_taken_once(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    assert len(find_photographs(["b.jpg", album / "b.jpg", "./in/../b.jpg"])) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.jpg", "no such file"),
        ("*.tif", "no photograph matches"),
        ("in/.git/e*", "no photograph matches"),
        ("bare", "no photographs in this folder"),
        ("x\0.jpg", "x\\?.jpg"),
    ],
)
def test_nothing_found_is_an_error(album: Path, name: str, said: str) -> None:
    (album / "bare").mkdir()
    with pytest.raises(PhotographError, match=said):
        find_photographs([album / "b.jpg", f"{album}/{name}"])


def test_an_empty_name_is_not_this_folder(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    with pytest.raises(PhotographError, match="an empty name; give a photograph"):
        find_photographs([""])


def test_addresses_are_refused_with_advice() -> None:
    with pytest.raises(PhotographError, match="save the picture"):
        find_photographs(["https://example.org/cat.jpg"])


def test_samples_open_and_their_sources_are_told() -> None:
    found = sample_photographs()
    assert len(found) >= 2
    told = (found[0].parent / "SOURCES.md").read_text("utf-8")
    for path in found:
        assert min(open_photograph(path).size) >= 200
        assert path.stat().st_size <= 60_000
        assert f"`{path.name}`" in told


def test_what_is_remarked_of_a_picture(tmp_path: Path) -> None:
    large, other = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    cases = {
        "plain.jpg": "",
        "edge.png": "",
        "thin.png": "has 200 x 15 pixels, too few",
        "moving.gif": "has 2 frames, of which only the first",
        "moving.png": "has 2 frames",
        "moving.webp": "has 2 frames",
        "pages.tif": "has 2 pages",
        "phone.mpo": "",
        "broken.gif": "",
        "missing.png": "",
    }
    large.save(tmp_path / "plain.jpg")
    large.resize((16, 16)).save(tmp_path / "edge.png")
    large.resize((200, 15)).save(tmp_path / "thin.png")
    for name in ("moving.gif", "moving.png", "moving.webp", "pages.tif", "phone.mpo"):
        large.save(tmp_path / name, save_all=True, append_images=[other])
    (tmp_path / "broken.gif").write_bytes((tmp_path / "moving.gif").read_bytes()[:20])
    for name, said in cases.items():
        told = remark(tmp_path / name)
        assert told.startswith(said) if said else told == "", name
