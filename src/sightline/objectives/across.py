"""Sums and collections over all processes of a run; with one process they are the tensor itself."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def processes() -> int:
    """Counts the processes that share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def summed(tensor: Tensor) -> Tensor:
    """Adds a tensor up over all processes, without gradient."""
    if processes() == 1:
        return tensor.detach()
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    """Joins rows; backwards, the gradients that all processes have for them are added up."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(processes())]
        dist.all_gather(parts, rows.contiguous())
        context.count = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total[dist.get_rank() * context.count :][: context.count]


def gathered(tensor: Tensor) -> Tensor:
    """Joins a tensor's rows of all processes, in their order; every process has as many.

    The gradient flows back to the rows of all of them, so that averaged over the processes, as a trainer does, it is
    that of the mean of their losses.
    """
    return tensor if processes() == 1 else _Gather.apply(tensor)
