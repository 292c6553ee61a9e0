"""Visual7W's files (Zhu et al. 2016): telling questions with four answers, pointing questions with four boxes."""

from operator import itemgetter
from typing import Any

from torch import Tensor

from sightline.data.scenes.folder import Folder, coco_box
from sightline.data.scenes.graph import Scene
from sightline.data.scenes.splits import SPLITS

_EACH = 10_000_000


def write_telling(folder: Folder) -> None:
    """Visual7W telling: `dataset_v7w_telling.json` and `images/v7w_ID.jpg`."""
    scenes, first = folder.scenes, _v7w_first(folder)
    images: list[dict[str, Any]] = []
    number = first
    for chunk in folder.chunks():
        folder.draw([(f"images/v7w_{first + i}.jpg", scenes.scene(i)) for i in chunk])
        for i in chunk:
            pairs = []
            for q in scenes.questions(i):
                wrong = [str(choice) for k, choice in enumerate(q.choices) if k != q.right]
                entry = {"qa_id": number, "image_id": first + i, "question": str(q.text), "answer": str(q.answer)}
                entry |= {"type": q.kind.split()[0], "multiple_choices": wrong}
                pairs.append(entry | {"asked": q.asked, "about": list(q.about)})
                number += 1
            images.append(_v7w_image(folder, first + i, pairs))
    _v7w_write(folder, "telling", images=images)


def write_pointing(folder: Folder) -> None:
    """Visual7W pointing: `dataset_v7w_pointing.json` with `boxes`, and `images/v7w_ID.jpg`."""
    scenes, first = folder.scenes, _v7w_first(folder)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    number = first
    for chunk in folder.chunks():
        graphs = [scenes.scene(i) for i in chunk]
        views = folder.show([(f"images/v7w_{first + i}.jpg", graph) for i, graph in zip(chunk, graphs, strict=True)])
        for k, i in enumerate(chunk):
            box, pairs = first + len(boxes), []
            boxes += _v7w_boxes(graphs[k], views.boxes(k), first + i, box)
            for q in scenes.pointing(i):
                wrong = [box + thing for n, thing in enumerate(q.choices) if n != q.right]
                entry = {"qa_id": number, "image_id": first + i, "question": str(q.text), "answer": box + q.answer}
                pairs.append(entry | {"type": q.kind, "multiple_choices": wrong, "asked": q.asked})
                number += 1
            images.append(_v7w_image(folder, first + i, pairs))
    _v7w_write(folder, "pointing", images=images, boxes=boxes)


def _v7w_first(folder: Folder) -> int:
    """The first id of images, boxes and questions: every split has its own millions."""
    return _EACH * SPLITS.index(folder.scenes.split.name)


def _v7w_write(folder: Folder, task: str, **lists: list[dict[str, Any]]) -> None:
    """Writes the one file, together with what other splits have put in it."""
    name, first = f"dataset_v7w_{task}.json", _v7w_first(folder)
    held = folder.read(name) or {key: [] for key in lists}
    for key, entries in lists.items():
        number = {"images": "image_id", "boxes": "box_id"}[key]
        others = [one for one in held[key] if not first <= one[number] < first + _EACH]
        held[key] = sorted((*others, *entries), key=itemgetter(number))
    folder.write(name, {"dataset": f"visual7w-{task}", **held})


def _v7w_boxes(scene: Scene, boxes: Tensor, image: int, first: int) -> list[dict[str, Any]]:
    found = []
    for number, (box, thing) in enumerate(zip(boxes, scene.things, strict=True), first):
        place = dict(zip(("x", "y", "width", "height"), coco_box(box), strict=True))
        found.append({"box_id": number, "image_id": image, "name": f"{thing.color} {thing.shape}"} | place)
    return found


def _v7w_image(folder: Folder, i: int, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"image_id": i, "filename": f"v7w_{i}.jpg", "split": folder.part, "qa_pairs": pairs}
