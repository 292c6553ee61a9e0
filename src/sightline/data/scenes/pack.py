"""A batch of scene graphs as flat tensors, and the pixels on which each thing has to be looked for."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sightline.data.scenes.graph import FIELD, FOOTPRINT, Scene
from sightline.data.scenes.shapes import BOUND, KINDS, Ray

# CLEVR's palette
SRGB = {
    "gray": (87, 87, 87), "red": (173, 35, 35), "blue": (42, 75, 215), "green": (29, 105, 20),
    "brown": (129, 74, 25), "purple": (129, 38, 192), "cyan": (41, 208, 208), "yellow": (255, 238, 51),
}  # fmt: skip
SUB_X, SUB_Y = (0.125, 0.625, 0.375, 0.875), (0.375, 0.125, 0.875, 0.625)  # a turned square within the pixel
RAYS = 4  # a pixel, and light samples a ray
_LIT = RAYS * RAYS


def linear(values: Tensor) -> Tensor:
    """Amounts of light from sRGB values in 0..1."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


_PALETTE = {name: tuple(linear(torch.tensor(rgb) / 255).tolist()) for name, rgb in SRGB.items()}


def _lamp(scene: Scene) -> list[tuple[float, float, float]]:
    """Directions to sixteen places of the light, spread evenly over its disc."""
    light = scene.light
    x, y, z = light.direction
    flat = math.hypot(x, y)
    a, b = (-y / flat, x / flat, 0.0), (-x * z / flat, -y * z / flat, flat)
    places = []
    for k in range(_LIT):
        angle, far = k * math.pi * (3 - math.sqrt(5)), light.softness * math.sqrt((k + 0.5) / _LIT)
        u, v = far * math.cos(angle), far * math.sin(angle)
        places.append((x + u * a[0] + v * b[0], y + u * a[1] + v * b[1], z + u * a[2] + v * b[2]))
    return places


class Pack:
    """n scenes with m things in all: a row for each scene (`eye`, `light` …), a row for each thing (`center` …).

    `image[k]` is the scene of thing k, `first[i]` the number of the first thing of scene i, `kinds` the things of each
    shape.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        things = [(i, thing) for i, scene in enumerate(scenes) for thing in scene.things]
        self.scenes = len(scenes)
        cameras = [scene.camera for scene in scenes]
        self.eye = torch.tensor([c.eye for c in cameras])
        self.forward = torch.tensor([c.forward for c in cameras])
        self.right = torch.tensor([c.right for c in cameras]) * FIELD
        self.up = torch.tensor([c.up for c in cameras]) * FIELD
        self.axes = (self.forward, self.right[:, :2], self.up)
        self.light = torch.tensor([scene.light.direction for scene in scenes])
        self.lamp = torch.tensor([_lamp(scene) for scene in scenes])
        self.softness, self.strength, self.ambient = torch.tensor(
            [(s.light.softness, s.light.strength, s.light.ambient) for s in scenes]
        ).unbind(1)
        counts = torch.tensor([len(scene) for scene in scenes])
        self.first, self.counts = counts.cumsum(0) - counts, counts
        self.image = torch.tensor([i for i, _ in things], dtype=torch.long)
        numbers = [
            (
                *t.center,
                t.radius,
                math.cos(t.turn),
                math.sin(t.turn),
                BOUND[t.shape],
                FOOTPRINT[t.shape],
                *_PALETTE[t.color],
            )
            for _, t in things
        ]
        table = torch.tensor(numbers).view(-1, 11)
        self.center, self.radius, self.cos, self.sin = table[:, :3], table[:, 3], table[:, 4], table[:, 5]
        self.bound, self.footprint = table[:, 6] * self.radius, table[:, 7] * self.radius
        self.color = table[:, 8:]
        self.metal = torch.tensor([t.material == "metal" for _, t in things], dtype=torch.bool)
        kind = torch.tensor([KINDS.index(t.shape) for _, t in things], dtype=torch.long)
        self.kind = kind
        self.kinds = {name: (kind == k).nonzero().squeeze(1) for k, name in enumerate(KINDS) if (kind == k).any()}

    def into(self, thing: Tensor, origin: Ray, direction: Ray) -> tuple[Ray, Ray]:
        """Rays in the frames of things (`thing` broadcasts with the rays)."""
        center, radius = self.center[thing], self.radius[thing]
        ox, oy, oz = (o - center[..., k] for k, o in enumerate(origin))
        return self.turn_in(thing, (ox / radius, oy / radius, oz / radius)), self.turn_in(
            thing, (direction[0] / radius, direction[1] / radius, direction[2] / radius)
        )

    def turn_in(self, thing: Tensor, v: Ray) -> Ray:
        """Vectors as a turned thing sees them."""
        cos, sin = self.cos[thing], self.sin[thing]
        return cos * v[0] + sin * v[1], cos * v[1] - sin * v[0], v[2]

    def turn_out(self, thing: Tensor, v: Ray) -> Ray:
        """Vectors of a turned thing as the world sees them."""
        cos, sin = self.cos[thing], self.sin[thing]
        return cos * v[0] - sin * v[1], cos * v[1] + sin * v[0], v[2]


class Grid:
    """The pixels of n pictures, their rays, and lists of the pixels near given spheres."""

    def __init__(self, pack: Pack, height: int, width: int) -> None:
        self.pack, self.height, self.width = pack, height, width
        self.short = min(height, width)
        self.pixels = pack.scenes * height * width
        self.sub_x, self.sub_y = torch.tensor(SUB_X), torch.tensor(SUB_Y)

    def rays(self, image: Tensor, x: Tensor, y: Tensor) -> Ray:
        """Directions through points of the pictures, in pixels; their part along the line of sight is 1."""
        across, above = (2 * x - self.width) / self.short, (self.height - 2 * y) / self.short
        (fx, fy, fz), (rx, ry), (ux, uy, uz) = (axis[image].unbind(-1) for axis in self.pack.axes)
        # the camera is upright, so its right has no height
        return fx + across * rx + above * ux, fy + across * ry + above * uy, fz + above * uz

    def cross(self, image: Tensor, x: Tensor, y: Tensor) -> Ray:
        """Directions of the four rays of pixels, each (pixels, rays)."""
        return self.rays(image[:, None], x[:, None] + self.sub_x, y[:, None] + self.sub_y)

    def boxes(self, center: Tensor, radius: Tensor, image: Tensor) -> Tensor:
        """Pixels (left, top, right, bottom; exclusive) that hold all of given spheres; (m, 4) whole numbers."""
        pack = self.pack
        v = center - pack.eye[image]
        depth = (v * pack.forward[image]).sum(1)
        reach = (depth * depth - radius * radius).clamp_min(1e-3)
        ends = []
        for axis in (pack.right, pack.up):
            along = (v * axis[image]).sum(1) / FIELD
            spread = radius * (along * along + reach).sqrt()
            ends.append(((along * depth - spread) / (reach * FIELD), (along * depth + spread) / (reach * FIELD)))
        (left, right), (low, high) = ends
        corners = (
            (left * self.short + self.width) / 2, (self.height - high * self.short) / 2,
            (right * self.short + self.width) / 2, (self.height - low * self.short) / 2,
        )  # fmt: skip
        box = torch.stack([corners[0].floor(), corners[1].floor(), corners[2].ceil(), corners[3].ceil()], 1).long()
        return torch.minimum(box.clamp_min(0), torch.tensor([self.width, self.height, self.width, self.height]))

    def inside(self, boxes: Tensor, things: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every pixel of the boxes of some things, as flat lists: thing, x, y, number of the pixel in the batch."""
        left, top, right, bottom = boxes[things].unbind(1)
        wide = (right - left).clamp_min(0)
        counts = wide * (bottom - top).clamp_min(0)
        row = torch.repeat_interleave(torch.arange(len(things)), counts)
        place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        down = torch.div(place, wide[row], rounding_mode="floor")
        x, y = left[row] + place - down * wide[row], top[row] + down
        thing = things[row]
        return thing, x, y, (self.pack.image[thing] * self.height + y) * self.width + x

    def through(self, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scene, x and y of pixels by their number in the batch."""
        row = torch.div(pixel, self.width, rounding_mode="floor")
        image = torch.div(row, self.height, rounding_mode="floor")
        return image, pixel - row * self.width, row - image * self.height
