"""What a scene is: things on a ground plane, a camera, a light; who is left of, behind, bigger, nearer.

World units: the ground is z = 0, the camera looks at the origin from a distance of about nine.  Picture units: x to the
right and y upwards, the shorter side of the picture runs from -1 to 1.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

SHAPES = ("cube", "sphere", "cylinder")
NOVEL_SHAPES = ("cone", "dome")
COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
MATERIALS = ("rubber", "metal")
SIZES = ("small", "large")
RELATIONS = ("left", "right", "front", "behind")
OPPOSITE = {"left": "right", "right": "left", "front": "behind", "behind": "front"}

RADIUS = {"small": 0.46, "large": 0.8}
# of a thing of radius 1: height of its centre, and radius of what it covers on the ground
LIFT = {"cube": 0.8, "sphere": 1.0, "cylinder": 0.9, "cone": 1.0, "dome": 0.0}
FOOTPRINT = {"cube": 0.8 * math.sqrt(2), "sphere": 1.0, "cylinder": 0.85, "cone": 1.0, "dome": 1.0}

FIELD = 0.365  # tangent of half the field of view along the shorter side
CLEAR = 0.55  # what language calls "left of" is at least this far to the left
EPSILON = 0.2  # CLEVR's own threshold for its lists of relations

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Thing:
    """One object: its attributes, where it stands on the ground, and how it is turned (radians about the vertical)."""

    shape: str
    color: str
    material: str
    size: str
    x: float
    y: float
    turn: float = 0.0

    @property
    def radius(self) -> float:
        return RADIUS[self.size]

    @property
    def footprint(self) -> float:
        return FOOTPRINT[self.shape] * self.radius

    @property
    def center(self) -> Point:
        return (self.x, self.y, LIFT[self.shape] * self.radius)

    @property
    def attributes(self) -> dict[str, str]:
        return {"size": self.size, "color": self.color, "material": self.material, "shape": self.shape}


def _unit(v: Point) -> Point:
    length = math.sqrt(_dot(v, v))
    return (v[0] / length, v[1] / length, v[2] / length)


def _dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Point, b: Point) -> Point:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@dataclass(frozen=True)
class Camera:
    """A camera on a sphere around the point (aim_x, aim_y, aim_z), upright; angles in radians."""

    azimuth: float
    elevation: float
    distance: float
    aim: Point = (0.0, 0.0, 0.3)

    @cached_property
    def eye(self) -> Point:
        flat = self.distance * math.cos(self.elevation)
        x, y, z = self.aim
        high = z + self.distance * math.sin(self.elevation)
        return (x + flat * math.cos(self.azimuth), y + flat * math.sin(self.azimuth), high)

    @cached_property
    def forward(self) -> Point:
        return _unit((self.aim[0] - self.eye[0], self.aim[1] - self.eye[1], self.aim[2] - self.eye[2]))

    @cached_property
    def right(self) -> Point:
        return _unit(_cross(self.forward, (0.0, 0.0, 1.0)))

    @cached_property
    def up(self) -> Point:
        return _cross(self.right, self.forward)

    @cached_property
    def directions(self) -> dict[str, Point]:
        """Left, right, front and behind as unit vectors along the ground, as this camera sees them."""
        behind = _unit((self.forward[0], self.forward[1], 0.0))
        right = self.right
        left, front = (-right[0], -right[1], 0.0), (-behind[0], -behind[1], 0.0)
        return {"left": left, "right": right, "front": front, "behind": behind}

    def project(self, point: Point) -> Point:
        """Picture coordinates (x, y) of a point and its depth along the line of sight."""
        v = (point[0] - self.eye[0], point[1] - self.eye[1], point[2] - self.eye[2])
        depth = _dot(v, self.forward)
        return (_dot(v, self.right) / (depth * FIELD), _dot(v, self.up) / (depth * FIELD), depth)


@dataclass(frozen=True)
class Light:
    """The key light, far away; `softness` is the tangent of half its angular width (0: hard shadows)."""

    azimuth: float
    elevation: float
    softness: float
    strength: float = 1.0
    ambient: float = 1.0

    @cached_property
    def direction(self) -> Point:
        flat = math.cos(self.elevation)
        return (flat * math.cos(self.azimuth), flat * math.sin(self.azimuth), math.sin(self.elevation))


@dataclass(frozen=True)
class Scene:
    """A scene graph: `things` (their position in this tuple is their identity), `camera` and `light`."""

    things: tuple[Thing, ...]
    camera: Camera
    light: Light

    def __len__(self) -> int:
        return len(self.things)

    def __bool__(self) -> bool:
        return True  # also with no things in it

    @cached_property
    def projected(self) -> tuple[Point, ...]:
        """(x, y, depth) in the picture of the centre of every thing."""
        return tuple(self.camera.project(thing.center) for thing in self.things)

    @cached_property
    def depth_order(self) -> tuple[int, ...]:
        """Things from the nearest to the farthest centre."""
        return tuple(sorted(range(len(self)), key=lambda k: self.projected[k][2]))

    @cached_property
    def distances(self) -> tuple[float, ...]:
        """How far the centre of every thing is from the eye."""
        return tuple(math.dist(thing.center, self.camera.eye) for thing in self.things)

    @cached_property
    def left_to_right(self) -> tuple[int, ...]:
        """Things in the order of their centres in the picture."""
        return tuple(sorted(range(len(self)), key=lambda k: self.projected[k][0]))

    def offset(self, relation: str, a: int, b: int) -> float:
        """How far thing a lies in the direction of `relation` from thing b, along the ground."""
        d = self.camera.directions[relation]
        one, other = self.things[a], self.things[b]
        return (one.x - other.x) * d[0] + (one.y - other.y) * d[1]

    def holds(self, relation: str, a: int, b: int, far: float = EPSILON, apart: float = 0.03) -> bool:
        """Whether a is `relation` of b by at least `far` along the ground and, across, by `apart` in the picture."""
        if a == b or self.offset(relation, a, b) <= far:
            return False
        across = self.projected[a][0] - self.projected[b][0]
        return {"left": -across, "right": across}.get(relation, apart) >= apart

    def is_clear(self, relation: str, a: int, b: int) -> bool:
        """Whether a is `relation` of b beyond doubt, which is when language says so."""
        return self.holds(relation, a, b, CLEAR, 0.06)

    def clear_relations(self, a: int, b: int) -> tuple[str, ...]:
        return tuple(name for name in RELATIONS if self.is_clear(name, a, b))

    def relationships(self) -> dict[str, list[list[int]]]:
        """CLEVR's lists: `relationships()["left"][k]` are the things to the left of thing k."""
        n = len(self)
        return {
            name: [[j for j in range(n) if j != k and self.offset(name, j, k) > EPSILON] for k in range(n)]
            for name in RELATIONS
        }

    def matching(self, **attributes: str) -> tuple[int, ...]:
        """Things that have all the attributes given."""
        return tuple(
            k for k, thing in enumerate(self.things) if all(getattr(thing, a) == v for a, v in attributes.items())
        )

    def change(self, index: int, **attributes: Any) -> "Scene":
        """The same scene with other attributes of one thing."""
        things = list(self.things)
        things[index] = replace(things[index], **attributes)
        return replace(self, things=tuple(things))

    def without(self, index: int) -> "Scene":
        return replace(self, things=self.things[:index] + self.things[index + 1 :])

    def plus(self, thing: Thing) -> "Scene":
        return replace(self, things=(*self.things, thing))
