"""What is the answer to a question about a picture, and where did the model look at each word of both?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sightline.data.asked import LONGEST_ANSWER
from sightline.data.photographs import open_photograph
from sightline.data.question_words import beside_maps, question_words
from sightline.data.vocabulary import plain_text
from sightline.decoding import beam_search
from sightline.lens.given import evaluating
from sightline.lens.strip import WordStrip
from sightline.systems.visual7w import Visual7W
from sightline.tasks.answerer import Answerer, check_known, open_answerer
from sightline.tasks.questions import ANSWERERS, QuestionError, star_told, starred, words_of


@dataclass(frozen=True)
class Answer:
    """What one system answers to one question about one picture.

    `words` are the answer's, `probabilities` how likely each was after those before it.  `choices` are (text, mean cost
    of a word in nats) pairs in the given order; empty where the answer was written freely.  `unknown` lists words of
    question and choices that the system has never read, and `knows` says what it learned from: of other pictures it
    says what is likely in those.  `attention` has a map for each word of the question and then of the answer; None for
    a system without attention.
    """

    words: tuple[str, ...]
    probabilities: tuple[float, ...]
    question: str
    choices: tuple[tuple[str, float], ...]
    unknown: tuple[str, ...]
    image: Image.Image
    attention: WordStrip | None
    system: str
    knows: str

    @property
    def answer(self) -> str:
        """The answer as text, one of the choices where there are some; empty where the system says nothing."""
        if self.choices:
            return min(self.choices, key=lambda pair: pair[1])[0]
        return plain_text(self.words)

    @property
    def probability(self) -> float:
        """The geometric mean of the words' probabilities; among choices, the share of exp(-cost) of the chosen one."""
        if self.choices:
            costs = torch.tensor([cost for _, cost in self.choices])
            return float((-costs).softmax(dim=0).max())
        return math.exp(sum(map(math.log, self.probabilities)) / len(self.words)) if self.words else 0.0

    @property
    def note(self) -> str:
        """What has to be known about the answer: what the system learned from, and which words it does not know."""
        told = f"{self.system} knows {self.knows}" if self.knows else self.system
        return f"{told}; it never read: {', '.join(self.unknown)}" if self.unknown else told

    def picture(self) -> Image.Image:
        """The picture once for each word, with where the model looked; QuestionError without attention."""
        return self._strip().picture()

    def show(self) -> None:
        """Show the words and where the model looked at each."""
        self.picture().show()

    def save(self, path: str | Path) -> Path:
        """Write the picture (.png, .jpg, .webp), or a page on which a word can be chosen (.html)."""
        return self._strip().save(path)

    def _strip(self) -> WordStrip:
        if self.attention is None:
            raise QuestionError(f"system {self.system!r} answers without attention, so nothing can be drawn")
        return self.attention

    def __str__(self) -> str:
        return self.answer

    def _repr_html_(self) -> str:
        from html import escape

        drawn = "" if self.attention is None else self.attention._repr_html_()
        return f"<p>{escape(self.question)} <b>{escape(self.answer)}</b></p>{drawn}"


def ask(
    image: Any, question: str, *, choices: Sequence[str] | None = None, system: Any = None, beam: int = 3
) -> Answer:
    """Answers a question about one picture, in words of its own or with one of `choices` (Zhu et al. 2016).

    `image` is anything `open_photograph` takes; it is resized to a square, so nothing is cut off.  `system` is a
    bundled name, the `weights` folder of a run of `sightline train visual7w`, a hub id, or an open `Answerer`; None
    takes the bundled "visual7w" (scenes of the generated world) or, where weights named "visual7w_daquar" are bundled
    too, the one that knows more of the question's words.  Among choices the one with the least mean cost of a word is
    the answer; else it is written with a beam search that keeps `beam` answers.  Raises `QuestionError` for an empty
    question, one without a known word, fewer than two choices and an unusable system, and `PhotographError` for a
    picture that cannot be opened.
    """
    if beam < 1:
        raise QuestionError(f"beam is a number of answers to keep, 1 or more, given {beam}")
    words = words_of(question)
    offered = None if choices is None else _read_choices(choices)
    opened = open_answerer(system, ANSWERERS, words, Visual7W)
    unknown = check_known(opened, words)
    photograph = open_photograph(image)
    network, tokens, seen = opened.model, opened.read(words), opened.see(photograph)
    with evaluating(network), torch.no_grad():
        if offered is None:
            said, costs = _write(opened, seen, tokens, beam), []
        else:
            told = [_numbers(opened, one) for one in offered]
            costs = _cost(opened, seen, tokens, told)
            said = told[min(range(len(costs)), key=costs.__getitem__)]
            unknown += opened.unknown([word for one in offered for word in one])
        chances, weights = _reread(opened, seen, tokens, said)
    answer = tuple(opened.vocabulary.decode(said))
    strip = None
    if network.kind == "attention" and weights is not None:
        labels = [*starred(words, unknown), *(f"→ {word}" for word in answer)]
        side = round(weights.shape[1] ** 0.5)
        maps = weights[: len(labels)].unflatten(1, (side, -1)).numpy()
        asked = " ".join(question.split())
        title, opens = f"{asked} → {plain_text(answer)}", len(words) if answer else 0  # on the answer's first word
        about = "; ".join(filter(None, (star_told(words, unknown, opened.name), opened.knows, beside_maps(words))))
        strip = WordStrip(photograph, labels, maps, title=title, caption=about, opens=opens)
    pairs = tuple((str(text), cost) for text, cost in zip(choices or (), costs, strict=True))
    shares = tuple(chances[: len(answer)].tolist())
    return Answer(answer, shares, question, pairs, unknown, photograph, strip, opened.name, opened.knows)


def _read_choices(choices: Sequence[str]) -> list[list[str]]:
    if isinstance(choices, str) or len(choices) < 2:
        raise QuestionError(f"choices are two answers or more to choose from, given {choices!r}")
    read = [question_words(str(one)) for one in choices]
    empty = [str(text) for text, words in zip(choices, read, strict=True) if not words]
    if empty:
        raise QuestionError(f"choice {empty[0]!r} has no words; give answers such as red, blue")
    return read


def _numbers(opened: Answerer, words: Sequence[str]) -> list[int]:
    return opened.vocabulary.encode(words[:LONGEST_ANSWER])


def _write(opened: Answerer, seen: Tensor, tokens: Tensor, beam: int) -> list[int]:
    network: Any = opened.model
    step, state = network.decoder(seen, tokens)
    blocked = (network.pad, network.start, network.unknown)
    # an answer is as good as its words are on average, as among choices
    found = beam_search(
        step,
        state,
        start=network.start,
        end=network.end,
        beam=beam,
        max_length=LONGEST_ANSWER + 1,
        length_penalty=1.0,
        blocked=blocked,
    )
    return found.lists()[0]


def _cost(opened: Answerer, seen: Tensor, tokens: Tensor, told: Sequence[Sequence[int]]) -> list[float]:
    network: Any = opened.model
    longest = max(map(len, told)) + 2
    table = torch.full((1, 1, len(told), longest), network.pad)
    for place, numbers in enumerate(told):
        table[0, 0, place, : len(numbers) + 2] = torch.tensor([network.start, *numbers, network.end])
    return network.cost(seen, tokens, table)[0][0, 0].tolist()


def _reread(opened: Answerer, seen: Tensor, tokens: Tensor, said: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """The probability of each word of an answer and of its end, and the weights of each word of question and answer."""
    network: Any = opened.model
    reader = network.reader
    given = torch.tensor([[[network.start, *said]]])
    looked = reader.look(seen)
    asked = reader.follow(looked, tokens, reader.begin(looked, 1))
    answered = reader.follow(looked, given, asked.last)
    targets = torch.tensor([*said, network.end])
    chances = network.words(answered.hidden)[0, 0].softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    return chances, torch.cat([asked.weights, answered.weights], dim=2)[0, 0]
