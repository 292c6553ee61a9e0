"""Where rays meet spheres, cubes, cylinders, cones and domes of radius 1, and which way their surfaces face.

Everything is in a shape's own frame (centre at the origin, upright) and elementwise: numbers of any shapes that
broadcast.  Shapes stand on the ground, so their undersides are never met.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sightline.data.scenes.graph import FOOTPRINT, LIFT

KINDS = ("cube", "sphere", "cylinder", "cone", "dome")
BOUND = {"cube": 0.8 * 3**0.5, "sphere": 1.0, "cylinder": 1.25, "cone": 2**0.5, "dome": 1.0}
_HALF = LIFT["cube"]
_RADIUS, _TALL = FOOTPRINT["cylinder"], LIFT["cylinder"]
_FAR = float("inf")

Ray = Sequence[Tensor]  # x, y, z


def meet(kind: str, origin: Ray, direction: Ray) -> Tensor:
    """Distance along the ray, in units of `direction`, to the first point of the shape; infinity where it is missed.

    Rays that start beyond the shape, or inside it, miss it.
    """
    if kind == "cube":
        return _meet_cube(origin, direction)
    if kind == "cylinder":
        return _meet_cylinder(origin, direction)
    if kind == "cone":
        return _meet_cone(origin, direction)
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1
    inside = b * b - a * c
    t = (-b - inside.clamp_min(0).sqrt()) / a
    met = (inside > 0) & (t > 0)
    if kind == "dome":
        met &= oz + t * dz >= -1e-4
    return torch.where(met, t, _FAR)


def _meet_cube(origin: Ray, direction: Ray) -> Tensor:
    near, far = _slab(origin[0], direction[0], _HALF)
    for o, d in zip(origin[1:], direction[1:], strict=True):
        low, high = _slab(o, d, _HALF)
        near, far = torch.maximum(near, low), torch.minimum(far, high)
    return torch.where((near < far) & (near > 0), near, _FAR)


def _slab(o: Tensor, d: Tensor, half: float) -> tuple[Tensor, Tensor]:
    inverse = 1 / torch.where(d.abs() < 1e-7, 1e-7, d)
    middle, spread = -o * inverse, half * inverse.abs()
    return middle - spread, middle + spread


def _meet_cylinder(origin: Ray, direction: Ray) -> Tensor:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    a, b, c = (dx * dx + dy * dy).clamp_min(1e-9), ox * dx + oy * dy, ox * ox + oy * oy - _RADIUS**2
    inside = b * b - a * c
    root = inside.clamp_min(0).sqrt()
    low, high = _slab(oz, dz, _TALL)
    near, far = torch.maximum((-b - root) / a, low), torch.minimum((-b + root) / a, high)
    return torch.where((inside > 0) & (near < far) & (near > 0), near, _FAR)


def _meet_cone(origin: Ray, direction: Ray) -> Tensor:
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    oz = 1 - oz  # from the tip downwards; the cone is x^2 + y^2 = z^2 / 4 for z in 0..2
    dz = -dz
    a, b = dx * dx + dy * dy - dz * dz / 4, ox * dx + oy * dy - oz * dz / 4
    a = torch.where(a.abs() < 1e-7, 1e-7, a)
    inside = b * b - a * (ox * ox + oy * oy - oz * oz / 4)
    root = inside.clamp_min(0).sqrt()
    best = torch.full_like(root, _FAR)
    for t in ((-b - root) / a, (-b + root) / a):
        z = oz + t * dz
        met = (inside > 0) & (t > 0) & (z >= 0) & (z <= 2)
        best = torch.where(met & (t < best), t, best)
    return best


def facing(kind: str, point: Ray) -> Ray:
    """Outward unit normal at a point of the surface; the edges of cubes and cylinders are rounded in this, not in
    form."""
    x, y, z = point
    if kind == "cube":
        x, y, z = (_edge(v / _HALF) for v in point)
    elif kind == "cylinder":
        side = _edge((x * x + y * y).sqrt() / _RADIUS)
        x, y, z = x / _RADIUS * side, y / _RADIUS * side, _edge(z / _TALL)
    elif kind == "cone":
        z = (1 - z) / 4
    length = (x * x + y * y + z * z).sqrt().clamp_min(1e-6)
    return x / length, y / length, z / length


def _edge(v: Tensor) -> Tensor:
    """Nearly zero within a face, 1 at its border: v to the power of 24, with its sign."""
    square = v * v
    fourth = square * square
    eighth = fourth * fourth
    return v.sign() * eighth * eighth * eighth
