"""Every example runs as a person would run it, without a network, and leaves what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LEAVES = {
    "look_at_any_model": ("look.png", "look.html"),
    "words_to_regions": ("words.png",),
    "text_attention": ("cross.png", "rollout.png"),
}


def test_every_example_is_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    script = EXAMPLES / f"{name}.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 40
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run(
        [sys.executable, str(script), "out"],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(LEAVES[name])
    for path in (tmp_path / "out").glob("*.png"):
        with Image.open(path) as picture:
            colours = picture.convert("RGB").getcolors(maxcolors=2**24)
        assert len(colours) > 50
