"""What is wrong with a question before any system is opened: nothing here needs torch, so that it is told at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.checkpoints.bundled import bundled_folder, bundled_names, weights_in
from sightline.data.question_words import LONGEST_QUESTION, question_words
from sightline.data.vocabulary import Vocabulary

WORDS = "words.json"  # beside the weights
ANSWERERS = ("visual7w", "visual7w_daquar")  # that `ask` chooses from
ALIKE = 0.8  # of the best share: a next best from here on is nearly as good


class QuestionError(ValueError):
    """A question, its choices, or a system that cannot be used; the message says why in one line."""


def words_of(question: Any) -> list[str]:
    """Splits a question into words; `QuestionError` for one without any, or with more than can be read."""
    if not isinstance(question, str):
        raise QuestionError(f"a question is text, given {type(question).__name__}")
    words = question_words(question)
    if not words:
        raise QuestionError("the question is empty; give some words, such as 'what color is the cube?'")
    if len(words) > LONGEST_QUESTION:
        raise QuestionError(f"the question has {len(words)} words; at most {LONGEST_QUESTION} are read: ask shorter")
    return words


def undecided(shares: Sequence[float]) -> bool:
    """Whether the next best of some shares, best first, is nearly as large as the best."""
    return len(shares) > 1 and shares[1] >= ALIKE * shares[0]


def unknown_words(words: Sequence[str], vocabulary: Vocabulary, name: str) -> tuple[str, ...]:
    """Gives the words that `vocabulary` lacks; `QuestionError`, telling some of it, where it knows none of them."""
    unknown = tuple(dict.fromkeys(word for word in words if word not in vocabulary))
    if len(unknown) == len(set(words)):
        some = ", ".join(vocabulary.words[4:16])
        raise QuestionError(f"no word of {' '.join(words)!r} is known to {name}; it knows {some} …")
    return unknown


def starred(words: Sequence[str], unknown: Sequence[str]) -> list[str]:
    """Gives the words as labels of their maps, those that are `unknown` with a star."""
    return [f"{word}*" if word in unknown else word for word in words]


def star_told(words: Sequence[str], unknown: Sequence[str], name: str) -> str:
    """What a caption says of the stars of `starred`; "" where there are none."""
    never = [word for word in dict.fromkeys(words) if word in unknown]
    return f"* never read by {name}: {', '.join(never)}" if never else ""


def chosen(candidates: Sequence[str], words: Sequence[str]) -> str:
    """Gives the first of the bundled `candidates` that know most of the `words`; `QuestionError` for none."""
    there = [name for name in candidates if name in bundled_names()]
    if not there:
        raise QuestionError(f"this build has none of {', '.join(candidates)}; give system, a folder of weights")
    known = {name: Vocabulary.load(bundled_folder(name) / WORDS) for name in there}
    return min(there, key=lambda name: len({word for word in words if word not in known[name]}))


def check_question(question: str, system: str | None, candidates: Sequence[str] = ANSWERERS) -> None:
    """Raises `QuestionError` for what is wrong with a question, judged by the words that lie beside the weights.

    `system` is a name or a folder, None one of the `candidates`; where no words lie here, as of a hub id, the question
    itself is judged alone.
    """
    words = words_of(question)
    name = system or chosen(candidates, words)
    folder = bundled_folder(name) if name in bundled_names() else Path(name).expanduser()
    known = weights_in(folder) / WORDS
    if known.is_file():
        unknown_words(words, Vocabulary.load(known), name)
