"""A collection to learn from in seconds: stripes across, stripes down, and a disc, in any colours."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image


def draw(kind: str, random: np.random.Generator, side: int = 32) -> np.ndarray:
    down, across = np.mgrid[0:side, 0:side]
    period, start = random.uniform(6, 10), random.uniform(0, 10)
    if kind == "disc":
        middle, radius = random.uniform(12, 20, size=2), random.uniform(7, 12)
        inside = (down - middle[0]) ** 2 + (across - middle[1]) ** 2 < radius**2
    else:
        inside = ((down if kind == "across" else across) + start) % period < period / 2
    dark, light = random.uniform(0, 110, size=3), random.uniform(140, 255, size=3)
    colours = (light, dark) if random.random() < 0.5 else (dark, light)
    picture = np.where(inside[..., None], *colours) + random.normal(0, 8, (side, side, 3))
    return picture.clip(0, 255).astype(np.uint8)


def write(root: Path, train: int = 60, val: int = 20) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("across", "disc", "down"):
            folder = root / split / kind
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw(kind, random)).save(folder / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("patterns"))


@pytest.fixture
def write_patterns() -> Callable[..., Path]:
    return write


@pytest.fixture
def no_drawings() -> Iterator[None]:
    """For runs at whose pictures a test does not look: to draw them takes longer than a short run."""
    import sightline.recipes.train as module  # the package is imported after the checks are in place
    from sightline.recipes import results

    write = module.write_results

    def write_rest(folder: Path, plan: dict, recipe_file: Any, *given: Any) -> None:
        silent = {"draw_samples": lambda recipe, data, path: None}
        write(folder, plan, SimpleNamespace(**vars(recipe_file) | silent), *given)

    # not the test's own monkeypatch, which it may undo half-way
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_results", write_rest)
        patch.setattr(results, "draw_curves", lambda record, path: None)
        yield


def tinted(kind: int, random: np.random.Generator, side: int = 32) -> np.ndarray:
    """Light and dark blobs, which differ between pictures and within each, under a tint that tells the kind."""
    blobs = Image.fromarray(random.normal(0, 110, (8, 8)).astype(np.float32)).resize((side, side))
    tint = 10 * np.cos(2 * np.pi * (kind + np.arange(3)) / 3)
    picture = 128 + np.asarray(blobs)[..., None] + tint + random.normal(0, 8, (side, side, 3))
    return picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tints(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A collection in which neighbours at random share their blobs, and what views share is the kind."""
    root, random = tmp_path_factory.mktemp("tints"), np.random.default_rng(0)
    for split, count in (("train", 80), ("val", 40)):
        for kind, name in enumerate(("amber", "green", "violet")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(tinted(kind, random)).save(root / split / name / f"{number:03d}.png")
    return f"folder:{root}"
