"""Images to patch tokens."""

from jaxtyping import Float
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and maps each linearly to a token (Dosovitskiy et al. 2021, equation 1).

    (batch, channels, H, W) -> (batch, (H // patch) (W // patch), dim), row by row.  Rows and columns beyond
    the last whole patch are not seen, as in the published implementations.  Raises ValueError for an image
    smaller than a patch or with other channels.
    """

    def __init__(self, *, patch: int, dim: int, channels: int = 3) -> None:
        super().__init__()
        self.patch, self.channels = patch, channels
        self.project = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def grid(self, images: Float[Tensor, "batch channels height width"]) -> tuple[int, int]:
        """Tells how many patches an image has, (rows, columns)."""
        height, width = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        if height < 1 or width < 1 or images.shape[1] != self.channels:
            raise ValueError(
                f"images need {self.channels} channels and sides of {self.patch} pixels (one patch) or more, "
                f"given {tuple(images.shape)}"
            )
        return height, width

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches dim"]:
        self.grid(images)
        return self.project(images).flatten(2).transpose(1, 2)
