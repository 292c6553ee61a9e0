"""The page of choices: one button a picture, in headless Chromium too, and nothing that would not fit."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.lens.choices import Choice, base_of, choice_page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20)}


def page(opens: int) -> str:
    base = Image.new("RGB", (400, 300), (20, 20, 220))
    choices = [Choice("photograph")]
    choices += [Choice(name, Image.new("RGB", base.size, colour)) for name, colour in COLOURS.items()]
    return choice_page(base, choices, title="t", how="Choose.", opens=opens)


def test_names_and_words_are_escaped_and_the_small_things_stand_by_the_name() -> None:
    base = Image.new("RGB", (40, 30))
    hostile = Choice("<b>", base, 'a "map"', "<i>1", np.array([255, 0, 16], dtype=np.uint8))
    text = choice_page(base, [hostile], title="<script>", how="<u>")
    assert not set(re.findall(r"<(b|u|script|i)>", text))
    assert 'alt="a &quot;map&quot;"' in text
    assert '<i style="background:#ff0010"></i>&lt;b&gt;<small>&lt;i&gt;1</small>' in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)


@pytest.mark.parametrize("opens", [-1, 3])
def test_it_opens_on_a_choice_that_is_there(opens: int) -> None:
    with pytest.raises(ValueError, match=f"3 choices cannot open on number {opens}"):
        page(opens)


@pytest.mark.parametrize("size", [(2000, 500), (30, 20), (300, 2000)])
def test_the_base_keeps_its_shape(size: tuple[int, int]) -> None:
    base = base_of(Image.new("RGB", size))
    assert 300 <= max(base.size) <= 720
    assert base.width / base.height == pytest.approx(size[0] / size[1], rel=0.02)


@pytest.mark.browser
@pytest.mark.parametrize(("opens", "colour"), [(0, (20, 20, 220)), (1, COLOURS["red"]), (2, COLOURS["green"])])
def test_a_browser_shows_the_chosen_picture(tmp_path: Path, opens: int, colour: tuple[int, int, int]) -> None:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    (tmp_path / "a.html").write_text(page(opens), "utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-dev-shm-usage"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--window-size=800,700"]
    command += [f"--screenshot={tmp_path / 'a.png'}", (tmp_path / "a.html").resolve().as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    with Image.open(tmp_path / "a.png") as shot:
        assert np.abs(np.array(shot.convert("RGB").getpixel((400, 250))) - np.array(colour)).max() < 12
