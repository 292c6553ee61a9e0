"""Words as numbers: a vocabulary counted from text, and the two plain tokenizers that captions and sentences need."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsInt

SPECIAL: tuple[str, ...] = ("<pad>", "<start>", "<end>", "<unk>")

_WORD = re.compile(
    r"[^\W_]+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\d+(?:[.,]\d+)+|[^\W_]+(?:-[^\W_]+)*",
)
_PIECE = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['.-][^\W_]+)*|[^\w\s]|_")


def caption_tokens(text: str) -> list[str]:
    """Splits a caption into lower-case words; punctuation is dropped, so a model of captions need not say it.

    Words are cut as the caption metrics cut them: "a man's t-shirt isn't red." gives a, man, 's, t-shirt, is, n't,
    red.
    """
    return _WORD.findall(_straight(text).lower())


def sentence_tokens(text: str, *, lower: bool = True) -> list[str]:
    """Splits a sentence into words and punctuation marks, each mark a token of its own.

    Apostrophes, points and hyphens inside a word stay in it (man's, t-shirt, U.S), so that joining with spaces and
    measuring with sacrebleu's `13a` counts the same words as the sentence itself.
    """
    text = _straight(text)
    return _PIECE.findall(text.lower() if lower else text)


def plain_text(tokens: Iterable[str]) -> str:
    """Joins tokens into a sentence to read: no space before `. , ! ? ; : ) n't 's`, none after `(`."""
    text = " ".join(tokens)
    text = re.sub(r" (?=[.,!?;:)](?: |$)|n't\b|'(?:s|re|ve|ll|d|m)\b)", "", text)
    return re.sub(r"(?<=\() ", "", text)


def _straight(text: str) -> str:
    return text.replace("\u2019", "'").replace("\u2018", "'").replace("\u00b4", "'").replace("`", "'")


class Vocabulary:
    """Numbers the words of a text; 0 to 3 are `<pad>`, `<start>`, `<end>` and `<unk>`.

    `words` are the words from number 4 on.  Raises ValueError where a word occurs twice or is one of the four.
    """

    pad, start, end, unknown = 0, 1, 2, 3

    def __init__(self, words: Sequence[str]) -> None:
        self.words: tuple[str, ...] = (*SPECIAL, *words)
        self._number = {word: number for number, word in enumerate(self.words)}
        if len(self._number) != len(self.words):
            twice = [word for word, times in Counter(self.words).items() if times > 1]
            raise ValueError(f"a vocabulary names each word once; given more than once: {', '.join(sorted(twice)[:5])}")

    @classmethod
    def build(cls, token_lists: Iterable[Iterable[str]], *, minimum: int = 1, size: int | None = None) -> "Vocabulary":
        """Takes the words that occur at least `minimum` times, the most frequent first, ties by the alphabet.

        `size` bounds the whole vocabulary, the four special entries included.  Raises ValueError where no word is left.
        """
        if minimum < 1 or (size is not None and size <= len(SPECIAL)):
            raise ValueError(f"minimum must be 1 or more and size above {len(SPECIAL)}, given {minimum} and {size}")
        counts = Counter(word for tokens in token_lists for word in tokens)
        ordered = sorted((-times, word) for word, times in counts.items() if times >= minimum and word not in SPECIAL)
        if not ordered:
            raise ValueError(f"no word occurs {minimum} times or more in {counts.total()} words; lower `minimum`")
        return cls([word for _, word in ordered[: None if size is None else size - len(SPECIAL)]])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words: {', '.join(self.words[4:8])}, …)"

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Gives the numbers of the tokens; unknown ones are 3.  Start and end are not added."""
        return [self._number.get(token, self.unknown) for token in tokens]

    def decode(self, ids: Iterable[SupportsInt]) -> list[str]:
        """Gives the words up to the first `<end>`, without `<start>` and `<pad>`.

        Takes numbers or a tensor of one dimension.  Raises ValueError for a number that is no word's.
        """
        words: list[str] = []
        for number in map(int, ids):
            if number == self.end:
                break
            if not 0 <= number < len(self.words):
                raise ValueError(f"{number} is no word of a vocabulary of {len(self)}")
            if number not in (self.pad, self.start):
                words.append(self.words[number])
        return words

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the words as JSON: {"words": […]}, the four special entries left out."""
        Path(path).write_text(json.dumps({"words": self.words[len(SPECIAL) :]}, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Reads what `save` wrote.  Raises ValueError, naming the file, for anything else."""
        file = Path(path)
        if not file.is_file():
            raise ValueError(f"{file}: no such file; expected a vocabulary written by Vocabulary.save")
        try:
            words = json.loads(file.read_text(encoding="utf-8"))["words"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: not a vocabulary, expected JSON with a list 'words'") from error
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{file}: not a vocabulary, 'words' must be a list of words")
        return cls(words)
