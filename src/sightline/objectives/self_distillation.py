"""Learning from oneself: a student predicts, from other crops, what its own moving average says of a picture.

DINO, Caron et al. 2021 (arXiv 2104.14294), equations 1 to 4.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.objectives.across import processes, summed


class Centre(nn.Module):
    """Keeps the moving average of the teacher's outputs (1, prototypes), which is taken from them (equation 4).

    Centring alone drives the teacher to the same weight on all prototypes, sharpening alone to one prototype; both
    together keep it between.  `momentum=1` never moves the centre from zero: no centring.
    """

    value: Tensor

    def __init__(self, *, prototypes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(1, prototypes))

    @torch.no_grad()
    def update(self, teacher: Float[Tensor, "rows prototypes"]) -> None:
        """Moves the centre to the mean of a batch, over all processes.  Comes after the loss of that batch."""
        mean = summed(teacher.float().sum(dim=0, keepdim=True)) / (len(teacher) * processes())
        self.value.lerp_(mean, 1 - self.momentum)


def self_distillation(
    student: Float[Tensor, "crops batch prototypes"],
    teacher: Float[Tensor, "views batch prototypes"],
    centre: Float[Tensor, "1 prototypes"],
    *,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:
    """Computes the mean of H(p_t(view), p_s(crop)) over all pairs of a teacher's view and another crop.

    p_s = softmax(student / τ_s), p_t = softmax((teacher - centre) / τ_t) without gradient; the first crops of the
    student are the teacher's views, and a view is not compared with itself.  In float32 whatever comes in.  Raises
    ValueError where there is no pair.
    """
    if len(student) < 2 or len(student) < len(teacher):
        raise ValueError(
            f"{len(student)} crops of the student for {len(teacher)} views of the teacher: the student sees all of "
            "the teacher's views first, and at least two crops"
        )
    said = F.log_softmax(student.float() / student_temperature, dim=-1)
    target = F.softmax((teacher.detach().float() - centre) / teacher_temperature, dim=-1)
    with torch.autocast(said.device.type, enabled=False):  # which would sum in half precision
        pairs = torch.einsum("vbk,cbk->vc", target, said) / -student.shape[1]
    other = ~torch.eye(len(teacher), len(student), dtype=torch.bool, device=pairs.device)
    return pairs[other].mean()


@torch.no_grad()
def teacher_entropy(
    teacher: Float[Tensor, "*rows prototypes"],
    centre: Float[Tensor, "1 prototypes"],
    *,
    teacher_temperature: float = 0.04,
) -> dict[str, Tensor]:
    """Computes the mean entropy of the teacher's answers, and the entropy of their mean, both as shares of log K.

    The two kinds of collapse (the paper's figure 7): "mean" near 0, always the same prototype; "each" near 1, always
    all prototypes alike.  A healthy teacher is sure ("each" low) of different things ("mean" high).
    """
    target = F.softmax((teacher.float() - centre) / teacher_temperature, dim=-1).flatten(0, -2)
    most = torch.log(torch.tensor(float(target.shape[-1])))
    return {
        "each": torch.special.entr(target).sum(dim=-1).mean() / most,
        "mean": torch.special.entr(target.mean(dim=0)).sum() / most,
    }
