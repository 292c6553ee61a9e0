"""CLEVR's own form (Johnson et al. 2017): scene dictionaries, and questions with the programs that answer them."""

from random import Random
from typing import Any

from sightline.data.scenes.graph import RELATIONS, Scene
from sightline.data.scenes.language import PHRASES, describe, naming, plural
from sightline.data.scenes.splits import Split, pick, shuffled

ATTRIBUTES = ("size", "color", "material", "shape")
FAMILIES = ("query", "query_related", "count", "count_related", "exist")
_ASKED = {
    "size": "What size is {}?",
    "color": "What color is {}?",
    "material": "What material is {} made of?",
    "shape": "What shape is {}?",
}

Program = list[dict[str, Any]]


def scene_entry(scene: Scene, index: int, split: str, file: str, size: tuple[int, int]) -> dict[str, Any]:
    """One entry of CLEVR's scenes file; `size` is (height, width) of its picture."""
    height, width = size
    short = min(height, width)
    objects = []
    for thing, (x, y, depth) in zip(scene.things, scene.projected, strict=True):
        pixel = [round((x * short + width) / 2), round((height - y * short) / 2), depth]
        rotation = thing.turn * 180 / 3.141592653589793
        objects.append(
            {**thing.attributes, "3d_coords": list(thing.center), "pixel_coords": pixel, "rotation": rotation}
        )
    directions = {name: list(v) for name, v in scene.camera.directions.items()}
    directions |= {"above": [0.0, 0.0, 1.0], "below": [0.0, 0.0, -1.0]}
    return {
        "split": split,
        "image_index": index,
        "image_filename": file,
        "objects": objects,
        "relationships": scene.relationships(),
        "directions": directions,
    }


def question_entries(scene: Scene, split: Split, random: Random) -> list[dict[str, Any]]:
    """Questions about one scene, with `program`, `answer` and `question_family_index` (see `FAMILIES`)."""
    made = [_query(scene, random), _query_related(scene, random), _count(scene, random, split)]
    made += [_count_related(scene, random), _exist(scene, random, split)]
    entries = []
    for family, one in enumerate(made):
        if one:
            text, program, answer = one
            entries.append({"question": text, "program": program, "answer": answer, "question_family_index": family})
    return entries


Made = tuple[str, Program, str] | None


def _node(program: Program, function: str, *values: str) -> Program:
    program.append(
        {"inputs": [len(program) - 1] if program else [], "function": function, "value_inputs": list(values)}
    )
    return program


def _filters(program: Program, attributes: dict[str, str]) -> Program:
    for name in ATTRIBUTES:
        if name in attributes:
            _node(program, f"filter_{name}", attributes[name])
    return program


def _query(scene: Scene, random: Random) -> Made:
    """What color is the small metal cube?"""
    for k in shuffled(random, list(range(len(scene)))):
        for asked in shuffled(random, ATTRIBUTES):
            attributes = naming(scene, k, without=asked, random=random)
            if attributes:
                program = _node(_filters(_node([], "scene"), attributes), "unique")
                text = _ASKED[asked].format(f"the {describe(attributes)}")
                return text, _node(program, f"query_{asked}"), getattr(scene.things[k], asked)
    return None


def _related(scene: Scene, b: int, relation: str) -> tuple[int, ...]:
    return tuple(scene.relationships()[relation][b])


def _anchored(scene: Scene, random: Random) -> tuple[int, str, Program, str] | None:
    """A thing with a name, a relation, the program up to what stands in it, and the words "left of the red cube"."""
    for b in shuffled(random, list(range(len(scene)))):
        attributes = naming(scene, b, random=random)
        if attributes:
            relation = pick(random, RELATIONS)
            program = _node(_node(_filters(_node([], "scene"), attributes), "unique"), "relate", relation)
            return b, relation, program, f"{PHRASES[relation]} the {describe(attributes)}"
    return None


def _query_related(scene: Scene, random: Random) -> Made:
    """What color is the cube that is left of the red sphere?"""
    anchored = _anchored(scene, random)
    if anchored is None:
        return None
    b, relation, program, place = anchored
    there = _related(scene, b, relation)
    for k in shuffled(random, there):
        for asked in shuffled(random, ATTRIBUTES):
            name = pick(random, [n for n in ATTRIBUTES if n != asked])
            attributes = {name: getattr(scene.things[k], name)}
            if [j for j in scene.matching(**attributes) if j in there] == [k]:
                _node(_node(_filters(program, attributes), "unique"), f"query_{asked}")
                text = _ASKED[asked].format(f"the {describe(attributes)} that is {place}")
                return text, program, getattr(scene.things[k], asked)
    return None


def _some(scene: Scene, random: Random, split: Split) -> dict[str, str]:
    drawn = pick(random, scene.things).attributes if scene.things and random.random() < 0.5 else split.draw(random)
    names = shuffled(random, ATTRIBUTES)[: pick(random, (1, 2))]
    return {name: drawn[name] for name in names}


def _count(scene: Scene, random: Random, split: Split) -> Made:
    """How many large cubes are there?"""
    attributes = _some(scene, random, split)
    program = _node(_filters(_node([], "scene"), attributes), "count")
    return f"How many {plural(2, describe(attributes))} are there?", program, str(len(scene.matching(**attributes)))


def _count_related(scene: Scene, random: Random) -> Made:
    """How many objects are left of the red cube?"""
    anchored = _anchored(scene, random)
    if anchored is None:
        return None
    b, relation, program, place = anchored
    return f"How many objects are {place}?", _node(program, "count"), str(len(_related(scene, b, relation)))


def _exist(scene: Scene, random: Random, split: Split) -> Made:
    """Is there a red metal object?"""
    attributes = _some(scene, random, split)
    program = _node(_filters(_node([], "scene"), attributes), "exist")
    return f"Is there a {describe(attributes)}?", program, "yes" if scene.matching(**attributes) else "no"
