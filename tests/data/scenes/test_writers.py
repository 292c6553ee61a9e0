"""Every format reads back: by this library's readers, by `datasets`, and by what the format means."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.captions import open_captions
from sightline.data.questions import open_visual7w
from sightline.data.scenes import Scenes
from sightline.data.scenes.folder import Folder
from sightline.data.scenes.rows import ROWS, as_dataset, rows
from sightline.data.scenes.writers import TASKS

N = 12


def write(task: str, path: Path, split: str = "train", **more: Any) -> Scenes:
    scenes = Scenes(seed=41, split=split, count=N, size=48, **{"objects": (4, 6), **more})
    TASKS[task](Folder(path, task, scenes))
    return scenes


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def pixels(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_coco_captions_and_instances(tmp_path: Path) -> None:
    worlds = {split: write("captions", tmp_path, split) for split in ("train", "val")}
    for split, scenes in worlds.items():
        opened = open_captions(f"coco:{tmp_path}", split)
        assert len(opened) == N
        assert opened.captions == [[str(c) for c in scenes.captions(i)] for i in range(N)]
        assert np.array_equal(opened.image(3), scenes.images([3])[0].permute(1, 2, 0).numpy())
        views = scenes.views(range(N))
        content = read(tmp_path / f"annotations/instances_{split}.json")
        names = {kind["id"]: kind["name"] for kind in content["categories"]}
        assert len(content["annotations"]) == sum(views.counts)
        number = 0
        for i in range(N):
            for k, thing in enumerate(scenes.scene(i).things):
                entry = content["annotations"][number]
                mask = decode(entry["segmentation"])
                assert torch.equal(mask, views.masks(i)[k])
                left, top, width, height = entry["bbox"]
                assert [left, top, left + width, top + height] == views.boxes(i)[k].tolist()
                assert entry["area"] == int(mask.sum())
                assert names[entry["category_id"]] == thing.shape
                number += 1


def decode(shape: dict[str, Any]) -> torch.Tensor:
    """A mask from COCO's uncompressed run lengths."""
    height, width = shape["size"]
    runs = [torch.full((run,), k % 2 == 1) for k, run in enumerate(shape["counts"])]
    return torch.cat(runs).view(width, height).t()


# -- CLEVR -------------------------------------------------------------------------------------------------------------


def execute(program: list[dict[str, Any]], scene: dict[str, Any]) -> Any:
    """Runs a CLEVR program over an entry of a CLEVR scenes file."""
    objects, done = scene["objects"], []
    for node in program:
        given = [done[k] for k in node["inputs"]]
        name, _, about = node["function"].partition("_")
        values = node["value_inputs"]
        if name == "scene":
            done.append(list(range(len(objects))))
        elif name == "filter":
            done.append([k for k in given[0] if objects[k][about] == values[0]])
        elif name == "unique":
            assert len(given[0]) == 1
            done.append(given[0][0])
        elif name == "relate":
            done.append(scene["relationships"][values[0]][given[0]])
        elif name == "query":
            done.append(objects[given[0]][about])
        else:
            done.append({"count": str(len(given[0])), "exist": "yes" if given[0] else "no"}[name])
    return done[-1]


def test_clevr_programs_give_their_answers(tmp_path: Path) -> None:
    scenes = write("clevr", tmp_path, "val-all")
    graphs = read(tmp_path / "scenes/CLEVR_val-all_scenes.json")["scenes"]
    questions = read(tmp_path / "questions/CLEVR_val-all_questions.json")["questions"]
    families = set()
    for place, question in enumerate(questions):
        scene = graphs[question["image_index"]]
        assert question["question_index"] == place
        assert question["image_filename"] == scene["image_filename"]
        assert execute(question["program"], scene) == question["answer"], question["question"]
        families.add(question["question_family_index"])
    assert families == {0, 1, 2, 3, 4}
    assert torch.equal(pixels(tmp_path / "images/val-all" / graphs[5]["image_filename"]), scenes.images([5])[0])
    for i, graph in enumerate(graphs):
        for thing, entry in zip(scenes.scene(i).things, graph["objects"], strict=True):
            assert {name: entry[name] for name in thing.attributes} == thing.attributes
            assert 0 <= entry["pixel_coords"][0] < 48
        right, across = np.array(graph["directions"]["right"]), [e["pixel_coords"][0] for e in graph["objects"]]
        along = [float(right @ entry["3d_coords"]) for entry in graph["objects"]]
        assert np.corrcoef(across, along)[0, 1] > 0.95
        for name, opposite in (("left", "right"), ("front", "behind")):
            for k, others in enumerate(graph["relationships"][name]):
                assert all(k in graph["relationships"][opposite][j] for j in others)


# -- Visual7W ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["telling", "pointing"])
def test_visual7w_reads_back(task: str, tmp_path: Path) -> None:
    worlds = {split: write(task, tmp_path, split) for split in ("val", "train")}
    write(task, tmp_path, "val")  # once more: nothing is doubled
    for split, scenes in worlds.items():
        opened = open_visual7w(tmp_path, split)
        views = scenes.views(range(N))
        asked = [(i, q) for i in range(N) for q in (scenes.questions(i) if task == "telling" else scenes.pointing(i))]
        assert len(opened) == len(asked)
        for item, (i, q) in zip(opened.items, asked, strict=True):
            assert item.text == str(q.text)
            if task == "telling":
                assert item.choices[item.right] == str(q.answer)
                assert set(item.choices) == {str(choice) for choice in q.choices}
            else:
                box = item.boxes[item.right]
                left, top, right, bottom = views.boxes(i)[q.answer].tolist()
                assert (box.x, box.y, box.x + box.width, box.y + box.height) == (left, top, right, bottom)
                thing = scenes.scene(i).things[q.answer]
                assert box.name == f"{thing.color} {thing.shape}"
        near = np.abs(opened.image(0).astype(int) - views.images[0].permute(1, 2, 0).numpy().astype(int))
        assert near.mean() < 3  # JPEG


# -- pairs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["changes", "multi-changes"])
def test_clevr_change(task: str, tmp_path: Path) -> None:
    scenes = write(task, tmp_path)
    captions, same = read(tmp_path / "change_captions.json"), read(tmp_path / "no_change_captions.json")
    boxes, splits = read(tmp_path / "change_captions_with_bbox.json"), read(tmp_path / "splits.json")
    mapping = read(tmp_path / "type_mapping.json")
    kinds = {int(name.split(".")[0]): kind for kind, names in mapping.items() for name in names}
    assert sorted(kinds) == list(range(N)) == sorted(i for part in splits.values() for i in part)
    assert splits["val"] == [8]
    assert splits["test"] == [9]
    listed = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert listed == sorted(captions) == sorted(same)
    for folder in ("sc_images", "nsc_images"):
        assert len(list((tmp_path / folder).iterdir())) == N
    for i, name in enumerate(listed):
        told = boxes[str(i)]
        assert told["kinds"]
        assert captions[name]
        assert same[name]
        if task == "changes":
            assert told["kinds"] == [kinds[i]]
            assert (told["bbox_before"] is None) == (kinds[i] == "add")
            assert (told["bbox_after"] is None) == (kinds[i] == "drop")
        else:
            assert kinds[i] == "several"
        assert torch.equal(pixels(tmp_path / "images" / name), scenes.images([i])[0])


def test_dialogues(tmp_path: Path) -> None:
    scenes = write("dialogues", tmp_path)
    told = read(tmp_path / "dialogues_train.json")
    for i, talk in enumerate(told):
        assert [turn["instruction"] for turn in talk["turns"]] == [str(t.instruction) for t in scenes.dialogue(i).turns]
        assert len({pixels(tmp_path / turn["image"]).numpy().tobytes() for turn in talk["turns"]}) == len(talk["turns"])
        assert pixels(tmp_path / talk["start"]).float().std() < 20
        assert len(talk["scene"]) == len(talk["turns"])


def test_edits_in_the_layout_of_tim_gan(tmp_path: Path) -> None:
    scenes = write("edits", tmp_path, "test")
    texts = np.load(tmp_path / "test_text.npy", allow_pickle=False)
    for name in sorted(path.name for path in (tmp_path / "test_A").iterdir()):
        index = int(name[-15:-9]) - 1  # how the published loader finds the text of a picture
        edit = scenes.edit(index)
        assert texts[index] == str(edit.instruction)
        before, after = pixels(tmp_path / "test_A" / name), pixels(tmp_path / "test_B" / name)
        assert not torch.equal(before, after)
        assert (before == after).all(0).float().mean() > 0.3  # the same camera and light


def test_queries_in_the_files_of_cirr(tmp_path: Path) -> None:
    scenes = write("queries", tmp_path, "val")
    entries = read(tmp_path / "captions/cap.rc2.val.json")
    files = read(tmp_path / "image_splits/split.rc2.val.json")
    names = set()
    for i, entry in enumerate(entries):
        group = entry["img_set"]
        assert len(group["members"]) == 6
        assert group["members"][group["reference_rank"]] == entry["reference"]
        assert group["members"][group["target_rank"]] == entry["target_hard"]
        assert entry["caption"] == str(scenes.query(i).text)
        assert torch.equal(pixels(tmp_path / files[entry["reference"]]), scenes.images([i])[0])
        names.add(entry["target_hard"].split("-")[2])
    assert len(files) == 6 * N
    assert len(names) > 2  # the name of a picture does not give the target away


def test_prompts_open_as_an_image_folder(tmp_path: Path) -> None:
    import datasets

    scenes = write("prompts", tmp_path / "made")
    opened = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "made" / "train"), split="train", cache_dir=str(tmp_path / "cache")
    )
    texts = {row["text"]: row["image"] for row in opened}
    assert set(texts) == {str(scenes.captions(i)[2]) for i in range(N)}
    assert texts[str(scenes.captions(2)[2])].size == (48, 48)


# -- datasets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", list(ROWS))
def test_rows_of_every_task(task: str) -> None:
    scenes = Scenes(seed=42, count=5, size=32, objects=(4, 5))
    made = list(rows(scenes, task))
    assert len(made) >= 5
    for row in made:
        values = [one for value in row.values() for one in (value if isinstance(value, list) else [value])]
        images = [one for one in values if isinstance(one, Image.Image)]
        assert images
        assert all(image.size == (32, 32) for image in images)
        assert any(isinstance(value, str) or (isinstance(value, list) and value) for value in row.values())


def test_datasets_on_disk_and_in_memory(tmp_path: Path) -> None:
    import datasets

    scenes = Scenes(seed=42, count=4, size=32)
    held = as_dataset(scenes, "captions")
    written = as_dataset(scenes, "captions", tmp_path / "made")
    again = datasets.load_from_disk(str(tmp_path / "made"))
    for one in (held, written, again):
        assert len(one) == 4
        assert isinstance(one.features["image"], datasets.Image)
        assert one[1]["captions"] == [str(c) for c in scenes.captions(1)]
        assert one[1]["boxes"] == scenes.views([1]).boxes(0).tolist()
    with pytest.raises(ValueError, match="not an empty folder"):
        as_dataset(scenes, "captions", tmp_path / "made")
    with pytest.raises(ValueError, match="expected one of captions"):
        as_dataset(scenes, "poems")
    with pytest.raises(ValueError, match="expected one of captions"):
        list(rows(scenes, "poems"))


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_and_keeps_what_is_there(tmp_path: Path) -> None:
    write("telling", tmp_path)
    kept, lost = tmp_path / "images/v7w_0.jpg", tmp_path / "images/v7w_1.jpg"
    whole = lost.read_bytes()
    kept.write_bytes(b"kept")
    lost.unlink()
    write("telling", tmp_path)
    assert kept.read_bytes() == b"kept"
    assert lost.read_bytes() == whole
    assert not list(tmp_path.rglob("*.part"))


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    write("edits", tmp_path / "a")
    with pytest.raises(ValueError, match="holds another data set"):
        write("queries", tmp_path / "a")
    with pytest.raises(ValueError, match="holds another data set"):
        write("edits", tmp_path / "a", objects=(3, 3))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and was not written here"):
        write("edits", tmp_path / "b")
    with pytest.raises(ValueError, match="is a file"):
        write("edits", tmp_path / "b/thesis.txt")
    (tmp_path / "b/world.json").write_text("[]")
    with pytest.raises(ValueError, match="was not written here"):
        write("edits", tmp_path / "b")
