from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from sightline.data.hub import HubPictures


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def write(folder: Path, splits: dict[str, list[int]], **columns: object) -> Path:
    kinds = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cup", "cat"]), **columns}
    folder.mkdir()
    for split, labels in splits.items():
        values = {
            "picture": [Image.new("L" if i else "RGB", (6, 4), 10 * i) for i in range(len(labels))],
            "kind": labels,
        }
        rows = datasets.Dataset.from_dict({k: values[k] for k in kinds}, features=datasets.Features(kinds))
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_images_and_labels_are_found_by_their_kind(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", {"train": [0, 1, 1], "test": [1]})
    train, val = HubPictures(str(folder)), HubPictures(str(folder), "val")
    assert train.classes == val.classes == ("cup", "cat")
    assert train.labels.tolist() == [0, 1, 1]
    assert len(val) == 1
    np.testing.assert_array_equal(train.image(2), np.full((4, 6, 3), 20))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no data set can be read there"):
        HubPictures(str(tmp_path / "gone"))
    folder = write(tmp_path / "one", {"train": [0, 1]})
    with pytest.raises(ValueError, match="has no split validation or val or valid or test, only train"):
        HubPictures(str(folder), "val")
    hidden = write(tmp_path / "hidden", {"train": [0], "test": [-1, -1]})
    with pytest.raises(ValueError, match="the test split hides its labels"):
        HubPictures(str(hidden), "val")
    bare = write(tmp_path / "bare", {"train": [0, 1]}, kind=datasets.Value("int64"))
    with pytest.raises(ValueError, match=r"class labels, found picture \(Image\), kind \(Value\)"):
        HubPictures(str(bare))
