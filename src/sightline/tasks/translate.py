"""What does a sentence say in another language, and which of its words is behind each word of the answer?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sightline.checkpoints.bundled import bundled_folder, bundled_names, weights_in
from sightline.checkpoints.load import load_checkpoint
from sightline.data.marian_pieces import MarianPieces, is_marian
from sightline.data.subwords import Subwords
from sightline.decoding import beam_search, greedy
from sightline.lens.alignment import Alignment, merged
from sightline.lens.choices import PICTURES
from sightline.lens.given import evaluating
from sightline.lens.record import record
from sightline.lens.sheet import drawable
from sightline.systems.seq2seq import Seq2Seq
from sightline.systems.transformer import Transformer

PIECES = "pieces.json"  # beside the weights
System = Seq2Seq | Transformer
Pieces = Subwords | MarianPieces
_LONGEST = 400  # pieces of a source sentence
_PAUSES = frozenset(".,!?;:…")


class TranslationError(ValueError):
    """A sentence or system that cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class Translator:
    """A sequence-to-sequence network with the pieces of words it reads and writes."""

    model: System
    pieces: Pieces
    name: str


@dataclass(frozen=True)
class Translation:
    """One sentence in the other language; `score` is the mean log-probability of a piece of it.

    `attention` is the alignment: a row for each word of `text`, a column for each word of `source` and the end of the
    sentence; of a Transformer it is the mean, with that of each layer and head in `.heads`. None for a system without
    attention.  `unknown` lists what of the source the system has never read; it took each for the unknown piece.
    """

    text: str
    source: str
    score: float
    attention: Alignment | None
    system: str
    unknown: tuple[str, ...] = ()

    def picture(self) -> Image.Image:
        """Draws the alignment; ValueError for a system without attention."""
        caption = f"rows: translation · columns: {self.source}{self._escapes()}"
        return self._alignment().picture(title=self.text, caption=caption)

    def heads_picture(self) -> Image.Image:
        """Draws the alignment of each layer and head; ValueError for a system that has one only, or none."""
        scale = "each panel on its own scale, × is times uniform"
        caption = f"rows: translation · columns: {self.source} · {scale}{self._escapes()}"
        return self._alignment().heads_picture(title=self.text, caption=caption)

    def show(self) -> None:
        """Shows the alignment."""
        self.picture().show()

    def save(self, path: str | Path) -> Path:
        """Writes the alignment as a picture (.png, .jpg, .webp) or as a page to move over with the mouse (.html)."""
        caption = f"from: {self.source}"
        if Path(path).suffix.lower() in PICTURES:  # a page has the reader's own fonts
            caption += self._escapes()
        return self._alignment().save(path, title=self.text, caption=caption)

    def _escapes(self) -> str:
        """What a picture's caption says where its font lacks characters of these sentences."""
        lacks = any(drawable(text) != text for text in (self.text, self.source))
        return " · U+… stands for a character that the picture's font lacks; the page shows it" if lacks else ""

    def _alignment(self) -> Alignment:
        if self.attention is None:
            raise TranslationError(f"system {self.system!r} translates without attention, so nothing can be drawn")
        return self.attention

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from html import escape

        drawn = "" if self.attention is None else self.attention.html(title=self.text)
        return drawn or f"<p>{escape(self.text)}</p>"


def open_translator(system: Any = None) -> Translator:
    """Opens a translator: a bundled name (None: "transformer"), a run or MarianMT folder, a hub id, or an open one.

    MarianMT's are those of Helsinki-NLP, `Helsinki-NLP/opus-mt-de-en` and a thousand others, read from the hub's cache
    where there is no network. Raises `TranslationError` for anything that does not translate.
    """
    if isinstance(system, Translator):
        return system
    name = "transformer" if system is None else str(system)
    folder = bundled_folder(name) if name in bundled_names() else Path(name).expanduser()
    folder = weights_in(folder)
    try:
        if is_marian(folder, name):
            marian = MarianPieces.open(name)  # first, since it is small: what is missing is told at once
            return _checked(load_checkpoint(name), marian, name)
    except (FileNotFoundError, ImportError) as error:
        raise TranslationError(str(error)) from error
    if not (folder / PIECES).is_file():
        known = ", ".join(each for each in bundled_names() if (bundled_folder(each) / PIECES).is_file())
        raise TranslationError(
            f"no translator {name!r}: expected a bundled name ({known or 'none in this build'}), the folder of a run "
            f"of `sightline train transformer` or `seq2seq` with {PIECES} in its weights, or a MarianMT folder or hub "
            "id such as Helsinki-NLP/opus-mt-de-en"
        )
    return _checked(load_checkpoint(folder), Subwords.load(folder / PIECES), name)


def _checked(model: nn.Module, pieces: Pieces, name: str) -> Translator:
    if not isinstance(model, Seq2Seq | Transformer):
        raise TranslationError(f"{name}: holds a {type(model).__name__}, which does not translate")
    return Translator(model, pieces, name)


def translate(text: str, *, system: Any = None, beam: int = 5, length_penalty: float = 1.0) -> Translation:
    """Translates one sentence; the bundled "transformer" and "seq2seq" know German captions of photographs.

    `beam=1` is greedy. Raises `TranslationError` for an empty sentence, for one without a single known character, for
    more than 400 pieces, for a search that is none, and for an unusable system.
    """
    return translate_all([text], system=system, beam=beam, length_penalty=length_penalty)[0]


def translate_all(
    texts: Sequence[str], *, system: Any = None, beam: int = 5, length_penalty: float = 1.0, batch: int = 64
) -> list[Translation]:
    """Translates many sentences, those of similar length together; the rest is as in `translate`."""
    opened = open_translator(system)
    if beam < 1 or batch < 1:
        raise TranslationError(f"beam and batch must be 1 or more, given {beam} and {batch}")
    if not (math.isfinite(length_penalty) and length_penalty >= 0):
        raise TranslationError(f"length_penalty must be a number of 0 or more, given {length_penalty}")
    sources = [read_sentence(text, opened.pieces) for text in texts]
    found = search(opened.model, sources, opened.pieces, beam=beam, length_penalty=length_penalty, batch=batch)
    written = []
    for text, source, (target, score) in zip(texts, sources, found, strict=True):
        attention = None
        if aligns(opened.model) and target:
            weights = head_alignments(opened.model, source, target, opened.pieces)
            attention = in_words(weights, target, source, opened.pieces)
        spoken = opened.pieces.decode(target)
        never = opened.pieces.unknown_in(text) if opened.pieces.unknown in source else ()
        written.append(Translation(spoken, " ".join(text.split()), score, attention, opened.name, never))
    return written


def read_sentence(text: str, pieces: Pieces) -> list[int]:
    """Gives the numbers of a sentence with the end behind; `TranslationError` for one that says nothing."""
    if not isinstance(text, str):
        raise TranslationError(f"a sentence is text, given {type(text).__name__}")
    if not text.strip():
        raise TranslationError("the sentence is empty; give some words")
    numbers = pieces.encode(text)
    shown = text.strip() if len(text.strip()) <= 40 else text.strip()[:39] + "…"
    if len(numbers) > _LONGEST:
        raise TranslationError(f"{shown!r}: {len(numbers)} pieces of words, at most {_LONGEST}; give one sentence")
    space = pieces.encode(". .")[1:-1]  # a lone "▁" says nothing either
    if all(number == pieces.unknown or number in space for number in numbers):
        raise TranslationError(f"{shown!r}: no character of it is known to this system")
    return [*numbers, pieces.end]


def padded(
    rows: Sequence[Sequence[int]], device: torch.device | str = "cpu", multiple: int = 1, pad: int = 0
) -> tuple[Tensor, Tensor]:
    """Gives rows of numbers as (rows, longest), padded by `pad`, and their lengths.

    The padded length is a multiple of `multiple`: few different shapes are quick in bfloat16, whose kernels are made
    for each shape.
    """
    lengths = torch.tensor([len(row) for row in rows])
    longest = -(-int(lengths.max()) // multiple) * multiple
    table = torch.full((len(rows), longest), pad)
    table[torch.arange(longest) < lengths[:, None]] = torch.tensor(
        [number for row in rows for number in row], dtype=torch.long
    )
    return table.to(device), lengths.to(device)


def search(
    model: System,
    sources: Sequence[Sequence[int]],
    pieces: Pieces,
    *,
    beam: int = 5,
    length_penalty: float = 1.0,
    batch: int = 64,
) -> list[tuple[list[int], float]]:
    """Finds the best target of each source by beam search (greedily for `beam=1`), with its mean log-probability."""
    device = next(model.parameters()).device
    # one limit for lengths 1-8, 9-16, …, so that what is found does not depend on what else is in the batch
    groups: dict[int, list[int]] = {}
    for place, source in enumerate(sources):
        groups.setdefault(-(-len(source) // 8), []).append(place)
    batches = [
        (16 * eighths + 10, places[first : first + batch])
        for eighths, places in groups.items()
        for first in range(0, len(places), batch)
    ]
    found: dict[int, tuple[list[int], float]] = {}
    common: dict[str, Any] = {"start": pieces.start, "end": pieces.end, "blocked": pieces.blocked}
    with evaluating(model), torch.no_grad():
        for most, chosen in batches:
            table, lengths = padded([sources[place] for place in chosen], device, pad=pieces.pad)
            step, state = model.steps(table, lengths)
            if beam == 1:
                best = greedy(step, state, max_length=most, **common)
                means = best.scores / best.lengths
            else:
                best = beam_search(step, state, beam=beam, length_penalty=length_penalty, max_length=most, **common)
                means = best.scores[:, 0] * best.lengths[:, 0].float() ** (length_penalty - 1)
            for place, target, mean in zip(chosen, best.lists(), means.tolist(), strict=True):
                found[place] = (target, mean if math.isfinite(mean) else float("-inf"))
    return [found[place] for place in range(len(sources))]


def aligns(model: nn.Module) -> bool:
    """Tells whether a translator looks back at its source at all."""
    return getattr(model, "attention", "") != "none"


def alignment(model: System, source: Sequence[int], target: Sequence[int], pieces: Pieces) -> np.ndarray:
    """Records where the model looks at each piece of a target it is told to write: (target, source), rows sum to 1.

    Several layers and heads are averaged; `head_alignments` gives each.
    """
    return head_alignments(model, source, target, pieces).mean(axis=(0, 1))


def head_alignments(model: System, source: Sequence[int], target: Sequence[int], pieces: Pieces) -> np.ndarray:
    """Records the same of each layer and head: (layers, heads, target, source); a recurrent decoder has one of each."""
    table, lengths = padded([source], next(model.parameters()).device, pad=pieces.pad)
    given = torch.tensor([[pieces.start, *target[:-1]]], device=table.device)
    with evaluating(model), torch.no_grad(), record(model) as seen:
        model(table, lengths, given)
    if isinstance(model, Seq2Seq):  # a site a step
        weights = torch.cat([site.weights for site in seen], dim=2)
    else:
        weights = torch.cat([site.weights for site in seen if site.path.endswith(".cross")], dim=0)
    return weights.float().cpu().numpy()


def in_words(weights: np.ndarray, target: Sequence[int], source: Sequence[int], pieces: Pieces) -> Alignment:
    """Joins pieces to words: columns of a word are added up, rows of a word averaged; layers and heads may lead."""
    return merged(weights, _words(pieces.pieces(target)), _words(pieces.source_pieces(source)))


def _words(names: Sequence[str]) -> list[tuple[str, int]]:
    """Words with the number of pieces each has; marks that end a clause stand alone."""
    words: list[tuple[str, int]] = []
    for name in names:
        if not words or name.startswith(("▁", "<")) or name in _PAUSES or words[-1][0] in _PAUSES:
            words.append((name.removeprefix("▁"), 1))
        else:
            words[-1] = (words[-1][0] + name, words[-1][1] + 1)
    return words
