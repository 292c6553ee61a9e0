"""Random scenes in which nothing touches, nothing leaves the picture and nothing hides behind something else."""

import math
from collections.abc import Callable
from random import Random

from sightline.data.scenes.graph import FIELD, LIFT, Camera, Light, Scene, Thing
from sightline.data.scenes.splits import Split, pick

MOST_THINGS = 10
_REACH = 2.9  # things stand within this distance of the middle
_GAP = 0.22  # free ground between two things
_BORDER = 0.97
_MOST_HIDDEN = 0.45
_OUTLINE = {"cube": 1.1, "sphere": 1.0, "cylinder": 1.05, "cone": 0.85, "dome": 0.9}  # radius of a disc about as large


def draw_camera(random: Random) -> Camera:
    """A camera near the usual place: every direction around the vertical, the rest jittered."""
    azimuth = 2 * math.pi * random.random()
    elevation = math.radians(_between(random, 31.0, 40.0))
    aim = (_between(random, -0.15, 0.15), _between(random, -0.15, 0.15), _between(random, 0.2, 0.4))
    return Camera(azimuth, elevation, _between(random, 9.6, 10.6), aim)


def draw_light(random: Random, camera: Camera) -> Light:
    """A key light behind the viewer's shoulder or beside the scene; three in ten cast hard shadows."""
    side = 1 if random.random() < 0.5 else -1
    azimuth = camera.azimuth + side * math.radians(_between(random, 25.0, 100.0))
    elevation = math.radians(_between(random, 42.0, 62.0))
    softness = 0.0 if random.random() < 0.3 else _between(random, 0.05, 0.14)
    return Light(azimuth, elevation, softness, _between(random, 0.88, 1.12), _between(random, 0.85, 1.15))


def _between(random: Random, low: float, high: float) -> float:
    return low + (high - low) * random.random()


def _disc(thing: Thing, camera: Camera) -> tuple[float, float, float, float]:
    """Centre, radius and depth of a disc in the picture about as large as the thing's outline."""
    x, y, depth = camera.project((thing.x, thing.y, max(LIFT[thing.shape], 0.4) * thing.radius))
    return x, y, _OUTLINE[thing.shape] * thing.radius / (depth * FIELD), depth


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Share of disc a that disc b covers."""
    gap, r, s = math.hypot(a[0] - b[0], a[1] - b[1]), a[2], b[2]
    if gap >= r + s:
        return 0.0
    if gap <= abs(r - s):
        return min(1.0, (s / r) ** 2)
    inner = (gap * gap + r * r - s * s) / (2 * gap)
    other = gap - inner
    area = r * r * math.acos(inner / r) - inner * math.sqrt(r * r - inner * inner)
    area += s * s * math.acos(other / s) - other * math.sqrt(s * s - other * other)
    return area / (math.pi * r * r)


def stands_free(things: tuple[Thing, ...], thing: Thing) -> bool:
    """Whether a thing leaves free ground between itself and all others."""
    return all(math.hypot(o.x - thing.x, o.y - thing.y) > o.footprint + thing.footprint + _GAP for o in things)


def is_seen(things: tuple[Thing, ...], camera: Camera) -> bool:
    """Whether all things lie inside the picture and none hides more than about half of another."""
    discs = [_disc(thing, camera) for thing in things]
    for x, y, radius, _ in discs:
        if max(abs(x), abs(y)) + radius > _BORDER:
            return False
    return all(sum(_overlap(a, b) for b in discs if b[3] < a[3]) <= _MOST_HIDDEN for a in discs)


def place(random: Random, things: tuple[Thing, ...], camera: Camera, attributes: dict[str, str]) -> Thing | None:
    """A thing of these attributes at a random free and visible place; None after 40 vain attempts."""
    for _ in range(40):
        angle, far = 2 * math.pi * random.random(), _REACH * math.sqrt(random.random())
        turn = math.pi * random.random()
        thing = Thing(**attributes, x=far * math.cos(angle), y=far * math.sin(angle), turn=turn)
        if stands_free(things, thing) and is_seen((*things, thing), camera):
            return thing
    return None


def draw_scene(random: Random, split: Split, least: int, most: int) -> Scene:
    """A random scene of `least` to `most` things that keeps to the split.

    Where things do not fit, everything is placed anew; after some vain rounds large things become small ones.
    """
    count = least + int(random.random() * (most - least + 1))
    for number in range(10_000):
        camera = draw_camera(random)
        special = int(random.random() * count) if split.must_show and count else -1
        things: tuple[Thing, ...] = ()
        for k in range(count):
            attributes = split.draw(random, held_out=k == special)
            if number >= 12:
                attributes["size"] = "small"
            thing = place(random, things, camera, attributes)
            if thing is None:
                break
            things = (*things, thing)
        if len(things) == count:
            return Scene(things, camera, draw_light(random, camera))
    raise RuntimeError(f"no scene of {count} things found; this is a defect of sightline.data.scenes.layout")


def nudge_view(random: Random, scene: Scene, accept: Callable[[Scene], bool] = bool) -> Scene:
    """The same things from a slightly other camera under another light, all still in sight (CLEVR-Change's
    distractor).  `accept` may turn down cameras; where all are, the camera stays where it is."""
    camera, light = scene.camera, scene.light
    new_light = Light(
        light.azimuth + math.radians(_between(random, -25.0, 25.0)),
        min(max(light.elevation + math.radians(_between(random, -6.0, 6.0)), math.radians(40)), math.radians(64)),
        pick(random, (light.softness, 0.0, 0.1)),
        light.strength * _between(random, 0.85, 1.15),
        light.ambient * _between(random, 0.88, 1.12),
    )
    for width in (1.0, 0.7, 0.5, 0.35, 0.2, 0.1, 0.05):
        for _ in range(6):
            moved = Camera(
                camera.azimuth + width * math.radians(_between(random, -12.0, 12.0)),
                camera.elevation + width * math.radians(_between(random, -4.0, 4.0)),
                camera.distance + width * _between(random, -0.6, 0.6),
                (
                    camera.aim[0] + width * _between(random, -0.25, 0.25),
                    camera.aim[1] + width * _between(random, -0.25, 0.25),
                    camera.aim[2],
                ),
            )
            seen = Scene(scene.things, moved, new_light)
            if is_seen(scene.things, moved) and accept(seen):
                return seen
    return Scene(scene.things, camera, new_light)
