"""A teacher that follows its student: the same network, its weights a moving average, no gradient."""

import copy
from typing import TypeVar

import torch
from torch import nn

Student = TypeVar("Student", bound=nn.Module)


def teacher_of(student: Student) -> Student:
    """Copies a network; the copy takes no gradients."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Computes teacher = momentum x teacher + (1 - momentum) x student, for each parameter.

    Buffers stay the teacher's own: the running statistics of its batch norms describe what the teacher saw (He et
    al. 2020; Caron et al. 2021).  Raises ValueError for a momentum outside 0..1.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"a momentum lies in 0..1, given {momentum}")
    slow: list[torch.Tensor] = list(teacher.parameters())
    fast: list[torch.Tensor] = list(student.parameters())
    torch._foreach_lerp_(slow, fast, 1 - momentum)  # at once: on a GPU a launch each would cost more than the step
