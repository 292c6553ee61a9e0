"""Questions about pictures as an answerer reads them: pictures or features of a frozen encoder, words as numbers.

The generated world is asked about telling (four answers in words) and pointing (four boxes); its pictures, boxes and
questions are made once and kept in a folder.  Photographs come from the readers of `data.questions`.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sightline.data.question_words import LONGEST_QUESTION, question_words
from sightline.data.questions import Questions
from sightline.data.scenes import Scenes
from sightline.data.scenes.graph import COLORS, MATERIALS, SHAPES, SIZES
from sightline.data.scenes.layout import MOST_THINGS
from sightline.data.vocabulary import Vocabulary

SIDE = 64  # pixels of the world's pictures
LONGEST_ANSWER = 8  # words
TASKS = {"telling": (3, 6), "pointing": (4, 7)}  # fewest and most things in a scene
ATTRIBUTES = {"color": COLORS, "shape": SHAPES, "material": MATERIALS, "size": SIZES}
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Item:
    """A question about picture number `picture`, in words parted by spaces.

    choices  answers to choose from; the right one alone where there is nothing to choose; empty in pointing
    right    which of the choices, or of the boxes, is right
    sort     what it takes to answer: color, number, relation …
    thing    whether the answer is a thing, and not a color, a number or a place
    about    things (numbers within the picture) that one has to look at; () where nobody knows
    boxes    pointing: left, top, right, bottom of each choice, in parts of the picture's width and height
    """

    picture: int
    question: str
    choices: tuple[str, ...]
    right: int
    sort: str = ""
    thing: bool = False
    about: tuple[int, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()


class Asked:
    """Pictures with their questions.  A sample is one picture with up to `together` of its questions.

    `see(numbers)` gives pictures as bytes (n, 3, SIDE, SIDE), or features (n, cells, width), and is all that knows
    where they come from.  `vocabulary` holds the words that occur at least `minimum` times; another may be put in its
    place.  Of the world, `things` is the box in pixels of every thing of a picture (pictures, MOST_THINGS, 4), `made`
    what it is (pictures, MOST_THINGS, 4), numbers of ATTRIBUTES, -1 where there is no thing.  `about` is for the card.
    """

    def __init__(
        self,
        items: Sequence[Item],
        see: Callable[[Sequence[int]], Tensor],
        *,
        together: int = 7,
        minimum: int = 1,
        things: np.ndarray | None = None,
        made: np.ndarray | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.items, self.see, self.things, self.made, self.about = items, see, things, made, about or {}
        words = (text.split() for item in items for text in (item.question, *item.choices))
        self.vocabulary = Vocabulary.build(words, minimum=minimum)
        of: dict[int, list[int]] = {}
        for number, item in enumerate(items):
            of.setdefault(item.picture, []).append(number)
        self.groups = [
            (picture, tuple(numbers[k : k + together]))
            for picture, numbers in of.items()
            for k in range(0, len(numbers), together)
        ]

    def __len__(self) -> int:
        return len(self.groups)

    def batch(self, indices: Iterable[int] | np.ndarray) -> dict[str, Tensor]:
        """Reads samples; a picture with fewer questions than others of the batch has empty ones (all padding).

        "pictures"; "questions" (pictures, questions, words); "items" (pictures, questions) their numbers, -1 where
        empty; "right"; telling: "choices" (pictures, questions, choices, words + 2), start … end, and "answers", the
        right ones; pointing: "boxes" (pictures, questions, choices, 4).  Of the world also "things" (pictures,
        MOST_THINGS, 4), boxes in parts of the picture, and "made".
        """
        groups = [self.groups[int(index)] for index in indices]
        most = max(len(numbers) for _, numbers in groups)
        rows = [[self.items[n] for n in numbers] for _, numbers in groups]
        read: dict[str, Tensor] = {
            "pictures": self.see([picture for picture, _ in groups]),
            "items": _filled([list(numbers) for _, numbers in groups], most),
            "right": _filled([[item.right for item in row] for row in rows], most),
            "questions": self.padded([[self.question(item.question) for item in row] for row in rows], most),
        }
        if self.things is not None and self.made is not None:
            pictures = [picture for picture, _ in groups]
            read["things"] = torch.from_numpy(self.things[pictures]).float() / SIDE
            read["made"] = torch.from_numpy(self.made[pictures]).long()
        if rows[0][0].boxes:
            boxes = torch.zeros(len(rows), most, max(len(item.boxes) for row in rows for item in row), 4)
            for place, row in enumerate(rows):
                for number, item in enumerate(row):
                    boxes[place, number, : len(item.boxes)] = torch.tensor(item.boxes)
            return read | {"boxes": boxes}
        count = max(len(item.choices) for row in rows for item in row)
        told = [[self.answer(text) for item in row for text in _as_many(item.choices, count)] for row in rows]
        choices = self.padded(told, most * count).unflatten(1, (most, count))
        chosen = read["right"].clamp(min=0)[:, :, None, None].expand(-1, -1, 1, choices.shape[3])
        return read | {"choices": choices, "answers": choices.gather(2, chosen).squeeze(2)}

    def question(self, text: str) -> list[int]:
        """Gives the numbers of a question's words."""
        return self.vocabulary.encode(text.split()[:LONGEST_QUESTION])

    def answer(self, text: str) -> list[int]:
        """Gives the numbers of an answer's words between start and end."""
        words = self.vocabulary
        return [words.start, *words.encode(text.split()[:LONGEST_ANSWER]), words.end]

    @staticmethod
    def padded(lists: Sequence[Sequence[Sequence[int]]], most: int) -> Int[Tensor, "pictures most words"]:
        """Lays lists of numbers side by side, filled up with padding."""
        longest = max(len(one) for row in lists for one in row)
        out = np.full((len(lists), most, longest), Vocabulary.pad)
        for place, row in enumerate(lists):
            for number, one in enumerate(row):
                out[place, number, : len(one)] = one
        return torch.from_numpy(out)


def _filled(rows: list[list[int]], most: int) -> Tensor:
    return torch.tensor([row + [-1] * (most - len(row)) for row in rows])


def _as_many(choices: tuple[str, ...], count: int) -> tuple[str, ...]:
    return choices + choices[-1:] * (count - len(choices))


def of_world(task: str, split: str, count: int, folder: Path, seed: int = 0) -> Asked:
    """Opens `count` scenes of the generated world with all their telling or pointing questions.

    What is made is kept below `folder` (12 KiB a scene) and read from there the next time.  Raises ValueError for an
    unknown task, and what `Scenes` raises.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r}: expected one of {', '.join(TASKS)}")
    scenes = Scenes(seed=seed, split=split, size=SIDE, count=count, objects=TASKS[task])
    home = folder / f"{task}-{split}-{count}-seed{seed}"
    if not (home / "questions.json").is_file():
        _make(task, scenes, home)
    pictures, things, made = (np.load(home / f"{name}.npy", mmap_mode="r") for name in ("pictures", "things", "made"))
    listed = json.loads((home / "questions.json").read_text("utf-8"))
    items = [Item(**{name: _frozen(value) for name, value in one.items()}) for one in listed]
    told = {"image_size": SIDE, "scenes": count, "split": split}
    return Asked(items, lambda some: torch.from_numpy(pictures[list(some)]), things=things, made=made, about=told)


def _frozen(value: Any) -> Any:
    """Lists as JSON has them as the tuples that they were, boxes within a list too."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _make(task: str, scenes: Scenes, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=home.parent, prefix=f".{home.name}"))
    try:
        pictures = np.zeros((len(scenes), 3, SIDE, SIDE), np.uint8)
        things = np.zeros((len(scenes), MOST_THINGS, 4), np.int16)
        made = np.full((len(scenes), MOST_THINGS, len(ATTRIBUTES)), -1, np.int8)
        for first in range(0, len(scenes), _CHUNK):
            some = range(first, min(first + _CHUNK, len(scenes)))
            views = scenes.views(some)
            pictures[some.start : some.stop] = views.images.numpy()
            for k, number in enumerate(some):
                things[number, : views.counts[k]] = views.boxes(k).numpy()
                for place, thing in enumerate(scenes.scene(number).things):
                    made[number, place] = [values.index(getattr(thing, n)) for n, values in ATTRIBUTES.items()]
        ask = _telling if task == "telling" else _pointing
        items = [asdict(item) for number in range(len(scenes)) for item in ask(scenes, number, things[number])]
        np.save(part / "pictures.npy", pictures)
        np.save(part / "things.npy", things)
        np.save(part / "made.npy", made)
        (part / "questions.json").write_text(json.dumps(items), "utf-8")
        if home.exists():  # another process was quicker, or one was cut off
            shutil.rmtree(home)
        part.rename(home)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _telling(scenes: Scenes, number: int, things: np.ndarray) -> Iterable[Item]:
    for one in scenes.questions(number):
        choices = tuple(" ".join(choice.words) for choice in one.choices)
        text = " ".join(one.text.words)
        yield Item(number, text, choices, one.right, one.asked, one.names_object, tuple(one.about))


def _pointing(scenes: Scenes, number: int, things: np.ndarray) -> Iterable[Item]:
    boxes = (things / SIDE).tolist()
    for one in scenes.pointing(number):
        text = " ".join(one.text.words)
        offered = tuple(tuple(boxes[thing]) for thing in one.choices)
        yield Item(number, text, (), one.right, one.asked, True, tuple(one.about), offered)


def of_photographs(questions: Questions, see: Callable[[Sequence[str]], Tensor], **more: Any) -> Asked:
    """Opens questions about photographs; `see` gives features by the photographs' file names.

    The sort of a question is its published kind, else its first word, or two ("how many", "what color").
    """
    names = list(dict.fromkeys(item.image for item in questions.items))
    place = {name: number for number, name in enumerate(names)}
    items = []
    for one in questions.items:
        words = question_words(one.text)
        choices = tuple(" ".join(question_words(text)) for text in one.choices or (one.answer,))
        sort = one.kind or " ".join(words[: 2 if words[1:2] in (["many"], ["color"]) else 1])
        items.append(Item(place[one.image], " ".join(words), choices, max(0, one.right), sort))
    told = {"photographs": len(names)}
    return Asked(items, lambda some: see([names[n] for n in some]), about=told | more.pop("about", {}), **more)
