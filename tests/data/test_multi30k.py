import gzip
from pathlib import Path

import pytest

from sightline.data.multi30k import open_multi30k

GERMAN = ["Ein Hund läuft.", "Zwei Männer\u2028sitzen ."]
ENGLISH = ["A dog runs.", "Two men sit ."]


def write(folder: Path, split: str, packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for language, lines in (("de", GERMAN), ("en", ENGLISH)):
        raw = ("\n".join(lines) + "\n").encode()
        name = folder / f"{split}.{language}"
        name.with_name(name.name + ".gz").write_bytes(gzip.compress(raw)) if packed else name.write_bytes(raw)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("inside", ["", "raw", "data/task1/raw", "task1/tok"])
def test_layouts(inside: str, packed: bool, tmp_path: Path) -> None:
    for split in ("train", "val", "test_2016_flickr"):
        write(tmp_path / inside, split, packed)
    for split in ("train", "val", "dev", "test", "test_2016_flickr"):
        pairs = open_multi30k(tmp_path, split)
        assert (pairs.source, pairs.target) == (GERMAN, ENGLISH)
        assert len(pairs) == 2
        assert pairs[1] == (GERMAN[1], ENGLISH[1])
    assert open_multi30k(tmp_path, source="en", target="de")[0] == (ENGLISH[0], GERMAN[0])


def test_older_names_of_the_test_set(tmp_path: Path) -> None:
    write(tmp_path, "test2016", False)
    assert len(open_multi30k(tmp_path, "test")) == 2


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no such folder"):
        open_multi30k(tmp_path / "gone")
    write(tmp_path, "train", False)
    with pytest.raises(ValueError, match=r"no train\.fr or train\.fr\.gz"):
        open_multi30k(tmp_path, target="fr")
    with pytest.raises(ValueError, match=r"no test_2017_flickr\.de"):
        open_multi30k(tmp_path, "test_2017_flickr")
    (tmp_path / "train.en").write_text("A dog.\nTwo men.\nThree.\n")
    with pytest.raises(ValueError, match=r"train\.de: 2 lines, but 3 in train\.en"):
        open_multi30k(tmp_path)
    (tmp_path / "train.en").write_text("A dog.\n \n")
    with pytest.raises(ValueError, match=r"train\.en: line 2 is empty"):
        open_multi30k(tmp_path)
    (tmp_path / "train.en").write_bytes(b"A dog.\nTwo \xff men\n")
    with pytest.raises(ValueError, match=r"train\.en: line 2 is not UTF-8"):
        open_multi30k(tmp_path)


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train", True)
    file = tmp_path / "train.de.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"train\.de\.gz: cannot be read"):
        open_multi30k(tmp_path)
    file.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"train\.de\.gz: cannot be read"):
        open_multi30k(tmp_path)


def test_multi30k_itself(shared: Path) -> None:
    root = shared / "data" / "multi30k"
    assert [len(open_multi30k(root, split)) for split in ("train", "val", "test")] == [29000, 1014, 1000]
    test = open_multi30k(root, "test_2016_flickr")
    assert test[0] == (
        "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
        "A man in an orange hat starring at something.",
    )
    assert len(open_multi30k(root, "val", "en", "fr")) == 1014
