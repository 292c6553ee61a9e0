"""The recipe of the Transformer: order, sizes, controls by words of the shell; the tiny run learns, its control not."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sightline.cli.main import run as shell
from sightline.cli.train import parse_settings
from sightline.data.subwords import Subwords
from sightline.data.transduction import Transduction
from sightline.recipes import transformer
from sightline.recipes.pairs import Pairs
from sightline.recipes.plan import command_of, new_plan
from sightline.recipes.train import train
from sightline.recipes.translations import read_batch
from sightline.systems.seq2seq import Seq2Seq
from sightline.systems.transformer import Transformer
from sightline.tasks.translate import translate


def pairs(task: str, split: str) -> Pairs:
    counts = {"train": (6000, 0), "val": (200, 1)}
    made = Transduction(task, counts[split][0], longest=12, seed=counts[split][1])
    return Pairs(made.source, made.target, made.alignment)


def recipe(**settings: object) -> tuple[transformer.Recipe, Pairs]:
    data = pairs("reverse", "val")
    torch.manual_seed(0)
    system = transformer.build(data, **transformer.TINY_SYSTEM)
    return transformer.Recipe(system, transformer.Settings(**{"steps": 20, "batch": 8, **settings}), data), data


def test_pairs_are_cut_once_and_again_for_other_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = recipe()
    cuts: list[int] = []
    whole = Subwords.encode_all
    monkeypatch.setattr(Subwords, "encode_all", lambda self, texts: (cuts.append(len(texts)), whole(self, texts))[1])
    batch = read_batch(data, np.array([5, 2, 5]), made)
    again = read_batch(data, np.array([5, 2, 5]), made)
    read_batch(data, np.array([2, 9]), made)
    assert cuts == [3, 3, 1, 1]
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert torch.equal(batch["source"][0], batch["source"][2])
    made.pieces = Subwords.build(data.source, size=40)
    other = read_batch(data, np.array([5, 2, 5]), made)
    assert made.pieces.decode(other["target"][1, 1:].tolist()) == data.target[2]


def test_batches_are_ordered_by_pieces_so_that_little_is_padding() -> None:
    made, data = recipe()
    order = transformer.order(data, made.settings)
    filled = []
    for step in range(order.steps):
        batch = read_batch(data, order[step], made)
        filled.append((batch["source"] != 0).float().mean())
    drawn = np.random.default_rng(0).permutation(len(data)).reshape(-1, 8)
    loose = [(read_batch(data, row, made)["source"] != 0).float().mean() for row in drawn]
    assert np.mean(filled) > 0.85 > np.mean(loose)


@pytest.mark.parametrize(
    ("word", "told"),
    [("positions=none", ("positions", "none")), ("causal=false", ("causal", False)), ("heads=1", ("heads", 1)),
     ("norm=post", ("norm", "post")), ("depth=(4,2)", ("depth", (4, 2)))],
)  # fmt: skip
def test_controls_are_words_of_the_shell(word: str, told: tuple[str, object]) -> None:
    plan = new_plan("transformer", "transduction:copy", True, parse_settings([word]))
    assert plan["sizes"][told[0]] == told[1]
    again = parse_settings(shlex.split(command_of(plan))[5:])
    assert new_plan("transformer", "transduction:copy", False, again)["sizes"] == plan["sizes"]
    made = transformer.build(pairs("copy", "val"), **plan["sizes"])
    kind = {"positions": made.positions.kind, "causal": made.causal, "heads": made.encoder.layers[0].attention.heads}
    assert kind.get(told[0], told[1]) == told[1]


def test_as_small_as_the_recurrent_translator() -> None:
    with torch.device("meta"):
        sizes = {"embedding": 256, "encoder": 256, "decoder": 384, "readout": 256, "tied": True}
        recurrent = Seq2Seq(source_words=4000, target_words=4000, **sizes)
        ours = Transformer(words=4000, dim=192, depth=3, heads=4, hidden=768, norm="pre")
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours, recurrent)]
    assert 0.95 < counts[0] / counts[1] <= 1


@pytest.mark.usefixtures("no_drawings")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_either_precision(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "open_data", lambda spec, split: pairs("copy", "val"), raising=False)
    monkeypatch.setattr(transformer, "measure", lambda recipe, data: {}, raising=False)
    sizes: list[float] = []

    class Watched(transformer.Recipe):
        def optimizer_step(self, *given: Any, **named: Any) -> None:
            super().optimizer_step(*given, **named)
            sizes.append(float(torch.nn.utils.get_total_norm([p.grad for p in self.system.parameters()])))

    monkeypatch.setattr(transformer, "Recipe", Watched)
    train("transformer", "transduction:copy", out=tmp_path / "run", tiny=True, precision=precision, steps=4)
    assert len(sizes) == 4
    assert max(sizes) == pytest.approx(1, abs=1e-3)  # larger ones at first


@pytest.mark.slow
def test_a_tiny_run_learns_and_without_positions_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transformer, "open_data", lambda spec, split: pairs(spec.partition(":")[2], split), raising=False
    )
    found = {}
    for positions in ("interleaved", "none"):
        out = tmp_path / positions
        words = ["--tiny", f"positions={positions}", "--out", str(out)]
        assert shell(["train", "transformer", "--data", "transduction:copy", *words]) == 0
        found[positions] = json.loads((out / "metrics.json").read_text())["measured"]
    assert found["interleaved"]["exact"] > 0.8
    assert found["interleaved"]["aligned"] > 0.8
    assert found["interleaved"]["bleu"] > 10 * found["interleaved"]["bleu_blind"]
    assert found["none"]["exact"] < 0.05  # which letters, but not in which order
    for name in ("samples.png", "curves.png", "weights/card.json", "weights/pieces.json"):
        assert (tmp_path / "interleaved" / name).stat().st_size > 0
    said = translate("d a 1 b a", system=tmp_path / "interleaved")
    assert said.text == "d a 1 b a"
    assert [word for word, source, _ in said.attention.pairs() if word == source] == ["d", "a", "1", "b", "a"]
