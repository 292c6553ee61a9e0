"""Frames: order, one scale for all, the maps of single looks, animations that can be opened again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from sightline.data.photographs import PhotographError
from sightline.lens.paint import heat_range, top_mass
from sightline.systems.vit import VisionTransformer
from sightline.tasks.frames import in_order, look_at_frames
from sightline.tasks.look import look
from sightline.tasks.vision_model import VisionModel, open_vision_model, whole_prepare

Save = Callable[[str], Path]


@pytest.fixture(scope="module")
def dino() -> VisionModel:
    torch.manual_seed(0)
    made = VisionTransformer(image_size=32, patch=8, dim=24, depth=2, heads=3, classes=0, positions="dino")
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prepare = whole_prepare(32, 8, (0.5,) * 3, (0.25,) * 3)
    opened = open_vision_model(made, prepare)
    assert opened.features
    return opened


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    made = []
    for number in range(12):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[20:34, 4 * number : 4 * number + 14] = (240, 200, 40)
        made.append(tmp_path / f"frame{number}.png")
        Image.fromarray(picture).save(made[-1])
    return made


def test_frames_go_by_number() -> None:
    names = [Path(name) for name in ("b/2.png", "a/10.png", "a/9.png", "a/f010.png", "a/f9.png")]
    assert [str(path) for path in in_order(names)] == ["a/9.png", "a/10.png", "a/f9.png", "a/f010.png", "b/2.png"]


def test_each_map_is_that_of_a_single_look(dino: VisionModel, frames: list[Path]) -> None:
    film = look_at_frames(frames[:3], model=dino)
    assert film.method == "raw"
    for path, heat in zip(frames, film.heats, strict=False):
        assert heat.shape == (4, 5)  # 32 x 43 pixels, rounded to whole patches
        torch.testing.assert_close(heat, look(path, model=dino, method="raw").heat)
    rolled = look_at_frames(frames[:1], model=dino, method="rollout")
    torch.testing.assert_close(rolled.heats[0], look(frames[0], model=dino, method="rollout").heat)
    head = look_at_frames(frames[:1], model=dino, head=1, layer=0)
    torch.testing.assert_close(head.heats[0], look(frames[0], model=dino, method="raw", head=1, layer=0).heat)


def test_all_frames_have_one_scale(dino: VisionModel, frames: list[Path]) -> None:
    film = look_at_frames(frames[:4], model=dino)
    assert film.limits == heat_range(film.heats.flatten(0, 1))
    strong = look_at_frames(frames[:1], model=dino).heats.mul(3)
    louder = type(film)(film.images * 2, torch.cat([film.heats, strong.expand(4, -1, -1)]), "x", "raw")
    before, after = np.asarray(film.frames()[0], dtype=float), np.asarray(louder.frames()[0], dtype=float)
    assert after.mean() < before.mean() - 2  # the same map is darker beside a brighter one


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_open_again(dino: VisionModel, frames: list[Path], suffix: str, tmp_path: Path) -> None:
    film = look_at_frames(frames, model=dino)
    with Image.open(film.save(tmp_path / "new" / f"walk{suffix}", milliseconds=80)) as opened:
        assert opened.size == (64, 48)
        assert opened.info["loop"] == 0
        shown = [frame.convert("RGB").copy() for frame in ImageSequence.Iterator(opened)]
    assert len(shown) == 12
    for one, drawn in zip(shown, film.frames(), strict=True):
        assert np.abs(np.asarray(one, float) - np.asarray(drawn, float)).mean() < 12


def test_masks_of_a_film(dino: VisionModel, frames: list[Path]) -> None:
    film = look_at_frames(frames[:2], model=dino, method="threshold", mass=0.4)
    lit = np.asarray(film.frames()[1], float).sum(2)
    cells = top_mass(film.heats[1], 0.4)
    large = np.asarray(Image.fromarray(cells).resize((64, 48), Image.Resampling.NEAREST))
    yellow = np.asarray(film.images[1], float)[..., 0] > 200
    if (large & yellow).any() and (~large & yellow).any():
        assert lit[large & yellow].mean() > 1.3 * lit[~large & yellow].mean()


def test_what_is_no_film(dino: VisionModel, frames: list[Path], save_tiny: Save, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not known for frames"):
        look_at_frames(frames, model=dino, method="gradient")
    with pytest.raises(ValueError, match="no frame could be read"):
        look_at_frames([], model=dino)
    with pytest.raises(PhotographError, match="no such file"):
        look_at_frames([tmp_path / "gone.png"], model=dino)
    Image.new("RGB", (64, 64)).save(tmp_path / "square.png")
    with pytest.raises(ValueError, match="other than the first"):
        look_at_frames([frames[0], tmp_path / "square.png"], model=dino)
    with pytest.raises(ValueError, match="leave size out"):
        look_at_frames(frames, model=save_tiny("vit"), size=64)
    with pytest.raises(ValueError, match=r"\.gif or \.webp"):
        look_at_frames(frames[:1], model=dino).save(tmp_path / "a.mp4")


def test_a_broken_frame_is_told_and_left_out(dino: VisionModel, frames: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    told: list[Path] = []
    film = look_at_frames([frames[0], broken, frames[1]], model=dino, failed=lambda path, error: told.append(path))
    assert len(film) == 2
    assert told == [broken]
