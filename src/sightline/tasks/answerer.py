"""What the verbs `ask` and `point` share: systems with their words, questions as numbers, pictures as they see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from sightline.checkpoints.bundled import bundled_folder, bundled_names, card_in, weights_in
from sightline.checkpoints.load import load_checkpoint
from sightline.data.features import squashed
from sightline.data.vocabulary import Vocabulary
from sightline.systems.visual7w import Visual7W, Visual7WPointing
from sightline.tasks.encoder import Encoder, open_encoder
from sightline.tasks.questions import WORDS, QuestionError, chosen, unknown_words


@dataclass(frozen=True)
class Answerer:
    """A system that answers questions, its words, and what it learned from.

    `encoder` is the frozen one whose features it reads; None where it sees the pictures itself.
    """

    model: Visual7W | Visual7WPointing
    vocabulary: Vocabulary
    name: str
    knows: str = ""
    encoder: Encoder | None = None

    def see(self, photograph: Image.Image) -> Tensor:
        """Gives one picture as the system sees it, the whole resized to a square: (1, 3, side, side) or features."""
        if self.encoder is None:
            return as_seen(squashed(photograph, self.model.image_size)[None])
        return self.encoder(squashed(photograph, self.encoder.side)[None]).flatten(2).transpose(1, 2).float()

    def unknown(self, words: Sequence[str]) -> tuple[str, ...]:
        """Lists the words that the system has never read."""
        return tuple(dict.fromkeys(word for word in words if word not in self.vocabulary))

    def read(self, words: Sequence[str]) -> Tensor:
        """Gives the numbers of a question's words, (1, 1, words)."""
        return torch.tensor([[self.vocabulary.encode(words)]])


def as_seen(pictures: Tensor) -> Tensor:
    """Scales bytes to 0 … 1; features stay as they are."""
    return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float()


def check_known(answerer: Answerer, words: Sequence[str]) -> tuple[str, ...]:
    """Gives the unknown words of a question; `QuestionError` where it names nothing that the system knows."""
    return unknown_words(words, answerer.vocabulary, answerer.name)


def open_answerer(
    system: Any, candidates: Sequence[str], words: Sequence[str], wanted: type[nn.Module] = Visual7W
) -> Answerer:
    """Opens a system that answers: a bundled name, a `weights` folder of a run, a hub id, or an open `Answerer`.

    None takes, of the bundled `candidates`, the first of those that know most of the `words`.  Raises `QuestionError`
    for anything else, and for a system that is not `wanted`.
    """
    if isinstance(system, Answerer):
        return _checked(system, wanted)
    if system is None:
        system = chosen(candidates, words)
    name = str(system)
    folder = bundled_folder(name) if name in bundled_names() else _folder(name)
    if not (folder / WORDS).is_file() or not (folder / "card.json").is_file():
        known_here = ", ".join(one for one in bundled_names() if (bundled_folder(one) / WORDS).is_file())
        raise QuestionError(
            f"no answerer {name!r}: expected a bundled name ({known_here or 'none in this build'}), or the `weights` "
            f"folder of a run of `sightline train visual7w`, with {WORDS} and card.json in it"
        )
    try:
        card = card_in(folder)
    except ValueError as error:
        raise QuestionError(str(error)) from error
    model = load_checkpoint(folder)
    if not isinstance(model, Visual7W | Visual7WPointing):
        raise QuestionError(f"{folder}: holds a {type(model).__name__}, which answers no questions")
    encoder = open_encoder(card["encoder"], card.get("image_size")) if model.features else None
    knows = str(card.get("data", ""))
    return _checked(Answerer(model, Vocabulary.load(folder / WORDS), name, knows, encoder), wanted)


def _checked(opened: Answerer, wanted: type[nn.Module]) -> Answerer:
    if not isinstance(opened.model, wanted):
        verb = "point" if isinstance(opened.model, Visual7WPointing) else "ask"
        raise QuestionError(f"system {opened.name!r} is for the verb {verb}; it is a {type(opened.model).__name__}")
    return opened


def _folder(name: str) -> Path:
    place = Path(name).expanduser()
    if place.exists() or name.count("/") != 1:
        return weights_in(place)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "model.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise QuestionError(f"no answerer {name!r}: neither a folder here, nor in the hub's cache or online") from error
