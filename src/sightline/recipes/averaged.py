"""The moving average of a network's weights, which generalises better than their last value."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(system: nn.Module, keep: float) -> AveragedModel:
    """Gives the average of `system`: after each step, `keep` of it stays, the rest comes from the new weights.

    Call its `update_parameters(system)` in `optimizer_step`, after the step and before a checkpoint is written.
    """

    def decayed(average: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        if not new.is_floating_point():  # a counter
            return new
        # a short memory at first, or the average would long remember the random start
        return average.lerp(new, 1 - min(keep, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(system, avg_fn=decayed, use_buffers=True)
