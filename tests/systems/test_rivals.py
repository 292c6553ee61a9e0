"""The rivals of DINO: losses equal to published ones or to naive ones, what moves, and that each learns."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.objectives.contrastive import info_nce, nt_xent
from sightline.systems.backbones import grid_of
from sightline.systems.barlow_twins import BarlowTwins, redundancy
from sightline.systems.byol import BYOL, regression
from sightline.systems.deepcluster import DeepCluster, spherical_kmeans
from sightline.systems.moco import MoCo
from sightline.systems.obow import OBoW, bag_of_words, local_words, squared_distances
from sightline.systems.simclr import SimCLR
from sightline.systems.swav import SwAV, sinkhorn, swapped

RESNET: dict[str, Any] = {"architecture": "resnet", "blocks": (1, 1, 1, 1), "width": 8, "stem": "small"}
VIT: dict[str, Any] = {"image_size": 16, "patch": 4, "dim": 24, "depth": 2, "heads": 3}
SIZES: dict[type[nn.Module], dict[str, Any]] = {
    SimCLR: {"hidden": 32, "out": 16},
    MoCo: {"out": 16, "entries": 24},
    BYOL: {"hidden": 32, "out": 16},
    BarlowTwins: {"hidden": 32, "out": 16},
    SwAV: {"hidden": 32, "out": 16, "prototypes": 12},
    DeepCluster: {"hidden": 32, "out": 16, "clusters": (4, 3), "pictures": 20},
    OBoW: {"entries": 24},
}
METHODS = list(SIZES)


class Kit:
    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.inputs, self.outputs = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))

    def check(self, name: str, got: Tensor) -> None:
        atol = self.config["outputs"][name]["atol"]
        torch.testing.assert_close(got.view_as(self.outputs[name]), self.outputs[name], atol=atol, rtol=0)


def test_losses_equal_the_published(shared: Path) -> None:
    kit = Kit(shared / "golden" / "ssl_losses")
    given = kit.inputs
    z0, z1, p0, p1 = (given[name] for name in ("z0", "z1", "p0", "p1"))
    kit.check("ntxent", nt_xent(z0, z1, 0.2))
    kit.check("simclr_solo", nt_xent(z0, z1, 0.2))
    kit.check("moco", info_nce(z0, z1, given["queue"], 0.2))
    kit.check("byol", regression(p0, z1) + regression(p1, z0))
    kit.check("barlow", redundancy(z0, z1, 0.005))
    kit.check("sinkhorn", sinkhorn(given["swav_high"][0]))
    kit.check("swav", swapped(given["swav_high"], given["swav_low"]))
    kit.check("swav_with_queue", swapped(given["swav_high"], given["swav_low"], earlier=given["swav_queue"]))


def test_nt_xent_written_out() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(3, 5), torch.randn(3, 5)
    views = [F.normalize(one, dim=0) for one in (*first, *second)]
    total = 0.0
    for i, one in enumerate(views):
        others = [math.exp(float(one @ views[k]) / 0.3) for k in range(6) if k != i]
        total -= math.log(math.exp(float(one @ views[(i + 3) % 6]) / 0.3) / sum(others))
    assert abs(float(nt_xent(first, second, 0.3)) - total / 6) < 1e-5


def test_redundancy_and_codes_written_out() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(6, 3), torch.randn(6, 3)
    total = 0.0
    for i in range(3):
        for j in range(3):
            a, b = (
                (z[:, k] - z[:, k].mean()) / (z[:, k].var(unbiased=False) + 1e-5).sqrt()
                for z, k in ((one, i), (other, j))
            )
            c = float((a * b).mean())
            total += (c - 1) ** 2 if i == j else 0.01 * c**2
    assert abs(float(redundancy(one, other, 0.01)) - total) < 1e-4
    codes = sinkhorn(torch.rand(40, 5) * 2 - 1, smoothness=0.5, rounds=50)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((5,), 8.0), atol=1e-2, rtol=0)


def test_bags_of_words_written_out() -> None:
    torch.manual_seed(0)
    grid, words = torch.randn(2, 4, 3, 2), torch.randn(5, 4)
    bag = bag_of_words(squared_distances(grid, words), 0.7)
    for picture in range(2):
        largest = [0.0] * 5
        for row in range(3):
            for column in range(2):
                apart = [float((grid[picture, :, row, column] - word).square().sum()) for word in words]
                soft = [math.exp(-0.7 * value) for value in apart]
                largest = [max(a, b / sum(soft)) for a, b in zip(largest, soft, strict=True)]
        torch.testing.assert_close(bag[picture], torch.tensor(largest) / sum(largest))


def test_the_loss_of_bags_written_out() -> None:
    model = make(OBoW, entries=5).train()
    views = batch_of(torch.randn(3, 3, 16, 16))["views"]
    model.loss({"views": views})  # makes the vocabulary
    words, place, distance = model.words.clone(), int(model.place), float(model.distance)
    with torch.no_grad():
        grid = grid_of(model.teacher, views[0])
        told = [model.student(crop) for crop in (torch.cat(views[1:3]), views[3])]  # large ones, then the small one
        weights = F.normalize(model.weights(F.normalize(words, dim=1)), dim=1)
    apart = [[[(here - word).square().sum() for word in words] for here in one.flatten(1).T] for one in grid]
    nearest = [float(min(row)) for one in apart for row in one]
    distance += 0.01 * (sum(nearest) / len(nearest) - distance)  # moves before it is used, as published
    total = 0.0
    for number, features in enumerate(torch.cat(told)):
        bag = torch.zeros(5)
        for row in apart[number % 3]:
            bag = torch.maximum(bag, torch.softmax(-15 / distance * torch.stack(row), dim=0))
        scores = torch.stack([8 * features @ weight for weight in weights])  # features keep their length
        total -= float((bag / bag.sum() * (scores - scores.exp().sum().log())).sum())
    torch.manual_seed(1)
    assert float(model.loss({"views": views})["loss"].detach()) == pytest.approx(total / 9, rel=1e-4)
    torch.manual_seed(1)
    fresh = local_words(grid)  # words join after the loss, over the oldest
    places = [(place + number) % 5 for number in range(3)]
    torch.testing.assert_close(model.words[places], fresh)
    others = [number for number in range(5) if number not in places]
    assert torch.equal(model.words[others], words[others])


def test_words_are_means_of_the_places_around_one() -> None:
    grid = torch.randn(2, 3, 4, 3)
    near = [
        (slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
        for row in range(4)
        for column in range(3)
    ]
    means = torch.stack([grid[:, :, rows, columns].mean(dim=(2, 3)) for rows, columns in near])
    seen = set()
    for _ in range(60):
        apart = (local_words(grid) - means).abs().amax(dim=2)  # (places, pictures)
        assert float(apart.amin(dim=0).max()) < 1e-5
        seen.add(int(apart[:, 0].argmin()))
    assert len(seen) > 8


def test_clusters_are_found_and_kept() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = F.normalize(4 * torch.eye(3, 8)[labels] + torch.randn(60, 8, generator=draw), dim=1)
    best = max(
        (spherical_kmeans(features, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(5)),
        key=lambda found: float((features * found[0][found[1]]).sum()),
    )
    torch.testing.assert_close(best[0].norm(dim=1), torch.ones(3))
    groups = [best[1][labels == number].mode().values for number in range(3)]
    assert len({int(one) for one in groups}) == 3
    assert sum(int((best[1][labels == n] == groups[n]).sum()) for n in range(3)) > 55
    with pytest.raises(ValueError, match="cannot make 61 clusters"):
        spherical_kmeans(features, 61)


def make(method: type[nn.Module], backbone: dict[str, Any] = RESNET, **more: Any) -> Any:
    torch.manual_seed(0)
    return method(backbone=backbone, **{**SIZES[method], **more})


def batch_of(pictures: Tensor, noise: float = 0.1) -> dict[str, Any]:
    views = [pictures + noise * torch.randn_like(pictures) for _ in range(3)]
    return {"views": [*views, views[2][:, :, 2:14, 2:14]], "indices": torch.arange(len(pictures))}


@pytest.mark.parametrize("backbone", [RESNET, VIT], ids=["resnet", "vit"])
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__)
def test_each_learns_what_it_is_asked(method: type[nn.Module], backbone: dict[str, Any]) -> None:
    model = make(method, backbone).train()
    pictures = torch.randn(8, 3, 16, 16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for step in range(24):
        if method is DeepCluster and step == 1:
            assert model.cluster(torch.Generator().manual_seed(0)) == 8
        loss = model.loss(batch_of(pictures))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if method is SwAV:
            model.follow()
        elif hasattr(model, "follow"):
            model.follow(0.95)
        losses.append(float(loss.detach()))
    early, late = sum(losses[2:6]) / 4, sum(losses[-4:]) / 4
    assert math.isfinite(late)
    assert late < early - 0.02, losses
    assert model.learned(pictures).shape == model(pictures).shape


@pytest.mark.parametrize("method", [MoCo, BYOL, OBoW])
def test_slow_copies_get_no_gradient(method: type[nn.Module]) -> None:
    model = make(method).train()
    slow = {MoCo: "key", BYOL: "target", OBoW: "teacher"}[method]
    model.loss(batch_of(torch.randn(6, 3, 16, 16)))["loss"].backward()
    assert all(p.grad is None for p in getattr(model, slow).parameters())
    assert all(p.grad is not None for p in model.learned.parameters())
    before = next(getattr(model, slow).parameters()).clone()
    with torch.no_grad():
        next(model.learned.parameters()).add_(1.0)
    model.follow(0.75)
    torch.testing.assert_close(next(getattr(model, slow).parameters()), before + 0.25)


def test_the_queue_takes_keys_and_forgets_the_oldest() -> None:
    model = make(MoCo, entries=10).train()
    first = model.queue.clone()
    keys = [F.normalize(torch.randn(4, 16), dim=1) for _ in range(3)]
    for one in keys:
        model.remember(one)
    torch.testing.assert_close(model.queue[:, 4:8], keys[1].T)
    torch.testing.assert_close(model.queue[:, [8, 9, 0, 1]], keys[2].T)
    torch.testing.assert_close(model.queue[:, 2:4], keys[0].T[:, 2:])
    assert int(model.place) == 2
    assert (model.queue - first).abs().sum(dim=0).min() > 0
    model.eval().loss(batch_of(torch.randn(6, 3, 16, 16)))
    assert int(model.place) == 2


def test_prototypes_stay_of_length_one() -> None:
    model = make(SwAV)
    with torch.no_grad():
        model.prototypes.weight.mul_(3)
    model.follow()
    torch.testing.assert_close(model.prototypes.weight.norm(dim=1), torch.ones(12))


def test_pictures_without_a_cluster_teach_nothing() -> None:
    model = make(DeepCluster).train()
    assert model.cluster() == 0
    loss = model.loss(batch_of(torch.randn(8, 3, 16, 16)))["loss"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert model.cluster() == 8
    assert (model.assigned[:, :8] >= 0).all()
    assert (model.assigned[:, 8:] == -1).all()
    assert float(model.loss(batch_of(torch.randn(8, 3, 16, 16)))["loss"].detach()) > 0


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__)
def test_saved_and_loaded(method: type[nn.Module], tmp_path: Path) -> None:
    model = make(method)
    model.save_pretrained(tmp_path)
    again = method.from_pretrained(tmp_path)  # type: ignore[attr-defined]
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again.eval()(images), model.eval()(images))
