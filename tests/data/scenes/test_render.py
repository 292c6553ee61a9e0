"""Pictures agree with a ray caster of a few lines, with each other, and with the geometry of their scenes."""

import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.scenes import Camera, Light, Scene, Scenes, Thing, render
from sightline.data.scenes.graph import FIELD
from sightline.data.scenes.layout import draw_scene
from sightline.data.scenes.pack import SUB_X, SUB_Y
from sightline.data.scenes.splits import Split

CAMERA = Camera(0.3, math.radians(35), 10.0)
LIGHT = Light(1.2, math.radians(50), 0.0)


def inside(thing: Thing, points: np.ndarray) -> np.ndarray:
    """Whether points (n, 3) lie in a thing: the definition of the shapes, nothing about rays."""
    x, y, z = ((points - thing.center) / thing.radius).T
    x, y = (
        math.cos(thing.turn) * x + math.sin(thing.turn) * y,
        math.cos(thing.turn) * y - math.sin(thing.turn) * x,
    )
    if thing.shape == "cube":
        return (np.abs(x) < 0.8) & (np.abs(y) < 0.8) & (np.abs(z) < 0.8)
    if thing.shape == "cylinder":
        return (x**2 + y**2 < 0.85**2) & (np.abs(z) < 0.9)
    if thing.shape == "cone":
        return (np.sqrt(x**2 + y**2) < (1 - z) / 2) & (np.abs(z) < 1)
    ball = x**2 + y**2 + z**2 < 1
    return ball & (z > 0) if thing.shape == "dome" else ball


def march(scene: Scene, x: float, y: float) -> tuple[int, float]:
    """What the ray at picture coordinates (x, y) meets first, found by small steps, and at what depth."""
    camera = scene.camera
    ray = np.array(camera.forward) + FIELD * (x * np.array(camera.right) + y * np.array(camera.up))
    depths = np.arange(5.0, 18.0, 0.004)
    points = np.array(camera.eye) + depths[:, None] * ray
    met = [(depths[np.argmax(hit)], k) for k, t in enumerate(scene.things) if (hit := inside(t, points)).any()]
    depth, k = min(met, default=(math.inf, -1))
    return k, depth


@pytest.mark.parametrize("split", ["train", "train-kinds"])
def test_owners_and_depths_are_those_of_a_ray_marcher(split: str) -> None:
    random, wrong, told = Random("march"), 0, 0
    for number in range(4):
        scene = draw_scene(Random(f"march {number}"), Split(split), 4, 6)
        views = render([scene], 48)
        for _ in range(120):
            row, column = int(random.random() * 48), int(random.random() * 48)
            found = [
                march(scene, (2 * (column + dx) - 48) / 48, (48 - 2 * (row + dy)) / 48)
                for dx, dy in zip(SUB_X, SUB_Y, strict=True)
            ]
            owners = {k for k, _ in found}
            if len(owners) > 1:
                continue  # an edge: which thing has the most rays is not for so coarse a marcher to say
            told += 1
            wrong += views.owner[0, row, column].item() not in owners
            if found[0][0] >= 0:
                assert abs(views.depth[0, row, column].item() - found[0][1]) < 0.012
    assert told > 300
    assert wrong == 0


def test_a_scene_s_picture_does_not_depend_on_its_batch() -> None:
    scenes = Scenes(seed=1, objects=(1, 8))
    together = scenes.views(range(12))
    for i in range(12):
        alone = scenes.views([i])
        assert torch.equal(alone.images[0], together.images[i])
        assert torch.equal(alone.owner[0], together.owner[i])
        assert torch.equal(alone.depth[0], together.depth[i])
    backwards = scenes.images(range(11, -1, -1))
    assert torch.equal(backwards.flip(0), together.images)


def test_large_batches_are_drawn_in_parts() -> None:
    scenes = [Scenes(seed=2).scene(i) for i in range(3)]
    wide = render(scenes, (40, 500))
    assert wide.images.shape == (3, 3, 40, 500)
    large = render(scenes, 512)  # more rays than are cast at once
    for k, scene in enumerate(scenes):
        assert torch.equal(render([scene], 512).images[0], large.images[k])


@settings(max_examples=25, deadline=None)
@given(height=st.integers(16, 90), width=st.integers(16, 90), seed=st.integers(0, 10**6))
def test_masks_boxes_and_depth_agree(height: int, width: int, seed: int) -> None:
    scene = Scenes(seed=seed, objects=(1, 6)).scene(0)
    views = render([scene], (height, width))
    assert views.images.dtype == torch.uint8
    assert views.images.shape == (1, 3, height, width)
    masks, boxes = views.masks(0), views.boxes(0)
    assert masks.shape == (len(scene), height, width)
    assert masks.sum(0).max() <= 1  # no pixel belongs to two
    assert torch.equal(masks.any(0), views.owner[0] >= 0)
    for k, (left, top, right, bottom) in enumerate(boxes.tolist()):
        rows, columns = masks[k].nonzero().unbind(1)
        if len(rows):
            tight = (columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1)
            assert (left, top, right, bottom) == tight
            depth = views.depth[0][masks[k]]
            middle = scene.projected[k][2]
            assert middle - 1.5 * scene.things[k].radius < depth.min()
            assert depth.max() < middle + 1.5 * scene.things[k].radius
        else:
            assert right - left == bottom - top == 0


def test_every_thing_is_seen_in_good_part() -> None:
    """At 128 pixels at least a fifth of what would be seen of each thing alone, and never fewer than 20 pixels."""
    scenes = Scenes(seed=5, size=128, objects=(4, 10))
    least = 1.0
    for i in range(15):
        scene = scenes.scene(i)
        views = scenes.views([i])
        alone = render([Scene((thing,), scene.camera, scene.light) for thing in scene.things], 128)
        for k in range(len(scene)):
            pixels, all_pixels = int(views.masks(0)[k].sum()), int(alone.masks(k).sum())
            assert pixels >= 20
            least = min(least, pixels / all_pixels)
    assert least > 0.2, least


def test_nearer_things_hide_farther_ones_as_the_depth_order_says() -> None:
    scenes = Scenes(seed=6, size=96, objects=(5, 9))
    hidden = 0
    for i in range(8):
        scene, views = scenes.scene(i), scenes.views([i])
        alone = render([Scene((thing,), scene.camera, scene.light) for thing in scene.things], 96)
        depth = [scene.projected[k][2] for k in range(len(scene))]
        assert sorted(depth) == [depth[k] for k in scene.depth_order]
        for k in range(len(scene)):
            taken = views.owner[0][alone.masks(k)[0] & ~views.masks(0)[k]]
            # whatever hides another stands nearer (a little less so where one is tall), but for a few edge pixels
            assert sum(1 for j in taken.tolist() if j >= 0 and depth[j] > depth[k] + 0.3) <= 3
            hidden += len(taken)
    assert hidden > 100


def brightness(scene: Scene) -> torch.Tensor:
    return render([scene], 96).images[0].float().mean(0)


def test_things_cast_shadows_away_from_the_light() -> None:
    bare = Scene((), CAMERA, LIGHT)
    ball = Scene((Thing("sphere", "gray", "rubber", "large", 0.0, 0.0),), CAMERA, LIGHT)
    empty, full = brightness(bare), brightness(ball)
    views = render([ball], 96)
    on_ground = views.owner[0] < 0
    darker = (empty - full)[on_ground]
    assert darker.max() > 40
    assert darker.min() > -3
    rows, columns = ((empty - full > 30) & on_ground).nonzero().unbind(1)
    dark = ((2 * columns.float().mean() + 1 - 96) / 96, (96 - 2 * rows.float().mean() - 1) / 96)
    side = CAMERA.project((-LIGHT.direction[0], -LIGHT.direction[1], 0.0))[0] - CAMERA.project((0.0, 0.0, 0.0))[0]
    assert float(dark[0]) * side > 0
    assert empty.std() < 12  # without things there is nothing but evenly lit ground


def test_soft_light_softens_the_edge_of_a_shadow() -> None:
    thing = Thing("cylinder", "gray", "rubber", "large", 0.0, 0.0)
    levels = {}
    for softness in (0.0, 0.14):
        light = Light(1.2, math.radians(50), softness)
        image = brightness(Scene((thing,), CAMERA, light))
        ground = render([Scene((thing,), CAMERA, light)], 96).owner[0] < 0
        change = (brightness(Scene((), CAMERA, light)) - image)[ground]
        levels[softness] = int(((change > 8) & (change < 32)).sum())
    assert levels[0.14] > 1.3 * levels[0.0]


def test_balls_are_shaded_and_metal_mirrors() -> None:
    def middle(material: str, *more: Thing) -> torch.Tensor:
        scene = Scene((Thing("sphere", "blue", material, "large", 0.0, 0.0), *more), CAMERA, LIGHT)
        views = render([scene], 96)
        return views.images[0].float()[:, views.masks(0)[0]]

    rubber, metal = middle("rubber"), middle("metal")
    assert rubber.mean(0).std() > 15  # light and dark sides
    assert metal.max() > 245  # a highlight
    assert metal[0].std() > rubber[0].std()
    beside = Thing("cube", "red", "rubber", "large", 0.2, 1.9)
    assert (middle("metal", beside)[:, : metal.shape[1]].shape) == metal.shape
    assert (middle("metal", beside) - metal).abs().max() > 40  # the cube is mirrored in the ball
    assert (middle("rubber", beside) - rubber).abs().max() < (middle("metal", beside) - metal).abs().max()


def test_edges_are_smoothed() -> None:
    scene = Scene((Thing("sphere", "yellow", "rubber", "large", 0.0, 0.0),), CAMERA, LIGHT)
    coarse, fine = render([scene], 64).images, render([scene], 256).images
    shrunk = torch.nn.functional.avg_pool2d(fine.float(), 4)
    jagged = fine[:, :, ::4, ::4].float()
    assert (coarse.float() - shrunk).abs().mean() < 0.6 * (jagged - shrunk).abs().mean()


def tint(rgb: np.ndarray) -> np.ndarray:
    """How a color departs from gray, whatever its brightness."""
    return rgb / rgb.sum() - 1 / 3


@pytest.mark.parametrize("color", ["red", "green", "blue", "yellow", "cyan", "purple", "gray", "brown"])
def test_colors_are_told_apart(color: str) -> None:
    from sightline.data.scenes.pack import SRGB

    for material in ("rubber", "metal"):
        scene = Scene((Thing("cylinder", color, material, "large", 0.0, 0.0),), CAMERA, LIGHT)
        views = render([scene], 64)
        seen = views.images[0].float()[:, views.masks(0)[0]].mean(1)
        tints = {name: tint(np.array(rgb, float)) for name, rgb in SRGB.items() if name != "gray"}
        mine = tint(seen.numpy().astype(float))
        if color == "gray":
            assert np.abs(mine).max() < 0.03
            continue
        near = sorted(tints, key=lambda name: -float(tints[name] @ mine / np.linalg.norm(tints[name])))
        assert color in near[:2]
        assert np.abs(mine).max() > 0.06


def test_no_scenes_and_no_things() -> None:
    assert render([], 32).images.shape == (0, 3, 32, 32)
    views = render([Scene((), CAMERA, LIGHT)], 32)
    assert views.masks(0).shape == (0, 32, 32)
    assert views.boxes(0).shape == (0, 4)
    assert (views.owner == -1).all()


@pytest.mark.parametrize("size", [0, 15, -3, 5000, (64, 8), (64, 9999)])
def test_sizes_that_cannot_be_drawn(size) -> None:
    with pytest.raises(ValueError, match="16 to 4096"):
        render([Scene((), CAMERA, LIGHT)], size)
