"""The recipes of DINO's rivals: what moves at which step, that each learns, and one batch on two processes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sightline.data.unlabelled import UNKNOWN
from sightline.recipes import banks, deepcluster, infomin, moco, probes, results, supervised, swav
from sightline.recipes.backbone import build
from sightline.recipes.banks import open_data
from sightline.recipes.plan import NAMES, TrainingError, recipe_of
from sightline.recipes.probes import measure
from sightline.recipes.self_supervised import TINY_SYSTEM
from sightline.recipes.train import train

METHODS = ("simclr", "moco", "infomin", "byol", "barlow_twins", "swav", "deepcluster", "obow", "supervised")
SMALL: dict[str, Any] = {"image_size": 16, "patch": 8, "dim": 24, "depth": 1, "heads": 3}


def measured(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())["measured"]


@pytest.fixture(scope="module", autouse=True)
def _no_drawings() -> Iterator[None]:
    """Pictures of a run take longer than the run; test_dino.py looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "draw_curves", lambda *given: None)
        patch.setattr(probes, "draw_samples", lambda *given: None)
        yield


@pytest.fixture(scope="module")
def at_random(tints: str, tmp_path_factory: pytest.TempPathFactory) -> float:
    """What the network of all tiny runs reaches as it is drawn."""
    folder = tmp_path_factory.mktemp("random")
    return measured(train("supervised", tints, tiny=True, out=folder / "run", rate=0.0, steps=2))["knn"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_run_learns(method: str, at_random: float, tints: str, tmp_path: Path) -> None:
    assert method in NAMES
    folder = train(method, tints, tiny=True, out=tmp_path / "run")
    assert measured(folder)["knn"] > at_random + 0.05, (measured(folder), at_random)
    made = recipe_of(method).build(None, **TINY_SYSTEM)
    kept = load_file(folder / "weights" / "model.safetensors")
    assert kept.keys() == made.state_dict().keys()  # the backbone alone


def recipe(module: Any, data: Any = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    given = {**module.TINY, "steps": 20, "batch": 4, **settings}
    return module.Recipe(build(None, **SMALL), module.Settings(**given), data).train()


def batch_of(count: int = 4) -> dict[str, torch.Tensor]:
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)
    return {"images": images, "labels": torch.arange(count) % 3, "indices": torch.arange(count)}


def test_views_of_infomin_are_those_of_moco_and_stronger() -> None:
    plain, strong = recipe(moco).views.views[0], recipe(infomin, strength=0.8).views.views[0]
    assert strong.strong
    assert not plain.strong
    assert (strong.scale, strong.grey, strong.count) == (plain.scale, plain.grey, plain.count)
    assert all(more > less for more, less in zip(strong.jitter, plain.jitter, strict=True))


def test_prototypes_stay_at_first(tints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    moved = swav.Recipe.moved
    monkeypatch.setattr(
        swav.Recipe,
        "moved",
        lambda self, step: seen.append(self.method.prototypes.weight.detach().clone()) or moved(self, step),
    )
    train("swav", tints, tiny=True, out=tmp_path / "run", steps=6, frozen=0.5, rate=0.1, bank=30)
    torch.testing.assert_close(seen[0], seen[2])
    assert (seen[3] - seen[2]).abs().max() > 1e-4


def test_too_few_pictures_for_the_clusters_are_refused(tints: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="240 pictures cannot make clusters=241: give more, or ask for fewer"):
        train("deepcluster", tints, tiny=True, out=tmp_path / "run", clusters=241)


def test_pictures_without_a_label_teach_the_control_nothing() -> None:
    made = recipe(supervised)
    none, batch = torch.full((4,), UNKNOWN), batch_of()
    loss = made.training_step({**batch, "labels": none}, 0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(p.grad.any() for p in made.method.parameters() if p.grad is not None)
    given = {"views": [torch.randn(4, 3, 16, 16)], "labels": torch.tensor([1, 0, 1, 0])}
    some = {**given, "labels": torch.tensor([1, UNKNOWN, 1, UNKNOWN])}
    logits = made.method.head(made.method.backbone(given["views"][0]))
    for one in (given, some):
        known = one["labels"] != UNKNOWN
        expected = torch.nn.functional.cross_entropy(logits[known], one["labels"][known])
        torch.testing.assert_close(made.method.loss(one)["loss"], expected)


def test_classes_that_differ_between_training_and_held_out_pictures_are_refused(tmp_path: Path) -> None:
    for place, colour in (("train/a", 0), ("train/b", 90), ("train/c", 200), ("val/b", 90), ("val/c", 200)):
        (tmp_path / "flags" / place).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (16, 16), (colour, number, 0)).save(tmp_path / "flags" / place / f"{number}.png")
    spec = f"folder:{tmp_path / 'flags'}"
    said = "flags: train and val differ in the classes a; neighbours need the same in both"
    for method in (*METHODS, "dino"):
        with pytest.raises(ValueError, match=said):
            recipe_of(method).agree(open_data(spec, "train"), open_data(spec, "val"))
    with pytest.raises(TrainingError, match=said):
        train("byol", spec, tiny=True, out=tmp_path / "run")
    with pytest.raises(ValueError, match=said):
        measure(recipe(moco), open_data(spec, "val"))
    shutil.rmtree(tmp_path / "flags" / "train" / "a")
    again = open_data(spec, "val")
    banks.agree(open_data(spec, "train"), again)
    assert measure(recipe(moco), again)["parts"][0]["name"] == "flags"


def test_clusters_are_made_before_the_first_step_and_once_an_epoch(tints: str) -> None:
    data = open_data(tints, "train")
    made = recipe(deepcluster, data=data, batch=80)
    made.on_train_start()
    first = made.method.assigned.clone()
    assert (first >= 0).all()
    made.method.memory.copy_(torch.nn.functional.normalize(torch.randn_like(made.method.memory), dim=1))
    made.moved(0)
    assert torch.equal(made.method.assigned, first)
    made.moved(2)  # 240 pictures are three batches
    assert not torch.equal(made.method.assigned, first)
    again = made.method.assigned.clone()
    made.cluster(3)
    assert torch.equal(made.method.assigned, again)  # the draw follows the step


# Started through a script, since Lightning starts the second process by the same command line.  Views are drawn anew in
# each process, so here they are the pictures; batch norms are each process's own on a CPU, so there are none.
SCRIPT = """
from torch import nn
from sightline.cli.main import main
from sightline.recipes import probes, results
from sightline.recipes.views import Views
from sightline.systems import simclr

probes.draw_samples = results.draw_curves = lambda *given: None
Views.forward = lambda self, images: [images, images.flip(3)]
simclr.projector = lambda widths: nn.Sequential(nn.Linear(*widths[:2]), nn.ReLU(), nn.Linear(*widths[1:]))
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_contrast_over_the_whole_batch(tints: str, tmp_path: Path) -> None:
    script = tmp_path / "shell.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [
        "train",
        "simclr",
        "--data",
        tints,
        "--tiny",
        "steps=6",
        "batch=12",
        "rate=1e-2",
        "bank=30",
        "save_every=6",
    ]
    for devices in ("1", "2"):
        command = [sys.executable, str(script), *words, "--out", str(tmp_path / devices), "--devices", devices]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / devices / "metrics.json").read_text()) for devices in ("1", "2"))
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=0, atol=1e-5)
    assert abs(one["losses"][-1] - one["losses"][0]) > 0.05
    weights = [load_file(tmp_path / devices / "weights" / "model.safetensors") for devices in ("1", "2")]
    # a bias of the keys moves every score of a row alike, so its gradient is rounding
    apart = [(weights[0][name] - weights[1][name]).abs().max() for name in weights[0] if "key.bias" not in name]
    assert max(apart) < 1e-5
