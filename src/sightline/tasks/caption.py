"""What does a photograph show, and where did the model look for each word?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sightline.checkpoints.bundled import bundled_folder, bundled_names
from sightline.checkpoints.load import load_checkpoint
from sightline.data.features import squashed
from sightline.data.photographs import open_photograph
from sightline.data.vocabulary import Vocabulary, plain_text
from sightline.decoding import beam_search
from sightline.lens.given import evaluating
from sightline.lens.strip import WordStrip
from sightline.systems.show_and_tell import ShowAndTell
from sightline.systems.show_attend_tell import ShowAttendTell
from sightline.tasks.encoder import Encoder, open_encoder

WORDS = "vocabulary.json"  # beside the weights
_LONGEST = 25


class CaptionError(ValueError):
    """A system that cannot caption; the message says why in one line."""


@dataclass(frozen=True)
class Captioner:
    """A decoder, the frozen encoder whose features it was trained on, and its words; `learned` says what from."""

    system: ShowAttendTell | ShowAndTell
    encoder: Encoder
    vocabulary: Vocabulary
    name: str
    penalty: float = 0.7
    learned: str = ""

    @property
    def limits(self) -> str:
        """What has to be known of its sentences; "" where nobody here knows what it learned from."""
        known = f"{self.name} says of every picture what is likely in those that it learned from ({self.learned})."
        return known if self.learned else ""


@dataclass(frozen=True)
class Caption:
    """What one system says of one photograph.

    `words` are the caption's words as the model said them, `probabilities` how likely each was after those before it,
    `score` the mean log-probability of a word, its end included.  `attention` has a map for each word; None for a
    system without attention.
    """

    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    score: float
    image: Image.Image
    attention: WordStrip | None
    system: str

    @property
    def text(self) -> str:
        """The caption as a sentence, which is also the title of its picture and page."""
        return as_sentence(self.words)

    def picture(self) -> Image.Image:
        """The photograph once for each word, with where the model looked; CaptionError without attention."""
        return self._strip().picture()

    def show(self) -> None:
        """Show the words and where the model looked for each."""
        self.picture().show()

    def save(self, path: str | Path) -> Path:
        """Write the picture (.png, .jpg, .webp), or a page on which a word can be chosen (.html)."""
        return self._strip().save(path)

    def _strip(self) -> WordStrip:
        if self.attention is None:
            why = "says nothing of this photograph" if not self.words else "captions without attention"
            raise CaptionError(f"system {self.system!r} {why}, so nothing can be drawn")
        return self.attention

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from html import escape

        drawn = "" if self.attention is None else self.attention._repr_html_()
        return f"<p>{escape(self.text)}</p>{drawn}"


def as_sentence(words: Sequence[str]) -> str:
    """Joins words into a sentence with a capital letter and a full stop; no words are no sentence, ""."""
    sentence = plain_text(words)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def open_captioner(system: Any = None) -> Captioner:
    """Opens a captioner: a bundled name (default "show_attend_tell"), a `weights` folder, a hub id, or an open one.

    The folder is that of a run of `sightline train show_attend_tell` (or show_and_tell): weights, config.json,
    vocabulary.json and card.json, which names the encoder.  Raises CaptionError for anything else.
    """
    if isinstance(system, Captioner):
        return system
    name = "show_attend_tell" if system is None else str(system)
    folder = bundled_folder(name) if name in bundled_names() else _folder(name)
    if not (folder / WORDS).is_file() or not (folder / "card.json").is_file():
        known = ", ".join(one for one in bundled_names() if (bundled_folder(one) / WORDS).is_file())
        raise CaptionError(
            f"no captioner {name!r}: expected a bundled name ({known or 'none in this build'}), or the "
            f"`weights` folder of a run of `sightline train show_attend_tell`, with {WORDS} and card.json in it"
        )
    card = _card(folder)
    network = load_checkpoint(folder, source="sightline")
    if not isinstance(network, ShowAttendTell | ShowAndTell):
        raise CaptionError(f"{folder}: holds a {type(network).__name__}, which does not caption")
    encoder = open_encoder(card["encoder"], card.get("image_size"))
    words = Vocabulary.load(folder / WORDS)
    if len(words) != network.embedding.num_embeddings:
        raise CaptionError(
            f"{folder / WORDS} has {len(words)} words, the weights beside it {network.embedding.num_embeddings}: "
            "they are not of one run; take both from the same `weights` folder"
        )
    penalty = float(card.get("settings", {}).get("penalty", 0.7))
    # a run's own card names files of whoever made it
    learned = str(card["data"]) if name in bundled_names() else ""
    return Captioner(network, encoder, words, name, penalty, learned)


def _card(folder: Path) -> dict[str, Any]:
    """What the card says; it must name the encoder."""
    try:
        card = json.loads((folder / "card.json").read_text("utf-8"))
    except ValueError as error:
        raise CaptionError(f"{folder / 'card.json'} is no JSON ({error}); take it from the run again") from error
    if not isinstance(card, dict) or not isinstance(card.get("encoder"), str):
        raise CaptionError(f"{folder / 'card.json'} names no encoder; expected the card of a captioner's run")
    return card


def _folder(name: str) -> Path:
    place = Path(name).expanduser()
    if place.exists() or name.count("/") != 1:
        return place
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "model.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CaptionError(f"no captioner {name!r}: neither a folder here, nor in the hub's cache or online") from error


def caption(image: Any, *, system: Any = None, beam: int = 5) -> Caption:
    """Says what one photograph shows, in the words of the system's training, and keeps where it looked for each.

    `image` is a path, a PIL image, an array or a tensor; `system` is as in `open_captioner`; `beam=1` is greedy.  The
    photograph is resized to a square, as in training, so nothing is cut off.  Raises CaptionError for an unusable
    system or beam, and PhotographError for a picture that cannot be opened.
    """
    opened = open_captioner(system)
    if beam < 1:
        raise CaptionError(f"beam is a number of sentences to keep, 1 or more, given {beam}")
    photograph = open_photograph(image)
    grid = opened.encoder(squashed(photograph, opened.encoder.side)[None])
    features = grid.flatten(2).transpose(1, 2).float()
    network, vocabulary = opened.system, opened.vocabulary
    with evaluating(network), torch.no_grad():
        step, state = network.decoder(features)
        blocked = (network.pad, network.start, network.unknown)
        found = beam_search(
            step,
            state,
            start=network.start,
            end=network.end,
            beam=beam,
            max_length=_LONGEST,
            length_penalty=opened.penalty,
            blocked=blocked,
        )
        said = found.lists()[0]
        chances, weights = _reread(network, features, said)
    words = tuple(vocabulary.decode(said))
    maps = None if weights is None else weights[: len(words)].unflatten(1, grid.shape[2:]).numpy()
    score = float(chances.log().mean())
    shares = tuple(chances[: len(words)].tolist())
    strip = None
    if maps is not None and words:
        told = f"{opened.name}, beam {beam}; below each word its probability, given those before it. {opened.limits}"
        strip = WordStrip(photograph, words, maps, shares, title=as_sentence(words), caption=told.strip())
    return Caption(words, shares, score, photograph, strip, opened.name)


def _reread(network: Any, features: Tensor, said: list[int]) -> tuple[Tensor, Tensor | None]:
    """The probability of each word and of the end, and the weights (words, cells) of a given caption."""
    told = network(features, torch.tensor([[network.start, *said, network.end]]))
    chances = told.logits.softmax(dim=1).gather(1, told.targets[:, None]).squeeze(1)
    return chances, None if told.weights is None else told.weights[0]
