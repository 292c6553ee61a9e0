"""Captioned photographs as a captioner reads them: features of a frozen encoder, and words as numbers."""

import numpy as np
import torch
from torch import Tensor

from sightline.data.captions import Captioned
from sightline.data.features import Features
from sightline.data.vocabulary import Vocabulary, caption_tokens


class CaptionedFeatures:
    """Photographs with features and captions.

    Where the features of mirror images are there, sample 2 i is photograph i and 2 i + 1 its mirror image.
    `vocabulary` holds the words that occur at least `minimum` times, unless one is given.  `longest` cuts captions
    off (words)."""

    def __init__(
        self,
        captioned: Captioned,
        features: Features,
        vocabulary: Vocabulary | None = None,
        *,
        minimum: int = 5,
        longest: int = 20,
    ) -> None:
        self.captioned, self.features, self.longest = captioned, features, longest
        self.words = [[caption_tokens(one) for one in captions] for captions in captioned.captions]
        self.vocabulary = vocabulary or Vocabulary.build(
            (one for captions in self.words for one in captions), minimum=minimum
        )
        self.copies = 2 if features.mirrored else 1

    def __len__(self) -> int:
        return self.copies * len(self.captioned)

    @property
    def width(self) -> int:
        """Channels of the features."""
        return self.features.width

    @property
    def names(self) -> list[str]:
        """File names of the photographs, without folders."""
        return [name.rsplit("/", 1)[-1] for name in self.captioned.images]

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Reads "features" (images, cells, width), and "tokens" (images, captions, length): start … end, padding.

        A photograph with fewer captions than the others of its batch says its own again.
        """
        vocabulary, names = self.vocabulary, self.names
        photographs, mirrored = indices // self.copies, indices % self.copies
        lists = [
            [[vocabulary.start, *vocabulary.encode(one[: self.longest]), vocabulary.end] for one in self.words[i]]
            for i in photographs
        ]
        most = max(len(captions) for captions in lists)
        rows = [captions[k % len(captions)] for captions in lists for k in range(most)]
        tokens = torch.full((len(rows), max(len(row) for row in rows)), vocabulary.pad)
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = torch.tensor(row)
        features = self.features.of([names[i] for i in photographs], mirrored.astype(bool).tolist())
        return {"features": features, "tokens": tokens.unflatten(0, (len(lists), most))}
