"""What the caption metrics count: n-grams, longest common subsequences, and how many pictures speak of an n-gram."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Gram = tuple[str, ...]

LONGEST = 4
# a picture's references come back with every caption of it, as in judgements and in rewards: so many are counted once
KEPT = 4096


def ngrams(words: Sequence[str], longest: int = LONGEST) -> Counter[Gram]:
    """Counts the n-grams of 1 to `longest` words."""
    return Counter(tuple(words[i : i + size]) for size in range(1, longest + 1) for i in range(len(words) - size + 1))


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Gives the length of the longest common subsequence, in O(len(second)) operations on len(first) bits.

    Bit i of `row` is 0 where one word more of `first[: i + 1]` than of `first[:i]` is common with what was read of
    `second`; adding carries each word that matches to the next such place.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    row = full = (1 << len(first)) - 1
    for word in second:
        matching = row & places.get(word, 0)
        row = ((row + matching) | (row - matching)) & full
    return len(first) - row.bit_count()


@dataclass(frozen=True)
class DocumentFrequency:
    """How many of `documents` pictures have an n-gram in one of their references.

    Count it once over a training set (`DocumentFrequency.of(references)`) and give it to CIDEr-D where the references
    at hand are too few to count on: rewards in training, single pictures.
    """

    counts: Mapping[Gram, int]
    documents: int

    @classmethod
    def of(cls, references: Iterable[Sequence[Sequence[str]]]) -> "DocumentFrequency":
        """Counts over pictures; `references` holds for each the list of its captions, already cut into words."""
        counts: Counter[Gram] = Counter()
        documents = 0
        grams = lru_cache(KEPT)(lambda words: frozenset(ngrams(words)))
        for captions in references:
            documents += 1
            counts.update(frozenset().union(*(grams(tuple(caption)) for caption in captions)))
        return cls(counts, documents)

    def rarity(self, gram: Gram) -> float:
        """log(documents / pictures with this n-gram); an n-gram never seen counts as seen once."""
        return math.log(float(self.documents)) - math.log(max(1.0, self.counts.get(gram, 0)))
