"""A batch computed in parts, one after another or on several processes, as if it were computed at once.

The gradients of `accumulate` parts are added up before the network moves, so that a batch for which there is no room
needs a part of it.  A loss is a mean over the samples of a part, and all parts have as many; or over what
training_step says, by giving {"loss": mean, "count": over so many} (words that are no padding), and then each part
weighs as much as it counts.
"""

from functools import wraps
from typing import Any

import lightning
import torch
from torch import Tensor


class Parts(lightning.Callback):
    """Makes of the parts' gradients those of the mean over the whole batch; `scale` is what that took.

    Stands before whatever looks at gradients.
    """

    def __init__(self, recipe: lightning.LightningModule, parts: int) -> None:
        self.scale: float | Tensor = 1.0
        self._count: float | Tensor = 0.0
        if parts > 1:
            recipe.training_step = self._weighed(recipe.training_step)  # type: ignore[method-assign]

    def _weighed(self, training_step: Any) -> Any:
        @wraps(training_step)
        def step(batch: Any, number: int) -> Any:
            given = training_step(batch, number)
            if not (isinstance(given, dict) and "count" in given):
                return given
            self._count = self._count + given["count"]
            return given | {"loss": given["loss"] * given["count"]}

        return step

    def on_train_batch_start(self, trainer: lightning.Trainer, recipe: Any, batch: Any, number: int) -> None:
        if number % trainer.accumulate_grad_batches == 0:
            self._count, self.scale = 0.0, 1.0

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, recipe: lightning.LightningModule, optimizer: Any
    ) -> None:
        if isinstance(self._count, float) and self._count == 0.0:  # the loss is a mean over samples
            return
        count = torch.as_tensor(self._count, dtype=torch.float32, device=recipe.device)
        # so far they are summed losses, averaged over parts and processes
        self.scale = trainer.accumulate_grad_batches / trainer.strategy.reduce(count, reduce_op="mean")
        for parameter in recipe.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self.scale)
