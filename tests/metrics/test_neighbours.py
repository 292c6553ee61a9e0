"""Votes of neighbours and the linear probe: equal to the published code and to naive ones; what they refuse."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sightline.metrics.neighbours import neighbour_accuracy, neighbour_votes
from sightline.metrics.probe import linear_accuracy


def test_votes_equal_the_published(shared: Path) -> None:
    folder = shared / "golden" / "dino"
    config = json.loads((folder / "config.json").read_text())
    given, wanted = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    bank = (given["train_features"], given["train_labels"])
    votes = neighbour_votes(given["test_features"], *bank, classes=5, k=config["hyper_parameters"]["knn_k"])
    torch.testing.assert_close(votes, wanted["knn_votes"], atol=config["outputs"]["knn_votes"]["atol"], rtol=0)
    right = neighbour_accuracy(given["test_features"], given["test_labels"], *bank, ks=(10,))
    assert 100 * right[10] == pytest.approx(float(wanted["knn_top1_top5"][0]))


def test_votes_of_each_picture_one_by_one() -> None:
    torch.manual_seed(0)
    features, bank, labels = torch.randn(7, 5), torch.randn(30, 5), torch.randint(0, 4, (30,))
    votes = neighbour_votes(features, bank, labels, classes=6, k=3, temperature=0.5)
    for row, feature in zip(votes, features, strict=True):
        likeness = [float(torch.cosine_similarity(feature, one, dim=0)) for one in bank]
        expected = [0.0] * 6
        for place in sorted(range(30), key=lambda p: -likeness[p])[:3]:
            expected[int(labels[place])] += torch.tensor(likeness[place] / 0.5).exp().item()
        torch.testing.assert_close(row, torch.tensor(expected))


def test_a_small_bank_votes_whole_and_an_empty_one_is_refused() -> None:
    features, bank, labels = torch.randn(2, 5), torch.randn(3, 5), torch.tensor([0, 1, 1])
    assert (neighbour_votes(features, bank, labels, classes=2, k=200) > 0).all()
    for wrong in ((bank[:0], labels[:0]), (bank, labels[:2])):
        with pytest.raises(ValueError, match="in the bank"):
            neighbour_votes(features, *wrong, classes=2)


def clusters(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=draw)
    middle = 1.5 * torch.eye(3, 6)
    return middle[labels] + torch.randn(count, 6, generator=draw) + 100 * torch.tensor([1.0, 0, 0, 1, 0, 0]), labels


def test_the_linear_probe_is_as_good_as_the_best_linear_rule() -> None:
    known, held = clusters(600, 0), clusters(600, 1)
    best = (held[0] @ torch.eye(6, 3) - torch.tensor([100.0, 0, 0])).argmax(dim=1) == held[1]
    right = linear_accuracy(*held, *known, epochs=20)
    assert abs(right - best.double().mean().item()) < 0.02
    assert right == linear_accuracy(*held, *known, epochs=20)


def test_shuffled_labels_give_chance() -> None:
    features, labels = clusters(600, 0)
    held = clusters(600, 1)
    mixed = labels[torch.randperm(600, generator=torch.Generator().manual_seed(3))]
    assert linear_accuracy(*held, features, mixed, epochs=10) < 0.45
    with pytest.raises(ValueError, match="at least ten"):
        linear_accuracy(*held, features[:4], labels[:4])
