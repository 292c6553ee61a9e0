"""BLEU, ROUGE-L and CIDEr of captions, equal to the COCO caption evaluation to its printed digits, without Java.

Every function takes `captions` (one for each picture) and `references` (for each picture the list of its references).
A caption is a string, cut by `caption_words`, or a list of words, taken as they are.  Figures are fractions, as the
official code prints them: 0.195 is the 19.5 of a paper's table; CIDEr is 10 times a mean cosine.  `…_each` gives a row
for each picture.  All raise ValueError where captions and references do not pair, or a picture has no reference.

METEOR and SPICE need Java: `sightline.metrics.java`.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from sightline.metrics.ngrams import KEPT, LONGEST, DocumentFrequency, Gram, common_length, ngrams
from sightline.metrics.words import caption_words

Caption = str | Sequence[str]

# the constants of the official code: a count that is missing weighs 1e-15, an empty sum 1e-9
_TINY, _SMALL = 1e-15, 1e-9
_BETA = 1.2
_SIGMA = 6.0


def score_captions(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> dict[str, float]:
    """Gives BLEU-1 … BLEU-4, ROUGE-L and CIDEr (as it is published, that is CIDEr-D) over all pictures."""
    cut, known = cut_captions(captions, references)
    scores = {f"BLEU-{size}": value for size, value in enumerate(bleu(cut, known), 1)}
    return scores | {"ROUGE-L": rouge_l(cut, known), "CIDEr": cider_d(cut, known)}


def bleu(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the whole corpus (Papineni et al. 2002), reference length closest to the caption's.

    BLEU-n = min(1, exp(1 - r/c)) · (p_1 ⋯ p_n)^(1/n), with p_k the share of the captions' k-grams found in a reference
    (each at most as often as in one reference), c and r the total lengths; of two equally close lengths the shorter.
    """
    counted = _counted(*cut_captions(captions, references))
    return _bleu_of(counted.sum(axis=0)[None])[0].tolist()


def bleu_each(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> np.ndarray:
    """BLEU-1 to BLEU-4 of every picture by itself, (pictures, 4); no smoothing but the official tiny constants."""
    return _bleu_of(_counted(*cut_captions(captions, references)))


def bleu_counts(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> dict[str, int | list[int]]:
    """Gives what BLEU was computed from, as the official code prints it: testlen, reflen, guess and correct."""
    total = _counted(*cut_captions(captions, references)).sum(axis=0).tolist()
    return {"testlen": total[0], "reflen": total[1], "guess": total[2 : 2 + LONGEST], "correct": total[2 + LONGEST :]}


def rouge_l(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> float:
    """ROUGE-L (Lin 2004): mean of (1 + β²) P R / (R + β² P), β = 1.2, P and R by the longest common subsequence.

    P and R are each the best over the references, of one reference or two, as the official code takes them.
    """
    return float(rouge_l_each(captions, references).mean())


def rouge_l_each(captions: Sequence[Caption], references: Sequence[Sequence[Caption]]) -> np.ndarray:
    """ROUGE-L of every picture, (pictures,)."""
    return np.array([_rouge_of(*pair) for pair in zip(*cut_captions(captions, references), strict=True)])


def cider_d(
    captions: Sequence[Caption],
    references: Sequence[Sequence[Caption]],
    frequency: DocumentFrequency | None = None,
) -> float:
    """CIDEr-D (Vedantam et al. 2015, section 5), which the tables call "CIDEr".

    10 · mean over n = 1 … 4 and references of exp(-(l - l')² / 2σ²) · min(g, g') · g' / (|g| |g'|), with g the
    tf-idf weights of n-grams, l the lengths, σ = 6.  Document frequencies are counted over `references`, or given.
    """
    return float(cider_d_each(captions, references, frequency).mean())


def cider_d_each(
    captions: Sequence[Caption],
    references: Sequence[Sequence[Caption]],
    frequency: DocumentFrequency | None = None,
) -> np.ndarray:
    """CIDEr-D of every picture, (pictures,); as a reward in training, give the `frequency` of the training set."""
    return _consensus(*cut_captions(captions, references), frequency, clipped=True)


def cider(
    captions: Sequence[Caption],
    references: Sequence[Sequence[Caption]],
    frequency: DocumentFrequency | None = None,
) -> float:
    """What the COCO caption evaluation, and every table since, prints as "CIDEr": `cider_d`, by its common name."""
    return cider_d(captions, references, frequency)


def cider_plain(
    captions: Sequence[Caption],
    references: Sequence[Sequence[Caption]],
    frequency: DocumentFrequency | None = None,
) -> float:
    """CIDEr as its paper first defines it (section 3), before CIDEr-D: no clipping, no penalty of length.

    10 · mean over n and references of g · g' / (|g| |g'|); words are not stemmed.  Compare it with no published table.
    """
    return float(_consensus(*cut_captions(captions, references), frequency, clipped=False).mean())


def cut_captions(
    captions: Sequence[Caption], references: Sequence[Sequence[Caption]]
) -> tuple[list[Sequence[str]], list[list[Sequence[str]]]]:
    """Cuts all captions into words and makes sure that they pair.  Raises ValueError where they do not."""
    if isinstance(captions, str) or isinstance(references, str):
        raise ValueError("captions must be a list with a caption for each picture, given one string")
    if len(captions) != len(references) or not len(captions):
        raise ValueError(f"{len(captions)} captions and references of {len(references)} pictures; expected one each")
    for number, of_one in enumerate(references):
        if isinstance(of_one, str) or not len(of_one):
            told = "one string" if isinstance(of_one, str) else "none"
            raise ValueError(f"references[{number}] must be a list of one or more captions, given {told}")
    words = lru_cache(KEPT)(caption_words)

    def cut(caption: Caption) -> Sequence[str]:
        return words(caption) if isinstance(caption, str) else caption

    return [cut(one) for one in captions], [[cut(one) for one in of_one] for of_one in references]


def _counted(captions: list[Sequence[str]], references: list[list[Sequence[str]]]) -> np.ndarray:
    """(pictures, 10): length, closest reference length, n-grams said, n-grams right."""
    rows = []
    grams = lru_cache(KEPT)(ngrams)
    for caption, known in zip(captions, references, strict=True):
        allowed = [grams(tuple(reference)) for reference in known]
        right = [0] * LONGEST
        for gram, times in ngrams(caption).items():
            right[len(gram) - 1] += min(times, max(one.get(gram, 0) for one in allowed))
        closest = min((abs(len(reference) - len(caption)), len(reference)) for reference in known)[1]
        said = [max(0, len(caption) - size) for size in range(LONGEST)]
        rows.append([len(caption), closest, *said, *right])
    return np.array(rows)


def _bleu_of(counted: np.ndarray) -> np.ndarray:
    said, right = counted[:, 2 : 2 + LONGEST], counted[:, 2 + LONGEST :]
    precision = np.cumprod((right + _TINY) / (said + _SMALL), axis=1) ** (1 / np.arange(1, LONGEST + 1))
    ratio = (counted[:, :1] + _TINY) / (counted[:, 1:2] + _SMALL)
    return precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))


def _rouge_of(caption: Sequence[str], known: list[Sequence[str]]) -> float:
    precision = recall = 0.0
    for reference in known:
        # an empty caption counts as one empty word, as splitting at blanks gives it
        said, right = caption or [""], reference or [""]
        common = common_length(said, right)
        precision, recall = max(precision, common / len(said)), max(recall, common / len(right))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _consensus(
    captions: list[Sequence[str]],
    references: list[list[Sequence[str]]],
    frequency: DocumentFrequency | None,
    *,
    clipped: bool,
) -> np.ndarray:
    frequency = DocumentFrequency.of(references) if frequency is None else frequency
    scores = []
    weigh = lru_cache(KEPT)(lambda words: _weights(words, frequency))
    for caption, known in zip(captions, references, strict=True):
        mine = _weights(caption, frequency)
        scores.append(10 * sum(_alike(mine, weigh(tuple(one)), clipped) for one in known) / len(known))
    return np.array(scores)


def _weights(words: Sequence[str], frequency: DocumentFrequency) -> tuple[list[dict[Gram, float]], list[float], int]:
    """The tf-idf weights of the n-grams by n, their lengths, and the length of the caption (in pairs of words)."""
    weights: list[dict[Gram, float]] = [{} for _ in range(LONGEST)]
    for gram, times in ngrams(words).items():
        weights[len(gram) - 1][gram] = times * frequency.rarity(gram)
    return weights, [math.sqrt(sum(w * w for w in one.values())) for one in weights], max(0, len(words) - 1)


def _alike(
    mine: tuple[list[dict[Gram, float]], list[float], int],
    theirs: tuple[list[dict[Gram, float]], list[float], int],
    clipped: bool,
) -> float:
    total = 0.0
    for ours, other, norm, other_norm in zip(mine[0], theirs[0], mine[1], theirs[1], strict=True):
        common = ((weight, other[gram]) for gram, weight in ours.items() if gram in other)
        dot = sum((min(a, b) if clipped else a) * b for a, b in common)
        if norm and other_norm:
            total += dot / (norm * other_norm)
    penalty = math.exp(-((mine[2] - theirs[2]) ** 2) / (2 * _SIGMA**2)) if clipped else 1.0
    return total * penalty / LONGEST
