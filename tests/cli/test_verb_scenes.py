"""`sightline scenes` from the outside."""

import json
from pathlib import Path

import pytest

from sightline.cli import scenes as verb
from sightline.cli.main import run
from sightline.data.scenes.rows import ROWS
from sightline.data.scenes.writers import TASKS


def test_the_verb_knows_every_task() -> None:
    assert verb._TASKS == tuple(TASKS) == tuple(ROWS)


def test_it_writes_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "world"
    command = ["scenes", "clevr", "--n", "3", "--size", "32x48", "--seed", "5", "--split", "val", "--objects", "2-3"]
    assert run([*command, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scenes"] == 3
    content = json.loads((out / "scenes/CLEVR_val_scenes.json").read_text())
    assert all(2 <= len(scene["objects"]) <= 3 for scene in content["scenes"])
    from PIL import Image

    assert Image.open(out / "images/val/CLEVR_val_000002.png").size == (48, 32)
    assert run([*command, "--out", str(out)]) == 0  # the same again goes on
    assert "3 scenes for clevr" in capsys.readouterr().out


def test_it_writes_data_sets_for_datasets(tmp_path: Path) -> None:
    import datasets

    assert run(["scenes", "prompts", "--n", "2", "--size", "32", "--arrow", "--out", str(tmp_path / "d")]) == 0
    assert len(datasets.load_from_disk(str(tmp_path / "d"))) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs a TASK"),
        (["poems", "--out", "x"], "given 'poems'"),
        (["clevr"], "needs --out"),
        (["clevr", "--out", "x", "--size", "big"], "HEIGHTxWIDTH"),
        (["clevr", "--out", "x", "--size", "5"], "16 to 4096"),
        (["clevr", "--out", "x", "--objects", "many"], "LEAST-MOST"),
        (["clevr", "--out", "x", "--objects", "2-30"], "1..10"),
        (["clevr", "--out", "x", "--split", "dev"], "train, val, test"),
        (["clevr", "--out", "x", "--n", "0"], "--n"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["scenes", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["scenes", "edits", "--n", "2", "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    for more in ([], ["--arrow"]):
        assert run(["scenes", "edits", "--n", "2", "--out", str(tmp_path / "file" / "deeper"), *more]) == 2
        error = capsys.readouterr().err
        assert "deeper: cannot write there (not a directory)" in error
        assert error.count("\n") == 1
