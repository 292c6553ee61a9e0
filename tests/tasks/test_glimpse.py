"""Pictures become canvases as MNIST has them; the answer is that of the model's own paths."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

import sightline
from sightline.data.canvas import normalised
from sightline.data.photographs import PhotographError
from sightline.systems.ram import RAM
from sightline.systems.vit import VisionTransformer
from sightline.tasks.glimpse import GlimpseError, glimpse, open_ram, to_canvas


@pytest.fixture
def model() -> RAM:
    torch.manual_seed(0)
    return RAM(what=24, where=8, locator=8, glimpses=3).eval()


def drawing(
    dark: bool = True, size: tuple[int, int] = (400, 300), shade: float = 0.0, noise: float = 0.0
) -> Image.Image:
    """A seven of two thick strokes, (150, 60) to (260, 240), on even or shaded paper."""
    paper, ink = (230, 30) if dark else (20, 240)
    image = Image.new("L", size, paper)
    draw = ImageDraw.Draw(image)
    draw.line([(150, 70), (255, 70), (190, 235)], fill=ink, width=22, joint="curve")
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), dtype=float)
    values = values * (1 - shade * np.linspace(1, 0, size[0])[None])
    values = values + np.random.default_rng(0).normal(0, noise, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")


def assert_like_mnist(canvas: np.ndarray) -> None:
    rows, columns = np.flatnonzero(canvas.max(axis=1) > 60), np.flatnonzero(canvas.max(axis=0) > 60)
    assert 18 <= rows[-1] - rows[0] + 1 <= 20
    assert canvas.max() == 255
    assert np.median(canvas) == 0
    mass = canvas.sum()
    for axis in (0, 1):
        middle = canvas.sum(axis=1 - axis) @ np.arange(28) / mass
        assert abs(middle - 14) <= 1
    # the bar is above, the foot left of the right end of the bar
    assert canvas[rows[0] + 1].astype(bool).sum() > canvas[rows[-1] - 1].astype(bool).sum()
    assert columns[-1] > np.flatnonzero(canvas[rows[-1] - 1] > 60)[-1]


def test_dark_on_light_is_inverted_and_light_on_dark_is_not() -> None:
    for dark in (True, False):
        canvas, said = to_canvas(drawing(dark), 28)
        assert canvas.shape == (28, 28)
        assert_like_mnist(canvas)
        assert ("inverted" in said) is dark
        assert "centred as in MNIST" in said


def test_shadow_and_noise_of_a_photograph_are_ground() -> None:
    assert_like_mnist(to_canvas(drawing(shade=0.5, noise=6.0), 28)[0])


def test_ink_near_a_corner_is_found() -> None:
    cut = drawing().crop((120, 45, 400, 300))
    assert_like_mnist(to_canvas(cut, 28)[0])


def test_a_canvas_is_taken_as_it_is() -> None:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[8:20, 12:15] = 200
    canvas, said = to_canvas(Image.fromarray(pixels).convert("RGB"), 28)
    assert np.array_equal(canvas, pixels)
    assert said == "grey, as it is"
    inverted, said = to_canvas(Image.fromarray(255 - pixels).convert("RGB"), 28)
    assert "inverted" in said
    assert inverted.max() == 255


def test_larger_canvases_keep_the_place() -> None:
    canvas, said = to_canvas(drawing(), 60)
    assert canvas.shape == (60, 60)
    assert "fitted into 60 x 60" in said
    rows, columns = np.flatnonzero(canvas.max(axis=1) > 60), np.flatnonzero(canvas.max(axis=0) > 60)
    # 400 x 300 on 60 x 45, with 7 empty rows above
    assert (columns[0], columns[-1]) == (pytest.approx(150 * 0.15, abs=2), pytest.approx(265 * 0.15, abs=2))
    assert rows[0] == pytest.approx(7 + 60 * 0.15, abs=2)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (28, 28), (31, 29), (900, 40)])
def test_any_size_makes_a_canvas_or_is_refused(size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    for side in (28, 60):
        try:
            canvas, _ = to_canvas(Image.fromarray(values).convert("RGB"), side)
        except PhotographError:
            continue
        assert canvas.shape == (side, side)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_one_tone_is_refused(tone: int, model: RAM) -> None:
    with pytest.raises(PhotographError, match="one tone"):
        glimpse(Image.new("RGB", (90, 70), (tone,) * 3), system=model)


def test_the_answer_is_that_of_the_paths(model: RAM) -> None:
    found = glimpse(drawing(), system=model, copies=5, seed=3)
    one = normalised(torch.from_numpy(np.array(found.canvas))[None, None])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        reading = model(one.expand(5, -1, -1, -1))
    mean = reading.log_probs.mean(dim=0).softmax(dim=0)
    assert found.label == str(int(mean.argmax()))
    assert found.probability == pytest.approx(float(mean.max()), abs=1e-6)
    assert sum(chance for _, chance in found) == pytest.approx(1, abs=1e-5)
    assert found.agreeing == int((reading.log_probs.argmax(dim=1) == int(found.label)).sum())
    assert any(np.allclose(found.attention.places, path) for path in reading.places.numpy())
    assert found.attention.thoughts[-1].startswith(found.label)


def test_same_seed_same_path_and_the_callers_numbers_stay(model: RAM) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (glimpse(drawing(), system=model, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), wanted)
    assert np.array_equal(first.attention.places, again.attention.places)
    assert not np.array_equal(first.attention.places, other.attention.places)


def test_saved_shown_and_printed(model: RAM, tmp_path: Path) -> None:
    drawing().save(tmp_path / "seven.png")
    found = sightline.glimpse(tmp_path / "seven.png", system=model)
    for name in ("path.png", "path.gif", "path.html"):
        assert found.save(tmp_path / name).stat().st_size > 1000
    assert str(found).startswith(found.label)
    assert "inverted" in found.caption
    assert "<iframe" in found._repr_html_()


def test_systems_by_folder_and_what_does_not_glimpse(model: RAM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "run" / "weights")
    assert isinstance(open_ram(tmp_path / "run")[0], RAM)
    VisionTransformer(image_size=16, patch=8, dim=16, depth=1, heads=2).save_pretrained(tmp_path / "vit")
    for system, message in (
        (tmp_path / "vit", "VisionTransformer, which takes no glimpses"),
        (torch.nn.Linear(2, 2), "is a Linear, which takes no glimpses"),
        (tmp_path / "nowhere", "nowhere"),
        (RAM(channels=3), "coloured"),
    ):
        with pytest.raises(GlimpseError, match=message):
            glimpse(drawing(), system=system)


def test_bad_input(model: RAM) -> None:
    with pytest.raises(ValueError, match="at least 1, given 0"):
        glimpse(drawing(), system=model, copies=0)
    with pytest.raises(PhotographError, match="no such file"):
        glimpse("no-such-digit.png", system=model)


def test_the_bundled_weights_are_as_good_as_their_card_says(shared: Path) -> None:
    from sightline.checkpoints.bundled import bundled, bundled_card
    from sightline.data.canvas import open_canvases

    card, network = bundled_card("ram"), bundled("ram")
    assert isinstance(network, RAM)
    assert sum(p.numel() for p in network.parameters()) == card["parameters"]
    data = open_canvases(f"mnist:{shared / 'data' / 'mnist'}", "test")
    images, labels = normalised(data.digits[::5, None]), data.labels[::5]
    torch.manual_seed(0)
    wrong = (network.predict(images, 10).argmax(dim=1) != labels).double().mean().item()
    # four standard deviations of a share of 2,000
    assert abs(wrong - card["measured"]["error"]) < 0.007


def test_the_bundled_weights_read_a_drawing() -> None:
    for dark in (True, False):
        found = sightline.glimpse(drawing(dark, shade=0.4, noise=5.0))
        assert found.label == "7"
        assert found.system == "ram"
