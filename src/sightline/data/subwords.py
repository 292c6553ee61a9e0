"""Pieces of words as numbers: byte-pair encoding learned from text, so that rare words can be read and written.

Sennrich, Haddow, Birch 2016 (arXiv 1508.07909). A space is written as "▁" before the word it precedes, and punctuation
marks are pieces of their own, so that decoding gives the sentence back as it was written.
"""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sightline.data.vocabulary import SPECIAL

_SPACE = "▁"
_MOST = 20_000  # characters of a sentence


class Subwords:
    """Numbers pieces of words; 0 to 3 are `<pad>`, `<start>`, `<end>` and `<unk>`, as in `Vocabulary`."""

    pad, start, end, unknown = 0, 1, 2, 3
    blocked = (pad, start, unknown)  # never to be written

    def __init__(self, tokenizer: Tokenizer) -> None:
        for number, name in enumerate(SPECIAL):
            if tokenizer.token_to_id(name) != number:
                raise ValueError(f"piece {number} must be {name}, but is {tokenizer.id_to_token(number)!r}")
        self.tokenizer = tokenizer

    @classmethod
    def build(cls, texts: Iterable[str], *, size: int = 4000) -> "Subwords":
        """Learns the merges of most frequent neighbours until there are `size` pieces, the special ones included.

        Small texts give fewer. Raises ValueError for no text, or a size that does not hold the characters.
        """
        lines = list(texts)
        characters = len({letter for line in lines for letter in line})
        if not lines or size < characters + len(SPECIAL) + 1:
            raise ValueError(
                f"size={size} is too small for {characters} different characters in {len(lines)} sentences; "
                f"give {characters + len(SPECIAL) + 1} or more, and at least one sentence"
            )
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[cls.unknown]))
        straight = [normalizers.Replace(mark, "'") for mark in "\u2019\u2018\u00b4`"]
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), *straight, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(replacement=_SPACE), pre_tokenizers.Punctuation()]
        )
        tokenizer.decoder = decoders.Metaspace(replacement=_SPACE)
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subwords) and self.tokenizer.to_str() == other.tokenizer.to_str()

    def __hash__(self) -> int:
        return hash(self.tokenizer.to_str())

    def __repr__(self) -> str:
        return f"Subwords({len(self)} pieces)"

    def encode(self, text: str) -> list[int]:
        """Gives the numbers of a sentence's pieces, without start and end; ValueError for one of absurd length."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes many sentences at once."""
        for text in texts:
            if len(text) > _MOST:
                raise ValueError(f"a sentence of {len(text)} characters; at most {_MOST}: give one sentence at a time")
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def unknown_in(self, text: str) -> tuple[str, ...]:
        """Lists what of a sentence is in no piece, each once: characters that were never read."""
        text = unicodedata.normalize("NFC", text)  # else an offset may name a letter apart from its accent
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        parts = zip(encoding.ids, encoding.offsets, strict=True)
        return tuple(dict.fromkeys(text[first:last] for number, (first, last) in parts if number == self.unknown))

    def decode(self, ids: Iterable[int]) -> str:
        """Gives the text of pieces up to the first `<end>`, special pieces left out."""
        numbers = list(map(int, ids))
        if self.end in numbers:
            numbers = numbers[: numbers.index(self.end)]
        return self.tokenizer.decode([number for number in numbers if number >= len(SPECIAL)])

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Gives each piece as it is written, "▁" standing for the space before a word."""
        return [self.tokenizer.id_to_token(int(number)) or SPECIAL[self.unknown] for number in ids]

    source_pieces = pieces  # both languages have one vocabulary

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON of the `tokenizers` library, which other programs read too."""
        Path(path).write_text(self.tokenizer.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Subwords":
        """Reads what `save` wrote. Raises ValueError, naming the file, for anything else."""
        file = Path(path)
        if not file.is_file():
            raise ValueError(f"{file}: no such file; expected the pieces that Subwords.save writes")
        try:
            return cls(Tokenizer.from_str(file.read_text(encoding="utf-8")))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{file}: no tokenizer as Subwords.save writes it ({error})") from error
