"""Multi30k (Elliott et al. 2016): 31,014 captions of Flickr30k with their translations, and its test sets."""

import os
from pathlib import Path

from sightline.data.listed import read_text

_FOLDERS = ("", "raw", "data/task1/raw", "task1/raw", "data/task1/tok", "task1/tok")
_NAMES = {
    "val": ("val", "valid", "dev"),
    "test_2016_flickr": ("test_2016_flickr", "test2016", "test_2016", "test"),
}
_ALIAS = {"dev": "val", "valid": "val", "validation": "val", "test": "test_2016_flickr"}


class SentencePairs:
    """Sentences and their translations, line by line: `source[i]`, `target[i]`, and `[i]` for the pair."""

    def __init__(self, source: list[str], target: list[str]) -> None:
        if len(source) != len(target):
            raise ValueError(f"{len(source)} sentences and {len(target)} translations; expected one for each")
        self.source = source
        self.target = target

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.source[index], self.target[index]


def open_multi30k(
    path: str | os.PathLike[str], split: str = "train", source: str = "de", target: str = "en"
) -> SentencePairs:
    """Reads `SPLIT.LANGUAGE` or `SPLIT.LANGUAGE.gz`, aligned by line, below `path` (`data/task1/raw` and the like).

    Splits: train (29,000), val (1,014), test_2016_flickr (1,000; also `test`), and any other that has files, such as
    test_2017_flickr.  Languages: en, de, fr, cs, as there are files.  Any pair of aligned files can be read so.
    Raises ValueError for a missing file, files of different length, and an empty line (with its number).
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected {split}.{source} and {split}.{target} in it (or .gz)")
    split = _ALIAS.get(split, split)
    files = [_file_of(root, split, language) for language in (source, target)]
    first, second = (_sentences(file) for file in files)
    if len(first) != len(second):
        raise ValueError(
            f"{files[0]}: {len(first)} lines, but {len(second)} in {files[1].name}; the files must pair line by line"
        )
    return SentencePairs(first, second)


def _file_of(root: Path, split: str, language: str) -> Path:
    for folder in _FOLDERS:
        for name in _NAMES.get(split, (split,)):
            for suffix in (".gz", ""):
                file = root / folder / f"{name}.{language}{suffix}"
                if file.is_file():
                    return file
    raise ValueError(f"{root}: no {split}.{language} or {split}.{language}.gz in it or in data/task1/raw below")


def _sentences(file: Path) -> list[str]:
    lines = read_text(file).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"{file}: line {number} is empty; every line must hold a sentence")
    return [line.strip() for line in lines]
