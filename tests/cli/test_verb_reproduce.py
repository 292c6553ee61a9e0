"""`sightline reproduce` from the outside."""

import json
from pathlib import Path

import pytest

from sightline.cli import reproduce as verb
from sightline.cli.main import run


def row(name: str, title: str, architecture: str, knn: float) -> dict:
    part = {"name": "birds", "pictures": 10, "known": 20, "classes": 2, "chance": 0.5, "knn": knn, "linear": knn + 0.1}
    told = {"parameters": 1000, "passes": 64, "train_per_s": 10.0, "images_per_s": 100.0, "traced": []}
    given = {"data": "folder:birds", "budget": 64, "scale": "tiny", "ablation": False}
    return {"row": name, "title": title, "architecture": architecture, **given, **told, "parts": [part]}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    for one in (row("byol/vit", "BYOL", "vit", 0.6), row("simclr/resnet", "SimCLR", "resnet", 0.7)):
        folder = tmp_path / "runs" / one["row"].replace("/", "-")
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(json.dumps(one))
    return tmp_path / "runs"


def test_a_table_of_the_rows_that_are_there(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", "ssl-table", "--table", "--out", str(finished)]) == 0
    told = capsys.readouterr().out
    assert "birds k-NN" in told
    assert told.index("SimCLR") < told.index("BYOL")
    assert run(["reproduce", "ssl-table", "--table", "--out", str(finished), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["row"] for one in document["rows"]] == ["simclr/resnet", "byol/vit"]
    assert all(Path(file).is_file() for file in document["files"])
    assert "| SimCLR | ResNet | 0.00 M | 100 | 10 | 80.0 | 70.0 |" in (finished / "table.md").read_text()


def test_only_the_rows_that_were_asked_for_are_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sightline.recipes import ssl_table

    ran: list[tuple] = []
    monkeypatch.setattr(ssl_table, "run_row", lambda name, data, out, **more: ran.append((name, data, more)))
    words = ["--data", "folder:birds", "--only", "dino/vit", "--only", "pixels", "--budget", "64", "--tiny"]
    assert run(["reproduce", "ssl-table", *words, "--out", str(finished)]) == 0
    more = {"budget": 64, "scale": "tiny"}
    assert ran == [("dino/vit", "folder:birds", more), ("pixels", "folder:birds", more)]
    assert "pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["poems", "--data", "folder:x"], "no table 'poems'; there are: ssl-table"),
        (["ssl-table"], "--data missing"),
        (["ssl-table", "--data", "photos"], "KIND:PATH"),
        (["ssl-table", "--data", "folder:x", "--budget", "0"], "--budget 0"),
        (["ssl-table", "--data", "folder:x", "--only", "dino/mlp"], "no row 'dino/mlp'"),
    ],
)
def test_wrong_use_is_told_in_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_verb_s_tables_are_told() -> None:
    assert verb.TABLES == ("ssl-table",)
