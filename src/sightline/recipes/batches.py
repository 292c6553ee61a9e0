"""Batches whose content depends on the seed and the step alone, so that a resumed run sees what it would have seen."""

from collections.abc import Iterator
from functools import lru_cache

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sightline.data.labelled import Labelled
from sightline.data.pixels import to_square


def picture_batch(pictures: Labelled, indices: np.ndarray, side: int) -> dict[str, Tensor]:
    """Reads pictures into {"images": bytes (batch, 3, side, side), "labels": (batch,)}."""
    images = [to_square(pictures.image(int(i)), side) for i in indices]
    return {"images": torch.stack(images), "labels": torch.from_numpy(pictures.labels[indices])}


class Order:
    """Gives the picture numbers of each step: a permutation an epoch, a pure function of (seed, epoch)."""

    def __init__(self, length: int, batch: int, seed: int) -> None:
        self.length, self.batch, self.seed = length, batch, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.length)

    def __getitem__(self, step: int) -> np.ndarray:
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        return np.array([self._epoch(int(p // self.length))[p % self.length] for p in places])


class Steps(IterableDataset):
    """Yields the batches of steps `first` to `last`; several workers share them out in order."""

    def __init__(self, pictures: Labelled, order: Order, side: int, first: int, last: int) -> None:
        self.pictures, self.order, self.side, self.first, self.last = pictures, order, side, first, last

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        skip, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.first + skip, self.last, stride):
            yield picture_batch(self.pictures, self.order[step], self.side)


class LabelledBatches(lightning.LightningDataModule):
    """Feeds a run: training batches from the trainer's step on, and `held` of the held-out pictures.

    The latter are spread evenly over the collection.  On several machines each process takes its share of every batch.
    """

    def __init__(
        self,
        train: Labelled,
        val: Labelled,
        *,
        side: int,
        batch: int,
        steps: int,
        seed: int,
        held: int = 1000,
    ) -> None:
        super().__init__()
        self.pictures, self.val, self.side, self.batch, self.steps = train, val, side, batch, steps
        self.order = Order(len(train), batch, seed)
        self.held = np.linspace(0, len(val) - 1, min(held, len(val))).round().astype(int)

    def train_dataloader(self) -> DataLoader:
        order: Order = self.order
        if self.trainer and self.trainer.world_size > 1:
            order = _Share(order, self.trainer.global_rank, self.trainer.world_size)
        first = self.trainer.global_step if self.trainer else 0
        return DataLoader(Steps(self.pictures, order, self.side, first, self.steps), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        chunks = [self.held[i : i + 250] for i in range(0, len(self.held), 250)]
        read = [picture_batch(self.val, chunk, self.side) for chunk in chunks]
        return DataLoader(read, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style dataset


class _Share(Order):
    def __init__(self, order: Order, rank: int, world: int) -> None:
        super().__init__(order.length, order.batch, order.seed)
        self.rank, self.world = rank, world

    def __getitem__(self, step: int) -> np.ndarray:
        return super().__getitem__(step)[self.rank :: self.world]
