"""What the caption metrics count: n-grams, longest common subsequences, and how many pictures speak of an n-gram."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Gram = tuple[str, ...]

LONGEST = 4


def ngrams(words: Sequence[str], longest: int = LONGEST) -> Counter[Gram]:
    """Counts the n-grams of 1 to `longest` words."""
    return Counter(tuple(words[i : i + size]) for size in range(1, longest + 1) for i in range(len(words) - size + 1))


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Gives the length of the longest common subsequence, in O(len(first) · len(second))."""
    row = [0] * (len(second) + 1)
    for word in first:
        corner = 0
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = corner + 1 if word == other else max(above, row[place - 1])
            corner = above
    return row[-1]


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
        for captions in references:
            documents += 1
            counts.update({gram for caption in captions for gram in ngrams(caption)})
        return cls(counts, documents)

    def rarity(self, gram: Gram) -> float:
        """log(documents / pictures with this n-gram); an n-gram never seen counts as seen once."""
        return math.log(float(self.documents)) - math.log(max(1.0, self.counts.get(gram, 0)))
