"""Which digit is it, and through which glimpses was it read?"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from sightline.checkpoints.bundled import bundled, bundled_names, weights_in
from sightline.checkpoints.convert import Untold
from sightline.checkpoints.load import load_checkpoint
from sightline.data.canvas import DIGIT, normalised
from sightline.data.photographs import PhotographError, open_photograph
from sightline.lens.given import evaluating
from sightline.lens.path import GlimpsePath
from sightline.systems.ram import RAM

INK = 20  # MNIST's digits are 20 pixels long, on 28
FAINTEST = 24  # of 255 tones between the ground and the ink


class GlimpseError(ValueError):
    """A system that cannot glimpse; the message says why in one line."""


@dataclass(frozen=True)
class Glimpsed:
    """What a recurrent attention model reads in a picture: `labels` are (digit, probability) pairs, best first.

    `attention` is the path of the glimpses over `canvas`, the picture as the model had it; `prepared` says how that
    was made.  The answer averages `copies` random paths; the path shown is, of those that gave it, the surest.
    """

    labels: tuple[tuple[str, float], ...]
    attention: GlimpsePath
    canvas: Image.Image
    prepared: str
    copies: int
    agreeing: int
    system: str

    @property
    def label(self) -> str:
        """The likeliest digit."""
        return self.labels[0][0]

    @property
    def probability(self) -> float:
        """The probability of the likeliest digit: the geometric mean over the paths."""
        return self.labels[0][1]

    @property
    def caption(self) -> str:
        """How the picture was made into a canvas, and how many paths agree."""
        return f"{self.agreeing} of {self.copies} paths say {self.label}. The canvas: {self.prepared}."

    def show(self) -> None:
        """Shows the path."""
        self.attention.picture(title=str(self), caption=self.caption).show()

    def save(self, path: str | Path) -> Path:
        """Writes the path as a picture (.png, .jpg, .webp), an animation (.gif) or a page with a slider (.html)."""
        return self.attention.save(path, title=str(self), caption=self.caption)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(self.labels)

    def __str__(self) -> str:
        return f"{self.label} ({self.probability:.0%})"

    def _repr_html_(self) -> str:
        page = escape(self.attention.page(title=str(self), caption=self.caption), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="620" style="border:0"></iframe>'


def glimpse(image: Any, *, system: Any = None, copies: int = 10, seed: int = 0) -> Glimpsed:
    """Reads the digit in one picture through a few glimpses (Mnih et al. 2014), averaged over `copies` random paths.

    `image` is anything `open_photograph` takes, a photograph or a drawing; it becomes the canvas that the system
    knows, and `prepared` says how.  `system` is a bundled name (default "ram"), a folder or file of weights, a hub id,
    or an open `RAM`.  The same seed gives the same paths, and the caller's random numbers stay as they are.  Raises
    `PhotographError` for a picture that cannot be opened or holds nothing to read, `GlimpseError` for another system,
    ValueError for `copies` below 1.
    """
    if copies < 1:
        raise ValueError(f"copies is a number of paths of at least 1, given {copies}")
    model, name = open_ram(system)
    canvas, prepared = to_canvas(open_photograph(image), model.image_size)
    one = normalised(torch.from_numpy(canvas)[None, None]).to(next(model.parameters()).device)
    with evaluating(model), torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        reading = model(one.expand(copies, -1, -1, -1))
        answers = reading.log_probs.mean(dim=0).softmax(dim=0).cpu()
        best = int(answers.argmax())
        agreeing = reading.log_probs.argmax(dim=1) == best
        shown = int(torch.where(agreeing, reading.log_probs[:, best], -torch.inf).argmax())
        thoughts = _thoughts(model, one, reading.places[shown : shown + 1])
    path = GlimpsePath(
        canvas, reading.places[shown], patch=model.patch, scales=model.scales, factor=model.factor, thoughts=thoughts
    )
    order = answers.argsort(descending=True).tolist()
    labels = tuple((str(digit), float(answers[digit])) for digit in order)
    return Glimpsed(labels, path, Image.fromarray(canvas), prepared, copies, int(agreeing.sum()), name)


def open_ram(system: Any = None) -> tuple[RAM, str]:
    """Opens a recurrent attention model and its name; `GlimpseError` for anything else."""
    if isinstance(system, torch.nn.Module):
        model, name = system, type(system).__name__
    else:
        name = "ram" if system is None else str(system)
        model = _loaded(name)
    if not isinstance(model, RAM):
        raise GlimpseError(f"system {name!r} is a {type(model).__name__}, which takes no glimpses; give a RAM")
    if model.glimpse.what_in.in_features != model.scales * model.patch**2:
        raise GlimpseError(f"system {name!r} reads coloured canvases; digits are read in grey")
    return model, name


def _loaded(name: str) -> torch.nn.Module:
    if name in bundled_names():
        return bundled(name)
    folder = Path(name).expanduser()
    try:
        return load_checkpoint(weights_in(folder) if folder.is_dir() else name)
    except Untold as error:
        raise GlimpseError(f"system {name!r}: {error.reason}") from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GlimpseError(f"system {name!r}: {reason}") from error


def to_canvas(picture: Image.Image, side: int) -> tuple[np.ndarray, str]:
    """Makes a picture a canvas of `side` pixels, light ink on black, as bytes (side, side), and says how.

    A canvas of 28 pixels shows one digit as MNIST does: cut out, 20 pixels long, its centre of mass in the middle.
    On larger canvases the place matters, so the whole picture is fitted in.  A picture of exactly the size, on black,
    is taken as it is.  Raises `PhotographError` where ground and ink are all but one tone.
    """
    grey = np.asarray(picture.convert("L"), dtype=np.float32)
    if grey.shape == (side, side) and np.median(_edge(grey)) < FAINTEST:
        return grey.astype(np.uint8), "grey, as it is"
    # a photograph's ground is never even: it is what lies around, wider than any stroke
    ink = grey - _ground(grey)
    low, high = (float(q) for q in np.quantile(ink, (0.002, 0.998) if ink.size > 4000 else (0, 1)))
    if max(-low, high) < FAINTEST:
        raise PhotographError("the picture is all but one tone: nothing to read on it")
    said = ["grey", "its ground taken away"]
    if -low > high:
        said.insert(1, "inverted (dark ink on light ground)")
        ink, high = -ink, -low
    # what is nearer to the ground than to the ink is paper, shadow and noise
    ink = (ink / high - 0.25).clip(0, 0.6) / 0.6
    if side == DIGIT:
        said.append(f"the ink cut out, {INK} pixels long and centred as in MNIST")
        return _like_mnist(ink, side), ", ".join(said)
    said.append(f"the whole picture fitted into {side} x {side} pixels")
    return _fitted(ink, side), ", ".join(said)


def _edge(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _ground(grey: np.ndarray) -> np.ndarray:
    """The tone of the ground at every pixel: the median of a wide window, worked out on a small copy."""
    image = Image.fromarray(grey.round().astype(np.uint8))
    scale = min(1.0, 48 / max(image.size))
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    # odd reflection: beyond the edge a gradient goes on, and ink at the edge cancels itself
    wide = np.pad(np.asarray(small, dtype=np.int16), 16, mode="reflect", reflect_type="odd").clip(0, 255)
    ground = Image.fromarray(wide.astype(np.uint8)).filter(ImageFilter.MedianFilter(31))
    ground = ground.crop((16, 16, 16 + small.width, 16 + small.height))
    return np.asarray(ground.resize(image.size, Image.Resampling.BICUBIC), dtype=np.float32)


def _like_mnist(ink: np.ndarray, side: int) -> np.ndarray:
    # found on a small copy, where specks of noise have vanished
    step = max(1, max(ink.shape) // 64)
    coarse = np.asarray(Image.fromarray(ink).reduce(step)) if step > 1 else ink
    rows, columns = (np.flatnonzero(coarse.max(axis=axis) > 0.3) for axis in (1, 0))
    if not len(rows):
        raise PhotographError("only specks on the picture: no stroke wide enough to read")
    cut = ink[rows[0] * step : (rows[-1] + 1) * step, columns[0] * step : (columns[-1] + 1) * step]
    scale = INK / max(cut.shape)
    small = _resized(cut, max(1, round(cut.shape[0] * scale)), max(1, round(cut.shape[1] * scale)))
    mass = small.sum()
    down = int((small.sum(axis=1) @ np.arange(small.shape[0])) / mass + 0.5)
    right = int((small.sum(axis=0) @ np.arange(small.shape[1])) / mass + 0.5)
    top = min(max(0, side // 2 - down), side - small.shape[0])
    left = min(max(0, side // 2 - right), side - small.shape[1])
    canvas = np.zeros((side, side), np.uint8)
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = (small * 255).round()
    return canvas


def _fitted(ink: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(ink.shape)
    small = _resized(ink, max(1, round(ink.shape[0] * scale)), max(1, round(ink.shape[1] * scale)))
    canvas = np.zeros((side, side), np.uint8)
    top, left = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = (small * 255).round()
    return canvas


def _resized(ink: np.ndarray, height: int, width: int) -> np.ndarray:
    # averaging, as thin strokes must not vanish between the samples
    small = Image.fromarray(ink).resize((width, height), Image.Resampling.BOX)
    values = np.asarray(small)
    return values / max(float(values.max()), 1e-6)


def _thoughts(model: RAM, one: Tensor, places: Tensor) -> list[str]:
    """What the model would answer after each glimpse of a path, with its probability."""
    said = []
    for count in range(1, places.shape[1] + 1):
        chance, digit = model(one, places[:, :count]).log_probs[0].exp().max(dim=0)
        said.append(f"{int(digit)} ({float(chance):.0%})")
    return said
