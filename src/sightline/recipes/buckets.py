"""Batches of samples of similar length, so that little of them is padding."""

from functools import lru_cache

import numpy as np


class Buckets:
    """Gives the sample numbers of each step: sentences of similar length together, batches in random order.

    A permutation an epoch, a pure function of (seed, epoch); what does not fill a batch waits for the next epoch.
    """

    def __init__(self, lengths: np.ndarray, batch: int, seed: int, pool: int = 50) -> None:
        self.lengths, self.batch, self.seed, self.pool = lengths, batch, seed, pool * batch
        self.steps = max(1, len(lengths) // batch)
        self._epoch = lru_cache(maxsize=2)(self._batches)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        shuffled = generator.permutation(len(self.lengths))
        pools = [shuffled[i : i + self.pool] for i in range(0, len(shuffled), self.pool)]
        ordered = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        whole = np.resize(ordered, self.steps * self.batch)  # repeats samples where there are fewer than one batch
        return list(generator.permutation(whole.reshape(self.steps, self.batch)))

    def __getitem__(self, step: int) -> np.ndarray:
        return self._epoch(step // self.steps)[step % self.steps]
