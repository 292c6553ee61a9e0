"""Features on disk: written once, gone on with where a call was stopped, refused where they are of something else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sightline.data.captioned_features import CaptionedFeatures
from sightline.data.captions import Captioned
from sightline.data.features import Encode, Features, photographs, squashed
from sightline.data.features import extract as extract_named
from sightline.data.listed import Pictures


def encode(pixels: Tensor) -> Tensor:
    """Two rows and three columns of mean colours."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), (2, 3))


def extract(paths: list[Path], encode: Encode, folder: Path, *, side: int, **more: object) -> Features:
    return extract_named([path.name for path in paths], photographs(paths, side), encode, folder, side=side, **more)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    random, made = np.random.default_rng(0), []
    for number in range(5):
        made.append(tmp_path / f"{number}.png")
        Image.fromarray(random.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(made[-1])
    return made


def test_features_are_the_encoders(paths: list[Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    kept = extract(
        paths, encode, tmp_path / "f", side=12, encoder="mean", mirrored=True, batch=2, tell=lambda *n: told.append(n)
    )
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert (len(kept), kept.rows, kept.columns, kept.width, kept.mirrored) == (5, 2, 3, 3, True)
    picture = squashed(Image.open(paths[3]), 12)
    assert picture.shape == (3, 12, 12)
    wanted = encode(picture[None])[0].flatten(1).T
    got = Features(tmp_path / "f").of(["3.png", "3.png"], [False, True])
    torch.testing.assert_close(got[0], wanted, atol=0.1, rtol=0)  # half precision
    torch.testing.assert_close(got[1], wanted.view(2, 3, 3).flip(1).reshape(6, 3), atol=0.2, rtol=0)


def test_a_stopped_call_goes_on(paths: list[Path], tmp_path: Path) -> None:
    calls = []

    def breaking(pixels: Tensor) -> Tensor:
        calls.append(len(pixels))
        if len(calls) == 2:
            raise OSError("the plug was pulled")
        return encode(pixels)

    with pytest.raises(OSError, match="plug"):
        extract(paths, breaking, tmp_path / "f", side=12, encoder="mean", batch=2)
    with pytest.raises(ValueError, match="2 of 5"):
        Features(tmp_path / "f")
    kept = extract(paths, breaking, tmp_path / "f", side=12, encoder="mean", batch=2)
    assert calls == [2, 2, 2, 1]
    whole = extract(paths, encode, tmp_path / "g", side=12, encoder="mean")
    assert np.array_equal(kept.values, whole.values)
    extract(paths, breaking, tmp_path / "f", side=12, encoder="mean", batch=2)
    assert len(calls) == 4  # nothing left to do


def test_features_of_something_else_are_refused(paths: list[Path], tmp_path: Path) -> None:
    kept = extract(paths, encode, tmp_path / "f", side=12, encoder="mean")
    with pytest.raises(ValueError, match="another side"):
        extract(paths, encode, tmp_path / "f", side=16, encoder="mean")
    with pytest.raises(ValueError, match="no features of other"):
        kept.of(["other.png"])
    with pytest.raises(ValueError, match=r"no features\.json"):
        Features(tmp_path)


def test_captions_become_numbers(paths: list[Path], tmp_path: Path) -> None:
    kept = extract(paths, encode, tmp_path / "f", side=12, encoder="mean")
    said = [["A dog runs .", "The dog!"], ["A cat"], ["dog " * 30], ["a dog"], ["a dog"]]
    data = CaptionedFeatures(
        Captioned([p.name for p in paths], said, Pictures(tmp_path, ())), kept, minimum=2, longest=4
    )
    assert set(data.vocabulary.words[4:]) == {"a", "dog"}
    assert (len(data), data.width) == (5, 3)
    batch = data.batch(np.array([0, 1, 2]))
    a, dog = data.vocabulary.encode(["a", "dog"])
    assert batch["tokens"].tolist() == [
        [[1, a, dog, 3, 2, 0], [1, 3, dog, 2, 0, 0]],
        [[1, a, 3, 2, 0, 0], [1, a, 3, 2, 0, 0]],  # its one caption again
        [[1, dog, dog, dog, dog, 2], [1, dog, dog, dog, dog, 2]],  # cut off
    ]
    assert torch.equal(batch["features"], kept.of(["0.png", "1.png", "2.png"]))
    assert json.loads((tmp_path / "f" / "features.json").read_text())["encoder"] == "mean"
