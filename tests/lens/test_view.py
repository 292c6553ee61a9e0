"""Pictures of maps: sizes, colours, legibility, and what is refused."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops
from skimage import data

from sightline.lens import paint, sheet, view

LUMA = np.array([0.2126, 0.7152, 0.0722])
PHOTOGRAPHS = {
    "astronaut": data.astronaut,
    "chelsea": data.chelsea,
    "coffee": data.coffee,
    "rocket": data.rocket,
    "white": lambda: np.full((300, 400, 3), 255, np.uint8),
    "black": lambda: np.zeros((300, 400, 3), np.uint8),
}


def blob(height: int = 14, width: int = 14, row: float = 0.5, column: float = 0.5, size: float = 0.15) -> np.ndarray:
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    heat = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))
    return heat / heat.sum()


def luminance(picture: Image.Image | np.ndarray) -> np.ndarray:
    """Relative luminance as WCAG defines it."""
    value = np.asarray(picture, dtype=np.float64) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ LUMA


# ---- colour on a photograph


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("colours", ["inferno", "viridis"])
def test_hottest_region_stands_out_on_bright_and_dark_photographs(name: str, colours: str) -> None:
    image, heat = PHOTOGRAPHS[name](), blob(size=0.1)
    mixed = luminance(paint.blend(image, heat, colours=colours, mass=None))
    large = paint.enlarge(heat, mixed.shape[::-1], True)
    hot, cold = mixed[large > 0.85 * heat.max()], mixed[large < 0.02 * heat.max()]
    # WCAG asks 3 to 1 of graphics; even the brightest cold part stays below the hot one
    assert (hot.mean() + 0.05) / (cold.mean() + 0.05) > 3
    assert (np.quantile(hot, 0.05) + 0.05) / (np.quantile(cold, 0.99) + 0.05) > 2


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photograph_remains_visible_where_the_map_is_cold(name: str) -> None:
    image = PHOTOGRAPHS[name]()
    mixed = np.asarray(paint.blend(image, np.zeros((4, 4))).convert("L"), dtype=float)
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=float)
    if grey.std() > 0:
        assert np.corrcoef(grey.ravel(), mixed.ravel())[0, 1] > 0.9
        assert mixed.std() > 10


@pytest.mark.parametrize("colours", paint.COLOURS)
@pytest.mark.parametrize("grey", [0, 60, 128, 200, 255])
def test_hotter_is_lighter(colours: str, grey: int) -> None:
    heat = np.linspace(0, 1, 101)[None]
    image = np.full((1, 101, 3), grey, np.uint8)
    light = luminance(paint.blend(image, heat, colours=colours, smooth=False, limits=(0, 1), mass=None))[0]
    # a cell ahead by a tenth of the scale may not be darker, beyond what 8 bits round; by a quarter, it is lighter
    assert (light[10:] - light[:-10]).min() > -0.012
    assert (light[25:] - light[:-25]).min() > 0
    assert light[-1] == light.max()


def test_picture_is_the_stated_mix_of_photograph_and_colour() -> None:
    rng = np.random.default_rng(0)
    image, heat = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)), rng.random((6, 8))
    mixed = np.asarray(paint.blend(image, heat, alpha=0.7, smooth=False, limits=(0, 1), mass=None))
    base, table = paint.dimmed(image), paint.colour_table("inferno")
    for y in range(6):
        for x in range(8):
            weight = 0.7 * (0.5 + 0.5 * heat[y, x])
            want = 255 * base[y, x] * (1 - weight) + table[round(255 * heat[y, x])] * weight
            assert np.abs(mixed[y, x] - want).max() <= 1.01


def test_each_cell_lies_where_it_belongs() -> None:
    image = np.full((60, 90, 3), 128, np.uint8)
    for y in range(2):
        for x in range(3):
            heat = np.zeros((2, 3))
            heat[y, x] = 1
            light = luminance(paint.blend(image, heat, smooth=False, mass=None))
            cells = light.reshape(2, 30, 3, 30).mean(axis=(1, 3))
            assert np.unravel_index(cells.argmax(), (2, 3)) == (y, x)


def test_smooth_maps_stay_within_their_values() -> None:
    heat = np.zeros((5, 5))
    heat[2, 2] = 1
    large = paint.enlarge(heat, (100, 80), True)
    assert large.shape == (80, 100)
    assert large.min() >= 0
    assert large.max() <= 1


# ---- masses and ranges


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    st.floats(0.01, 1.0),
)
def test_top_mass_is_the_smallest_set_that_holds_the_mass(cells: list[float], mass: float) -> None:
    heat = np.array(cells)[None]
    keep = paint.top_mass(heat, mass)
    if heat.sum() == 0:
        assert not keep.any()
        return
    assert heat[keep].sum() >= mass * heat.sum() * (1 - 1e-9)
    largest_first = np.sort(heat.ravel())[::-1] / heat.sum()
    fewest = int(np.searchsorted(np.cumsum(largest_first), mass - 1e-9)) + 1
    assert keep.sum() == min(fewest, heat.size) or heat[keep].min() < 1e-9 * heat.sum()
    if not keep.all():
        assert heat[keep].min() >= heat[~keep].max()


def test_top_mass_agrees_with_the_published_loop() -> None:
    heat = np.random.default_rng(3).random((7, 9)) ** 4
    values, index = torch.sort(torch.from_numpy(heat).flatten())
    kept = torch.cumsum(values / values.sum(), dim=0) > 1 - 0.6
    assert (kept[torch.argsort(index)].reshape(7, 9).numpy() == paint.top_mass(heat, 0.6)).all()


@pytest.mark.parametrize("mass", [0, -0.1, 1.1])
def test_mass_outside_its_range_is_refused(mass: float) -> None:
    with pytest.raises(ValueError, match="share of the map"):
        paint.top_mass(blob(), mass)


def test_an_even_map_is_not_hot_and_a_sink_saturates() -> None:
    assert paint.heat_range(np.full((4, 4), 0.1)) == (0, pytest.approx(0.2))
    assert paint.heat_range(np.zeros((4, 4))) == (0, 1)
    sink = np.ones((10, 10))
    sink[0, 0] = 100
    assert paint.heat_range(sink)[1] == 12.5
    assert paint.heat_range(np.array([[-2.0, 3.0]])) == (-2, 3)
    smooth = blob(size=0.3)
    assert paint.heat_range(smooth)[1] == pytest.approx(smooth.max())


# ---- what is refused


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_is_refused(bad: float) -> None:
    heat = blob()
    heat[3, 4] = bad
    for make in (
        lambda: view.overlay(data.astronaut(), heat),
        lambda: view.threshold_view(data.astronaut(), heat),
        lambda: view.montage(None, [[heat]]),
        lambda: view.strip(data.astronaut(), ["word"], [heat]),
        lambda: view.matrix(heat, ["a"] * 14, ["b"] * 14),
    ):
        with pytest.raises(ValueError, match=r"1 of the map's 196 cells are NaN or infinite"):
            make()


def test_wrong_shapes_and_names_say_what_is_expected() -> None:
    with pytest.raises(ValueError, match=r"\(height, width\), not \(3, 14, 14\)"):
        view.overlay(data.astronaut(), np.zeros((3, 14, 14)))
    with pytest.raises(ValueError, match="choose one of inferno"):
        view.overlay(data.astronaut(), blob(), colours="jet")
    with pytest.raises(ValueError, match="2 words"):
        view.strip(data.astronaut(), ["a", "b"], [blob()])
    with pytest.raises(ValueError, match="needs as many labels"):
        view.matrix(np.ones((2, 3)), ["a"], ["b"])
    with pytest.raises(ValueError, match="1 row labels were given for 2 rows"):
        view.montage(None, np.ones((2, 2, 3, 3)), rows=["only"])
    with pytest.raises(ValueError, match="needs maps"):
        view.montage(None, [])
    with pytest.raises(ValueError, match="alpha"):
        paint.blend(data.astronaut(), blob(), alpha=1.5)
    with pytest.raises(ValueError, match="no photograph"):
        view.overlay(np.zeros((5, 4, 7), np.uint8), blob())
    with pytest.raises(ValueError, match="negative"):
        view.threshold_view(data.astronaut(), -blob())


# ---- photographs


def test_photographs_of_every_form_are_the_same_picture() -> None:
    image = data.chelsea()
    want = np.asarray(Image.fromarray(image))
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    for form in (
        image,
        Image.fromarray(image),
        image / 255,
        tensor.float() / 255,
        Image.fromarray(image).convert("RGBA"),
    ):
        assert np.abs(np.asarray(paint.photograph(form)).astype(int) - want).max() <= 1
    normalised = (tensor.float() / 255 - 0.5) / 0.25
    assert np.corrcoef(np.asarray(paint.photograph(normalised)).ravel(), want.ravel())[0, 1] > 0.999
    assert paint.photograph(np.zeros((4, 5), np.uint8)).size == (5, 4)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 1500), st.integers(1, 1500))
def test_sides_stay_within_bounds_and_aspect_is_kept(width: int, height: int) -> None:
    shown = paint.shown_size(Image.new("RGB", (width, height)))
    assert paint.SHORTEST <= max(shown.size) <= paint.LONGEST
    assert abs(shown.width * height - shown.height * width) <= max(width, height)
    if paint.SHORTEST <= max(width, height) <= paint.LONGEST:
        assert shown.size == (width, height)


# ---- the views


def holds(card: Image.Image, part: Image.Image) -> bool:
    """Whether the part lies, pixel for pixel, somewhere on the card's left margin."""
    for y in range(card.height - part.height + 1):
        for x in (20, 20 + (card.width - 40 - part.width) // 2):
            box = (x, y, x + part.width, y + part.height)
            if ImageChops.difference(card.crop(box), part).getbbox() is None:
                return True
    return False


@pytest.mark.parametrize(("height", "width"), [(427, 640), (640, 400)])
def test_overlay_keeps_the_photograph_s_own_pixels(height: int, width: int) -> None:
    image = Image.fromarray(data.rocket()).resize((width, height))
    heat = blob(10, 15)
    card = view.overlay(image, heat, title="A rocket", caption="from the class token")
    assert holds(card, paint.blend(image, heat))
    assert card.width == width + 40
    assert height < card.height < height + 220


def test_titles_and_small_print_are_drawn(drawn_words: list[str]) -> None:
    image, maps = data.astronaut(), np.stack([blob(), blob(row=0.2)])
    views = {
        "overlay": lambda: view.overlay(image, maps[0], title="The title"),
        "threshold": lambda: view.threshold_view(image, maps[0], title="The title"),
        "montage": lambda: view.montage(image, maps[None], title="The title"),
        "strip": lambda: view.strip(image, ["one", "two"], maps, title="The title", scores=[0.25, 1.0]),
        "matrix": lambda: view.matrix(maps[0], list("abcdefghijklmn"), list("abcdefghijklmn"), title="The title"),
        "side": lambda: view.side_by_side([image, image], labels=["left", "right"], title="The title"),
        "noted": lambda: view.overlay(image, maps[0], title="The title", note="No check."),
        "masks": lambda: view.masks(image, maps > 0, maps[0], title="The title", note="The check: none."),
    }
    said = {}
    for name, make in views.items():
        drawn_words.clear()
        make()
        said[name] = " ".join(drawn_words)
        assert "The title" in said[name]
        assert sheet.SMALL_PRINT in said[name]
    uniform = maps[0].max() / maps[0].mean()
    assert f"{uniform:.1f}× uniform" in said["overlay"]
    assert "60% of the map" in said["overlay"]
    assert "60% of the map on" in said["threshold"] or "61% of the map on" in said["threshold"]
    assert "layer 0" in said["montage"]
    assert "head 1" in said["montage"]
    assert all(word in said["strip"] for word in ("one", "two", "0.25", "1.00"))
    assert "left" in said["side"]
    assert "right" in said["side"]
    assert f"{sheet.SMALL_PRINT} No check." in said["noted"]
    assert f"{sheet.SMALL_PRINT} The check: none." in said["masks"]
    assert not [name for name, words in said.items() if "check" in words and name not in ("noted", "masks")]


def test_the_key_of_a_narrow_picture_is_whole() -> None:
    for width in (4, 60, 200, 500):
        card = np.asarray(view.overlay(Image.new("RGB", (width, 600)), blob(), title="t"))
        assert (card[:, -20:] == sheet.PAPER).all(), width
        assert (card[:, :20] == sheet.PAPER).all(), width


def test_labels_of_a_narrow_pictures_heads_are_whole(drawn_words: list[str]) -> None:
    maps = np.stack([blob()] * 3)
    labels = [f"head {number} · 16%" for number in range(3)]
    view.masks(Image.new("RGB", (30, 600)), maps > 0, maps[0], labels=labels)
    assert drawn_words[:4] == ["all heads", *labels]


def test_characters_that_the_font_lacks_are_written_as_numbers(drawn_words: list[str]) -> None:
    assert sheet.drawable("Schön – žluť, × 5") == "Schön – žluť, × 5"
    assert sheet.drawable("Ein 中文-Hund") == "Ein U+4E2D U+6587 -Hund"
    view.matrix(np.full((1, 2), 0.5), ["中"], ["ein", "Hund中"], title="中 läuft", caption="文")
    assert set(drawn_words) >= {"U+4E2D", "ein", "Hund U+4E2D", "U+4E2D läuft", "U+6587"}
    assert not {"中", "文"} & set("".join(drawn_words))


def test_labels_side_by_side_are_whole(drawn_words: list[str]) -> None:
    label = "two dogs run over the grass behind a red ball"
    for width in (20, 300):
        drawn_words.clear()
        card = view.side_by_side([Image.new("RGB", (width, 60))] * 3, labels=[label, "a cat", ""])
        assert " ".join(drawn_words).startswith(f"{label} a cat")
        assert (np.asarray(card)[:, -20:] == sheet.PAPER).all()


def test_zero_and_constant_maps_are_drawn_and_named() -> None:
    for heat in (np.zeros((3, 5)), np.full((3, 5), 0.2), np.zeros((1, 1)), np.full((2, 2), -1.0)):
        assert view.overlay(data.coffee(), heat).size[0] > 600
        assert view.montage(data.coffee(), [[heat]]).size[0] > 0
        assert view.strip(data.coffee(), ["w"], [heat]).size[0] > 0
    assert view.threshold_view(data.coffee(), np.zeros((3, 5))).size[0] > 600


def test_threshold_view_keeps_the_photograph_inside_the_mask() -> None:
    image, heat = Image.fromarray(data.coffee()), np.zeros((4, 6))
    heat[1:3, 2:4] = 1
    card = np.asarray(view.threshold_view(image, heat, mass=1, caption="c"))
    source = np.asarray(image)
    inside = source[120:180, 220:380]
    found = [y for y in range(card.shape[0] - 60) if (card[y : y + 60, 20 + 220 : 20 + 380] == inside).all()]
    assert len(found) == 1
    outside = card[found[0] : found[0] + 60, 20 : 20 + 150].astype(int)
    assert outside.mean() < 0.75 * source[120:180, :150].mean()


def test_montage_lays_each_map_in_its_row_and_column() -> None:
    maps = np.ones((3, 4, 2, 2))
    maps[1, 2, 0, 0] = 50
    grid = view._laid_out(
        [[paint.tile(None, m, (60, 60), paint.heat_range(m), "inferno") for m in row] for row in maps],
        ["a", "b", "c"],
        list("wxyz"),
        (60, 60),
    )
    bright = np.argwhere((np.asarray(grid)[..., 2] < 190) & (np.asarray(grid)[..., 0] > 245))
    middle = bright.mean(axis=0)
    assert grid.height / 3 < middle[0] < grid.height * 2 / 3
    assert grid.width / 2 < middle[1] < grid.width * 3 / 4


def test_matrices_carry_their_words_and_lie_in_order(drawn_words: list[str]) -> None:
    weights = np.full((3, 2, 4, 5), 0.1)
    weights[1, 1, 3, 0] = 9  # the last word of the rows read the first of the columns, in the last head of layer 1
    card = view.matrices(weights, ["alpha", "beta", "gamma", "delta"], ["one", "two", "three", "four", "five"])
    assert drawn_words.count("delta") == 3  # once a layer
    assert drawn_words.count("three") == 6  # above each matrix
    assert {"layer 2", "head 1"} <= set(drawn_words)
    yellow = np.argwhere((np.asarray(card).astype(int) - [253, 231, 36]).__abs__().max(axis=2) < 4)
    low, high = yellow.min(axis=0), yellow.max(axis=0)
    assert (high - low + 1 == 26).all()  # one whole cell
    dark = np.asarray(card).astype(int).sum(axis=2) < 300
    assert dark[low[0] - 10, low[1] + 5 : low[1] + 100].all()  # rows above it, columns to its right: the same matrix
    assert not dark[low[0] + 30, low[1] : low[1] + 100].any()  # paper below
    assert low[1] > card.width / 2


def test_matrices_of_too_many_words_go_without(drawn_words: list[str]) -> None:
    words = [f"w{number}" for number in range(60)]
    card = view.matrices(np.random.default_rng(0).dirichlet(np.ones(60), (1, 4, 60)), words, words)
    assert card.width < 1300
    assert not set(words) & set(drawn_words)
    assert "head 3" in drawn_words
    with pytest.raises(ValueError, match="matrices of 2 x 60 words need weights"):
        view.matrices(np.ones((1, 1, 60, 60)), words[:2], words)


def test_shared_scale_dims_the_flatter_map() -> None:
    flat, sharp = np.ones((6, 6)), np.ones((6, 6))
    sharp[2:4, 2:4] = 9
    own = np.asarray(view.montage(None, [[flat, sharp]]), dtype=float)
    one = np.asarray(view.montage(None, [[flat, sharp]], shared=True), dtype=float)
    left = np.s_[120:200, 120:200]
    assert one[left].mean() < own[left].mean()


def test_rows_of_a_montage_may_differ_in_heads() -> None:
    ragged = [[blob(7, 7)] * 2, [blob(14, 14)] * 5]
    wide = view.montage(data.chelsea(), ragged)
    assert wide.width > 5 * 56


def test_a_strip_takes_one_photograph_for_each_word() -> None:
    frames = [data.astronaut(), data.rocket(), data.chelsea()]
    card = view.strip(frames, ["a", "b", "c"], [blob()] * 3, columns=2)
    assert card.height > card.width * 0.7  # two rows
    with pytest.raises(ValueError, match="2 photographs"):
        view.strip(frames[:2], ["a", "b", "c"], [blob()] * 3)


def test_matrix_colours_follow_the_weights() -> None:
    weights = np.array([[0.1, 0.9, 0.0], [0.3, 0.3, 0.4]])
    card = np.asarray(view.matrix(weights, ["x", "y"], ["a", "b", "c"]))
    table = paint.colour_table("viridis")
    for value in weights.ravel():
        colour = table[round(255 * value / 0.9)]
        assert (card == colour).all(axis=-1).sum() > 400


def test_tensors_are_maps_too() -> None:
    heat = blob()
    again = view.overlay(data.astronaut(), torch.from_numpy(heat))
    assert ImageChops.difference(view.overlay(data.astronaut(), heat), again).getbbox() is None


def test_the_name_of_a_file_is_no_photograph() -> None:
    with pytest.raises(TypeError, match=r"not its name: Image\.open\('photo\.jpg'\) of Pillow"):
        inspect.unwrap(paint.photograph)("photo.jpg")  # below the checks of types that tests alone have
