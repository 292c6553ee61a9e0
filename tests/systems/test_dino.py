"""DINO: equal to the published code, what moves and what does not, learning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sightline.checkpoints import dino as published
from sightline.objectives.self_distillation import Centre, self_distillation, teacher_entropy
from sightline.recipes.schedules import cosine, ramp
from sightline.systems import dino
from sightline.systems.backbones import last_tokens
from sightline.systems.dino import DINO, DINOHead, Network

TINY: dict[str, Any] = {"image_size": 32, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "positions": "dino"}


class Kit:
    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights, self.inputs, self.outputs = (
            load_file(folder / f"{name}.safetensors") for name in ("weights", "inputs", "outputs")
        )

    def check(self, name: str, got: Tensor) -> None:
        atol = self.config["outputs"][name]["atol"]
        torch.testing.assert_close(got.to(self.outputs[name].dtype), self.outputs[name], atol=atol, rtol=0)


@pytest.fixture
def kit(shared: Path) -> Kit:
    return Kit(shared / "golden" / "dino")


def tiny(**more: Any) -> DINO:
    torch.manual_seed(0)
    given = {"backbone": TINY, "prototypes": 40, "hidden": 32, "bottleneck": 16, "drop_path": 0.0, **more}
    return DINO(**given)


def views(batch: int = 4, small: int = 3) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, 3, 32, 32) for _ in range(2)] + [torch.randn(batch, 3, 16, 16) for _ in range(small)]


def network_of(kit: Kit) -> Network:
    backbone = published.convert(kit.weights, {}, heads=kit.config["hyper_parameters"]["num_heads"]).build()
    head = DINOHead(dim=48, prototypes=64, hidden=80, bottleneck=32)
    head.load_state_dict(published.head_names(kit.weights))
    return Network(backbone=backbone, head=head).eval()


@torch.no_grad()
def test_features_and_head_equal_the_published(kit: Kit) -> None:
    network = network_of(kit)
    crops = [*kit.inputs["global_crops"], *kit.inputs["local_crops"]]
    kit.check("multicrop_output", network(crops).flatten(0, 1))
    kit.check("features_global", network.backbone(crops[0]))
    kit.check("features_local", network.backbone(crops[2]))
    kit.check("features_rect", network.backbone(kit.inputs["rect_image"]))
    kit.check("head_output", network.head(network.backbone(crops[2])))
    kit.check("last2_local", last_tokens(network.backbone, crops[2], 2))


def test_loss_centre_and_temperatures_equal_the_published(kit: Kit) -> None:
    given = kit.config["hyper_parameters"]
    student = kit.inputs["student_output"].unflatten(0, (5, given["loss_batch"]))
    teacher = kit.inputs["teacher_output"].unflatten(0, (2, given["loss_batch"]))
    centre = Centre(prototypes=given["out_dim"], momentum=given["center_momentum"])
    centre.value.copy_(kit.inputs["center0"])
    losses, centres, temperatures = [], [], []
    for epoch in given["loss_epochs"]:
        warm, last = given["warmup_teacher_temp"], given["teacher_temp"]
        temperatures.append(ramp(warm, last, epoch, given["warmup_teacher_temp_epochs"]))
        losses.append(self_distillation(student, teacher, centre.value, teacher_temperature=temperatures[-1]))
        centre.update(teacher.flatten(0, 1))
        centres.append(centre.value[0].clone())
    kit.check("teacher_temps", torch.tensor(temperatures, dtype=torch.float64))
    kit.check("losses", torch.stack(losses))
    kit.check("centers_after", torch.stack(centres))


def test_schedule_equals_the_published(kit: Kit) -> None:
    values = [cosine(5e-4, 1e-6, step, 42, warm=14) for step in range(42)]
    kit.check("cosine_schedule", torch.tensor(values, dtype=torch.float64))


@torch.no_grad()
def test_whole_checkpoints_as_published(kit: Kit, tmp_path: Path) -> None:
    student = {f"module.{name}": value + 1 for name, value in kit.weights.items()}
    torch.save(
        {"student": student, "teacher": kit.weights, "dino_loss": {"center": torch.ones(1, 64)}}, tmp_path / "a.pth"
    )
    model = published.load_whole(tmp_path / "a.pth", heads=4)
    torch.testing.assert_close(model.centre.value, torch.ones(1, 64))
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
    crops = [*kit.inputs["global_crops"], *kit.inputs["local_crops"]]
    kit.check("multicrop_output", model.eval().teacher(crops).flatten(0, 1))
    assert (model.student(crops) - model.teacher(crops)).abs().max() > 1e-3


def test_the_loss_is_the_mean_over_pairs_of_different_views() -> None:
    torch.manual_seed(0)
    student, teacher, centre = torch.randn(4, 3, 7), torch.randn(2, 3, 7), torch.randn(1, 7)
    total, pairs = 0.0, 0
    for view in range(2):
        for crop in range(4):
            if crop == view:
                continue
            for picture in range(3):
                target = torch.exp((teacher[view, picture] - centre[0]) / 0.05)
                said = torch.log(
                    torch.exp(student[crop, picture] / 0.1) / torch.exp(student[crop, picture] / 0.1).sum()
                )
                total -= float((target / target.sum() * said).sum())
                pairs += 1
    loss = self_distillation(student, teacher, centre, teacher_temperature=0.05)
    assert abs(float(loss) - total / pairs) < 1e-4
    with pytest.raises(ValueError, match="at least two crops"):
        self_distillation(student[:1], teacher[:1], centre)


def test_no_gradient_reaches_the_teacher_and_all_of_the_student_learns() -> None:
    model = tiny()
    before = model.centre.value.clone()
    told = model.train().loss({"views": views()})
    told["loss"].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    silent = [name for name, p in model.student.named_parameters() if p.grad is None]
    assert silent == ["head.last.length"]
    assert (model.centre.value - before).abs().max() > 0
    assert 0 <= told["each"] <= 1
    assert told["mean"] >= told["each"] - 1e-5  # entropy is concave


def test_scores_of_bfloat16_features_are_float32() -> None:
    head = dino.UnitLinear(dim=4, out=3)
    features = torch.randn(2, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(features)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, features.float() @ (head.direction / head.direction.norm(dim=1, keepdim=True)).T)


def test_the_centre_moves_after_the_loss_and_only_in_training() -> None:
    one, other = tiny(), tiny(centre_momentum=0.5)
    batch = {"views": views()}
    torch.testing.assert_close(one.train().loss(batch)["loss"], other.train().loss(batch)["loss"])
    moved = one.centre.value.clone()
    one.eval().loss(batch)
    torch.testing.assert_close(one.centre.value, moved)
    still = tiny(centre_momentum=1.0)
    still.train().loss(batch)
    assert not still.centre.value.any()


def test_the_teacher_follows_parameters_only() -> None:
    model = tiny(head_norm=True).train()
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in model.teacher.parameters()]
    statistics = model.teacher.head.mlp[1].running_mean.clone()
    model.student.head.mlp[1].running_mean.add_(5.0)
    model.follow(0.75)
    for old, new in zip(before, model.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    torch.testing.assert_close(model.teacher.head.mlp[1].running_mean, statistics)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        model.follow(1.5)


def test_paths_are_dropped_in_the_student_alone() -> None:
    model = tiny(drop_path=0.3)
    assert [layer.drop_path.rate for layer in model.teacher.backbone.layers] == [0, 0]
    assert model.student.backbone.layers[-1].drop_path.rate == pytest.approx(0.3)
    again = DINO(backbone=model.student.backbone, prototypes=4, hidden=8, bottleneck=4)
    assert [layer.drop_path.rate for layer in again.teacher.backbone.layers] == [0, 0]


def test_the_student_learns_to_predict_and_the_teacher_stays_apart() -> None:
    torch.manual_seed(0)
    pictures = torch.randn(16, 3, 32, 32)
    model = tiny(prototypes=32).train()
    optimizer = torch.optim.AdamW(model.student.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        given = [pictures + 0.2 * torch.randn_like(pictures) for _ in range(2)]
        told = model.loss({"views": [*given, *(view[:, :, 4:20, 4:20] for view in given)]})
        optimizer.zero_grad()
        told["loss"].backward()
        optimizer.step()
        model.follow(0.9)
        losses.append(float(told["loss"].detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert told["mean"] > 0.15


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = tiny()
    model.save_pretrained(tmp_path)
    again = DINO.from_pretrained(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("preset", "millions"), [(dino.dino_small_16, 21.67), (dino.dino_base_8, 85.81), (dino.dino_resnet_50, 23.51)]
)
def test_presets_have_the_published_sizes(preset: Callable[..., DINO], millions: float) -> None:
    with torch.device("meta"):
        model = preset(prototypes=16)
    count = sum(p.numel() for p in model.learned.parameters())
    assert abs(count / 1e6 - millions) < 0.01


def test_entropies_tell_the_two_collapses() -> None:
    centre = torch.zeros(1, 8)
    one = torch.zeros(2, 5, 8)
    one[..., 3] = 10.0
    assert teacher_entropy(one, centre)["mean"] < 1e-3
    assert teacher_entropy(torch.zeros(2, 5, 8), centre)["each"] > 0.999
    different = 10 * torch.eye(8)[None]
    told = teacher_entropy(different, centre)
    assert told["each"] < 1e-3
    assert told["mean"] > 0.999
