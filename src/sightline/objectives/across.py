"""Sums and collections over all processes of a run; with one process they are the tensor itself."""

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


def gathered(tensor: Tensor) -> Tensor:
    """Joins a tensor's rows of all processes, in their order; the gradient flows to this process's own rows."""
    if processes() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(processes())]
    dist.all_gather(parts, tensor.detach().contiguous())
    parts[dist.get_rank()] = tensor
    return torch.cat(parts)
