"""A photograph whose every pixel is named: colours with a legend, shares of the area, and where each class looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sightline.lens.choices import Choice, base_of, choice_page, save_drawn
from sightline.lens.paint import Array, Photograph, as_map, blend, outline, photograph, shown_size
from sightline.lens.sheet import INK, PAPER, badge, fitted, font_of, sheet, spoken

MOST_MAPS = 12  # in the picture; the page has all
MOST_NAMES = 12  # told one by one


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
        """Draws the painted photograph, numbered as the legend is, and where the tokens of the largest classes looked.

        What has no map there is told above it.
        """
        body = self._numbered(self.painted())
        if self._mapped:
            body = self._with_maps(body, self._mapped[:MOST_MAPS])
        caption = " · ".join(filter(None, (self.caption, self._told_of_largest(), self._told_of_missing())))
        return sheet(body, self.title, caption, self._legend(max(body.width, 340)))

    @property
    def _mapped(self) -> list[str]:
        """The classes with a pixel and a map, the largest first."""
        return [name for name in self.areas if name in self.maps]

    def _told_of_largest(self) -> str:
        """Which classes have a map on the page alone; empty where the picture has all maps, or there is none."""
        left = self._mapped[MOST_MAPS:]
        return f"maps of the {MOST_MAPS} largest classes, the page also has those of {listed(left)}" if left else ""

    def _told_of_missing(self) -> str:
        """Which classes have no map since no pixel is theirs; empty where there are no maps at all."""
        without = [name for name in self.classes if name not in self.areas] if self.maps else []
        return f"no pixel of {listed(without)}, so no map" if without else ""

    def _numbered(self, painted: Image.Image) -> Image.Image:
        """The painted photograph with each class's number where the class is thickest, unless it is thin everywhere."""
        size, draw = int(np.clip(painted.width / 40, 12, 18)), ImageDraw.Draw(painted)
        small = Image.fromarray(self.mask)
        small.thumbnail((128, 128), Image.Resampling.NEAREST)
        numbers, wide, tall = np.asarray(small), painted.width / small.width, painted.height / small.height
        font = font_of(size, True)
        for name in self.areas:
            number = list(self.classes).index(name)
            y, x, thick = thickest(numbers == number)
            room = (2 * thick - 1) * min(wide, tall)
            if room >= max(size, font.getlength(str(number))):  # in less it would hide what it names
                place = ((x + 0.5) * wide, (y + 0.5) * tall)
                draw.text(place, str(number), font=font, fill="white", anchor="mm", stroke_width=2, stroke_fill="black")
        return painted

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
        """A row for each class: colour, number in the mask (colours of a data set may be alike), name and share."""
        size = int(np.clip(width / 44, 12, 16))
        font, entries = font_of(size), list(self.areas.items())
        columns = max(1, min(4, width // (13 * size), len(entries)))
        across, down = width // columns, round(size * 1.7)
        key = Image.new("RGB", (width, down * -(-len(entries) // columns)), PAPER)
        draw = ImageDraw.Draw(key)
        digits = font.getlength("0") * len(str(len(self.classes) - 1))
        for row, (name, share) in enumerate(entries):
            x, y = row % columns * across, row // columns * down
            number = list(self.classes).index(name)
            colour = tuple(int(value) for value in self.palette[number])
            draw.rectangle((x, y + 2, x + size, y + 2 + size), fill=colour, outline=INK)
            draw.text((x + 1.5 * size + digits, y), str(number), font=font, fill=INK, anchor="ra")
            told = f"{share:.1%}"
            draw.text((x + across - 2 * size, y), told, font=font, fill=INK, anchor="ra")
            room = across - 4.5 * size - digits - font.getlength(told)
            draw.text((x + 2 * size + digits, y), fitted(spoken(name), font, room), font=font, fill=INK)
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
        caption = " · ".join(filter(None, (self.caption, self._told_of_missing())))
        return choice_page(base, choices, title=title, how=how, caption=caption, opens=1)

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
        return save_drawn(path, self.page, self.picture)


def listed(names: Sequence[str]) -> str:
    """Names as a person reads them; how many more there are where they are many."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(spoken, names[:MOST_NAMES])) + more


def thickest(region: np.ndarray) -> tuple[int, int, int]:
    """The row and column of a region (h, w) that lie farthest from its border, and how far; (0, 0, 0) for none.

    The region is worn away, a pixel from all sides at a time, until nothing is left: what went last is its middle.
    """
    left, deep = np.pad(region, 1), 0
    kept = left
    while left.any():
        kept, deep = left, deep + 1
        around = [np.roll(left, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
        left = left & np.logical_and.reduce(around)
    rows, columns = np.nonzero(kept)
    middle = len(rows) // 2
    return (int(rows[middle]) - 1, int(columns[middle]) - 1, deep) if deep else (0, 0, 0)
