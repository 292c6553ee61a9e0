"""A path of glimpses over an image: as one picture, frame by frame, as an animation and as a page with a slider.

Each glimpse has its colour, from dark (the first) to light (the last); its finest window is drawn in full, the coarser
ones thin.  Beside the path lies what the model really had: each window averaged down to the patch, dull violet where it
read nothing.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from sightline.attention.glimpse import check_retina, retina, window_box
from sightline.lens.animation import encode_gif, slider_page
from sightline.lens.choices import save_drawn
from sightline.lens.paint import Array, Photograph, colour_table, photograph
from sightline.lens.sheet import INK, MUTED, PAPER, fitted, font_of, sheet

SMALL_PRINT = "Windows show what was read; the picture outside them was never seen."
UNREAD = (58, 52, 74)
SIDE, GAP = 384, 16
SECOND_LONG, LAST_LONG = 900, 2600  # milliseconds a frame


class GlimpsePath:
    """A path of `places` (glimpses, 2), (x, y) in -1..1, over an image, with what was thought after each glimpse.

    `image` is a picture, an (H, W) or (H, W, 3) array or a (3, H, W) tensor.  `thoughts` are short words, one a glimpse
    (or none).  Raises ValueError for other shapes and for places that are not finite.
    """

    def __init__(
        self,
        image: Photograph,
        places: Array,
        *,
        patch: int,
        scales: int = 1,
        factor: int = 2,
        thoughts: Sequence[str] = (),
    ) -> None:
        check_retina(patch, scales, factor)
        given = places.detach().cpu() if isinstance(places, torch.Tensor) else places
        self.places = np.asarray(given, dtype=np.float32)
        if self.places.ndim != 2 or self.places.shape[1:] != (2,) or not np.isfinite(self.places).all():
            raise ValueError(f"a path is finite places (glimpses, 2) in -1..1, given shape {self.places.shape}")
        if len(thoughts) not in (0, len(self.places)):
            raise ValueError(f"{len(thoughts)} thoughts were given for {len(self.places)} glimpses; give one for each")
        self.image, self.patch, self.scales, self.factor = photograph(image), patch, scales, factor
        self.thoughts = tuple(thoughts)

    def __len__(self) -> int:
        return len(self.places)

    def boxes(self, glimpse: int) -> list[tuple[int, int, int, int]]:
        """Tells the windows of one glimpse in pixels (left, top, right, bottom), the finest first."""
        (x, y), size = self.places[glimpse], (self.image.height, self.image.width)
        return [window_box(float(x), float(y), size, self.patch * self.factor**k) for k in range(self.scales)]

    def seen(self, glimpse: int) -> Image.Image:
        """Draws what one glimpse gave, where it was: sharp in the finest window, coarser around, violet elsewhere."""
        pixels = torch.from_numpy(np.array(self.image, dtype=np.float32)).permute(2, 0, 1)[None]
        place = torch.from_numpy(self.places[glimpse : glimpse + 1])
        parts = retina(pixels, place, patch=self.patch, scales=self.scales, factor=self.factor)
        parts = parts.view(self.scales, 3, self.patch, self.patch)
        canvas = Image.new("RGB", self.image.size, UNREAD)
        for scale, box in reversed(list(enumerate(self.boxes(glimpse)))):
            part = Image.fromarray(parts[scale].permute(1, 2, 0).round().to(torch.uint8).numpy())
            width = box[2] - box[0]
            canvas.paste(part.resize((width, width), Image.Resampling.NEAREST), box[:2])
        return canvas

    def drawn(self, upto: int | None = None, side: int = SIDE) -> Image.Image:
        """Draws the image, `side` pixels long, with the way and windows of the first `upto` glimpses (None: all)."""
        upto = len(self) if upto is None else upto
        scale = side / max(self.image.size)
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        body = self.image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
        draw, middles = ImageDraw.Draw(body), []
        for number in range(upto):
            colour = self.colour(number)
            for coarse, (left, top, right, bottom) in enumerate(self.boxes(number)):
                thick = max(1, side // (130 if not coarse else 400)) if number == upto - 1 or not coarse else 0
                if thick:
                    edges = (left * scale, top * scale, right * scale - 1, bottom * scale - 1)
                    draw.rectangle(edges, outline=colour, width=thick)
            left, top, right, bottom = self.boxes(number)[0]
            middles.append(((left + right) / 2 * scale, (top + bottom) / 2 * scale))
        for number in range(1, upto):
            draw.line((*middles[number - 1], *middles[number]), fill=self.colour(number), width=max(1, side // 190))
        font, radius = font_of(max(9, side // 26), True), side / 38
        for number, (x, y) in enumerate(apart(middles, radius, body.size)):
            draw.line((*middles[number], x, y), fill=self.colour(number), width=max(1, side // 190))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=self.colour(number), outline=INK)
            ink = "black" if np.dot(self.colour(number), (0.299, 0.587, 0.114)) > 120 else "white"
            draw.text((x, y), str(number + 1), font=font, fill=ink, anchor="mm")
        return body

    def colour(self, number: int) -> tuple[int, int, int]:
        """The colour of a glimpse: plasma, without its darkest third, which black canvases swallow."""
        share = number / max(1, len(self) - 1)
        red, green, blue = colour_table("plasma")[round(85 + 165 * share)]
        return int(red), int(green), int(blue)

    def picture(self, *, title: str = "", caption: str = "") -> Image.Image:
        """Draws the whole path, and below it what each glimpse gave with the thought after it."""
        path = self.drawn(side=SIDE + GAP)
        across = max(1, min(len(self), 4))
        cell = (path.width - 6 * (across - 1)) // across if len(self) else path.width
        rows = -(-len(self) // across)
        high = round(cell * self.image.height / self.image.width) + 24
        body = Image.new("RGB", (path.width, path.height + GAP + rows * high), PAPER)
        body.paste(path, (0, 0))
        draw, font = ImageDraw.Draw(body), font_of(14)
        for number in range(len(self)):
            left, top = number % across * (cell + 6), path.height + GAP + number // across * high
            body.paste(self.seen(number).resize((cell, high - 24), Image.Resampling.NEAREST), (left, top))
            draw.rectangle((left, top, left + cell - 1, top + high - 25), outline=self.colour(number), width=2)
            words = f"{number + 1}: {self.thoughts[number]}" if self.thoughts else str(number + 1)
            draw.text((left, top + high - 22), fitted(words, font, cell), font=font, fill=INK)
        return sheet(body, title, caption or SMALL_PRINT)

    def frames(self) -> list[Image.Image]:
        """Draws one frame a glimpse: the way so far on the left, what this glimpse gave on the right."""
        made = []
        for number in range(len(self)):
            left = self.drawn(number + 1)
            right = self.seen(number).resize(left.size, Image.Resampling.NEAREST)
            frame = Image.new("RGB", (2 * left.width + 3 * GAP, left.height + 2 * GAP + 30), PAPER)
            frame.paste(left, (GAP, GAP))
            frame.paste(right, (left.width + 2 * GAP, GAP))
            draw, base = ImageDraw.Draw(frame), left.height + GAP + 10
            draw.text((GAP, base), f"glimpse {number + 1} of {len(self)}", font=font_of(17, True), fill=INK)
            words = self.thoughts[number] if self.thoughts else "what it gave"
            shown = fitted(words, font_of(17), left.width)
            draw.text((left.width + 2 * GAP, base), shown, font=font_of(17), fill=INK if self.thoughts else MUTED)
            made.append(frame)
        return made

    def gif(self) -> bytes:
        """Encodes the frames as an endless animation; ValueError for a path without glimpses."""
        frames = self.frames()
        if not frames:
            raise ValueError("a path without glimpses cannot be animated")
        long = [SECOND_LONG] * (len(frames) - 1) + [LAST_LONG]
        return encode_gif(frames, long)

    def page(self, *, title: str = "The path of the glimpses", caption: str = "") -> str:
        """Writes one self-contained HTML page: play, pause, step with a slider or the arrow keys; no network."""
        words = [f"glimpse {number + 1} of {len(self)}{self._thought(number)}" for number in range(len(self))]
        caption = caption or SMALL_PRINT
        return slider_page(self.frames(), words, title=title, caption=caption, label="glimpse")

    def save(self, path: str | Path, **words: Any) -> Path:
        """Writes .html (a page), .gif (an animation), or a picture (.png, .jpg, .webp); ValueError for others."""
        return save_drawn(path, partial(self.page, **words), partial(self.picture, **words), self.gif)

    def _thought(self, number: int) -> str:
        return f", {self.thoughts[number]}" if self.thoughts else ""


def apart(middles: Sequence[tuple[float, float]], radius: float, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Places a disc for each number at its middle, or beside it where an earlier one would be hidden.

    Earlier ones never move for later ones, so a number stays where it is from frame to frame.  All lie within the
    picture's `size`; where there is no room around, a disc stays at its middle.
    """
    placed: list[tuple[float, float]] = []
    for middle in middles:
        rings = [(1.05 * radius * ring, math.pi / 6 * turn) for ring in (2, 3, 4) for turn in range(12)]
        found = []
        for far, angle in [(0.0, 0.0), *rings]:
            at = (middle[0] + far * math.cos(angle), middle[1] + far * math.sin(angle))
            # a glimpse at the very edge keeps its number inside the picture
            x, y = (min(max(one, radius), most - 1 - radius) for one, most in zip(at, size, strict=True))
            found.append((x, y))
        free = (one for one in found if all(math.dist(one, other) >= 2 * radius for other in placed))
        placed.append(next(free, found[0]))
    return placed


def draw_paths(paths: Sequence[GlimpsePath], labels: Sequence[str], *, side: int = 220, across: int = 6) -> Image.Image:
    """Draws several paths in rows of `across`, with a label below each; ValueError unless there is one for each."""
    if not paths or len(paths) != len(labels):
        raise ValueError(f"a sheet of paths needs at least one, and a label for each: {len(paths)}, {len(labels)}")
    across = min(across, len(paths))
    cell, rows = (side + 10, side + 30), -(-len(paths) // across)
    body = Image.new("RGB", (across * cell[0] - 10, rows * cell[1]), PAPER)
    draw, font = ImageDraw.Draw(body), font_of(14)
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        left, top = number % across * cell[0], number // across * cell[1]
        body.paste(path.drawn(side=side), (left, top))
        draw.text((left, top + side + 4), fitted(label, font, side), font=font, fill=INK)
    return body
