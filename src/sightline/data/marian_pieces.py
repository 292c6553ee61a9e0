"""The pieces of words that MarianMT's translators read and write (Helsinki-NLP's opus-mt and others).

SentencePiece cuts a sentence (Kudo and Richardson 2018, arXiv 1808.06226): source.spm and target.spm, whose pieces
vocab.json numbers. `transformers` reads these files, with the package sentencepiece.
"""

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES = ("source.spm", "target.spm", "vocab.json")
_MOST = 20_000  # characters of a sentence


def is_marian(folder: Path, name: str) -> bool:
    """Tells whether a folder holds MarianMT's config.json; a hub id that is no folder may hold one."""
    if not folder.exists():
        return bool(_HUB_ID.fullmatch(name))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "marian"


class MarianPieces:
    """Numbers pieces as a MarianMT folder does; a sentence may begin with the language it shall become, ">>fra<<"."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer, self.start = tokenizer, start
        self.pad, self.end, self.unknown = tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
        self.blocked = (self.pad,)  # as the published models' `bad_words_ids`

    @classmethod
    def open(cls, place: str) -> "MarianPieces":
        """Reads a folder or hub id, offline from the hub's cache.

        Raises ImportError without sentencepiece, FileNotFoundError where a file is missing, ValueError for one that is
        broken or belongs to another model.
        """
        if find_spec("sentencepiece") is None:
            raise ImportError(f"{place}: MarianMT's words need the package sentencepiece: pip install sentencepiece")
        from transformers import AutoConfig, MarianTokenizer

        folder = Path(place).expanduser()
        missing = [name for name in FILES if not (folder / name).is_file()] if folder.is_dir() else []
        if missing:
            raise FileNotFoundError(f"{place}: no {', '.join(missing)}, which cut sentences into the words it knows")
        try:
            config = AutoConfig.from_pretrained(str(folder) if folder.is_dir() else place)
            if config.model_type != "marian":
                raise ValueError(f"its config.json is of a {config.model_type}, and only marian translates here")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*sacremoses")  # it asks for it, and never calls it
                tokenizer = MarianTokenizer.from_pretrained(str(folder) if folder.is_dir() else place)
        except OSError as error:
            told = f"neither a folder here, nor whole in the hub's cache, nor could it be downloaded ({_line(error)})"
            raise FileNotFoundError(f"{place}: {told}") from error
        except Exception as error:  # of sentencepiece, JSON, a missing <unk>: each library has its own
            raise ValueError(f"{place}: its words cannot be read ({_line(error)})") from error
        start = config.decoder_start_token_id
        return cls(tokenizer, tokenizer.pad_token_id if start is None else start)

    def __len__(self) -> int:
        return len(self.tokenizer.encoder)

    def __repr__(self) -> str:
        return f"MarianPieces({len(self)} pieces)"

    def encode(self, text: str) -> list[int]:
        """Gives the numbers of a sentence's pieces, without the end; ValueError for one of absurd length."""
        if len(text) > _MOST:
            raise ValueError(f"a sentence of {len(text)} characters; at most {_MOST}: give one sentence at a time")
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes many sentences."""
        return [self.encode(text) for text in texts]

    def unknown_in(self, text: str) -> tuple[str, ...]:
        """Lists what of a sentence is in no piece, each once."""
        names = self.tokenizer.tokenize(text)
        numbers = self.tokenizer.convert_tokens_to_ids(names)
        never = [name.strip("▁") for name, number in zip(names, numbers, strict=True) if number == self.unknown]
        return tuple(dict.fromkeys(never))

    def decode(self, ids: Iterable[int]) -> str:
        """Gives the text of pieces up to the first end, special pieces left out."""
        numbers = list(map(int, ids))
        if self.end in numbers:
            numbers = numbers[: numbers.index(self.end)]
        return str(self.tokenizer.decode(numbers, skip_special_tokens=True))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Gives each piece of a target as it is written, "▁" standing for the space before a word."""
        return list(self.tokenizer.convert_ids_to_tokens([int(number) for number in ids]))

    def source_pieces(self, ids: Iterable[int]) -> list[str]:
        """Gives each piece of a source, which may have a vocabulary of its own."""
        names = {number: name for name, number in self.tokenizer.encoder.items()}
        return [names.get(int(number), self.tokenizer.unk_token) for number in ids]


def _line(error: BaseException) -> str:
    told = str(error).strip() or type(error).__name__
    return told.splitlines()[0].strip()
