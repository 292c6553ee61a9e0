"""From scene graphs to pictures: batched ray casting with true shadows and reflections, in plain torch.

Nothing is cast in vain: a camera ray meets only the things in whose bounding box on the picture it lies, a shadow ray
only those whose shadow may fall there.  The pairs of (thing, pixel) are laid out in flat lists over the whole batch,
one list a kind of shape, so that a picture costs the same few hundred torch calls whether it is alone or one of many.
Each pixel is four rays on a turned square; each ray sees the light from four places.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sightline.data.scenes import shade
from sightline.data.scenes.graph import Scene
from sightline.data.scenes.pack import RAYS, Grid, Pack
from sightline.data.scenes.shapes import meet

LEAST_SIZE, MOST_SIZE = 16, 4096
_RAYS_AT_ONCE = 2**19  # bounds memory, and keeps a chunk near the processor's caches
_FAR = float("inf")


@dataclass(frozen=True)
class Views:
    """Pictures of n scenes and what is where in them.

    `images`: (n, 3, height, width) bytes.  `owner`: (n, height, width), the number of the thing that fills most of a
    pixel, -1 for ground.  `depth`: (n, height, width), distance along the line of sight, to that thing or the ground
    (infinite above the horizon).  `counts`: things in each scene.
    """

    images: UInt8[Tensor, "n 3 height width"]
    owner: Int[Tensor, "n height width"]
    depth: Float[Tensor, "n height width"]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def masks(self, index: int) -> Bool[Tensor, "things height width"]:
        """Visible pixels of every thing of one scene."""
        return self.owner[index] == torch.arange(self.counts[index])[:, None, None]

    def boxes(self, index: int) -> Int[Tensor, "things 4"]:
        """Box of the visible pixels of every thing of one scene: left, top, right, bottom in pixels, the last two
        exclusive; zeros for a thing without a pixel."""
        masks = self.masks(index)
        ends = []
        for inside, size in ((masks.any(1), masks.shape[2]), (masks.any(2), masks.shape[1])):
            place = torch.arange(size)
            low = torch.where(inside, place, size).amin(1) if len(masks) else place[:0]
            high = torch.where(inside, place + 1, 0).amax(1) if len(masks) else place[:0]
            ends.append((torch.minimum(low, high), high))
        (left, right), (top, bottom) = ends
        return torch.stack([left, top, right, bottom], 1)


def size_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size given as one number or two.  Raises ValueError outside 16..4096 pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    if not (LEAST_SIZE <= height <= MOST_SIZE and LEAST_SIZE <= width <= MOST_SIZE):
        raise ValueError(f"size {size}: pictures of {LEAST_SIZE} to {MOST_SIZE} pixels a side can be drawn")
    return height, width


@torch.no_grad()
def render(scenes: Sequence[Scene], size: int | tuple[int, int] = 64) -> Views:
    """Draws scenes, `size` pixels square or (height, width).

    The picture of a scene does not depend on the others of the batch.  Raises ValueError for sizes outside 16..4096.
    """
    height, width = size_of(size)
    step = max(1, _RAYS_AT_ONCE // (height * width * RAYS))
    chunks = [_draw(Pack(scenes[k : k + step]), height, width) for k in range(0, len(scenes), step)]
    if not chunks:
        empty = torch.zeros(0, height, width)
        return Views(empty.new_zeros(0, 3, height, width, dtype=torch.uint8), empty.long(), empty, ())
    images, owner, depth = (torch.cat(part) for part in zip(*chunks, strict=True))
    return Views(images, owner, depth, tuple(len(scene) for scene in scenes))


def _draw(pack: Pack, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    grid = Grid(pack, height, width)
    seen, owner = _cast(pack, grid)
    light = 1 - _shadows(pack, grid, seen, owner)
    bodies = owner.ge(0).nonzero().squeeze(1)
    color = torch.zeros(len(owner), 3)
    if len(bodies):
        color[bodies] = _shade(pack, grid, bodies, owner[bodies], seen[bodies], light[bodies])
    color = color.view(-1, RAYS, 3).mean(1) + _ground(pack, grid, owner, light)
    images = shade.develop(color).view(pack.scenes, height, width, 3).permute(0, 3, 1, 2).contiguous()
    pixel_owner, depth = _settle(pack, grid, seen, owner)
    shape = (pack.scenes, height, width)
    return images, pixel_owner.view(shape), depth.view(shape)


def _cast(pack: Pack, grid: Grid) -> tuple[Tensor, Tensor]:
    """Depth at which every ray ends, and the thing it ends on (-1: ground)."""
    image = torch.arange(pack.scenes)[:, None, None]
    y = torch.arange(grid.height)[:, None] + grid.sub_y
    slope = grid.rays(image, torch.zeros(()), y)[2]  # (n, height, rays): how fast rays sink does not depend on x
    depth = torch.where(slope < -1e-4, -pack.eye[:, 2, None, None] / slope, _FAR)
    seen = depth[:, :, None].expand(-1, -1, grid.width, -1).reshape(-1)
    boxes = grid.boxes(pack.center, pack.bound, pack.image)
    rays, things, depths = [], [], []
    for kind, members in pack.kinds.items():
        thing, x, y, pixel = grid.inside(boxes, members)
        image = pack.image[thing]
        eye = pack.eye[image][:, :, None].unbind(1)
        t = meet(kind, *pack.into(thing[:, None], eye, grid.cross(image, x, y)))
        met = t.isfinite().nonzero()
        rays.append(pixel[met[:, 0]] * RAYS + met[:, 1])
        things.append(thing[met[:, 0]])
        depths.append(t[met[:, 0], met[:, 1]])
    owner = torch.full(seen.shape, -1)
    if rays:
        ray, thing, t = torch.cat(rays), torch.cat(things), torch.cat(depths)
        seen.scatter_reduce_(0, ray, t, "amin")
        won = t == seen[ray]
        owner[ray[won]] = thing[won]
    return seen, owner


def _points(pack: Pack, grid: Grid, ray: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays end, (n, 3); their directions, (n, 3); and their scenes."""
    pixel = torch.div(ray, RAYS, rounding_mode="floor")
    sub = ray - pixel * RAYS
    image, x, y = grid.through(pixel)
    direction = torch.stack(tuple(grid.rays(image, x + grid.sub_x[sub], y + grid.sub_y[sub])), 1)
    return pack.eye[image] + depth[:, None] * direction, direction, image


def _shadows(pack: Pack, grid: Grid, seen: Tensor, owner: Tensor) -> Tensor:
    """Share of the lamp that other things hide from where each ray ends."""
    if not pack.kinds:
        return torch.zeros_like(seen)
    light, softness = pack.light[pack.image], pack.softness[pack.image]
    fall = pack.center[:, 2:] / light[:, 2:]
    spread = (pack.bound + softness * fall.squeeze(1)) / light[:, 2]
    bodies = grid.boxes(pack.center, pack.bound, pack.image)
    shadows = grid.boxes(pack.center - fall * light, spread, pack.image)
    boxes = torch.cat([torch.minimum(bodies, shadows)[:, :2], torch.maximum(bodies, shadows)[:, 2:]], 1)
    hidden = torch.zeros(len(seen) * RAYS)
    for kind, members in pack.kinds.items():
        thing, x, y, pixel = grid.inside(boxes, members)
        image = pack.image[thing]
        depth, direction = seen.view(-1, RAYS)[pixel], grid.cross(image, x, y)
        point = [e[:, None] + depth * d for e, d in zip(pack.eye[image].unbind(1), direction, strict=True)]
        to = [c[:, None] - p for c, p in zip(pack.center[thing].unbind(1), point, strict=True)]
        lamp = pack.light[image][:, :, None].unbind(1)
        along = to[0] * lamp[0] + to[1] * lamp[1] + to[2] * lamp[2]
        beside = to[0] * to[0] + to[1] * to[1] + to[2] * to[2] - along * along
        reach = pack.bound[thing][:, None] + pack.softness[image][:, None] * along
        other = owner.view(-1, RAYS)[pixel] != thing[:, None]
        row, sub = ((along > 0) & (beside < reach * reach) & other).nonzero().unbind(1)
        start = [p[row, sub][:, None] for p in point]
        place = torch.arange(RAYS) * RAYS + sub[:, None]  # each ray of a pixel sees other places of the lamp
        toward = pack.lamp[image[row][:, None], place].unbind(2)
        met, which = meet(kind, *pack.into(thing[row][:, None], start, toward)).isfinite().nonzero().unbind(1)
        hidden[(pixel[row[met]] * RAYS + sub[met]) * RAYS + which] = 1.0
    return hidden.view(-1, RAYS).mean(1)


def _shade(pack: Pack, grid: Grid, ray: Tensor, thing: Tensor, depth: Tensor, light: Tensor) -> Tensor:
    point, direction, _ = _points(pack, grid, ray, depth)
    toward = -direction / direction.norm(dim=1, keepdim=True)
    return shade.bodies(pack, thing, point, shade.outward(pack, thing, point), toward, light)


def _ground(pack: Pack, grid: Grid, owner: Tensor, light: Tensor) -> Tensor:
    """What the ground adds to every pixel, (pixels, 3), for those of its rays that end there."""
    image, x, y = grid.through(torch.arange(grid.pixels))
    dx, dy, dz = grid.rays(image, x + 0.5, y + 0.5)
    eye = pack.eye[image]
    far = torch.where(dz < -1e-4, -eye[:, 2] / dz, 1e4)
    gx, gy = eye[:, 0] + far * dx, eye[:, 1] + far * dy
    dark = torch.zeros(grid.pixels)
    if pack.kinds:
        foot = pack.center * torch.tensor([1.0, 1.0, 0.0])
        boxes = grid.boxes(foot, 1.75 * pack.footprint, pack.image)
        thing, _, _, pixel = grid.inside(boxes, torch.arange(len(foot)))
        apart = torch.hypot(gx[pixel] - foot[thing, 0], gy[pixel] - foot[thing, 1]) / pack.footprint[thing]
        dark.scatter_reduce_(0, pixel, shade.contact(apart), "amax")
    free = (owner < 0).float().view(-1, RAYS)
    key = shade.KEY * (pack.strength * pack.light[:, 2])[image] * (free * light.view(-1, RAYS)).mean(1)
    sky = shade.SKY * pack.ambient[image] * (1 - dark) * free.mean(1)
    return shade.ground(gx, gy) * (key + sky)[:, None]


def _settle(pack: Pack, grid: Grid, seen: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """For every pixel the thing that most of its rays end on, and its depth; in a tie things before ground, near ones
    before far ones."""
    owners, depths = owner.view(-1, RAYS), seen.view(-1, RAYS)
    best, depth = owners[:, 0].clone(), depths[:, 0].clone()
    mixed = (owners != owners[:, :1]).any(1).nonzero().squeeze(1)
    if len(mixed):
        some, far = owners[mixed], depths[mixed]
        votes = (some[:, :, None] == some[:, None]).sum(2) * 2 + (some >= 0) - 1e-4 * far.clamp_max(1e3)
        chosen = votes.argmax(1, keepdim=True)
        best[mixed], depth[mixed] = some.gather(1, chosen).squeeze(1), far.gather(1, chosen).squeeze(1)
    image = torch.arange(pack.scenes).repeat_interleave(grid.height * grid.width)
    return torch.where(best >= 0, best - pack.first[image], -1), depth
