"""A photograph whose every pixel is named: colours with a legend, shares of the area, and where each class looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sightline.lens.choices import Choice, base_of, choice_page
from sightline.lens.paint import Array, Photograph, as_map, blend, outline, photograph, shown_size
from sightline.lens.sheet import INK, PAPER, badge, fitted, font_of, sheet, spoken
from sightline.lens.strip import PICTURES

MOST_MAPS = 8  # in the picture; the page has all


@dataclass(frozen=True)
class Segments:
    """A photograph, the class number of each of its pixels (255: none), and the classes' names and colours.

    `maps` gives, for some classes by name, the map (h, w) of where the class token looked.  Raises ValueError for a
    mask of another size than the photograph, numbers beyond the classes, and maps of unknown classes.
    """

    image: Photograph
    mask: np.ndarray
    classes: Sequence[str]
    palette: np.ndarray
    maps: dict[str, Array]
    title: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        size = photograph(self.image).size
        if self.mask.shape != (size[1], size[0]):
            told = " x ".join(str(side) for side in reversed(self.mask.shape))
            raise ValueError(f"the mask has {told} pixels, the photograph {size[0]} x {size[1]}")
        if len(self.classes) != len(self.palette) or not self.classes:
            raise ValueError(f"{len(self.classes)} classes, but {len(self.palette)} colours")
        named = self.mask[self.mask != 255]
        if len(named) and int(named.max()) >= len(self.classes):
            raise ValueError(f"the mask names class {int(named.max())}, there are {len(self.classes)}")
        for name, heat in self.maps.items():
            if name not in self.classes:
                raise ValueError(f"a map of {name!r}, which is none of the classes {', '.join(self.classes)}")
            as_map(heat)

    @property
    def areas(self) -> dict[str, float]:
        """The share of all pixels that each class has, the largest first; classes without a pixel are left out."""
        counts = np.bincount(self.mask.ravel(), minlength=256)[: len(self.classes)]
        order = np.argsort(-counts, kind="stable")
        return {self.classes[number]: float(counts[number] / self.mask.size) for number in order if counts[number]}

    def painted(self, strength: float = 0.6) -> Image.Image:
        """Lays the classes' colours on the photograph, with a dark line between classes."""
        picture = shown_size(photograph(self.image))
        numbers = np.asarray(Image.fromarray(self.mask).resize(picture.size, Image.Resampling.NEAREST))
        colours = np.vstack([self.palette, np.full((256 - len(self.palette), 3), 128)]).astype(np.float32)
        pixels = np.asarray(picture, dtype=np.float32)
        mixed = pixels + (colours[numbers] - pixels) * np.float32(strength)
        border = np.zeros(numbers.shape, dtype=bool)
        border[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
        border[1:] |= numbers[1:] != numbers[:-1]
        mixed[border] *= 0.35
        return Image.fromarray(mixed.round().astype(np.uint8))

    def picture(self) -> Image.Image:
        """Draws the painted photograph, below it where the tokens of the largest classes looked, and a legend."""
        body = self.painted()
        shown = [name for name in self.areas if name in self.maps][:MOST_MAPS]
        if shown:
            body = self._with_maps(body, shown)
        return sheet(body, self.title, self.caption, self._legend(max(body.width, 340)))

    def _with_maps(self, body: Image.Image, names: list[str]) -> Image.Image:
        """Rows of four small maps below the painted photograph."""
        across, gap = min(4, len(names)), 6
        width = (body.width - gap * (across - 1)) // across
        height = max(1, round(width * body.height / body.width))
        small = photograph(self.image).resize((width, height), Image.Resampling.LANCZOS)
        rows = -(-len(names) // across)
        whole = Image.new("RGB", (body.width, body.height + rows * (height + gap)), PAPER)
        whole.paste(body, (0, 0))
        for number, name in enumerate(names):
            one = blend(small, self.maps[name], mass=None)
            if width >= 60:
                badge(one, spoken(name))
            whole.paste(one, (number % across * (width + gap), body.height + gap + number // across * (height + gap)))
        return whole

    def _legend(self, width: int) -> Image.Image:
        size = int(np.clip(width / 44, 12, 16))
        font, entries = font_of(size), list(self.areas.items())
        columns = max(1, min(4, width // (13 * size), len(entries)))
        across, down = width // columns, round(size * 1.7)
        key = Image.new("RGB", (width, down * -(-len(entries) // columns)), PAPER)
        draw = ImageDraw.Draw(key)
        for number, (name, share) in enumerate(entries):
            x, y = number % columns * across, number // columns * down
            colour = tuple(int(value) for value in self.palette[list(self.classes).index(name)])
            draw.rectangle((x, y + 2, x + size, y + 2 + size), fill=colour, outline=INK)
            told = f"{share:.1%}"
            draw.text((x + across - 2 * size, y), told, font=font, fill=INK, anchor="ra")
            room = across - 4 * size - font.getlength(told)
            draw.text((x + 1.6 * size, y), fitted(spoken(name), font, room), font=font, fill=INK)
        return key

    def page(self) -> str:
        """Writes one self-contained HTML page: choose a class, and see where it is and where its token looked."""
        base = base_of(self.image)
        painted = self.painted().resize(base.size, Image.Resampling.LANCZOS)
        choices = [Choice("photograph"), Choice("all classes", painted, "the photograph in the classes' colours")]
        for name, share in self.areas.items():
            place = list(self.classes).index(name)
            said = spoken(name)
            alt = f"{said}: outlined where it is" + (", lighter where its token looked" if name in self.maps else "")
            choices.append(Choice(said, self._one(base, place), alt, f"{share:.1%}", self.palette[place]))
        title, how = self.title or "What is where", self._how_to_read()
        return choice_page(base, choices, title=title, how=how, caption=self.caption, opens=1)

    def _how_to_read(self) -> str:
        if not self.maps:
            return "Choose a class: its pixels are outlined, with their share of the picture."
        return (
            "Choose a class: its pixels are outlined, with their share of the picture; the map shows where its class "
            "token looked."
        )

    def _one(self, shown: Image.Image, place: int) -> Image.Image:
        """One class: its outline, on its token's map where there is one."""
        heat = self.maps.get(self.classes[place])
        one = blend(shown, heat, mass=None) if heat is not None else shown.copy()
        region = np.asarray(Image.fromarray(self.mask).resize(shown.size, Image.Resampling.NEAREST)) == place
        outline(one, region)
        return one

    def save(self, path: str | Path) -> Path:
        """Writes .html (a page) or a picture (.png, .jpg, .webp); ValueError for another ending."""
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".html":
            path.write_text(self.page(), encoding="utf-8")
        elif kind in PICTURES:
            self.picture().save(path)
        else:
            raise ValueError(f"{path}: give a name that ends in .html, {', '.join(PICTURES)}")
        return path
