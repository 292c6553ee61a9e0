"""The moving average of a network's weights, which generalises better than their last value."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(system: nn.Module, keep: float) -> AveragedModel:
    """Gives the average of `system`: after each step, `keep` of it stays, the rest comes from the new weights.

    At first it remembers less, (1 + n) / (10 + n) after n steps; buffers are averaged too, counters copied.

    Call its `update_parameters(system)` in `optimizer_step`, after the step and before a checkpoint is written.
    """

    def decay(averages: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        """All tensors of one device and kind at once: on a GPU a launch each would cost more than the step."""
        if not new[0].is_floating_point():  # counters
            torch._foreach_copy_(list(averages), list(new))
            return
        # or the average would long remember the random start
        torch._foreach_lerp_(list(averages), list(new), 1 - min(keep, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(system, multi_avg_fn=decay, use_buffers=True).requires_grad_(False)
