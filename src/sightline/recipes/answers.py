"""What the recipes of answerers share: questions in, batches, answers, accuracies, a sheet of answers out.

data      scenes:N, the generated world: N scenes to learn from and 1,600 held out, with all their questions
          daquar:FOLDER, visual7w:FOLDER or JSON, vqa:FOLDER; `#ENCODER` behind it names the frozen encoder (a bundled
          name or a hub id of transformers; default efficientnet_lite0), whose features are computed once and kept
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.asked import Asked, of_photographs, of_world
from sightline.data.questions import open_questions
from sightline.data.vocabulary import Vocabulary, plain_text
from sightline.lens.paint import blend
from sightline.lens.view import side_by_side
from sightline.recipes.marks import ready, written
from sightline.tasks.answerer import WORDS
from sightline.tasks.encoder import DEFAULT, cache, cached_features

HELD_SCENES = 1600  # about 10,500 telling, 5,700 pointing questions


def open_data(spec: str, split: str, task: str = "telling") -> Asked:
    """Opens KIND:PATH[#ENCODER] or scenes:N; ValueError for another kind, and for pointing on photographs."""
    kind, _, path = spec.partition(":")
    if kind == "scenes":
        if not path.isdigit() or int(path) < 1:
            raise ValueError(f"data {spec!r}: expected scenes:N with a number of scenes, such as scenes:8000")
        return of_world(task, split, int(path) if split == "train" else HELD_SCENES, cache() / "world")
    if task == "pointing":
        raise ValueError(f"data {spec!r}: pointing is learned from scenes:N; no other collection has its boxes here")
    place, _, encoder = spec.partition("#")
    questions = open_questions(place, split)
    paths = list(dict.fromkeys(questions.path(number) for number in range(len(questions))))
    features = cached_features(paths, encoder or DEFAULT)
    about = {"encoder": features.about["encoder"], "image_size": features.about["side"], "features": features.width}
    return of_photographs(questions, lambda names: features.of(names), together=4, minimum=2, about=about)


def agree(train: Asked, held: Asked) -> None:
    """Gives the held-out part the vocabulary of training; ValueError for pictures of two kinds."""
    if train.about.get("features") != held.about.get("features"):
        raise ValueError("training and held-out part see different things: pictures, or features of different widths")
    held.vocabulary = train.vocabulary


def read_batch(data: Asked, indices: np.ndarray, recipe: Any) -> dict[str, Tensor]:
    """Reads pictures with their questions, in the words of the recipe."""
    data.vocabulary = recipe.vocabulary
    return data.batch(indices)


def describe(recipe: Any, data: Asked) -> dict[str, Any]:
    """Gives what the card says of pictures and words."""
    return {**data.about, "vocabulary": len(recipe.vocabulary)}


def save_beside(recipe: Any, folder: Path) -> None:
    """Writes words.json."""
    recipe.vocabulary.save(folder / WORDS)


def load_beside(recipe: Any, folder: Path) -> None:
    """Reads words.json."""
    recipe.vocabulary = Vocabulary.load(folder / WORDS)


def draw_samples(recipe: Any, data: Asked, path: Path) -> None:
    """Draws six held-out pictures of the world with a question, the written answer and where its first word looked.

    Of photographs only their features are here: they are drawn without a map.
    """
    chosen = np.linspace(0, len(data) - 1, 6).round().astype(int)
    batch = ready(read_batch(data, chosen, recipe), recipe.device)
    pictures, labels = [], []
    said = written(recipe.kept, batch, recipe.vocabulary)
    _, weights = recipe.kept.cost(batch["pictures"], batch["questions"], batch["answers"][:, :, None])
    side = round(weights.shape[-1] ** 0.5)
    for place, answers in enumerate(said):
        number = place % int((batch["items"][place] >= 0).sum())
        item = data.items[int(batch["items"][place, number])]
        heat = weights[place, number, 0, 0].view(side, side).cpu()
        ground = batch["pictures"][place] if batch["pictures"].ndim == 4 else torch.ones(3, side * 8, side * 8)
        image = (ground.permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)
        pictures.append(blend(image.repeat(4, axis=0).repeat(4, axis=1), heat))
        labels.append(f"{plain_text(item.question.split())}? {answers[number]} (is {item.choices[item.right]})")
    side_by_side(pictures, labels=labels).save(path)
