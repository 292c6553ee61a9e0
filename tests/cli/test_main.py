"""The shell as a whole: what help costs, what versions and wrong words give, how it stops."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sightline.cli import main as shell
from sightline.cli.failures import Misuse, code_of, exit_code, one_line
from sightline.data.photographs import sample_photographs

VERBS = ("look", "classify", "survey", "systems", "train", "evaluate")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom sightline.cli.main import run\ncode = run(['--help'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'matplotlib', 'lightning', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'{code} {sorted(heavy)}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert verb in done.stdout


def test_what_is_wrong_is_told_before_anything_slow_is_imported(tmp_path: Path) -> None:
    cat, page = str(sample_photographs()[0]), str(tmp_path / "page.jpg")
    Path(page).write_text("<!doctype html>")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").touch()
    wrong = [
        ["look", cat, "--model", "nosuch"],
        ["look", cat, "--model", "ram"],
        ["look", cat, "--head", "9"],
        ["look", cat, "--model", "vit", "--method", "rollout", "--head", "2"],
        ["classify", cat, "--model", "dino"],
        ["segment", cat, "--system", str(tmp_path)],
        ["caption", cat, "--system", str(tmp_path)],
        ["train", "dino", "--data", f"photos:{tmp_path}"],
        ["train", "vit", "--data", f"photos:{tmp_path}"],
        ["look", cat, "--method", "magic"],
        ["look", cat, "--mass", "3"],
        ["look", cat, "--query", "blah"],
        ["classify", cat, "--model", "nosuch"],
        ["survey", "--model", "nosuch"],
        ["caption", cat, "--system", "vit"],
        ["segment", cat, "--system", "nosuch"],
        ["glimpse", cat, "--system", "nosuch"],
        ["translate", ""],
        ["translate", "Ein Hund.", "--system", "nosuch"],
        ["train", "nosuch", "--data", "folder:x"],
        ["train", "vit", "--data", "folder:x", "nosuch=3"],
        ["train", "vit", "--data", "folder:x", "steps=abc"],
        ["train", "dino", "--data", "folder:x", "batch=0"],
        ["train", "vit", "--data", "cifar10:nowhere"],
        ["train", "vit", "--data", "nosuch:x"],
        ["train", "segmenter", "--data", "camvid:nowhere"],
        ["train", "vit", "--data", f"folder:{tmp_path}", "--out", str(tmp_path / "run")],
        ["train", "vit", "--data", f"folder:{tmp_path}", "--out", page],
        ["train", "--resume", "nowhere"],
        ["evaluate", "vit", "--data", "cifar10:nowhere"],
        ["evaluate", "nowhere", "--data", "folder:x"],
        ["ask", cat, "?!"],
        ["ask", cat, "zork blarg"],
        ["ask", cat, "what color is the cube?", "--system", "vit"],
        ["point", cat, "zork blarg"],
        *([verb, page] for verb in ("look", "classify", "survey", "caption", "segment", "glimpse")),
        ["look", page, "--video", "walk.gif"],
        ["ask", page, "what color is the cube?"],
        ["point", page, "the cube"],
    ]
    right = [["systems"], ["systems", "--json"], ["systems", "--markdown"]]
    code = (
        "import sys\nfrom sightline.cli.main import run\n"
        f"for words, code in [(w, 2) for w in {wrong!r}] + [(w, 0) for w in {right!r}]:\n"
        "    heavy = {'torch', 'transformers', 'matplotlib', 'lightning', 'datasets'}\n"
        "    got = run(words), sorted(heavy & set(sys.modules))\n"
        "    if got != (code, []): sys.exit(f'{words}: {got}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(wrong), "each is told in one line"
    assert all(line.startswith("sightline: ") for line in lines)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps_with_examples_of_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run([verb, "--help"]) == 0
    told = capsys.readouterr().out
    assert "Examples" in told
    assert f"sightline {verb}" in told.split("Examples")[1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import sightline

    assert shell.run(["--version"]) == 0
    assert capsys.readouterr().out == f"sightline {sightline.__version__}\n"


def test_it_runs_as_a_module() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "sightline.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("sightline ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stare"], "No such command 'stare'"),
        (["look", "--colour"], "--colour"),
        (["look", "a.jpg", "--layer", "top"], "--layer"),
        (["look", "a.jpg", "--system", "vit"], "No such option: --system; look takes --model\n"),
        (["segment", "a.jpg", "--model=vit"], "No such option: --model; segment takes --system\n"),
        (["systems", "--model", "vit"], " (see `sightline systems --help`)\n"),
        (["look"], "at least one IMAGE"),
        (["classify"], "at least one IMAGE"),
        (["classify", "a.jpg", "--top", "0"], "--top"),
        (["look", "a.jpg", "--limit", "lots"], "500MB"),
        (["look", "a.jpg", "--head", "best"], "--head best"),
        (["look", "a.jpg", "--query", "1,2,3"], "--query 1,2,3"),
        (["look", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["survey", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["train"], "needs a SYSTEM"),
        (["train", "vit", "--data", "photos"], "KIND:PATH"),
        (["train", "vit", "--data", "folder:x", "steps"], "key=value"),
        (["train", "vit", "--data", "folder:x", "steps=1", "steps=2"], "twice"),
        (["train", "vit", "--data", "folder:x"], "x: no such folder; expected one with CLASS/*.jpg of two classes"),
        (["train", "vit", "--data", "cifar10:x"], "x: no such folder or file; expected the data that cifar10:PATH"),
        (["train", "ram", "--data", "folder:x"], "for ram, KIND one of mnist, translated, cluttered"),
        (["evaluate", "vit", "--data", "camvid:x"], "for vit, KIND one of folder, cifar10, hub, photos, world"),
        (["evaluate", "vit"], "--data"),
        (["evaluate", "nowhere", "--data", "folder:x"], "nowhere: no such folder"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell.run(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert told.err.startswith("sightline: ")
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing is made where nothing is done"


def test_wrong_use_with_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run(["look", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 2
    assert "IMAGE" in told["error"]


def test_no_words_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run([]) == 2
    assert "Usage" in capsys.readouterr().out


def test_tracebacks_are_shown_only_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for debug in ("", "1"):
        monkeypatch.setenv("SIGHTLINE_DEBUG", debug)
        assert shell.run(["look", "nowhere.jpg", "--head", "best"]) == 2
        assert ("Traceback" in capsys.readouterr().err) is bool(debug)


def test_failures_have_lines_and_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for error, code, line in [
        (Misuse("give\n  this"), 2, "give this"),
        (RuntimeError("broke\nhere"), 1, "sightline: broke here"),
        (NotImplementedError("not for mps"), 1, "NotImplementedError: not for mps"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "No such file or directory: 'x'"),
        (PermissionError(13, "Permission denied", "x"), 1, "Permission denied: 'x'"),
        (KeyError("name"), 1, "KeyError: 'name'"),
        (MemoryError(), 1, "MemoryError"),
    ]:
        assert code_of(error) == code
        assert exit_code(error) == code
        err = capsys.readouterr().err
        assert err.startswith("sightline: ")
        assert line in err
        assert line.removeprefix("sightline: ") in one_line(error)
        assert err.count("\n") == 1
        assert ("SIGHTLINE_DEBUG" in err) == (code == 1)
    assert exit_code(KeyboardInterrupt()) == 130


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
@pytest.mark.parametrize(("verb", "said"), [("look", "stopped"), ("segment", "the same command goes on from there")])
def test_ctrl_c_stops_with_130_and_one_line(verb: str, said: str) -> None:
    code = (
        # a shell lets what it starts in the background ignore SIGINT, and children inherit that
        "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from sightline.cli.main import main\nlook = sys.modules['sightline.cli.{verb}']\n"
        "def wait(*_): print('ready', flush=True); time.sleep(60)\n"
        f"look.gather = wait\nsys.argv = ['sightline', '{verb}', 'a.jpg']\nmain()"
    )
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=240)
    assert running.returncode == 130
    (line,) = filter(None, told.splitlines())
    assert line.endswith(said)
    assert "Traceback" not in told


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX systems")
def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    code = "import sys; sys.argv = ['sightline', '--help']; from sightline.cli.main import main; input(); main()"
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    running = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert running.stdout is not None
    running.stdout.close()
    running.stdout = None
    _, told = running.communicate("now write\n", timeout=240)
    assert told == ""
    assert running.returncode == 1


def test_python_runs_the_package_and_a_stop_before_the_verbs_is_one_line() -> None:
    asked = subprocess.run([sys.executable, "-m", "sightline", "--version"], capture_output=True, text=True)
    assert asked.returncode == 0
    assert asked.stdout.startswith("sightline ")
    stops = "class Stop(dict):\n    def find_spec(self, name, *rest):\n        if name == 'sightline.cli.main':\n"
    stops += "            raise KeyboardInterrupt\n"
    code = f"import sys\n{stops}sys.meta_path.insert(0, Stop())\nfrom sightline.__main__ import main\nmain()"
    stopped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (stopped.returncode, stopped.stderr) == (130, "sightline: stopped\n")
