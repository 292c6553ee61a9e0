"""Batches whose content depends on the seed and the step alone, so that a resumed run sees what it would have seen."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import lightning
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sightline.recipes.plan import TrainingError

Read = Callable[[np.ndarray], dict[str, Tensor]]


class Unreadable(TrainingError):
    """A sample of the data cannot be read; the message names it."""


@runtime_checkable
class Ordered(Protocol):
    """Anything that gives the sample numbers of a step."""

    def __getitem__(self, step: int) -> np.ndarray: ...


class Order:
    """Gives the sample numbers of each step: a permutation an epoch, a pure function of (seed, epoch)."""

    def __init__(self, length: int, batch: int, seed: int) -> None:
        self.length, self.batch, self.seed = length, batch, seed
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.length)

    def __getitem__(self, step: int) -> np.ndarray:
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, within = np.divmod(places, self.length)
        return np.concatenate([self._epoch(int(epoch))[within[epochs == epoch]] for epoch in np.unique(epochs)])


class Share:
    """Gives one process its samples of each step: every `world`-th, from its `rank` on."""

    def __init__(self, order: Ordered, rank: int, world: int) -> None:
        self.order, self.rank, self.world = order, rank, world

    def __getitem__(self, step: int) -> np.ndarray:
        return self.order[step][self.rank :: self.world]


class Steps(IterableDataset):
    """Yields the batches of steps `first` to `last`, each in `parts` equal ones; several workers keep the order."""

    def __init__(self, read: Read, order: Ordered, first: int, last: int, parts: int = 1) -> None:
        self.read, self.order, self.first, self.last, self.parts = read, order, first, last, parts

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        skip, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(self.first * self.parts + skip, self.last * self.parts, stride):
            step, part = divmod(number, self.parts)
            yield self.read(self.order[step][part :: self.parts])


class Reader:
    """Reads samples of one collection as the recipe's file says; raises `Unreadable`, which names the sample."""

    def __init__(self, recipe_file: Any, recipe: Any, data: Any, told: str) -> None:
        self.read_batch, self.recipe, self.data, self.told = recipe_file.read_batch, recipe, data, told

    def __call__(self, indices: np.ndarray) -> dict[str, Tensor]:
        try:
            return self.read_batch(self.data, indices, self.recipe)
        except (OSError, ValueError) as error:
            raise Unreadable(self._blamed(indices, error)) from error

    def _blamed(self, indices: np.ndarray, error: Exception) -> str:
        for place in range(len(indices)):
            try:
                self.read_batch(self.data, indices[place : place + 1], self.recipe)
            except (OSError, ValueError) as alone:
                reason = " ".join(str(alone).split())
                return f"sample {indices[place]} of {self.told} cannot be read: {reason}"
        return f"a batch of {self.told} cannot be read: {' '.join(str(error).split())}"


class Batches(lightning.LightningDataModule):
    """Feeds a run: training batches from the trainer's step on, and `held` (a setting, 1000) of the held-out samples.

    The latter are spread evenly over the collection.  On several machines each process takes its share of every
    training batch, in as many parts as the trainer accumulates; the held-out samples are read by all.
    """

    def __init__(self, recipe_file: Any, recipe: Any, train: Any, held: Any, *, told: str) -> None:
        super().__init__()
        self.settings = settings = recipe.settings
        self.read = Reader(recipe_file, recipe, train, f"{told} (train)")
        self.read_held = Reader(recipe_file, recipe, held, f"{told} (val)")
        own = getattr(recipe_file, "order", None)
        self.order: Ordered = own(train, settings) if own else Order(len(train), settings.batch, settings.seed)
        self.held = np.linspace(0, len(held) - 1, min(getattr(settings, "held", 1000), len(held))).round().astype(int)

    def train_dataloader(self) -> DataLoader:
        order = self.order
        if self.trainer and self.trainer.world_size > 1:
            order = Share(order, self.trainer.global_rank, self.trainer.world_size)
        first, parts = (self.trainer.global_step, self.trainer.accumulate_grad_batches) if self.trainer else (0, 1)
        return DataLoader(Steps(self.read, order, first, self.settings.steps, parts), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        size = self.settings.batch
        read = [self.read_held(self.held[i : i + size]) for i in range(0, len(self.held), size)]
        return DataLoader(read, batch_size=None)  # type: ignore[arg-type]  # a list is a map-style dataset
