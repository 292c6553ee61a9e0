import json
from pathlib import Path

import pytest
from PIL import Image

from sightline.data.questions import Box, open_daquar, open_questions, open_visual7w, open_vqa

PLACES = [f"image{n}" for n in range(1, 21)]


def draw(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (9, 8, 7)).save(file)


# -- DAQUAR ------------------------------------------------------------------------------------------------------------


def daquar_entries(places: list[str] = PLACES) -> list[dict[str, str]]:
    return [
        {"image_id": p, "question": f"what is {k} in the corner", "answer": "lamp, desk"} for p in places for k in "ab"
    ]


def write_daquar(root: Path, *, text: bool) -> None:
    for part, places in (("train", PLACES), ("test", ["image99"])):
        entries = daquar_entries(places)
        if text:
            lines = [f"{e['question']} in the {e['image_id']} ?\n{e['answer']}\n" for e in entries]
            (root / f"qa.raw.{part}.txt").write_text("".join(lines))
        else:
            (root / f"qa_{part}.json").write_text(json.dumps(entries))


@pytest.mark.parametrize("text", [False, True])
def test_daquar(text: bool, tmp_path: Path) -> None:
    write_daquar(tmp_path, text=text)
    draw(tmp_path / "images" / "image3.png")
    data = {split: open_questions(f"daquar:{tmp_path}", split) for split in ("train", "val", "all", "test")}
    assert [len(one) for one in data.values()] == [36, 4, 40, 2]
    assert not {one.image for one in data["train"].items} & {one.image for one in data["val"].items}
    first = data["train"][0]
    assert (first.text, first.answer, first.answers) == ("what is a in the corner", "lamp, desk", ("lamp, desk",))
    assert (first.choices, first.boxes, first.right) == ((), (), -1)
    place = next(i for i, one in enumerate(data["train"].items) if one.image == "image3.png")
    assert data["train"].image(place).shape == (4, 6, 3)
    with pytest.raises(ValueError, match=r"image1\.png: no such picture in "):
        data["train"].path(0)


def test_what_is_wrong_in_daquar_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no such folder"):
        open_daquar(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"none of qa_train\.json, qa\.raw\.train\.txt"):
        open_daquar(tmp_path)
    text = tmp_path / "qa.raw.train.txt"
    text.write_text("what is red in the image3 ?\nlamp\nwhat is blue\nlamp\n")
    with pytest.raises(ValueError, match=r"qa\.raw\.train\.txt: line 3 is not a question that ends in"):
        open_daquar(tmp_path)
    text.write_text("what is red in the image3 ?\nlamp\nwhat is blue in the image3 ?\n")
    with pytest.raises(ValueError, match="line 3 is a question without an answer"):
        open_daquar(tmp_path)
    (tmp_path / "qa_train.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="expected a list of questions, found dict"):
        open_daquar(tmp_path)
    (tmp_path / "qa_train.json").write_text('[{"image_id": "image3", "question": "what"}]')
    with pytest.raises(ValueError, match=r"qa_train\.json: \[0\] has no 'answer', only image_id, question"):
        open_daquar(tmp_path)


def test_daquar_itself_is_the_same_in_both_layouts(shared: Path, tmp_path: Path) -> None:
    root = shared / "data" / "daquar"
    by_json = open_daquar(root, "all")
    (tmp_path / "qa.raw.train.txt").write_bytes((root / "qa.raw.train.txt").read_bytes())
    by_text = open_daquar(tmp_path, "all")
    assert len(by_json) == len(by_text) == 6795
    for one, other in zip(by_json.items, by_text.items, strict=True):
        assert (one.text, one.answer, Path(one.image).stem) == (other.text, other.answer, Path(other.image).stem)
    train, val = open_daquar(root), open_daquar(root, "val")
    assert len(train) + len(val) == 6795
    assert val.image(0).shape == (192, 256, 3)
    assert all(by_json.path(i).is_file() for i in range(0, 6795, 97))


# -- Visual7W ----------------------------------------------------------------------------------------------------------


def telling(number: int, **changes: object) -> dict[str, object]:
    pair: dict[str, object] = {"qa_id": number, "question": "What is it?", "answer": "A dog.", "type": "what"}
    return pair | {"multiple_choices": ["A cat.", "A hat.", "A mat."]} | changes


def visual7w(*pairs: dict[str, object], **more: object) -> str:
    images = [{"filename": "v7w_1.jpg", "split": "train", "image_id": 1, "qa_pairs": list(pairs)}]
    images.append({"filename": "v7w_2.jpg", "split": "val", "image_id": 2, "qa_pairs": [telling(50)]})
    return json.dumps({"dataset": "visual7w", "images": images} | more)


def test_visual7w_telling(tmp_path: Path) -> None:
    (tmp_path / "dataset_v7w_telling.json").write_text(visual7w(*(telling(n) for n in range(8))))
    draw(tmp_path / "images" / "v7w_1.jpg")
    data = open_questions(f"visual7w:{tmp_path}")
    assert [one.right for one in data.items] == [0, 1, 2, 3] * 2  # no place is right more often
    for one in data.items:
        assert sorted(one.choices) == ["A cat.", "A dog.", "A hat.", "A mat."]
        assert one.choices[one.right] == one.answer == "A dog."
        assert (one.kind, one.boxes) == ("what", ())
    assert data.image(3).shape == (4, 6, 3)
    val = open_questions(f"visual7w:{tmp_path / 'dataset_v7w_telling.json'}", "val")
    assert [one.number for one in val.items] == [50]
    assert len(open_questions(f"visual7w:{tmp_path}", "all")) == 9
    with pytest.raises(ValueError, match="no question in this split"):
        open_visual7w(tmp_path, "test")


def test_visual7w_pointing(tmp_path: Path) -> None:
    boxes = [{"box_id": 10 + n, "x": n, "y": 2, "width": 3, "height": 4, "name": f"thing {n}"} for n in range(4)]
    pair = telling(6, answer=12, multiple_choices=[10, 11, 13], type="which")
    content = json.loads(visual7w(pair, boxes=boxes))
    content["images"].pop()  # the telling one
    file = tmp_path / "dataset_v7w_pointing.json"
    file.write_text(json.dumps(content))
    one = open_visual7w(tmp_path)[0]
    assert one.right == 2
    assert one.boxes[2] == Box(2, 2, 3, 4, "thing 2")
    assert {box.name for box in one.boxes} == {f"thing {n}" for n in range(4)}
    assert (one.choices, one.answer, one.kind) == ((), "thing 2", "which")
    content["boxes"].pop()
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"images\[0\]: qa_pairs\[0\] names box 13, which is not in the list"):
        open_visual7w(tmp_path)
    content["boxes"][0]["x"] = "left"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"boxes\[0\]: 'x' must be a number, found 'left'"):
        open_visual7w(tmp_path)


def test_what_is_wrong_in_visual7w_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none; name the file"):
        open_visual7w(tmp_path)
    file = tmp_path / "dataset.json"
    pair = telling(1)
    del pair["answer"]
    file.write_text(visual7w(pair))
    with pytest.raises(ValueError, match=r"images\[0\]: qa_pairs\[0\] has no 'answer'"):
        open_visual7w(tmp_path)
    (tmp_path / "dataset_other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"found dataset\.json, dataset_other\.json; name the file"):
        open_visual7w(tmp_path)


# -- VQA ---------------------------------------------------------------------------------------------------------------


def write_vqa(root: Path) -> None:
    for split in ("train", "val"):
        asked = [{"image_id": 9, "question": f"Is it {n}?", "question_id": 9000 + n} for n in range(3)]
        told = [
            {
                "question_id": 9000 + n,
                "image_id": 9,
                "question_type": "is it",
                "answer_type": "yes/no",
                "multiple_choice_answer": "yes",
                "answers": [{"answer": "yes" if k < 7 else "no", "answer_id": k} for k in range(10)],
            }
            for n in (2, 1, 0)  # the two files are in no common order
        ]
        (root / f"v2_OpenEnded_mscoco_{split}2014_questions.json").write_text(
            json.dumps({"data_subtype": f"{split}2014", "questions": asked})
        )
        (root / f"v2_mscoco_{split}2014_annotations.json").write_text(json.dumps({"annotations": told}))
    (root / "v2_OpenEnded_mscoco_test2015_questions.json").write_text(
        json.dumps({"data_subtype": "test2015", "questions": asked})
    )


def test_vqa(tmp_path: Path) -> None:
    write_vqa(tmp_path)
    draw(tmp_path / "val2014" / "COCO_val2014_000000000009.jpg")
    data = open_questions(f"vqa:{tmp_path}", "val")
    assert [one.number for one in data.items] == [9000, 9001, 9002]
    assert data[1].text == "Is it 1?"
    assert (data[1].answer, data[1].kind) == ("yes", "yes/no")
    assert data[1].answers == ("yes",) * 7 + ("no",) * 3
    assert data.image(2).shape == (4, 6, 3)
    test = open_vqa(tmp_path, "test")
    assert (test[0].answer, test[0].answers) == ("", ())
    assert test[0].image == "COCO_test2015_000000000009.jpg"
    with pytest.raises(ValueError, match=r"COCO_train2014_000000000009\.jpg: no such picture"):
        open_vqa(tmp_path).path(0)


def test_what_is_wrong_in_vqa_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \*OpenEnded\*train\*questions\.json"):
        open_vqa(tmp_path)
    write_vqa(tmp_path)
    answers = tmp_path / "v2_mscoco_train2014_annotations.json"
    content = json.loads(answers.read_text())
    answers.write_text(json.dumps({"annotations": content["annotations"][:2]}))
    with pytest.raises(ValueError, match=r"questions\[0\]: question 9000 has no answers in v2_mscoco"):
        open_vqa(tmp_path)
    del content["annotations"][1]["answers"]
    answers.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"annotations\[1\] has no 'answers'"):
        open_vqa(tmp_path)
    answers.unlink()
    with pytest.raises(ValueError, match=r"no \*train\*annotations\.json"):
        open_vqa(tmp_path)


def test_an_unknown_kind_is_named() -> None:
    for spec in ("vqa", "vqa:", "gqa:here"):
        with pytest.raises(ValueError, match="expected KIND:PATH with KIND one of daquar, visual7w, vqa"):
            open_questions(spec)
