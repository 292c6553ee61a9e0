"""Photographs as phones, cameras and browsers make them, as plain RGB images; broken ones named in one
line."""

import glob
import io
import os
import re
import struct
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Result = TypeVar("Result")
LONGEST = 20  # times the shorter side
TINY = 16  # pixels of a side, below which a picture says next to nothing
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, struct.error)
_MOVING = {"GIF": "frames", "PNG": "frames", "WEBP": "frames", "AVIF": "frames", "TIFF": "pages"}

# Pillow itself refuses at twice its own 89.5 megapixel warning level, which is this number
MOST_PIXELS = 178_956_970

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".avif",
        ".avifs",
        ".gif",
        ".bmp",
        ".dib",
    }
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".heic", ".heif"}
)

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


class PhotographError(ValueError):
    """Says in one line which picture could not be opened and why."""


def open_photograph(source: Any) -> Image.Image:
    """Open anything that holds one picture as an upright RGB image with eight bits a channel.

    ``source`` is a path (``str`` or ``Path``), ``bytes`` of an image file, a PIL image, a numpy array
    (height, width), (height, width, 1 | 3 | 4) or channels first, or a torch tensor (channels first, a
    leading batch of one allowed). EXIF rotation is applied; transparency is laid on white; palettes, CMYK,
    grey and 16 bits are converted over their full range; of an animation the first frame is taken.  Arrays of
    floats must lie in 0..1 (or 0..255).

    Raises ``PhotographError`` (a ``ValueError``) in one line for anything that is not one picture: missing, a
    folder, empty, truncated, another kind of file, zero-size, or above 178,956,970 pixels.
    """
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "the given image")
    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise PhotographError("the given bytes: nothing in them")
        return _decode(io.BytesIO(source), "the given bytes")
    if isinstance(source, str | os.PathLike):
        return _open_file(os.fspath(source), _decode)
    if isinstance(source, np.ndarray):
        return _from_array(source, channels_first=False)
    if type(source).__module__.split(".")[0] == "torch" or hasattr(source, "detach"):
        array = source.detach().cpu()
        array = array.float().numpy() if array.is_floating_point() else array.numpy()
        return _from_array(array, channels_first=True)
    raise PhotographError(
        f"a picture was expected (path, PIL image, numpy array or torch tensor), got {type(source).__name__}"
    )


def check_photograph(path: str | os.PathLike[str], most: int = 0) -> int:
    """Raises `PhotographError` as `open_photograph` does, for what file and header tell, and what decoding tells.

    It is also raised for a picture whose sides differ so much that nothing could be seen on it.  A picture of `most`
    pixels or fewer is decoded, a JPEG at an eighth of its size, which finds what is cut off or broken behind the
    header.  Returns the number of pixels so decoded, 0 for a larger one.
    """
    return _open_file(os.fspath(path), partial(_check, most=most))


def find_photographs(paths: "Iterable[str | os.PathLike[str]] | str | os.PathLike[str]") -> list[Path]:
    """List the image files that ``paths`` name, each once, in the order given.

    A file is taken as it is; a folder is searched through all its subfolders, sorted, for the usual image
    suffixes; a pattern (``*``, ``?``, ``[…]``, ``**``) is expanded the same way.  Hidden files and folders
    are skipped unless named in full.  Raises ``PhotographError`` when any of them gives nothing.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: dict[str, Path] = {}
    for given in paths:
        for path in _expand(os.fspath(given)):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def remark(path: str | os.PathLike[str]) -> str:
    """What to know of a picture before what is said of it is believed: that it is tiny, or one of several; else "".

    No pixels are decoded; a file that is no picture is left to `open_photograph`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                (width, height), kind, frames = image.size, image.format, getattr(image, "n_frames", 1)
    except (*_BROKEN, Image.DecompressionBombError):
        return ""
    said = []
    if kind in _MOVING and frames > 1:  # phones keep small copies as further frames of a JPEG: these are no animation
        said.append(f"has {frames} {_MOVING[kind]}, of which only the first is seen")
    if min(width, height) < TINY:
        said.append(f"has {width} x {height} pixels, too few to tell much: do not rely on what is said of it")
    return "; ".join(said)


def sample_photographs() -> list[Path]:
    """The public-domain photographs that come with the package (``samples/SOURCES.md`` names their
    makers)."""
    return sorted((Path(__file__).resolve().parents[1] / "samples").glob("*.jpg"))


def _shown(name: Any) -> str:
    """A file name fit for one line of a terminal."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return "".join(c if c.isprintable() else "?" for c in text) or "''"


def _expand(name: str) -> list[Path]:
    shown = _shown(name)
    if not name.strip():  # an unset variable of the shell: not this folder, which is what an empty path means
        raise PhotographError(f"{shown}: an empty name; give a photograph, a folder (. is this one) or a pattern")
    if re.match(r"^[a-z][a-z0-9+.-]+://", name, re.IGNORECASE):
        raise PhotographError(f"{shown}: addresses are not fetched; save the picture and give its file")
    path = Path(name).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise PhotographError(f"{shown}: {_reason(error)}") from error
    if is_folder:
        inside = _inside(path)
        if not inside:
            raise PhotographError(f"{shown}: no photographs in this folder (looked for .jpg, .png, .webp and more)")
        return inside
    if exists:
        return [path]
    if not glob.has_magic(name):
        raise PhotographError(f"{shown}: no such file")
    matches: list[Path] = []
    for match in sorted(glob.glob(str(path), recursive=True)):
        hit = Path(match)
        if hit.is_dir():
            matches += _inside(hit)
        elif hit.suffix.lower() in SUFFIXES:
            matches.append(hit)
    if not matches:
        raise PhotographError(f"{shown}: no photograph matches this pattern")
    return matches


def _inside(folder: Path) -> list[Path]:
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(where, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _open_file(name: str, read: "Callable[[io.BufferedIOBase, str], Result]") -> Result:
    shown = _shown(name)
    path = Path(os.fsdecode(name)).expanduser()
    try:
        if path.is_dir():
            raise PhotographError(f"{shown}: is a folder, not a picture")
        if not path.exists():
            raise PhotographError(f"{shown}: no such file")
        if not path.is_file():
            raise PhotographError(f"{shown}: is not a regular file")
        if path.stat().st_size == 0:
            raise PhotographError(f"{shown}: the file is empty")
        stream = path.open("rb")
    except PhotographError:
        raise
    except (OSError, ValueError) as error:
        raise PhotographError(f"{shown}: cannot be read ({_reason(error)})") from error
    with stream:
        return read(stream, shown)


def _decode(stream: io.BufferedIOBase, shown: str) -> Image.Image:
    with _in_one_line(stream, shown):
        image = _header(stream, shown)
        image.load()
        return _upright_rgb(image, shown)


def _check(stream: io.BufferedIOBase, shown: str, most: int) -> int:
    with _in_one_line(stream, shown):
        image = _header(stream, shown)
        width, height = image.size
        if max(width, height) > LONGEST * min(width, height):
            raise PhotographError(
                f"{shown}: has {width} x {height} pixels, one side more than {LONGEST} times the other: nothing could "
                "be seen on it; cut out a piece"
            )
        if width * height > most:
            return 0
        image.draft(None, (1, 1))
        image.load()
        if _is_number(image):  # numbers that are no brightness, as of an altitude, are found by looking at all
            _to_bytes(np.asarray(image), shown)
        return width * height


def _header(stream: io.BufferedIOBase, shown: str) -> Image.Image:
    """A picture whose pixels are still to be decoded; its size is checked."""
    image = Image.open(stream)  # type: ignore[arg-type]
    _check_size(image.size, shown)
    return image


@contextmanager
def _in_one_line(stream: io.BufferedIOBase, shown: str) -> "Iterator[None]":
    """Makes a PhotographError of whatever a decoder raises meanwhile."""
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and of large pictures; neither hinders what is asked here
        warnings.simplefilter("ignore")
        try:
            yield
        except PhotographError:
            raise
        except Image.DecompressionBombError as error:
            raise PhotographError(f"{shown}: {_bomb(str(error))}") from error
        except UnidentifiedImageError as error:
            stream.seek(0)
            raise PhotographError(f"{shown}: {_what_it_is(stream.read(512))}") from error
        except Exception as error:  # a decoder fed with broken bytes raises nearly every type there is
            raise PhotographError(f"{shown}: {_how_broken(error)}") from error


def _check_size(size: tuple[int, int], shown: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PhotographError(f"{shown}: has no pixels ({width} x {height})")
    if width * height > MOST_PIXELS:
        raise PhotographError(f"{shown}: {_bomb(f'{width} x {height}')}")


def _bomb(size: str) -> str:
    count = re.search(r"\((\d+) pixels\)", size)
    size = f"{int(count[1]):,} pixels" if count else f"{size} pixels"
    return f"too large to open safely: {size}, the limit is {MOST_PIXELS:,}"


def _what_it_is(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "a HEIC photograph, which Pillow cannot read; export it as JPEG"
    if data[4:8] == b"ftyp":
        return "a video or an image kind that this Pillow cannot read"
    if head.startswith(b"%pdf"):
        return "a PDF, not a picture"
    if b"<svg" in head:
        return "an SVG drawing, not a picture of pixels; export it as PNG"
    if head.startswith((b"<!doctype", b"<html")):
        return "a web page, not a picture (saved the page instead of the image?)"
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")):
        return "begins like a picture but is broken"
    return "not a picture, or of a kind that Pillow cannot read"


def _how_broken(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "the file is truncated (the rest of the picture is missing)"
    return f"the picture is broken ({text or type(error).__name__})"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1  # unreadable metadata says nothing about the way up; the picture itself is fine
    return value if isinstance(value, int) else 1


def _upright_rgb(image: Image.Image, shown: str) -> Image.Image:
    _check_size(image.size, shown)
    try:
        turn = _TURN.get(_orientation(image))
        rgb = _to_rgb(image, shown)
        return rgb.transpose(turn) if turn is not None else rgb
    except PhotographError:
        raise
    except Exception as error:  # lazily loaded images given by a caller fail here with any type
        raise PhotographError(f"{shown}: {_how_broken(error)}") from error


def _is_number(image: Image.Image) -> bool:
    """Whether the pixels are numbers wider than a byte, whole or not."""
    return image.mode.startswith("I") or image.mode == "F"


def _to_rgb(image: Image.Image, shown: str) -> Image.Image:
    if _is_number(image):
        return Image.fromarray(_to_bytes(np.asarray(image), shown)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, clear).convert("RGB")
    # colour profiles are left alone, as in the pipelines that the models were trained with
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _to_bytes(array: np.ndarray, shown: str) -> np.ndarray:
    """Scale any numbers to 0..255 over the range that their type or their values declare."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise PhotographError(
            f"{shown}: holds values that are not finite numbers (NaN or infinite); replace these first"
        )
    low, high = float(values.min()), float(values.max())
    if low < 0:
        raise PhotographError(
            f"{shown}: values from {low:.3g} to {high:.3g}; expected 0..1 or 0..255 (undo the normalisation)"
        )
    if array.dtype.itemsize == 2 and array.dtype.kind in "ui":
        scale = 255 / 65535
    elif array.dtype.kind == "f" and high <= 1:
        scale = 255.0
    elif high <= 255:
        scale = 1.0
    else:
        scale = 255 / max(high, 65535.0)
    return np.rint(values * scale).clip(0, 255).astype(np.uint8)


def _from_array(array: np.ndarray, channels_first: bool) -> Image.Image:
    shown = "the given tensor" if channels_first else "the given array"
    shape = tuple(array.shape)
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    counts = (1, 3, 4)
    if array.ndim == 3:
        first, last = array.shape[0] in counts, array.shape[2] in counts
        if first and (channels_first or not last):
            array = np.moveaxis(array, 0, 2)
        elif not last:
            raise PhotographError(f"{shown}: shape {shape}; expected 1, 3 or 4 channels, first or last")
    elif array.ndim != 2:
        raise PhotographError(f"{shown}: shape {shape}; expected one picture, (height, width[, channels])")
    if array.dtype.kind not in "buif":
        raise PhotographError(f"{shown}: holds {array.dtype}, expected numbers")
    _check_size((array.shape[1], array.shape[0]), shown)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return _to_rgb(Image.fromarray(np.ascontiguousarray(_to_bytes(array, shown))), shown)
