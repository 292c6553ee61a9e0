"""The house rules that a tool can check: sizes, docstrings, forbidden calls and imports; documents whose code runs."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sightline

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sightline"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]
MOST_LINES = {"attention": 200, "blocks": 200, "lens": 400, "systems": 450, "recipes": 150}
MOST_ARGUMENTS = 11
NEVER_IMPORTED = {"torchvision", "timm", "open_clip", "lightly", "yaml"}
# the format in which Segmenter's weights tell their sizes; nothing of our own is written in it
READS_YAML = "checkpoints/variant.py"
NO_DRAWERS = {"utils", "common", "misc", "helpers", "registry", "engine"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("drawer", MOST_LINES)
def test_files_fit_on_a_few_screens(drawer: str) -> None:
    files = list((PACKAGE / drawer).rglob("*.py"))
    assert files
    long = {
        path.name: lines for path in files if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES[drawer]
    }
    assert not long, f"{drawer}: at most {MOST_LINES[drawer]} lines a file"


def test_no_drawer_for_everything() -> None:
    named = {part for name in NAMES for part in name.removesuffix(".py").split("/")}
    assert not named & NO_DRAWERS


def constructors(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    yield node.name, item


def test_constructors_of_systems_are_keyword_only_and_short() -> None:
    seen = 0
    for path in (PACKAGE / "systems").rglob("*.py"):
        for name, init in constructors(tree_of(path)):
            seen += 1
            keywords = [argument.arg for argument in init.args.kwonlyargs]
            assert len(keywords) <= MOST_ARGUMENTS, f"{path.name}: {name} takes {len(keywords)} arguments"
            assert len(init.args.args) == 1, f"{path.name}: {name} takes arguments by position"
    assert seen


def public(nodes: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("name", NAMES)
def test_public_names_say_what_they_do(name: str) -> None:
    tree = tree_of(PACKAGE / name)
    bare = [node.name for node in public(tree.body) if not ast.get_docstring(node)]
    if tree.body and not ast.get_docstring(tree):
        bare.insert(0, "the module")
    assert not bare, f"{name}: no docstring on {', '.join(bare)}"


def offences(tree: ast.Module) -> Iterator[str]:
    """What no file of the package may do, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            if called == "print":
                yield f"line {node.lineno}: print"
            if called.endswith("torch.load") and not safe:
                yield f"line {node.lineno}: torch.load without weights_only=True"
            if called.endswith("np.load") and any(
                k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords
            ):
                yield f"line {node.lineno}: numpy.load that unpickles"
            if called in ("eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler"):
                yield f"line {node.lineno}: {called}"
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield f"line {node.lineno}: NotImplementedError"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in modules:
                if module.split(".")[0] in NEVER_IMPORTED:
                    yield f"line {node.lineno}: import of {module}"
        if isinstance(node, ast.ExceptHandler):
            empty = all(isinstance(part, ast.Pass) for part in node.body)
            if node.type is None or (empty and ast.unparse(node.type) in ("Exception", "BaseException")):
                yield f"line {node.lineno}: silent except"


@pytest.mark.parametrize("name", NAMES)
def test_what_no_file_may_do(name: str) -> None:
    source = (PACKAGE / name).read_text(encoding="utf-8")
    found = [one for one in offences(ast.parse(source)) if name != READS_YAML or "import of yaml" not in one]
    found += [
        f"line {n}: {line.strip()}"
        for n, line in enumerate(source.splitlines(), 1)
        if re.search(r"\b(TODO|FIXME|XXX)\b", line)
    ]
    assert not found, f"{name}: {found}"


def test_the_rules_notice_offences() -> None:
    bad = "import timm.models\ntorch.load(f)\nprint(1)\nraise NotImplementedError\ntry:\n    f()\nexcept:\n    pass\n"
    assert len(list(offences(ast.parse(bad)))) == 5
    good = "torch.load(f, weights_only=True)\nconsole.print(1)\n"
    assert not list(offences(ast.parse(good)))


def test_public_names_resolve() -> None:
    assert sightline.__all__ == sorted(sightline.__all__)
    for name in sightline.__all__:
        assert getattr(sightline, name) is not None
    assert set(dir(sightline)) >= set(sightline.__all__)
    with pytest.raises(AttributeError, match="record"):
        sightline.nothing_of_that_name  # noqa: B018


def test_tests_mirror_the_package() -> None:
    drawers = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    mine = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert mine <= drawers, f"tests of no part of the package: {mine - drawers}"


def tracked() -> list[Path]:
    """Files under version control; of an unpacked archive, the files that would be."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]
    return [path for top in ("src", "tests", "docs", "examples") for path in (ROOT / top).rglob("*") if path.is_file()]


def test_no_file_names_a_place_on_somebody_s_machine() -> None:
    homes = re.compile(rb"/(?:" + b"|".join([b"home", b"Users", b"root", b"work"]) + rb")/[A-Za-z0-9._-]+/")
    found = []
    for path in tracked():
        text = path.read_bytes()
        if b"\0" in text[:4096]:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0].decode()}" for match in homes.finditer(text)]
    assert not found


# -- documents whose code runs -----------------------------------------------------------------------------------------

PRELUDE = """
import torch, transformers, sightline
from PIL import Image
from torch import nn
torch.manual_seed(0)
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
SIZES |= dict(image_size=32, patch_size=8)
model = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, num_labels=5)).eval()
for parameter in model.parameters():
    parameter.data = torch.randn_like(parameter) * 0.25 if parameter.dim() > 1 else parameter.data
pixels = torch.randn(1, 3, 32, 32)
image = Image.new("RGB", (64, 64), (90, 120, 150))
image.save("photo.jpg")
"""


def blocks_of(document: Path) -> list[tuple[int, str]]:
    """(line, code) of every block marked ```python."""
    text = document.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start()].count("\n") + 2, match[1]) for match in found]


def run(document: Path, blocks: list[tuple[int, str]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space: dict[str, object] = {"__name__": "document"}
    exec(PRELUDE, space)  # the documents are ours
    for line, code in blocks:
        # numbered as in the document, so that a failure points at its line
        exec(compile("\n" * (line - 1) + code, str(document), "exec"), space)


@pytest.mark.parametrize("name", ["lens.md"])
def test_code_in_the_guides_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = ROOT / "docs" / name
    blocks = blocks_of(document)
    assert len(blocks) > 5
    run(document, blocks, tmp_path, monkeypatch)
    assert torch.is_grad_enabled()


def test_the_first_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(ROOT / "README.md")[:1]
    if not blocks:
        pytest.skip("README.md has no Python block")
    run(ROOT / "README.md", blocks, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["docs/lens.md", "CONTRIBUTING.md", "README.md"])
def test_files_that_a_document_links_to_exist(name: str) -> None:
    document = ROOT / name
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing
