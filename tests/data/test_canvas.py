"""Canvases: everything where the layout says, nothing lost, the same for the same seed."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.data.canvas import Layout, draw_canvas, draw_layout, normalised, open_canvases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 12)):
        for name, values in (
            ("images-idx3", rng.integers(1, 256, (count, 28, 28))),
            ("labels-idx1", rng.integers(0, 10, count)),
        ):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))
    return tmp_path


def digits(count: int) -> torch.Tensor:
    return torch.randint(1, 256, (count, 28, 28), dtype=torch.uint8)


def test_a_digit_lies_where_its_layout_says() -> None:
    some, layout = digits(5), draw_layout(5, side=40)
    canvas = draw_canvas(some, some, layout, 40)
    assert canvas.shape == (5, 1, 40, 40)
    for one, digit, (row, column) in zip(canvas[:, 0], some, layout.digit.tolist(), strict=True):
        assert torch.equal(one[row : row + 28, column : column + 28], digit)
        assert (one > 0).sum() == 28 * 28


def test_clutter_is_pieces_of_other_digits_and_the_brighter_pixel_stays() -> None:
    some, pool = digits(6), digits(20)
    layout = draw_layout(6, side=50, pieces=3, pool=20)
    canvas = draw_canvas(some, pool, layout, 50)
    for number in range(6):
        wanted = torch.zeros(50, 50, dtype=torch.uint8)
        row, column = layout.digit[number].tolist()
        wanted[row : row + 28, column : column + 28] = some[number]
        for piece in range(3):
            (top, left), (y, x) = layout.piece[number, piece].tolist(), layout.cut[number, piece].tolist()
            cut = pool[layout.source[number, piece]][y : y + 8, x : x + 8]
            place = wanted[top : top + 8, left : left + 8]
            torch.maximum(place, cut, out=place)
        assert torch.equal(canvas[number, 0], wanted)


def test_layouts_reach_every_place_and_follow_the_seed() -> None:
    layout = draw_layout(4000, side=31, pieces=2, pool=5, generator=torch.Generator().manual_seed(3))
    again = draw_layout(4000, side=31, pieces=2, pool=5, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(one, two) for one, two in zip(layout, again, strict=True))
    assert set(layout.digit.flatten().tolist()) == set(range(4))
    assert set(layout.piece.flatten().tolist()) == set(range(24))
    assert set(layout.cut.flatten().tolist()) == set(range(21))
    assert set(layout.source.flatten().tolist()) == set(range(5))
    assert isinstance(layout.take(torch.tensor([1, 2])), Layout)
    other = draw_layout(4000, side=31, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(layout.digit, other.digit)


def test_kinds(folder: Path) -> None:
    assert [
        open_canvases(f"{kind}:{folder}", "val").pieces for kind in ("translated60", "cluttered60", "cluttered100")
    ] == [*(0, 4, 8)]
    plain = open_canvases(f"mnist:{folder}", "val")
    assert (plain.side, len(plain), plain.pieces) == (28, 12, 0)
    assert plain.layout is not None
    assert torch.equal(plain.canvases(plain.digits, plain.layout)[:, 0], plain.digits)
    assert open_canvases(f"translated:{folder}", "train").layout is None


def test_held_out_canvases_do_not_depend_on_torchs_own_seed(folder: Path) -> None:
    layouts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layouts.append(open_canvases(f"cluttered60:{folder}", "test").layout)
    assert layouts[0] is not None
    assert layouts[1] is not None
    assert all(torch.equal(one, two) for one, two in zip(*layouts, strict=True))


@pytest.mark.parametrize("spec", ["cifar:x", "cluttered60", "mnist60:x", "clutteredx:x", "cluttered60:"])
def test_other_specs_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="digits of mnist" if spec.startswith("mnist") else "expected mnist:FOLDER"):
        open_canvases(spec, "train")


def test_canvases_smaller_than_a_digit_and_missing_files_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="side=27"):
        open_canvases(f"translated27:{folder}", "val")
    with pytest.raises(ValueError, match="no such folder"):
        open_canvases("translated60:nowhere-at-all", "val")


def test_normalised_as_the_published_weights_expect() -> None:
    assert normalised(torch.tensor([[0, 255]], dtype=torch.uint8))[0].tolist() == pytest.approx(
        [-0.1307 / 0.3081, (1 - 0.1307) / 0.3081], abs=1e-6
    )
