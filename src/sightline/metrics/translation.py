"""BLEU of translations by sacrebleu, over a whole test set and by the length of its sentences."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


def bleu(
    translations: Sequence[str], references: Sequence[str], *, lowercase: bool = False, tokenize: str = "13a"
) -> float:
    """Corpus BLEU in percent (0 … 100) as sacrebleu computes it (Post 2018), one reference for each sentence.

    Give plain sentences: `tokenize` cuts them ("13a" as WMT; "none" for text that is cut already; "zh", "ja-mecab",
    "char" …).  Case counts unless `lowercase`.  Raises ValueError for lists that do not pair and unknown tokenizers.
    """
    return float(_scorer(lowercase, tokenize).corpus_score(*_paired(translations, references)).score)


def bleu_signature(*, lowercase: bool = False, tokenize: str = "13a") -> str:
    """Gives sacrebleu's signature, to be quoted beside a figure: nrefs:1|case:mixed|tok:13a|…"""
    scorer = _scorer(lowercase, tokenize)
    scorer.corpus_score(["a"], [["a"]])
    return str(scorer.get_signature())


@dataclass(frozen=True)
class Bucket:
    """BLEU of the sentences of `low` to `high` words (`high` None: no bound), `sentences` of them."""

    low: int
    high: int | None
    sentences: int
    bleu: float

    def __str__(self) -> str:
        bound = f"{self.low}-{self.high}" if self.high is not None else f"{self.low}+"
        return f"{bound} words: {self.bleu:.1f} ({self.sentences} sentences)"


def bleu_by_length(
    translations: Sequence[str],
    references: Sequence[str],
    lengths: Sequence[int] | None = None,
    *,
    edges: Sequence[int] = (10, 20, 30, 40, 50),
    lowercase: bool = False,
    tokenize: str = "13a",
) -> list[Bucket]:
    """Corpus BLEU of short and of long sentences apart (figure 2 of Bahdanau et al. 2015).

    `edges` are the longest lengths of the buckets; one more holds what is longer.  `lengths` are the sentences' lengths
    in words, of the sources as a rule; without them those of the references, split at blanks.  Empty buckets are
    left out.  Raises ValueError for edges that do not rise and lengths that do not pair.
    """
    lengths = [len(reference.split()) for reference in references] if lengths is None else lengths
    if len(lengths) != len(translations):
        raise ValueError(f"{len(lengths)} lengths for {len(translations)} translations; expected one each")
    if not edges or any(b <= a for a, b in itertools.pairwise(edges)):
        raise ValueError(f"edges must rise, given {list(edges)}")
    _paired(translations, references)
    places = [bisect.bisect_left(edges, length) for length in lengths]
    found = []
    for place in range(len(edges) + 1):
        chosen = [number for number, one in enumerate(places) if one == place]
        if chosen:
            score = bleu(
                [translations[i] for i in chosen],
                [references[i] for i in chosen],
                lowercase=lowercase,
                tokenize=tokenize,
            )
            low = edges[place - 1] + 1 if place else min(lengths[i] for i in chosen)
            found.append(Bucket(low, edges[place] if place < len(edges) else None, len(chosen), score))
    return found


def _paired(translations: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    if isinstance(translations, str) or isinstance(references, str):
        raise ValueError("translations and references must be lists of sentences, given one string")
    if len(translations) != len(references) or not len(translations):
        raise ValueError(f"{len(translations)} translations and {len(references)} references; expected one each")
    return list(translations), [list(references)]


def _scorer(lowercase: bool, tokenize: str) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"tokenize must be one of {', '.join(sorted(BLEU.TOKENIZERS))}, given {tokenize!r}")
    # text that is cut already is no mistake here, so sacrebleu need not warn of it
    return BLEU(lowercase=lowercase, tokenize=tokenize, force=True)
