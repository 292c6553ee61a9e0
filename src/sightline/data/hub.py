"""Labelled photographs from the hub, or from a folder of parquet, arrow or csv files, through `datasets`."""

import numpy as np

from sightline.data.photographs import open_photograph

_SPLITS = {"train": ("train",), "val": ("validation", "val", "valid", "test")}


class HubPictures:
    """Reads any data set of `datasets` that has a column of images and a column of class labels.

    `path` is a hub id (OWNER/NAME, cached, offline once it is there) or a folder that `datasets.load_dataset`
    understands; rows stay on disk until asked for.  `split` "val" takes the first of validation, val, valid, test.
    Code that comes with a data set is not run.  Raises ValueError where it cannot be had, or lacks such columns or
    the split.
    """

    def __init__(self, path: str, split: str = "train") -> None:
        import datasets

        if split not in _SPLITS:
            raise ValueError(f"split must be 'train' or 'val', given {split!r}")
        try:
            found = datasets.load_dataset(path)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{path}: no data set can be read there ({reason})") from error
        names = [name for name in _SPLITS[split] if name in found]
        if not names:
            raise ValueError(f"{path}: has no split {' or '.join(_SPLITS[split])}, only {', '.join(found)}")
        self.rows = found[names[0]]
        kinds = {column: type(feature).__name__ for column, feature in self.rows.features.items()}
        images, labels = ([c for c in kinds if kinds[c] == kind] for kind in ("Image", "ClassLabel"))
        if not images or not labels:
            told = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
            raise ValueError(f"{path}: needs a column of images and one of class labels, found {told}")
        self.image_column = images[0]
        self.classes: tuple[str, ...] = tuple(self.rows.features[labels[0]].names)
        self.labels = np.array(self.rows[labels[0]], dtype=np.int64)
        if self.labels.min(initial=0) < 0:
            raise ValueError(f"{path}: the {names[0]} split hides its labels (they are -1)")

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> np.ndarray:
        return np.asarray(open_photograph(self.rows[index][self.image_column]))
