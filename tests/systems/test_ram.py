"""RAM: equal to the published implementation along given glimpses, learning where it should, path where it may."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import sightline
from sightline.attention.glimpse import retina
from sightline.checkpoints import ram as converter
from sightline.objectives.policy_gradient import normal_log_density
from sightline.systems.ram import RAM, ram_mnist, ram_translated


def small(**sizes: object) -> RAM:
    torch.manual_seed(0)
    return RAM(**({"image_size": 20, "patch": 4, "glimpses": 3, "what": 12, "where": 8, "locator": 6} | sizes))  # type: ignore[arg-type]


def golden(shared: Path, old_head: bool) -> tuple[RAM, dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    kit = shared / "golden" / "ram"
    config = json.loads((kit / "config.json").read_text("utf-8"))
    sizes = config["hyper_parameters"]
    state = load_file(kit / "weights.safetensors")
    head = {name.removeprefix("old_head/"): value for name, value in state.items() if name.startswith("old_head/")}
    state = {name: value for name, value in state.items() if not name.startswith("old_head/")}
    if old_head:
        state = {name: value for name, value in state.items() if not name.startswith("locator.")} | head
    model = converter.convert(state, {}, scales=sizes["k"], std=sizes["std"], glimpses=sizes["steps"]).build()
    atol = {name: value["atol"] for name, value in config["outputs"].items()}
    assert isinstance(model, RAM)
    return model, load_file(kit / "inputs.safetensors"), load_file(kit / "outputs.safetensors"), atol


@pytest.mark.parametrize("old_head", [False, True])
def test_equal_to_the_published_implementation(shared: Path, old_head: bool) -> None:
    model, given, wanted, atol = golden(shared, old_head)
    assert bool(model.locator.inner) is not old_head
    found: dict[str, list[Tensor]] = {name: [] for name in ("phi", "glimpse", "hidden", "mu", "log_pi", "baseline")}
    state = given["h0"]
    with torch.no_grad():
        for step in range(given["locations"].shape[1]):
            place = given["locations"][:, step]
            seen = retina(given["images"], place, patch=model.patch, scales=model.scales, factor=model.factor)
            state = model.look(given["images"], place, state)
            mean = model.locator(state)
            found["phi"].append(seen.flatten(1))
            found["glimpse"].append(model.glimpse(seen, place))
            found["hidden"].append(state)
            found["mu"].append(mean)
            found["log_pi"].append(normal_log_density(given["sampled"][:, step], mean, model.std))
            found["baseline"].append(model.baseline(state)[:, 0])
        log_probs = model.classifier(state).log_softmax(dim=1)
    suffix = "_old_head" if old_head else ""
    for name, steps in found.items():
        key = name + suffix if name in ("mu", "log_pi") else name
        assert (torch.stack(steps, dim=1) - wanted[key]).abs().max() <= min(atol[key], 1e-5 * wanted[key].abs().max())
    assert (log_probs - wanted["log_probas"]).abs().max() <= 1e-5


def test_forward_is_its_steps() -> None:
    model, images = small(), torch.rand(4, 1, 20, 20)
    places = torch.rand(4, 3, 2) * 2 - 1
    state = torch.zeros(4, 20)
    for step in range(3):
        state = model.look(images, places[:, step], state)
    reading = model(images, places)
    torch.testing.assert_close(reading.log_probs, model.classifier(state).log_softmax(dim=1))
    torch.testing.assert_close(reading.places, places)
    assert reading.baselines.shape == (4, 3)


def test_its_own_path_is_random_and_follows_the_generator() -> None:
    model, images = small(), torch.rand(4, 1, 20, 20)
    torch.manual_seed(3)
    first, second = model(images), model(images)
    torch.manual_seed(3)
    again = model(images)
    assert torch.equal(first.places, again.places)
    assert not torch.equal(first.places, second.places)
    assert first.places.abs().max() <= 1
    assert first.log_densities.shape == (4, 2)
    # following that path again reads the same
    torch.testing.assert_close(model(images, first.places).log_probs, first.log_probs)


def test_density_is_that_of_the_draw_before_it_is_clamped() -> None:
    model, images = small(std=5.0), torch.rand(64, 1, 20, 20)
    state = model.look(images, torch.zeros(64, 2), torch.zeros(64, 20))
    torch.manual_seed(1)
    place, density = model.choose(state)
    torch.manual_seed(1)
    draw = model.locator(state) + 5.0 * torch.randn(64, 2)
    outside = (draw.abs() > 1).any(dim=1)
    assert outside.sum() > 10
    wanted = torch.distributions.Normal(model.locator(state), 5.0).log_prob(draw).sum(dim=1)
    torch.testing.assert_close(density, wanted)
    torch.testing.assert_close(place, draw.clamp(-1, 1))


def test_gradients_reach_every_parameter_and_stay_where_they_belong() -> None:
    model = small(scales=2)
    batch = {"images": torch.rand(16, 1, 20, 20), "labels": torch.randint(0, 10, (16,))}
    parts = model.loss(batch)
    names = [name for name, _ in model.named_parameters()]
    for part, heads in {"policy": "locator.", "baseline": "baseline.", "answer": ""}.items():
        grads = torch.autograd.grad(parts[part], list(model.parameters()), retain_graph=True, allow_unused=True)
        reached = {name for name, grad in zip(names, grads, strict=True) if grad is not None and grad.abs().sum() > 0}
        others = {name for name in names if not name.startswith(("locator.", "baseline."))}
        assert reached == ({name for name in names if name.startswith(heads)} if heads else others)


def test_loss_is_the_hybrid_objective() -> None:
    model = small()
    images, labels = torch.rand(8, 1, 20, 20), torch.randint(0, 10, (8,))
    torch.manual_seed(2)
    parts = model.loss({"images": images, "labels": labels})
    torch.manual_seed(2)
    reading = model(images)
    right = (reading.log_probs.argmax(dim=1) == labels).float()
    gain = right[:, None] - reading.baselines
    policy = -(reading.log_densities * gain[:, :2]).sum(dim=1).mean()
    torch.testing.assert_close(parts["policy"], policy)
    answer = -reading.log_probs[torch.arange(8), labels].mean()
    torch.testing.assert_close(parts["loss"], answer + gain.square().mean() + 0.01 * policy)
    given = model.loss({"images": images, "labels": labels, "places": reading.places})
    torch.testing.assert_close(given["loss"], answer)
    assert set(given) == {"loss", "answer", "accuracy"}


def test_what_no_glimpse_covers_changes_nothing() -> None:
    model = small()
    images = torch.rand(2, 1, 40, 40)
    places = torch.full((2, 3, 2), -0.5)  # all around pixel (10, 10)
    hidden = images.clone()
    hidden[:, :, 14:], hidden[:, :, :, 14:] = 0.3, 0.7
    assert torch.equal(model(images, places).log_probs, model(hidden, places).log_probs)
    hidden[:, :, 9, 9] += 0.5
    assert not torch.equal(model(images, places).log_probs, model(hidden, places).log_probs)


def test_later_glimpses_do_not_reach_back() -> None:
    model, images = small(scales=2), torch.rand(3, 1, 20, 20)
    places = torch.rand(3, 3, 2) * 2 - 1
    moved = places.clone()
    moved[:, 2] = -moved[:, 2]
    torch.manual_seed(4)
    first = model(images, places)
    torch.manual_seed(4)
    second = model(images, moved)
    assert torch.equal(first.baselines[:, :2], second.baselines[:, :2])
    assert not torch.equal(first.baselines[:, 2], second.baselines[:, 2])
    assert torch.equal(first.log_densities, second.log_densities)
    assert not torch.equal(first.log_probs, second.log_probs)


def test_a_path_of_other_length_is_followed_to_its_end() -> None:
    model, images = small(), torch.rand(2, 1, 20, 20)
    for count in (1, 5):
        reading = model(images, torch.zeros(2, count, 2))
        assert reading.baselines.shape == (2, count)
        assert reading.log_densities.shape == (2, count - 1)


def test_pictures_of_a_batch_do_not_disturb_each_other() -> None:
    model, images = small(scales=2), torch.rand(4, 1, 20, 20)
    places = torch.rand(4, 3, 2) * 2 - 1
    together = model(images, places).log_probs
    for row in range(4):
        alone = model(images[row : row + 1], places[row : row + 1]).log_probs
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-6, rtol=0)


def test_canvases_of_any_size_and_shape() -> None:
    model = small(scales=2, channels=3)
    assert model(torch.rand(2, 3, 33, 57)).log_probs.shape == (2, 10)
    assert small(glimpses=1)(torch.rand(2, 1, 8, 8)).log_densities.shape == (2, 0)


def test_copies_are_averaged() -> None:
    model, images = small(), torch.rand(3, 1, 20, 20)
    torch.manual_seed(5)
    wanted = torch.stack([model(images).log_probs for _ in range(4)]).mean(dim=0)
    torch.manual_seed(5)
    torch.testing.assert_close(model.predict(images, 4), wanted)
    with pytest.raises(ValueError, match="at least 1, given 0"):
        model.predict(images, 0)


@pytest.mark.parametrize("sizes", [{"patch": 0}, {"scales": 0}, {"factor": 0}, {"glimpses": 0}, {"std": 0.0}])
def test_sizes_that_make_no_model_are_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="given"):
        small(**sizes)


def test_presets_have_the_papers_sizes() -> None:
    assert ram_mnist().glimpse.what_in.in_features == 64
    assert ram_translated().glimpse.what_in.in_features == 3 * 12 * 12
    # the shipped weights' count, plus the newer location head's hidden layer, less its two narrower rows
    assert sum(p.numel() for p in RAM(locator=0).parameters()) == 209_677


def test_the_lens_sees_each_glimpse() -> None:
    model, images = small(scales=2), torch.rand(1, 1, 20, 20)
    with sightline.record(model) as seen:
        reading = model(images)
    assert len(seen) == 3 or len(seen[0].weights) == 1
    last = seen[-1].weights[0, 0, 0].reshape(20, 20)
    assert last.sum().item() == pytest.approx(1, abs=1e-5)
    row = int(0.5 * (reading.places[0, -1, 1] + 1) * 20)
    column = int(0.5 * (reading.places[0, -1, 0] + 1) * 20)
    assert last[min(row, 19), min(column, 19)] == last.max()


def test_saved_and_read_back(tmp_path: Path) -> None:
    model, images = small(), torch.rand(2, 1, 20, 20)
    model.save_pretrained(tmp_path)
    read = RAM.from_pretrained(tmp_path)
    places = torch.rand(2, 3, 2)
    assert torch.equal(read(images, places).log_probs, model(images, places).log_probs)
