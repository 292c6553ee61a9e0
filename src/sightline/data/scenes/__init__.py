"""The generated world: CLEVR without Blender, with its own language, for every task whose truth has to be known."""

from sightline.data.scenes.changes import Change
from sightline.data.scenes.composed import Query
from sightline.data.scenes.edits import Dialogue, Edit
from sightline.data.scenes.graph import Camera, Light, Scene, Thing
from sightline.data.scenes.language import Sentence
from sightline.data.scenes.questions import Pointing, Question
from sightline.data.scenes.render import Views, render
from sightline.data.scenes.splits import Split
from sightline.data.scenes.world import Scenes

__all__ = [
    "Camera",
    "Change",
    "Dialogue",
    "Edit",
    "Light",
    "Pointing",
    "Query",
    "Question",
    "Scene",
    "Scenes",
    "Sentence",
    "Split",
    "Thing",
    "Views",
    "render",
]
