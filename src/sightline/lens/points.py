"""Points that move over an image: where each look read, as one picture, an animation and a page with a slider.

A point's colour goes from violet (where it began) to yellow (where it ended); its way is drawn behind it.  At the last
look its size says how much the answer read there, where that is known.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from sightline.lens.animation import encode_gif, slider_page
from sightline.lens.choices import save_drawn
from sightline.lens.paint import Array, Photograph, colour_table, photograph
from sightline.lens.sheet import INK, PAPER, fitted, font_of, sheet

SMALL_PRINT = "Points show where the features under them were read, not what caused the answer."
SIDE, GAP = 384, 12
BETWEEN = 6  # frames of the animation from one look to the next
REST, STEP, LAST = 700, 60, 2400  # milliseconds
SAMPLES = 3  # a picture is drawn so many times as large, then averaged down: smooth dots and lines


class PointPath:
    """Ways of points over an image: `places` (looks, points, 2) are (x, y) in 0..1, as they were read at each look.

    `image` is a picture, an (H, W) or (H, W, 3) array or a (3, H, W) tensor.  `weights` (points,) are shares of
    what was read in the end, none negative (None: all alike); `thoughts` a few words, one for each look (or none).
    Raises ValueError for other shapes and for numbers that are not finite.
    """

    def __init__(
        self, image: Photograph, places: Array, *, weights: Array | None = None, thoughts: Sequence[str] = ()
    ) -> None:
        self.places = _numbers(places)
        if self.places.ndim != 3 or self.places.shape[2] != 2 or not self.places.size:
            raise ValueError(f"ways are finite places (looks, points, 2) in 0..1, given shape {self.places.shape}")
        if not np.isfinite(self.places).all():
            raise ValueError("ways are finite places (looks, points, 2); some of those given are not finite")
        self.weights = None if weights is None else _numbers(weights)
        if self.weights is not None and (
            self.weights.shape != self.places.shape[1:2] or not (self.weights >= 0).all() or not self.weights.sum() > 0
        ):
            raise ValueError(
                f"weights are {self.places.shape[1]} numbers, one a point, none negative and not all zero, given shape "
                f"{self.weights.shape}"
            )
        if len(thoughts) not in (0, len(self.places)):
            raise ValueError(f"{len(thoughts)} thoughts were given for {len(self.places)} looks; give one for each")
        self.image, self.thoughts = photograph(image), tuple(thoughts)

    def __len__(self) -> int:
        return len(self.places)

    def drawn(self, look: int | float | None = None, side: int = SIDE) -> Image.Image:
        """Draws the image, `side` pixels long, with every point at a look (0 is the first, None the last) and its way.

        A look between two whole ones draws the points on their way.
        """
        look = float(len(self) - 1 if look is None else look)
        scale = side / max(self.image.size)
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        body = self.image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
        large = body.resize((size[0] * SAMPLES, size[1] * SAMPLES))
        draw = ImageDraw.Draw(large)
        span = np.array(large.size) - 1.0
        stops = [*range(int(look) + 1), *([look] if look % 1 else [])]
        ways = np.stack([self.at(stop) * span for stop in stops])  # (stops, points, 2)
        thick = max(1, side * SAMPLES // 220)
        for begin, end, stop in zip(ways[:-1], ways[1:], stops[1:], strict=True):
            for one, other in zip(begin, end, strict=True):
                draw.line((*one, *other), fill=self.colour(stop), width=thick)
        for number, radius in enumerate(self.radii(look) * side * SAMPLES):
            if look > 0:
                _dot(draw, ways[0, number], side * SAMPLES / 150, self.colour(0), thick)
            _dot(draw, ways[-1, number], radius, self.colour(look), thick)
        return large.resize(size, Image.Resampling.BOX)

    def at(self, look: int | float) -> np.ndarray:
        """Tells where the points are at a look, or on the straight way between two."""
        begin = int(look)
        rest = look - begin
        return self.places[begin] if not rest else (1 - rest) * self.places[begin] + rest * self.places[begin + 1]

    def radii(self, look: int | float) -> np.ndarray:
        """Tells the points' radii as shares of the picture's side; areas follow the weights at the last look."""
        even = np.full(self.places.shape[1], 1 / 62)
        if self.weights is None or look < len(self) - 1:
            return even
        return np.clip(even * np.sqrt(self.weights / self.weights.mean()), 1 / 190, 1 / 24)

    def colour(self, look: int | float) -> tuple[int, int, int]:
        """The colour of a look: plasma from violet to yellow."""
        red, green, blue = colour_table("plasma")[round(70 + 180 * look / max(1, len(self) - 1))]
        return int(red), int(green), int(blue)

    def picture(self, *, title: str = "", caption: str = "") -> Image.Image:
        """Draws the looks side by side, each with the way so far and the thought after it."""
        across = min(len(self), 4)
        side = {1: SIDE, 2: SIDE}.get(across, 290)
        panels = [self.drawn(number, side) for number in range(len(self))]
        width, high = panels[0].width + GAP, panels[0].height + 30
        body = Image.new("RGB", (across * width - GAP, -(-len(self) // across) * high), PAPER)
        draw, font = ImageDraw.Draw(body), font_of(15)
        for number, panel in enumerate(panels):
            left, top = number % across * width, number // across * high
            body.paste(panel, (left, top))
            draw.text(
                (left, top + panel.height + 5), fitted(self._words(number), font, panel.width), font=font, fill=INK
            )
        return sheet(body, title, caption or SMALL_PRINT)

    def frames(self, between: int = 1) -> list[Image.Image]:
        """Draws a frame for each look, and `between` - 1 more on the way to the next."""
        steps = [number / between for number in range((len(self) - 1) * between + 1)]
        made = []
        for step in steps:
            body = self.drawn(step)
            frame = Image.new("RGB", (body.width + 2 * GAP, body.height + 2 * GAP + 26), PAPER)
            frame.paste(body, (GAP, GAP))
            words = fitted(self._words(round(step)), font_of(16, True), body.width)
            ImageDraw.Draw(frame).text((GAP, body.height + GAP + 8), words, font=font_of(16, True), fill=INK)
            made.append(frame)
        return made

    def gif(self) -> bytes:
        """Encodes the points' movement as an endless animation."""
        frames = self.frames(BETWEEN)
        durations = [STEP if number % BETWEEN else REST for number in range(len(frames))]
        return encode_gif(frames, [*durations[:-1], LAST])

    def page(self, *, title: str = "The ways of the points", caption: str = "") -> str:
        """Writes one self-contained HTML page: play, pause, step with a slider or the arrow keys; no network."""
        words = [self._words(number) for number in range(len(self))]
        return slider_page(self.frames(), words, title=title, caption=caption or SMALL_PRINT, label="look")

    def save(self, path: str | Path, **words: Any) -> Path:
        """Writes .html (a page), .gif (an animation), or a picture (.png, .jpg, .webp); ValueError for others."""
        return save_drawn(path, partial(self.page, **words), partial(self.picture, **words), self.gif)

    def _words(self, number: int) -> str:
        thought = f": {self.thoughts[number]}" if self.thoughts else ""
        return f"look {number + 1} of {len(self)}{thought}"


def draw_point_paths(
    paths: Sequence[PointPath], labels: Sequence[str], *, side: int = 180, across: int = 6
) -> Image.Image:
    """Draws several images with their points' ways in rows of `across`, with a label below each.

    Raises ValueError unless there is one label for each of at least one.
    """
    if not paths or len(paths) != len(labels):
        raise ValueError(f"a sheet of ways needs at least one, and a label for each: {len(paths)}, {len(labels)}")
    across = min(across, len(paths))
    cell, rows = (side + 10, side + 28), -(-len(paths) // across)
    body = Image.new("RGB", (across * cell[0] - 10, rows * cell[1]), PAPER)
    draw, font = ImageDraw.Draw(body), font_of(13)
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        left, top = number % across * cell[0], number // across * cell[1]
        body.paste(path.drawn(side=side), (left, top))
        draw.text((left, top + side + 4), fitted(label, font, side), font=font, fill=INK)
    return body


def _numbers(given: Array) -> np.ndarray:
    plain = given.detach().cpu() if isinstance(given, torch.Tensor) else given
    return np.asarray(plain, dtype=np.float64)


def _dot(
    draw: ImageDraw.ImageDraw, middle: np.ndarray, radius: float, colour: tuple[int, int, int], thick: int
) -> None:
    x, y = middle
    draw.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=colour, outline="black", width=max(1, thick // 2)
    )
