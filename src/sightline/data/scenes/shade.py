"""How surfaces look: matte and mirroring bodies, the ground, the light all around, and the film."""

import torch
from torch import Tensor

from sightline.data.scenes.pack import Pack
from sightline.data.scenes.shapes import facing, meet

GROUND = torch.tensor([0.40, 0.395, 0.385])  # how much light the ground gives back
FAR_GROUND = torch.tensor([0.36, 0.36, 0.365])
KEY, FILL, SKY, BOUNCE = 0.80, 0.16, 0.42, 0.17


def ground(x: Tensor, y: Tensor) -> Tensor:
    """Color of the ground, (…, 3): brightest in the middle, as under a studio's lamps."""
    far = 1 - torch.exp(-(x * x + y * y) / 90)
    return GROUND + far[..., None] * (FAR_GROUND * 0.78 - GROUND)


def contact(far: Tensor) -> Tensor:
    """How much a thing keeps the sky from the ground at `far` times its footprint from its middle: 0..0.5."""
    gap = ((1.75 - far) / 0.75).clamp(0, 1)
    return 0.5 * gap * gap


def around(direction: Tensor, light: Tensor) -> Tensor:
    """Light of the studio from a direction, (n,): brighter above, with a bright window where the key light is."""
    up = direction[:, 2]
    dome = 0.16 + 0.5 * up.clamp(0, 1)
    window = ((direction * light).sum(1) - 0.80).clamp(0, 0.12) / 0.12
    return dome + 1.1 * window * window * (3 - 2 * window)


def diffuse(pack: Pack, image: Tensor, normal: Tensor, light: Tensor) -> Tensor:
    """Light that falls on a surface from the key light (where `light` says it is seen), a weak opposite one, the sky
    and the ground: (n,)."""
    toward = (normal * pack.light[image]).sum(1)
    key = KEY * pack.strength[image] * toward.clamp_min(0) * light
    fill = FILL * (-toward + 0.4 * normal[:, 2]).clamp_min(0)
    up = 0.5 + 0.5 * normal[:, 2]
    return key + (fill + SKY * up + BOUNCE * (1 - up)) * pack.ambient[image]


def bodies(pack: Pack, thing: Tensor, point: Tensor, normal: Tensor, toward: Tensor, light: Tensor) -> Tensor:
    """Color of points of bodies, (n, 3); `toward` points to the eye, `light` is the share of the lamp that is seen."""
    image = pack.image[thing]
    base = pack.color[thing]
    lit = diffuse(pack, image, normal, light)
    half = toward + pack.light[image]
    half = half / half.norm(dim=1, keepdim=True)
    gleam = (normal * half).sum(1).clamp_min(0)
    color = base * lit[:, None] * 1.25 + (0.035 * gleam**10 * light * pack.strength[image])[:, None]
    metal = pack.metal[thing].nonzero().squeeze(1)
    if len(metal):
        gleam = gleam[metal] ** 90 * light[metal] * pack.strength[image[metal]]
        cosine = (normal[metal] * toward[metal]).sum(1)
        mirrored = reflect(pack, thing[metal], point[metal], normal[metal], toward[metal], cosine)
        rim = 0.12 + 0.5 * (1 - cosine.clamp(0, 1))[:, None] ** 4
        tint = base[metal] * (1 - rim) + rim
        color[metal] = 0.38 * color[metal] + tint * mirrored * 1.2 + 1.1 * gleam[:, None]
    return color


def reflect(pack: Pack, thing: Tensor, point: Tensor, normal: Tensor, toward: Tensor, cosine: Tensor) -> Tensor:
    """What mirrors at points of bodies show, (n, 3): other bodies, the ground, or the studio."""
    away = 2 * cosine[:, None] * normal - toward
    image = pack.image[thing]
    light = pack.light[image]
    color = around(away, light)[:, None].expand(-1, 3).clone()
    down = (away[:, 2] < -1e-3).nonzero().squeeze(1)
    if len(down):
        step = -point[down, 2] / away[down, 2]
        x, y = (point[down, k] + step * away[down, k] for k in range(2))
        own = pack.center[thing[down]]
        far = torch.hypot(x - own[:, 0], y - own[:, 1]) / pack.footprint[thing[down]]
        lit = KEY * pack.strength[image[down]] * light[down, 2] + SKY * pack.ambient[image[down]]
        color[down] = ground(x, y) * (lit * (1 - 1.4 * contact(far)))[:, None]
    row, other, distance = nearest(pack, image, thing, point, away)
    if len(row):
        met = point[row] + distance[:, None] * away[row]
        seen = outward(pack, other, met)
        lit = diffuse(pack, image[row], seen, torch.ones(len(row)))
        color[row] = pack.color[other] * lit[:, None]
    return color


def nearest(pack: Pack, image: Tensor, thing: Tensor, point: Tensor, away: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For rays that leave things: which rays meet another thing of their scene, which thing, and how far off."""
    counts = pack.counts[image]
    row = torch.repeat_interleave(torch.arange(len(image)), counts)
    other = pack.first[image][row] + torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    to = pack.center[other] - point[row]
    along = (to * away[row]).sum(1)
    beside = (to * to).sum(1) - along * along
    close = (other != thing[row]) & (along > 0) & (beside < pack.bound[other] ** 2)
    row, other = row[close], other[close]
    distance = torch.full((len(row),), float("inf"))
    for kind in pack.kinds:
        mine = (pack.kind[other] == pack.kind[pack.kinds[kind][0]]).nonzero().squeeze(1)
        o, d = pack.into(other[mine], point[row[mine]].unbind(1), away[row[mine]].unbind(1))
        distance[mine] = meet(kind, o, d)
    best = torch.full((len(image),), float("inf")).scatter_reduce(0, row, distance, "amin")
    won = torch.isfinite(distance) & (distance == best[row])
    return row[won], other[won], distance[won]


def outward(pack: Pack, thing: Tensor, point: Tensor) -> Tensor:
    """Unit normals at points of the surfaces of things, (n, 3)."""
    normal = torch.empty_like(point)
    inner = (point - pack.center[thing]) / pack.radius[thing][:, None]
    kinds = pack.kind[thing]
    for kind, members in pack.kinds.items():
        mine = (kinds == pack.kind[members[0]]).nonzero().squeeze(1)
        if len(mine):
            local = pack.turn_in(thing[mine], inner[mine].unbind(1))
            normal[mine] = torch.stack(tuple(pack.turn_out(thing[mine], facing(kind, local))), 1)
    return normal


def develop(light: Tensor) -> Tensor:
    """Bytes of an sRGB picture from amounts of light; what is brighter than white bleeds softly into it."""
    light = torch.where(light > 0.8, 0.8 + 0.2 * (1 - torch.exp(-(light - 0.8) / 0.2)), light).clamp(0, 1)
    curve = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (curve * 255 + 0.5).to(torch.uint8)
