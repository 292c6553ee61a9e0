"""Goes on from a trained Show, Attend and Tell by what its captions are worth, instead of word by word.

paper     Self-critical Sequence Training for Image Captioning, Rennie et al., CVPR 2017 (arXiv 1612.00563)
data      as recipes/show_attend_tell.py
init      the `weights` folder of its run (needed: a random captioner earns nothing)
objective REINFORCE: several captions are drawn for each photograph, each is rewarded by CIDEr-D + BLEU-4 / 2 against
          the written ones, and its baseline is the mean reward of the photograph's other captions
differs   The paper's baseline is the greedy caption; the mean of the others (Luo 2020, arXiv 2003.09971) costs no
          decoding of its own and varies less. CIDEr-D alone makes captions end in "a"; BLEU-4 keeps them whole.
          The draws are sharpened: a network trained with label smoothing draws a stray word in most captions, and
          learns first to say less.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sightline.data.captioned_features import CaptionedFeatures
from sightline.decoding import sample
from sightline.metrics.captions import bleu_each, cider_d_each
from sightline.metrics.ngrams import DocumentFrequency
from sightline.objectives.policy_gradient import reinforce
from sightline.recipes import show_attend_tell
from sightline.recipes.captions import LONGEST

FRAME = show_attend_tell
TINY = {"steps": 10, "batch": 4, "save_every": 5, "average": 0.5, "beam": 2, "precision": "32-true", "draws": 3}


@dataclass(frozen=True)
class Settings(show_attend_tell.Settings):
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 600
    rate: float = 5e-5
    average: float = 0.99
    draws: int = 5  # captions of a photograph
    temperature: float = 0.5  # of the draws
    bleu: float = 0.5  # weight of BLEU-4 beside CIDEr-D
    save_every: int = 100


class Recipe(show_attend_tell.Recipe):
    """Trains a captioner by REINFORCE; keeps the average of its weights."""

    settings: Settings

    def __init__(self, system: Any, settings: Settings, data: CaptionedFeatures | None) -> None:
        super().__init__(system, settings, data)
        self.frequency = None if data is None else DocumentFrequency.of(data.words)

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        features, draws, system = batch["features"], self.settings.draws, self.system
        truth = [[self.vocabulary.decode(row) for row in rows] for rows in batch["tokens"].tolist()]
        system.eval()  # without dropout, so that what is drawn is what is learned
        with torch.no_grad():
            step, state = system.decoder(features)
            rows = torch.arange(len(features), device=features.device).repeat_interleave(draws)
            state = tuple(part[rows] for part in state)
            blocked = (system.pad, system.start, system.unknown)
            drawn = sample(
                step,
                state,
                start=system.start,
                end=system.end,
                max_length=LONGEST,
                blocked=blocked,
                temperature=self.settings.temperature,
            )
        said = [self.vocabulary.decode(row) for row in drawn.tokens.tolist()]
        rewards = self.reward(said, [one for one in truth for _ in range(draws)]).view(-1, draws)
        others = (rewards.sum(dim=1, keepdim=True) - rewards) / (draws - 1)
        told = system(features, _closed(drawn.tokens, drawn.lengths, system))
        # of the distribution that was drawn from
        logits = told.logits.float().index_fill(1, torch.tensor(blocked, device=features.device), float("-inf"))
        log_probs = (logits / self.settings.temperature).log_softmax(dim=1)
        log_probs = log_probs.gather(1, told.targets[:, None]).squeeze(1)
        gain = (rewards - others).flatten()[told.captions]
        self.log("reward", rewards.mean(), batch_size=len(features))
        return reinforce(log_probs[None], gain[None], torch.zeros_like(gain)[None]) / len(rewards.flatten())

    def reward(self, said: list[list[str]], truth: list[list[list[str]]]) -> Tensor:
        """Computes the worth of each caption against those written of its photograph."""
        said = [one or ["<end>"] for one in said]
        worth = cider_d_each(said, truth, self.frequency) + self.settings.bleu * bleu_each(said, truth)[:, 3]
        return torch.from_numpy(worth).float().to(self.device)


def _closed(tokens: Tensor, lengths: Tensor, system: Any) -> Tensor:
    """Puts the start before drawn captions, and padding behind their end."""
    behind = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
    start = tokens.new_full((len(tokens), 1), system.start)
    return torch.cat([start, tokens.masked_fill(behind, system.pad)], dim=1)
