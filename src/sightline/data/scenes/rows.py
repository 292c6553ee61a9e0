"""The generated world as a data set of the `datasets` library: one row a scene (or question), pictures included."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sightline.data.scenes import clevr
from sightline.data.scenes.changes import SINGLE
from sightline.data.scenes.folder import picture
from sightline.data.scenes.graph import Scene
from sightline.data.scenes.render import render
from sightline.data.scenes.splits import pick
from sightline.data.scenes.world import Scenes

if TYPE_CHECKING:
    import datasets

Row = dict[str, Any]
_CHUNK = 32


def rows(scenes: Scenes, task: str) -> Iterator[Row]:
    """Rows of one task (a key of `ROWS`) with Pillow pictures.  Raises ValueError for an unknown task."""
    if task not in ROWS:
        raise ValueError(f"task {task!r}: expected one of {', '.join(ROWS)}")
    for first in range(0, len(scenes), _CHUNK):
        some = range(first, min(first + _CHUNK, len(scenes)))
        yield from ROWS[task](scenes, some)


def as_dataset(scenes: Scenes, task: str, folder: Path | None = None) -> "datasets.Dataset":
    """A `datasets.Dataset` of one task, in memory, or written to `folder` (`datasets.load_from_disk` opens it again).

    Its pictures are columns of type `Image`.  Raises ValueError for an unknown task or a folder that is not empty.
    """
    import datasets

    if task not in ROWS:
        raise ValueError(f"task {task!r}: expected one of {', '.join(ROWS)}")
    if folder is None:
        return datasets.Dataset.from_list(list(rows(scenes, task)))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is not an empty folder; give another one")
    with TemporaryDirectory() as passing:
        made = datasets.Dataset.from_generator(rows, gen_kwargs={"scenes": scenes, "task": task}, cache_dir=passing)
        made.save_to_disk(folder)
    return datasets.Dataset.load_from_disk(folder)


def _pictures(scenes: Scenes, graphs: list[Scene]) -> list[Any]:
    views = render(graphs, scenes.size)
    return [picture(views, k) for k in range(len(views))]


def _captions(scenes: Scenes, some: range) -> Iterator[Row]:
    graphs = [scenes.scene(i) for i in some]
    views = render(graphs, scenes.size)
    for k, i in enumerate(some):
        said = scenes.captions(i)
        row = {"image": picture(views, k), "captions": [str(one) for one in said], "boxes": views.boxes(k).tolist()}
        row |= {"words": [list(one.words) for one in said]}
        row |= {"objects": [[list(ids) for ids in one.objects] for one in said]}
        yield row | {"things": [thing.attributes for thing in graphs[k].things]}


def _clevr(scenes: Scenes, some: range) -> Iterator[Row]:
    graphs = [scenes.scene(i) for i in some]
    for i, graph, image in zip(some, graphs, _pictures(scenes, graphs), strict=True):
        for entry in clevr.question_entries(graph, scenes.split, scenes.random(i, "clevr")):
            told = {key: entry[key] for key in ("question", "answer")}
            yield {"image": image, **told, "program": json.dumps(entry["program"]), "image_index": i}


def _telling(scenes: Scenes, some: range) -> Iterator[Row]:
    for i, image in zip(some, _pictures(scenes, [scenes.scene(i) for i in some]), strict=True):
        for q in scenes.questions(i):
            choices = [str(choice) for choice in q.choices]
            yield {"image": image, "question": str(q.text), "choices": choices, "answer": q.right, "kind": q.kind}


def _pointing(scenes: Scenes, some: range) -> Iterator[Row]:
    views = render([scenes.scene(i) for i in some], scenes.size)
    for k, i in enumerate(some):
        boxes, image = views.boxes(k), picture(views, k)
        for q in scenes.pointing(i):
            offered = boxes[list(q.choices)].tolist()
            yield {"image": image, "question": str(q.text), "boxes": offered, "answer": q.right, "kind": q.asked}


def _changes(scenes: Scenes, some: range) -> Iterator[Row]:
    yield from _pairs(scenes, some, [pick(scenes.random(i, "kind"), SINGLE) for i in some])


def _multi_changes(scenes: Scenes, some: range) -> Iterator[Row]:
    yield from _pairs(scenes, some, ["several"] * len(some))


def _pairs(scenes: Scenes, some: range, kinds: list[str]) -> Iterator[Row]:
    changes = [scenes.change(i, kind) for i, kind in zip(some, kinds, strict=True)]
    images = _pictures(scenes, [scene for c in changes for scene in (c.before, c.after, c.distractor)])
    for k, change in enumerate(changes):
        row: Row = dict(zip(("before", "after", "distractor"), images[3 * k : 3 * k + 3], strict=True))
        row |= {"captions": [str(one) for one in change.captions], "kinds": list(change.kinds)}
        yield row | {"unchanged": [str(one) for one in change.unchanged]}


def _dialogues(scenes: Scenes, some: range) -> Iterator[Row]:
    talks = [scenes.dialogue(i) for i in some]
    images = _pictures(scenes, [scene for talk in talks for scene in (talk.start, *(t.scene for t in talk.turns))])
    for talk in talks:
        shown, images = images[: len(talk.turns) + 1], images[len(talk.turns) + 1 :]
        yield {"images": shown, "instructions": [str(turn.instruction) for turn in talk.turns]}


def _edits(scenes: Scenes, some: range) -> Iterator[Row]:
    edits = [scenes.edit(i) for i in some]
    images = _pictures(scenes, [scene for edit in edits for scene in (edit.source, edit.target)])
    for k, edit in enumerate(edits):
        told = {"instruction": str(edit.instruction), "kind": edit.kind}
        yield {"source": images[2 * k], "target": images[2 * k + 1], **told}


def _queries(scenes: Scenes, some: range) -> Iterator[Row]:
    queries = [scenes.query(i) for i in some]
    images = _pictures(scenes, [scene for query in queries for scene in query.members])
    for query in queries:
        (reference, target, *negatives), images = images[: len(query.members)], images[len(query.members) :]
        told = {"text": str(query.text), "kind": query.kind}
        yield {"reference": reference, "target": target, "negatives": negatives, **told}


def _prompts(scenes: Scenes, some: range) -> Iterator[Row]:
    for i, image in zip(some, _pictures(scenes, [scenes.scene(i) for i in some]), strict=True):
        brief, middle, text = (str(said) for said in scenes.captions(i))
        yield {"image": image, "text": text, "text_names": middle, "text_kinds": brief}


ROWS: dict[str, Callable[[Scenes, range], Iterator[Row]]] = {
    "captions": _captions,
    "clevr": _clevr,
    "telling": _telling,
    "pointing": _pointing,
    "changes": _changes,
    "multi-changes": _multi_changes,
    "dialogues": _dialogues,
    "edits": _edits,
    "queries": _queries,
    "prompts": _prompts,
}
