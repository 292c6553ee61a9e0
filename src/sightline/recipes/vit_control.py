"""The control of the Vision Transformer: a plain residual CNN of the same parameters, data, augmentation and passes.

After He et al. 2016 (arXiv 1512.03385), basic blocks, four stages; trained by the same `Recipe` with the same
settings, so that the network is the only difference.
"""

from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.data.labelled import Union
from sightline.recipes import vit
from sightline.recipes.pictures import sizes_for

FRAME = vit
TINY_SYSTEM = {"image_size": 32, "width": 8, "blocks": 1}


class BasicBlock(nn.Module):
    """Computes relu(x + norm(conv(relu(norm(conv(x)))))), the first convolution with a stride."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        same = channels == out and stride == 1
        shortcut = [nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)]
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch out h2 w2"]:
        branch = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(branch + self.shortcut(x))


class ResidualNetwork(nn.Module, PyTorchModelHubMixin):
    """Computes class logits with four stages of `blocks` basic blocks, `width` channels doubling each stage."""

    def __init__(self, *, image_size: int = 64, width: int = 32, blocks: int = 2, classes: int = 1000) -> None:
        super().__init__()
        self.image_size = (image_size, image_size)
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for number in range(blocks):
                out = width * 2**stage
                layers.append(BasicBlock(channels, out, 2 if stage and not number else 1))
                channels = out
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        features = self.stages(F.relu(self.stem_norm(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))


def build(data: Union | None, **sizes: Any) -> ResidualNetwork:
    """Builds the control with as many parameters as the recipe's ViT (2.8 against 2.7 million)."""
    return ResidualNetwork(**sizes_for(data, sizes))
