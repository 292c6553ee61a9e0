"""A folder that a data set is written to: pictures that are already there are not drawn again."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from sightline.data.scenes.graph import Scene
from sightline.data.scenes.render import Views, render, size_of
from sightline.data.scenes.world import Scenes

LEDGER = "world.json"
_CHUNK = 32

Tick = Callable[[int], object]


class Folder:
    """Where a data set goes.  `done` is called with the number of scenes that were finished.

    `world.json` says what is in it: sets of one task, several splits side by side.  Refused with a ValueError: another
    task, the same split of other scenes, and files of somebody else.
    """

    def __init__(self, path: Path, task: str, scenes: Scenes, done: Tick | None = None) -> None:
        self.path, self.scenes = path.expanduser(), scenes
        self._done = done or (lambda count: None)
        made = {"task": task, "seed": scenes.seed, "split": scenes.split.name, "n": len(scenes)}
        made |= {"size": list(size_of(scenes.size)), "objects": list(scenes.objects)}
        held = self._held()
        for other in held:
            if other["task"] != task or (other["split"] == made["split"] and other != made):
                told = ", ".join(f"{key} {value}" for key, value in other.items())
                raise ValueError(f"{self.path}: holds another data set ({told}); give another folder")
        if made not in held:
            self.write(LEDGER, {"sets": [*held, made]})

    def _held(self) -> list[dict[str, Any]]:
        ledger = self.path / LEDGER
        if ledger.is_file():
            try:
                return [dict(one) for one in json.loads(ledger.read_text("utf-8"))["sets"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{ledger}: was not written here; give another folder") from error
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: is a file; give a folder")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise ValueError(f"{self.path}: is not empty and was not written here; give another folder")
        return []

    @property
    def part(self) -> str:
        """train, val or test."""
        return self.scenes.split.name.partition("-")[0]

    def write(self, name: str, content: Any) -> None:
        """Writes JSON, whole or not at all."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f"{path.name}.part")
        whole.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
        whole.replace(path)

    def read(self, name: str) -> Any:
        """JSON that was written here before; None where there is none."""
        path = self.path / name
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def chunks(self) -> Iterator[range]:
        """Numbers of the scenes, some at a time; `done` is told after each."""
        for first in range(0, len(self.scenes), _CHUNK):
            some = range(first, min(first + _CHUNK, len(self.scenes)))
            yield some
            self._done(len(some))

    def draw(self, pictures: Sequence[tuple[str, Scene]]) -> None:
        """Draws the pictures named that are not there yet."""
        wanted = [(name, scene) for name, scene in pictures if not (self.path / name).is_file()]
        if wanted:
            self.show(wanted)

    def show(self, pictures: Sequence[tuple[str, Scene]]) -> Views:
        """Draws all the pictures, writes those that are not there yet, and gives their views."""
        views = render([scene for _, scene in pictures], self.scenes.size)
        for k, (name, _) in enumerate(pictures):
            if not (self.path / name).is_file():
                _save(self.path / name, picture(views, k))
        return views


def picture(views: Views, index: int) -> Image.Image:
    """One picture of a batch, for Pillow."""
    return Image.fromarray(views.images[index].permute(1, 2, 0).contiguous().numpy())


def coco_box(box: Tensor) -> list[int]:
    """Left, top, width, height from left, top, right, bottom."""
    left, top, right, bottom = box.tolist()
    return [left, top, right - left, bottom - top]


def _save(path: Path, image: Image.Image) -> None:
    """Writes a picture, whole or not at all; JPEG at high quality, else PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.part")
    if path.suffix == ".jpg":
        image.save(whole, "JPEG", quality=95, subsampling=0)
    else:
        image.save(whole, "PNG", compress_level=3)
    whole.replace(path)
