"""The world's captioner: what it reads, what its measure counts, and a tiny run."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sightline.recipes import world_captions
from sightline.recipes.scene_looks import _elsewhere, kind_of, scene_looks
from sightline.recipes.train import train
from sightline.recipes.world_captions import open_data

SHARES = ("exact", "attributes", "colours", "shapes")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(autouse=True)
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(home / "cache"))


def test_scenes_come_with_features_words_and_boxes() -> None:
    data = open_data("scenes:8", "train")
    assert (len(data), data.width, data.features.rows) == (8, 112, 14)
    batch = data.batch(np.array([3, 5]))
    assert batch["features"].shape == (2, 196, 112)
    assert data.vocabulary.decode(batch["tokens"][0, 0]) == list(data.sentences[3].words)
    boxes = data.boxes(np.array([3]))[0]
    things = {thing for _, of in data.content(3) for thing in of}
    assert len(boxes) == len(data.scenes.scene(3).things)
    assert things <= set(range(len(boxes)))
    left = [np.flatnonzero(boxes[of[0]].any(dim=0))[0] for _, of in data.content(3)]
    assert left[0] <= left[-1]  # named from left to right
    for bad in ("scenes:few", "scenes:3", "flickr8k:8"):
        with pytest.raises(ValueError, match="8 scenes or more"):
            open_data(bad, "train")


def test_the_measure_counts_what_is_right() -> None:
    data = open_data("scenes:8", "train")
    truth = [list(sentence.words) for sentence in data.sentences]
    assert world_captions._right(data, truth, list(range(8))) == dict.fromkeys(SHARES, 1.0)
    wrong = [["mauve" if place == 1 else word for place, word in enumerate(words)] for words in truth]
    found = world_captions._right(data, wrong, list(range(8)))
    assert found["exact"] == 0
    assert 0.5 < found["attributes"] < 1
    assert found["colours"] < 1 == found["shapes"]  # the first word after "a" is a colour
    longer = [[*words, "and", "more"] for words in truth]
    assert world_captions._right(data, longer, list(range(8)))["exact"] == 0
    assert world_captions._right(data, [[] for _ in truth], list(range(8))) == dict.fromkeys(SHARES, 0.0)


def test_attention_on_the_box_is_found_and_beside_it_is_not() -> None:
    data = open_data("scenes:8", "train")

    class Pointer(torch.nn.Module):
        """Looks at the middle of what the word speaks of, or elsewhere."""

        def __init__(self, away: bool) -> None:
            super().__init__()
            self.away = away

        def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> SimpleNamespace:
            weights = torch.zeros(len(tokens), tokens.shape[1] - 1, 196)
            for row in range(len(tokens)):
                boxes = data.boxes(np.array([row]))[0]
                for place, of in data.content(row):
                    seen = boxes[list(of)[:1]][0] if boxes[list(of)[:1]].any() else boxes[list(of)].any(dim=0)
                    spots = seen.nonzero().float().mean(dim=0) / 112 * 14
                    cell = int(spots[0]) * 14 + int(spots[1])
                    weights[row, place, (cell + 97) % 196 if self.away else cell] = 1
            return SimpleNamespace(weights=weights)

    for away in (False, True):
        recipe = SimpleNamespace(kept=Pointer(away), vocabulary=data.vocabulary, device="cpu")
        found = scene_looks(recipe, data)
        assert found["words"] > 40
        assert (found["value"] < 0.4) if away else (found["value"] > 0.8)
        assert 0 < found["area"] < 0.4
        assert abs(found["random"] - found["area"]) < 0.1
        assert found["mass"] < found["value"] + 0.1
        assert found["colours"]["words"] + found["shapes"]["words"] == found["words"]
        assert away or found["value"] > found["other_scenes"] + 0.2


def test_another_scene_lends_the_map_of_the_same_place() -> None:
    assert _elsewhere([1, 2, 1, 2, 5, 1]) == [2, 3, 5, 1, 4, 0]
    assert (kind_of("red"), kind_of("sphere")) == ("colours", "shapes")


def test_a_tiny_run_goes_through(home: Path) -> None:
    folder = train("world_captions", "scenes:24", out=home / "run", tiny=True, steps=30)
    assert (folder / "samples.png").stat().st_size > 1000
    assert (folder / "weights" / "vocabulary.json").is_file()


def test_the_control_steps_and_measures_words_alone(home: Path) -> None:
    folder = train("world_captions_control", "scenes:24", out=home / "control", tiny=True, steps=3)
    measured = json.loads((folder / "metrics.json").read_text())["measured"]
    assert set(measured) == {"scenes", "other_scenes", *SHARES}
    assert (folder / "samples.png").stat().st_size > 1000
