"""`sightline translate` through the shell: sentences, files, JSON, resuming, bad input."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

import sightline.cli.translate as verb
from sightline.cli.main import run
from sightline.data.subwords import Subwords
from sightline.data.transduction import Transduction
from sightline.systems.seq2seq import Seq2Seq
from sightline.tasks.translate import PIECES, translate

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    pieces = Subwords.build(Transduction("copy", 50).source, size=70)
    torch.manual_seed(0)
    Seq2Seq(source_words=len(pieces), target_words=len(pieces), embedding=12, encoder=8, decoder=16).save_pretrained(
        folder
    )
    pieces.save(folder / PIECES)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_for_persons(home: Path, toy: Path, capsys: Captured) -> None:
    assert run(["translate", "a b c", "d e", "-s", str(toy)]) == 0
    assert capsys.readouterr().out.splitlines() == [translate(t, system=toy).text for t in ("a b c", "d e")]


def test_for_machines_with_pictures_and_a_bad_sentence(home: Path, toy: Path, capsys: Captured) -> None:
    assert run(["translate", "a b c", "", "-s", str(toy), "--json", "--out", "looks"]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.err.count("\n") == 1
    (result,) = answer["results"]
    found = translate("a b c", system=toy)
    assert (result["text"], result["source"]) == (found.text, "a b c")
    assert [one["word"] for one in result["alignment"]] == found.text.split()
    assert Path(result["picture"]).read_bytes()[:4] == b"\x89PNG"
    assert "<html" in Path(result["page"]).read_text(encoding="utf-8")
    assert answer["failures"][0]["error"].startswith("the sentence is empty")


def test_what_was_never_read_is_told_in_one_line(home: Path, toy: Path, capsys: Captured) -> None:
    assert run(["translate", "a 中国 b 中", "c d", "-s", str(toy)]) == 0
    never = f"{toy} has never read 中 国 and takes each for unknown"
    assert capsys.readouterr().err == f"sightline: note: 'a 中国 b 中': {never}\n"
    assert run(["translate", "a 中国 b 中", "c d", "-s", str(toy), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert [one["unknown"] for one in json.loads(captured.out)["results"]] == [["中", "国"], []]
    (home / "text.de").write_text("a 中\n\nb\nc 国\n", encoding="utf-8")
    command = ["translate", "--file", "text.de", "-s", str(toy), "--out", "out"]
    for _ in range(2):  # written, and gone on with
        assert run(command) == 0
        assert capsys.readouterr().err == f"sightline: note: text.de, 2 lines: {never}\n"
    assert run([*command, "--json"]) == 0
    (done,) = json.loads(capsys.readouterr().out)["results"]
    assert [line.get("unknown") for line in done["lines"]] == [["中"], None, None, ["国"]]


def test_files_keep_their_lines_and_blank_ones_stay_blank(home: Path, toy: Path, capsys: Captured) -> None:
    (home / "text.de").write_text("a b\n\nc d e\n", encoding="utf-8")
    assert run(["translate", "--file", "text.de", "-s", str(toy), "--beam", "2"]) == 0
    captured = capsys.readouterr()
    first, empty, last = captured.out.removesuffix("\n").split("\n")
    assert (first, empty) == (translate("a b", system=toy, beam=2).text, "")
    assert last == translate("c d e", system=toy, beam=2).text
    assert captured.err == ""


def test_a_file_that_cannot_be_read_leaves_the_others_and_the_sentences(
    home: Path, toy: Path, capsys: Captured
) -> None:
    (home / "binary").write_bytes(b"\xff\xfe\x00")
    (home / "text.de").write_text("a b\n\n" + "a " * 900 + "\n", encoding="utf-8")
    command = ["translate", "d e", "-f", "binary", "-f", "absent.de", "-f", "text.de", "-s", str(toy), "-o", "done"]
    for _ in range(2):  # what could not be translated is told again
        assert run(command) == 2
        captured = capsys.readouterr()
        bad = ("binary: is no text", "absent.de: cannot be read", "line 3")
        assert all(told in line for told, line in zip(bad, captured.err.splitlines(), strict=True))
        assert captured.out.startswith(translate("d e", system=toy).text + "\n")
        written = (home / "done" / "text.translated.txt").read_text(encoding="utf-8")
        assert written == translate("a b", system=toy).text + "\n\n\n"
    assert run([*command, "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert [one["source"] for one in answer["failures"][:2]] == ["binary", "absent.de"]
    assert run(["translate", "-f", "absent.de", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert (answer["results"], len(answer["failures"])) == ([], 1)


def test_what_is_replaced_is_told(home: Path, toy: Path, capsys: Captured) -> None:
    (home / "text.de").write_text("a b\n", encoding="utf-8")
    command = ["translate", "Ein Baum.", "-f", "text.de", "-s", str(toy), "-o", "done"]
    assert run(command) == 0
    assert "Replaced" not in capsys.readouterr().out
    assert (home / "done" / "Ein Baum.alignment.png").is_file()
    assert run(command[:1] + command[2:]) == 0  # nothing to do
    assert "Replaced" not in capsys.readouterr().out
    assert run([*command, "--beam", "1"]) == 0
    assert "Replaced 4 earlier results in done;" in capsys.readouterr().out


def test_a_file_that_was_cut_off_goes_on_where_it_stopped(
    home: Path, toy: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "CHUNK", 2)
    texts = ["a b", "c", "d e f", "g g", "a"]
    (home / "text.de").write_text("\n".join(texts), encoding="utf-8")
    command = ["translate", "-f", "text.de", "-s", str(toy), "-o", "done", "--json"]
    assert run(command) == 0
    whole = json.loads(capsys.readouterr().out)["results"][0]
    assert whole["resumed"] == 0
    ledgered = home / "done" / "text.translated.jsonl"
    translation = (home / "done" / "text.translated.txt").read_text(encoding="utf-8")
    assert translation.split("\n")[:-1] == [translate(t, system=toy).text for t in texts]

    def written(path: Path, lines: list[str]) -> None:
        folder = verb.OutputFolder(home / "done")
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        folder.wrote(path, home / "text.de")

    lines = ledgered.read_text(encoding="utf-8").split("\n")[:-1]
    written(ledgered, lines[:2])
    assert run(command) == 0
    again = json.loads(capsys.readouterr().out)["results"][0]
    assert again["resumed"] == 2
    assert (home / "done" / "text.translated.txt").read_text(encoding="utf-8") == translation
    assert run([*command, "--beam", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["resumed"] == 0, "another search begins anew"


def test_standard_input(home: Path, toy: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a b\nc\n")))
    assert run(["translate", "-f", "-", "-s", str(toy)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "needs at least one SENTENCE"),
        (["a", "-s", "nowhere"], "no translator 'nowhere'"),
        (["-f", "absent.txt"], "absent.txt: cannot be read"),
        (["-f", "empty.txt"], "empty.txt: holds no sentence"),
        (["-f", "binary"], "binary: is no text in UTF-8"),
        (["-f", "."], "cannot be read"),
        (["a", "--beam", "0"], "beam"),
        (["a", "--length-penalty", "nan"], "length-penalty"),
        (["a", "--length-penalty", "-1"], "length-penalty"),
        (["a", "--out", "binary"], "--out binary: cannot write there"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(home: Path, arguments: list[str], told: str, capsys: Captured) -> None:
    (home / "empty.txt").write_text("\n \n", encoding="utf-8")
    (home / "binary").write_bytes(b"\xff\xfe\x00")
    assert run(["translate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert told in captured.err
