"""Which place in a picture is meant by a question?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from sightline.data.photographs import open_photograph
from sightline.data.question_words import LONGEST_QUESTION
from sightline.lens.choices import save_drawn
from sightline.lens.given import evaluating
from sightline.lens.paint import shown_size
from sightline.lens.sheet import font_of
from sightline.lens.strip import WordStrip
from sightline.systems.visual7w import Visual7WPointing
from sightline.tasks.answerer import check_known, open_answerer
from sightline.tasks.questions import QuestionError, star_told, starred, undecided, words_of

CANDIDATES = ("visual7w_pointing",)
Box = tuple[float, float, float, float]
SIZES, STEP = (0.14, 0.18, 0.23, 0.3, 0.38), 0.045  # of proposed windows, in parts of the picture
# of a map's mass: what lies elsewhere than in the mean of all words' maps, at most, where they are the same
SAME = 0.02
LEAST = 0.0005  # a smaller share is next to none, and is not told
OTHERS, RIVAL = 3, 0.1  # boxes drawn beside the best, at most, and their least part of its share
_PLACES = ("left", "right", "behind", "in", "made", "closest", "farthest", "small", "large")


@dataclass(frozen=True)
class Pointed:
    """Where one system points in one picture.

    `boxes` are (left, top, right, bottom) in pixels of the picture with their probabilities, best first: of the boxes
    that were given, or of windows that do not overlap (`given` tells).  `asked` is the question as it was read;
    `unknown` and `knows` are as in `ask`.  `attention` has a map for each word of the question; None for a system
    without attention.
    """

    boxes: tuple[tuple[Box, float], ...]
    asked: str
    given: bool
    unknown: tuple[str, ...]
    image: Image.Image
    attention: WordStrip | None
    system: str
    knows: str

    @property
    def box(self) -> Box:
        """The box that is pointed at: left, top, right, bottom in pixels of the picture."""
        return self.boxes[0][0]

    @property
    def probability(self) -> float:
        """The share of the best box among all that were given or proposed."""
        return self.boxes[0][1]

    @property
    def note(self) -> str:
        """What has to be known about the answer: what the system learned from, and which words it does not know."""
        told = f"{self.system} knows {self.knows}" if self.knows else self.system
        return f"{told}; it never read: {', '.join(self.unknown)}" if self.unknown else told

    def picture(self) -> Image.Image:
        """The picture with the box, its rivals and their shares, then once for each word with where the model looked.

        Where all words' maps are nearly the same, their mean stands for all.
        """
        return self._drawn().picture() if self.attention else with_scores(self.image, self.boxes)

    def show(self) -> None:
        """Show the box and where the model looked at each word."""
        self.picture().show()

    def save(self, path: str | Path) -> Path:
        """Write the picture (.png, .jpg, .webp), or a page on which a word can be chosen (.html)."""
        if self.attention:
            return save_drawn(path, self.attention.page, self.picture)
        if Path(path).suffix == ".html":
            raise QuestionError(f"system {self.system!r} points without attention: there is a picture, but no page")
        self.picture().save(path)
        return Path(path)

    def _drawn(self) -> WordStrip:
        """What the picture has of the maps: panels that are all alike would say nothing, and look as if they did."""
        strip: Any = self.attention
        maps = np.asarray(strip.maps)
        return replace(strip, words=["every word"], maps=maps.mean(axis=0)[None]) if _sameness(maps) else strip

    def __str__(self) -> str:
        return "box {:.0f}, {:.0f}, {:.0f}, {:.0f}".format(*self.box)

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>{self._drawn()._repr_html_() if self.attention else ''}"


def point(image: Any, question: str, *, boxes: Sequence[Sequence[float]] | None = None, system: Any = None) -> Pointed:
    """Points at the box in a picture that a question or a name means (Zhu et al. 2016).

    `question` is "which object is left of the red cube?", or only what is meant: "the red cube".  `boxes` are the
    candidates, (left, top, right, bottom) in pixels of the picture; without them square windows of five sizes all over
    the picture are.  `system` is as in `ask`; None is the bundled "visual7w_pointing", which knows scenes of the
    generated world.  Raises `QuestionError` for an empty question, one without a known word, boxes that are none or lie
    outside, and an unusable system, and `PhotographError` for a picture that cannot be opened.
    """
    said = words_of(question)
    words = as_question(said)
    opened = open_answerer(system, CANDIDATES, words, Visual7WPointing)
    unknown = check_known(opened, said)
    photograph = open_photograph(image)
    candidates = windows() if boxes is None else _read_boxes(boxes, photograph.size)
    network: Any = opened.model
    with evaluating(network), torch.no_grad():
        scores, weights = network(opened.see(photograph), opened.read(words), candidates[None, None])
    shares = scores[0, 0].softmax(dim=0)
    order = shares.argsort(descending=True).tolist()
    if boxes is None:
        order = apart(candidates, order, most=4)
    scale = torch.tensor([photograph.width, photograph.height] * 2)
    found = [(_box((candidates[k] * scale).tolist()), float(shares[k])) for k in order]
    strip = None
    if network.kind == "attention" and weights is not None:
        side = round(weights.shape[3] ** 0.5)
        drawn = with_scores(photograph, found)
        maps = weights[0, 0].unflatten(1, (side, -1)).numpy()
        never = star_told(words, unknown, opened.name)
        title = " ".join(question.split())
        read = "" if words == said else f'read as "{" ".join(words)}"'
        told = (read, never, opened.knows, _closeness(found), _rest(found), _sameness(maps))
        labels, about = starred(words, unknown), "; ".join(filter(None, told))
        strip = WordStrip(drawn, labels, maps, title=title, caption=about, plain=f"box {share_of(found[0][1])}")
    asked = " ".join(words)
    return Pointed(tuple(found), asked, boxes is not None, unknown, photograph, strip, opened.name, opened.knows)


def as_question(words: list[str]) -> list[str]:
    """Makes a question of what is only named: "red cube" becomes "which object is the red cube"."""
    if words[0] in ("which", "what", "where", "who"):
        return words
    if words[0] in _PLACES[:7]:
        asked = ["which", "of", "these", "objects", "is", *words]
    else:
        named = words[1:] if words[0] in ("the", "a", "an") and words[1:] else words
        asked = ["which", "object", "is", "the", *named]
    return asked[:LONGEST_QUESTION]


def windows() -> Tensor:
    """Lays square windows of all SIZES over a picture, STEP apart: (windows, 4) in parts of its width and height."""
    found = []
    for size in SIZES:
        starts = torch.arange(0, 1 - size + 1e-6, STEP)
        left, top = torch.cartesian_prod(starts, starts).unbind(dim=1)
        found.append(torch.stack([left, top, left + size, top + size], dim=1))
    return torch.cat(found)


def overlap(one: Tensor, others: Tensor) -> Tensor:
    """Computes the intersection over union of boxes (…, 4) with boxes (…, 4), broadcast; 0 where both are empty."""
    low, high = torch.maximum(one[..., :2], others[..., :2]), torch.minimum(one[..., 2:], others[..., 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = (one[..., 2:] - one[..., :2]).prod(dim=-1) + (others[..., 2:] - others[..., :2]).prod(dim=-1)
    return both / (areas - both).clamp(min=1e-9)


def apart(boxes: Tensor, order: Sequence[int], most: int) -> list[int]:
    """Keeps, in order, at most `most` boxes none of which overlaps a better one by more than 0.3."""
    kept: list[int] = []
    for place in order:
        if not kept or float(overlap(boxes[place], boxes[kept]).max()) <= 0.3:
            kept.append(place)
        if len(kept) == most:
            break
    return kept


def with_boxes(photograph: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Draws boxes into a copy of the picture, a light line with dark edges, enlarged where it is tiny; the line is wide
    enough for a thumbnail, and lies around the box, within it only where the picture ends."""
    drawn = shown_size(photograph.convert("RGB")).copy()
    scale = drawn.width / photograph.width
    pen, (width, edge) = ImageDraw.Draw(drawn), _line(drawn.size)
    for box in boxes:
        _frame(pen, [value * scale for value in box], drawn.size, width, edge, (255, 236, 64))
    return drawn


def _line(size: tuple[int, int]) -> tuple[int, int]:
    """How wide the line around a box is, and each of its dark edges."""
    width = max(3, max(size) // 40)
    return width, max(1, width // 3)


def _frame(
    pen: Any, box: Sequence[float], size: tuple[int, int], width: int, edge: int, colour: tuple[int, int, int]
) -> None:
    """Draws a line of a width, with dark edges, around a box; where the picture ends, it is moved in."""
    all_in = width + 2 * edge
    left, top = (max(0, round(value) - all_in) for value in box[:2])
    right, bottom = (min(most, round(value) + all_in) - 1 for value, most in zip(box[2:], size, strict=True))
    right, bottom = max(right, left + 2 * edge), max(bottom, top + 2 * edge)  # of a box outside the picture, a dot
    pen.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=all_in)
    pen.rectangle((left + edge, top + edge, right - edge, bottom - edge), outline=colour, width=width)


def with_scores(photograph: Image.Image, found: Sequence[tuple[Box, float]]) -> Image.Image:
    """Draws boxes with their shares, best first, into a copy: the best as `with_boxes` does, three rivals thin.

    So the picture tells how sure the choice was: its share stands beside those of the boxes that it was preferred to.
    """
    base = shown_size(photograph.convert("RGB")).copy()
    scale, pen, wide = base.width / photograph.width, ImageDraw.Draw(base), max(1, max(base.size) // 200)
    shown = [(_box([value * scale for value in box]), share) for box, share in _drawn_boxes(found)]
    for box, _ in shown[1:]:
        _frame(pen, box, base.size, wide, wide, (255, 255, 255))
    drawn = with_boxes(base, [shown[0][0]])
    pen, font = ImageDraw.Draw(drawn), font_of(max(12, max(drawn.size) // 14), bold=True)
    told = [share_of(share) for _, share in shown]
    sizes = [(font.getlength(word) + 6, 1.1 * font.size) for word in told]  # with the dark line around the letters
    width, edge = _line(drawn.size)
    places = label_places([box for box, _ in shown], sizes, drawn.size, float(width + 3 * edge))
    for number, (x, y) in reversed(list(enumerate(places))):  # the best on top
        colour, middle = (255, 236, 64) if number == 0 else (255, 255, 255), y + sizes[number][1] / 2
        pen.text((x + 3, middle), told[number], font=font, fill=colour, anchor="lm", stroke_width=3, stroke_fill=0)
    return drawn


def label_places(
    boxes: Sequence[Box], sizes: Sequence[tuple[float, float]], picture: tuple[int, int], reach: float
) -> list[tuple[float, float]]:
    """Where the labels of boxes stand, (left, top) of each: beside its box, within the picture, on none before it.

    `sizes` are (width, height) of the labels, `reach` is how far a box's line goes beyond it.  Tried are above, below,
    right and left of the box, at either end of its side, then within it; where all are taken, the one least covered.
    """
    placed: list[Box] = []
    for (left, top, right, bottom), (wide, high) in zip(boxes, sizes, strict=True):
        over, under, beyond, before = top - reach - high, bottom + reach, right + reach, left - reach - wide
        within = (max(top, reach) + 0.2 * high, min(bottom, picture[1] - reach) - 1.2 * high)
        tried = [(x, y) for y in (over, under) for x in (left, right - wide)]
        tried += [(x, y) for x in (beyond, before) for y in (top, bottom - high)]
        tried += [(x, y) for y in within for x in (left, right - wide)]
        tried = [(min(max(x, 0.0), max(picture[0] - wide, 0.0)), y) for x, y in tried]
        fitting = [(x, y) for x, y in tried if 0 <= y <= picture[1] - high] or [(tried[0][0], 0.0)]
        spots = [(x, y, x + wide, y + high) for x, y in fitting]
        placed.append(min(spots, key=lambda spot: sum(_shared(spot, other) for other in placed)))  # the first of equals
    return [(left, top) for left, top, _, _ in placed]


def _shared(one: Box, other: Box) -> float:
    """The area, in pixels, that two rectangles have in common."""
    across, down = (min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1))
    return max(across, 0.0) * max(down, 0.0)


def share_of(share: float) -> str:
    """A share of all candidates; those of many windows are small, and take a decimal."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _closeness(found: Sequence[tuple[Box, float]]) -> str:
    """What the caption says where the next best box has nearly as large a share as the best."""
    if not undecided([share for _, share in found]):
        return ""
    return f"the next best box scores nearly alike, {share_of(found[1][1])}: the choice is weak"


def _rest(found: Sequence[tuple[Box, float]]) -> str:
    """What the caption says of the share that stands beside no drawn box; "" where there is next to none."""
    left = 1 - sum(share for _, share in _drawn_boxes(found))
    return f"all other boxes together: {share_of(left)}" if left >= LEAST else ""


def _drawn_boxes(found: Sequence[tuple[Box, float]]) -> list[tuple[Box, float]]:
    """The best box and those of its rivals that are drawn beside it."""
    return [one for one in found[: 1 + OTHERS] if one[1] >= RIVAL * found[0][1]]


def _sameness(maps: np.ndarray) -> str:
    """What the caption says where no word's map (words, rows, columns) differs from their mean by SAME of its mass."""
    moved = np.abs(maps - maps.mean(axis=0)).sum(axis=(1, 2)) / 2
    return "all words' maps are nearly the same: they do not tell why this box" if moved.max() <= SAME else ""


def _box(values: Sequence[float]) -> Box:
    left, top, right, bottom = (round(value, 2) for value in values)
    return left, top, right, bottom


def _read_boxes(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> Tensor:
    if len(boxes) < 2:
        raise QuestionError(f"boxes are two or more to choose from, given {len(boxes)}; without any, windows are tried")
    for box in boxes:
        ends = zip(box[:2], box[2:], size, strict=False)
        if len(box) != 4 or not all(0 <= low < high <= most for low, high, most in ends):
            raise QuestionError(
                f"box {list(box)}: expected left, top, right, bottom in pixels, left < right and top < bottom, within "
                f"the picture of {size[0]} x {size[1]}"
            )
    return torch.tensor([list(map(float, box)) for box in boxes]) / torch.tensor([*size, *size])
