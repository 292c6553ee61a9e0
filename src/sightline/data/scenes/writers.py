"""The generated world in the field's own file formats; `TASKS` names them."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from sightline.data.scenes import clevr
from sightline.data.scenes.changes import SINGLE, Change
from sightline.data.scenes.folder import Folder, coco_box
from sightline.data.scenes.graph import NOVEL_SHAPES, SHAPES, Scene
from sightline.data.scenes.language import Sentence
from sightline.data.scenes.render import Views, size_of
from sightline.data.scenes.splits import pick, shuffled
from sightline.data.scenes.visual7w import write_pointing, write_telling

_CATEGORIES = (*SHAPES, *NOVEL_SHAPES)


def tied(sentence: Sentence) -> dict[str, Any]:
    """Words and the things they speak of, for JSON."""
    return {"words": list(sentence.words), "objects": [list(ids) for ids in sentence.objects]}


def truth(scene: Scene) -> list[dict[str, Any]]:
    """The things of a scene, for JSON: attributes and place on the ground."""
    return [{**thing.attributes, "x": thing.x, "y": thing.y, "turn": thing.turn} for thing in scene.things]


def run_lengths(mask: Tensor) -> list[int]:
    """COCO's uncompressed run lengths of a mask: column by column, beginning with the zeros."""
    flat = mask.t().reshape(-1).numpy().astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else runs


def write_captions(folder: Folder) -> None:
    """COCO captions and instances: `annotations/captions_SPLIT.json`, `instances_SPLIT.json`, `images/`.

    Every caption also has `level`, `words` and, for each word, the `objects` it speaks of (numbers within the image, in
    the order of its instances).
    """
    scenes, split = folder.scenes, folder.scenes.split.name
    height, width = size_of(scenes.size)
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for chunk in folder.chunks():
        names = [f"world_{split}_{i:012d}.png" for i in chunk]
        graphs = [scenes.scene(i) for i in chunk]
        views = folder.show([(f"images/{name}", graph) for name, graph in zip(names, graphs, strict=True)])
        for k, i in enumerate(chunk):
            images.append({"id": i, "file_name": names[k], "height": height, "width": width})
            for level, said in enumerate(scenes.captions(i), 1):
                entry = {"id": len(captions), "image_id": i, "caption": said.text, "level": level}
                captions.append(entry | tied(said))
            instances += _instances(graphs[k], views, k, i, len(instances))
    shared: dict[str, Any] = {"info": _info(folder), "licenses": [], "images": images}
    folder.write(f"annotations/captions_{split}.json", shared | {"annotations": captions})
    kinds = [{"id": n, "name": name, "supercategory": "shape"} for n, name in enumerate(_CATEGORIES, 1)]
    folder.write(f"annotations/instances_{split}.json", shared | {"annotations": instances, "categories": kinds})


def _instances(scene: Scene, views: Views, k: int, image: int, first: int) -> list[dict[str, Any]]:
    boxes, masks = views.boxes(k), views.masks(k)
    return [
        {
            "id": first + number, "image_id": image, "category_id": _CATEGORIES.index(thing.shape) + 1,
            "bbox": coco_box(boxes[number]), "area": int(masks[number].sum()), "iscrowd": 0,
            "segmentation": {"size": list(masks.shape[1:]), "counts": run_lengths(masks[number])},
            "attributes": thing.attributes,
        }
        for number, thing in enumerate(scene.things)
    ]  # fmt: skip


def _info(folder: Folder) -> dict[str, Any]:
    told = f"Sightline's generated world, seed {folder.scenes.seed}"
    return {"description": told, "split": folder.scenes.split.name, "version": "1.0"}


def write_clevr(folder: Folder) -> None:
    """CLEVR v1.0: `images/SPLIT/`, `scenes/CLEVR_SPLIT_scenes.json`, `questions/CLEVR_SPLIT_questions.json`."""
    scenes, split, size = folder.scenes, folder.scenes.split.name, size_of(folder.scenes.size)
    entries: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    for chunk in folder.chunks():
        graphs = [scenes.scene(i) for i in chunk]
        files = [f"CLEVR_{split}_{i:06d}.png" for i in chunk]
        folder.draw([(f"images/{split}/{name}", graph) for name, graph in zip(files, graphs, strict=True)])
        for i, graph, file in zip(chunk, graphs, files, strict=True):
            entries.append(clevr.scene_entry(graph, i, split, file, size))
            for entry in clevr.question_entries(graph, scenes.split, scenes.random(i, "clevr")):
                place = {"image_index": i, "image_filename": file, "split": split, "question_index": len(questions)}
                questions.append(entry | place)
    folder.write(f"scenes/CLEVR_{split}_scenes.json", {"info": _info(folder), "scenes": entries})
    folder.write(f"questions/CLEVR_{split}_questions.json", {"info": _info(folder), "questions": questions})


def write_changes(folder: Folder) -> None:
    """CLEVR-Change, one of its five kinds of change a pair."""
    _write_changes(folder, lambda i: pick(folder.scenes.random(i, "kind"), SINGLE))


def write_multi_changes(folder: Folder) -> None:
    """The same files with two or three changes at once (kind `several` in `type_mapping.json`)."""
    _write_changes(folder, lambda i: "several")


def _write_changes(folder: Folder, kind: Callable[[int], str]) -> None:
    """`images/`, `sc_images/` (changed), `nsc_images/` (not changed), captions of both, kinds, boxes and splits.

    `splits.json` divides the folder 8 : 1 : 1, since the format keeps all parts in one.
    """
    scenes = folder.scenes
    captions, unchanged, boxes = {}, {}, {}
    kinds: dict[str, list[str]] = {name: [] for name in SINGLE}
    splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for chunk in folder.chunks():
        changes = {i: scenes.change(i, kind(i)) for i in chunk}
        pictures = []
        for i, change in changes.items():
            pictures.append((f"images/CLEVR_default_{i:06d}.png", change.before))
            pictures.append((f"sc_images/CLEVR_semantic_{i:06d}.png", change.after))
            pictures.append((f"nsc_images/CLEVR_nonsemantic_{i:06d}.png", change.distractor))
        views = folder.show(pictures)
        for k, (i, change) in enumerate(changes.items()):
            key = f"CLEVR_default_{i:06d}.png"
            captions[key] = [str(said) for said in change.captions]
            unchanged[key] = [str(said) for said in change.unchanged]
            boxes[str(i)] = _change_boxes(change, views.boxes(3 * k), views.boxes(3 * k + 1))
            kinds.setdefault(change.kinds[0] if len(change.kinds) == 1 else "several", []).append(f"{i:06d}.png")
            splits[{8: "val", 9: "test"}.get(i % 10, "train")].append(i)
    folder.write("change_captions.json", captions)
    folder.write("no_change_captions.json", unchanged)
    folder.write("change_captions_with_bbox.json", boxes)
    folder.write("type_mapping.json", kinds)
    folder.write("splits.json", splits)


def _change_boxes(change: Change, before: Tensor, after: Tensor) -> dict[str, Any]:
    """Boxes of what changed; of several changes the first, all in `…_all`."""
    ids = change.changed_ids
    was = [coco_box(before[k]) for k in ids if k < len(change.before)]
    now = [coco_box(after[change.after_ids.index(k)]) for k in ids if k in change.after_ids]
    single = {"bbox_before": was[0] if was else None, "bbox_after": now[0] if now else None}
    return single | {"bbox_before_all": was, "bbox_after_all": now, "kinds": list(change.kinds)}


def write_dialogues(folder: Folder) -> None:
    """Dialogues in GeNeVA's sense: `dialogues_SPLIT.json` and `images/DIALOGUE_TURN.png`; turn 0 is empty ground."""
    scenes, told = folder.scenes, []
    for chunk in folder.chunks():
        pictures = []
        for i in chunk:
            talk = scenes.dialogue(i)
            names = [f"images/{i:06d}_{n}.png" for n in range(len(talk.turns) + 1)]
            pictures += list(zip(names, (talk.start, *(turn.scene for turn in talk.turns)), strict=True))
            turns = [
                {"instruction": str(turn.instruction), "image": name, "added": turn.added} | tied(turn.instruction)
                for turn, name in zip(talk.turns, names[1:], strict=True)
            ]
            told.append({"id": i, "start": names[0], "turns": turns, "scene": truth(talk.turns[-1].scene)})
        folder.draw(pictures)
    folder.write(f"dialogues_{scenes.split.name}.json", told)


def write_edits(folder: Folder) -> None:
    """TIM-GAN's layout: `SPLIT_A/`, `SPLIT_B/`, `SPLIT_text.npy` (of picture N at N - 1), and `SPLIT_edits.json`."""
    scenes, split = folder.scenes, folder.scenes.split.name
    texts, entries = [], []
    for chunk in folder.chunks():
        pictures = []
        for i in chunk:
            edit = scenes.edit(i)
            name = f"CLEVR_{i + 1:06d}_edit.png"
            pictures += [(f"{split}_A/{name}", edit.source), (f"{split}_B/{name}", edit.target)]
            texts.append(str(edit.instruction))
            entry = {"image": name, "kind": edit.kind, "instruction": texts[-1], "object": edit.done.thing}
            entries.append(entry | tied(edit.instruction) | {"before": truth(edit.source), "after": truth(edit.target)})
        folder.draw(pictures)
    np.save(folder.path / f"{split}_text.npy", np.array(texts), allow_pickle=False)
    folder.write(f"{split}_edits.json", entries)


def write_queries(folder: Folder) -> None:
    """CIRR's files: `captions/cap.rc2.SPLIT.json`, `image_splits/split.rc2.SPLIT.json`, `SPLIT/…-img0.png`."""
    scenes, split = folder.scenes, folder.scenes.split.name
    entries, files = [], {}
    for chunk in folder.chunks():
        pictures = []
        for i in chunk:
            query = scenes.query(i)
            members = [f"{split}-{i}-{n}-img0" for n in shuffled(scenes.random(i, "members"), list(range(6)))]
            files.update({member: f"./{split}/{member}.png" for member in members})
            pictures += [(f"{split}/{m}.png", seen) for m, seen in zip(members, query.members, strict=True)]
            listed = sorted(members)  # the names, and so their order, say nothing about which is which
            group = {"id": i, "members": listed}
            group |= {"reference_rank": listed.index(members[0]), "target_rank": listed.index(members[1])}
            entry = {"pairid": i, "reference": members[0], "target_hard": members[1], "target_soft": {members[1]: 1.0}}
            entries.append(entry | {"caption": str(query.text), "img_set": group, "kind": query.kind})
        folder.draw(pictures)
    folder.write(f"captions/cap.rc2.{split}.json", entries)
    folder.write(f"image_splits/split.rc2.{split}.json", files)


def write_prompts(folder: Folder) -> None:
    """Text and picture as `datasets`' image folder reads them: `SPLIT/metadata.jsonl` and the pictures beside it."""
    scenes, split = folder.scenes, folder.scenes.split.name
    lines = []
    for chunk in folder.chunks():
        names = [f"world_{i:06d}.png" for i in chunk]
        folder.draw([(f"{split}/{name}", scenes.scene(i)) for i, name in zip(chunk, names, strict=True)])
        for i, name in zip(chunk, names, strict=True):
            brief, middle, text = (str(said) for said in scenes.captions(i))
            lines.append(json.dumps({"file_name": name, "text": text, "text_names": middle, "text_kinds": brief}))
    (folder.path / split / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


TASKS: dict[str, Callable[[Folder], None]] = {
    "captions": write_captions,
    "clevr": write_clevr,
    "telling": write_telling,
    "pointing": write_pointing,
    "changes": write_changes,
    "multi-changes": write_multi_changes,
    "dialogues": write_dialogues,
    "edits": write_edits,
    "queries": write_queries,
    "prompts": write_prompts,
}
