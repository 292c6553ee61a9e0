"""Generated scenes as a captioner reads them: features of a frozen encoder, words as numbers, and what words mean."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from sightline.data.features import Features
from sightline.data.scenes import Scenes
from sightline.data.scenes.language import Sentence
from sightline.data.vocabulary import Vocabulary

LEVEL = 1  # of three: "a red sphere, a green cylinder and a blue cube.", from left to right


class SceneCaptions:
    """Scenes with features and one caption each, which names the things from left to right."""

    def __init__(self, scenes: Scenes, features: Features) -> None:
        self.scenes, self.features = scenes, features
        self.sentences: list[Sentence] = [scenes.captions(number)[LEVEL] for number in range(len(scenes))]
        self.vocabulary = Vocabulary.build(sentence.words for sentence in self.sentences)

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def width(self) -> int:
        """Channels of the features."""
        return self.features.width

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Reads "features" (scenes, cells, width), and "tokens" (scenes, 1, length): start … end, padding."""
        vocabulary = self.vocabulary
        rows = [[vocabulary.start, *vocabulary.encode(self.sentences[i].words), vocabulary.end] for i in indices]
        tokens = torch.full((len(rows), 1, max(len(row) for row in rows)), vocabulary.pad)
        for number, row in enumerate(rows):
            tokens[number, 0, : len(row)] = torch.tensor(row)
        return {"features": self.features.of([str(i) for i in indices]), "tokens": tokens}

    def content(self, index: int) -> list[tuple[int, tuple[int, ...]]]:
        """Tells (place of the word, things it speaks of) of each word that speaks of something."""
        return [(place, things) for place, things in enumerate(self.sentences[index].objects) if things]

    def boxes(self, indices: np.ndarray) -> list[Bool[Tensor, "things height width"]]:
        """Gives the box of every thing of some scenes, as masks."""
        views = self.scenes.views([int(i) for i in indices])
        height, width = views.images.shape[-2:]
        made = []
        for number in range(len(indices)):
            boxes = views.boxes(number)
            masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
            for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
                mask[top:bottom, left:right] = True
            made.append(masks)
        return made
