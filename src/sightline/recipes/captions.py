"""What the recipes of captioners share: photographs with cached features, the quick figure, the measures, a sheet.

data      flickr8k:FOLDER, flickr30k:FOLDER, coco:FOLDER, karpathy:JSON; `#ENCODER` behind it names the frozen encoder
          (a bundled name or a hub id of transformers; default efficientnet_lite0).
          Its features are computed once and kept (`sightline.tasks.encoder.cache`).
measure   BLEU-1..4, ROUGE-L, CIDEr of beam search on the whole split; and the blind control: the same captions held
          against other photographs
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sightline.data.captioned_features import CaptionedFeatures
from sightline.data.captions import open_captions
from sightline.data.photographs import open_photograph
from sightline.data.vocabulary import Vocabulary, plain_text
from sightline.decoding import beam_search, greedy
from sightline.lens.view import side_by_side
from sightline.metrics.captions import bleu, cider, rouge_l
from sightline.tasks.encoder import DEFAULT, cached_features

LONGEST = 20


def open_data(spec: str, split: str) -> CaptionedFeatures:
    """Opens KIND:PATH[#ENCODER]; the photographs of "train" come with their mirror images."""
    place, _, encoder = spec.partition("#")
    captioned = open_captions(place, split)
    paths = [captioned.path(number) for number in range(len(captioned))]
    features = cached_features(paths, encoder or DEFAULT, mirrored=split == "train")
    return CaptionedFeatures(captioned, features, longest=LONGEST)


def agree(train: Any, held: Any) -> None:
    """Gives the held-out part the vocabulary of training; ValueError for features of two widths."""
    if train.width != held.width:
        raise ValueError(f"features of {train.width} and {held.width} channels")
    held.vocabulary = train.vocabulary


def read_batch(data: Any, indices: np.ndarray, recipe: Any) -> dict[str, Tensor]:
    """Reads the features and captions of photographs, in the words of the recipe."""
    data.vocabulary = recipe.vocabulary
    return data.batch(indices)


def say(system: Any, features: Tensor, vocabulary: Vocabulary, *, beam: int = 1, penalty: float = 0.0) -> list[str]:
    """Writes a caption for each picture's features, never with an unknown word; `beam` of 1 is greedy."""
    step, state = system.decoder(features)
    given = {"start": system.start, "end": system.end, "max_length": LONGEST + 5, "blocked": (0, 1, 3)}
    if beam == 1:
        found = greedy(step, state, **given)
    else:
        found = beam_search(step, state, beam=beam, length_penalty=penalty, **given)
    return [" ".join(vocabulary.decode(row)) for row in found.lists()]


def quick(recipe: Any, batch: dict[str, Tensor]) -> float:
    """Computes BLEU-4 of greedy captions of one batch: a figure to watch, not to report."""
    said = say(recipe.kept, batch["features"], recipe.vocabulary)
    truth = [
        [" ".join(recipe.vocabulary.decode(row)) for row in rows if int(row[1])] for rows in batch["tokens"].tolist()
    ]
    return bleu(said, truth)[3]


def figures(said: Sequence[str], truth: Sequence[Sequence[str]]) -> dict[str, float]:
    """Computes BLEU-1..4, ROUGE-L and CIDEr."""
    scores = {f"bleu{n}": value for n, value in enumerate(bleu(said, truth), 1)}
    return scores | {"rouge_l": rouge_l(said, truth), "cider": cider(said, truth)}


def write_all(recipe: Any, data: CaptionedFeatures, beam: int, penalty: float) -> list[str]:
    """Writes a caption for every photograph of a split, in order."""
    said: list[str] = []
    for first in range(0, len(data.names), 50):
        features = data.features.of(data.names[first : first + 50]).to(recipe.device)
        said += say(recipe.kept, features, recipe.vocabulary, beam=beam, penalty=penalty)
    return said


def measure(recipe: Any, data: CaptionedFeatures) -> dict[str, Any]:
    """Measures greedy and beam-searched captions against the raw references, and the latter on wrong photographs.

    Hard attention is measured twice: reading the mean over places, and the likeliest place alone.
    """
    settings, truth = recipe.settings, data.captioned.captions
    best = write_all(recipe, data, settings.beam, settings.penalty)
    shifted = truth[1:] + truth[:1]
    places = {}
    if getattr(recipe.kept, "kind", "") == "hard":
        recipe.kept.one_place = True
        places = {"likeliest_place": figures(write_all(recipe, data, settings.beam, settings.penalty), truth)}
        recipe.kept.one_place = False
    return {
        "photographs": len(truth),
        "beam": settings.beam,
        **figures(best, truth),
        "greedy": figures(write_all(recipe, data, 1, 0.0), truth),
        "other_photographs": figures(best, shifted),
        **places,
        "different_captions": len(set(best)),
        "words": sum(len(one.split()) for one in best) / len(best),
    }


def describe(recipe: Any, data: Any) -> dict[str, Any]:
    """Gives what the card says of encoder and words."""
    about = data.features.about
    return {
        "encoder": about["encoder"],
        "image_size": about["side"],
        "grid": [about["rows"], about["columns"]],
        "vocabulary": len(recipe.vocabulary),
    }


def save_beside(recipe: Any, folder: Path) -> None:
    """Writes vocabulary.json."""
    recipe.vocabulary.save(folder / "vocabulary.json")


def load_beside(recipe: Any, folder: Path) -> None:
    """Reads vocabulary.json."""
    recipe.vocabulary = Vocabulary.load(folder / "vocabulary.json")


def draw_samples(recipe: Any, data: CaptionedFeatures, path: Path) -> None:
    """Draws eight held-out photographs with what is said of them."""
    chosen = np.linspace(0, len(data.names) - 1, 8).round().astype(int)
    features = data.features.of([data.names[i] for i in chosen]).to(recipe.device)
    said = say(recipe.kept, features, recipe.vocabulary, beam=recipe.settings.beam, penalty=recipe.settings.penalty)
    pictures = [open_photograph(data.captioned.path(int(i))) for i in chosen]
    side_by_side(pictures, labels=[plain_text(one.split()) for one in said]).save(path)
