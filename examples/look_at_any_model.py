"""Look at a model of your own: a picture and a page of where its class token went, and what that did to the answer.

python examples/look_at_any_model.py [OUT]        random weights and no network: what counts is the way
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import sightline
from sightline.data.photographs import sample_photographs


class Mine(nn.Module):
    # any module will do; this one never heard of the lens
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.class_token = nn.Conv2d(3, 64, 16, 16), nn.Parameter(torch.randn(1, 1, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 3), nn.Linear(64, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(pixels), -1, -1), patches], 1)
        return self.head(self.encoder(tokens)[:, 0])


out = Path(sys.argv[1] if len(sys.argv) > 1 else "looks")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
model, image = Mine().eval(), sightline.open_photograph(sample_photographs()[0]).resize((192, 128))
pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 128, 192, 3).permute(0, 3, 1, 2) / 255

with sightline.record(model) as seen:
    model(pixels)
print(seen, seen.check(seeds=4, steps=6).summary(), sep="\n")
seen.overlay(image, title="A model of my own").save(out / "look.png")
print(seen.to_html(out / "look.html", image))
