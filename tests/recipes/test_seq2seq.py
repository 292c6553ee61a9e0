"""The recipe of translators: what it reads, in which order, how it measures; the tiny run learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.data.transduction import Transduction
from sightline.recipes import seq2seq
from sightline.recipes.buckets import Buckets
from sightline.recipes.pairs import Pairs, open_data
from sightline.recipes.train import evaluate, train
from sightline.recipes.translations import measure, read_batch
from sightline.systems.seq2seq import Seq2Seq
from sightline.tasks.translate import translate


def recipe(task: str = "copy", **settings: object) -> tuple[seq2seq.Recipe, Pairs]:
    made = Transduction(task, 40, shortest=2, longest=9)
    data = Pairs(made.source, made.target, made.alignment)
    torch.manual_seed(0)
    system = seq2seq.build(data, **seq2seq.TINY_SYSTEM)
    return seq2seq.Recipe(system, seq2seq.Settings(**{"steps": 20, "batch": 8, **settings}), data), data


def test_batches_are_whole_sentences_with_start_and_end() -> None:
    made, data = recipe()
    batch = read_batch(data, np.array([3, 0, 7]), made)
    assert batch["source"].shape[1] % 4 == 0
    assert (batch["target"].shape[1] - 1) % 4 == 0
    for row, place in enumerate([3, 0, 7]):
        source = batch["source"][row][: batch["lengths"][row]].tolist()
        target = batch["target"][row].tolist()
        assert source[-1] == 2
        assert target[0] == 1
        assert made.pieces.decode(source) == data.source[place]
        assert made.pieces.decode(target[1:]) == data.target[place]
        assert set(batch["source"][row][batch["lengths"][row] :].tolist()) <= {0}
        assert set(target[target.index(2) + 1 :]) <= {0}


def test_batches_hold_sentences_of_similar_length_and_every_sentence_once_an_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, size=1000)
    order = Buckets(lengths, 16, seed=3)
    epoch = [order[step] for step in range(order.steps)]
    seen = np.concatenate(epoch)
    assert len(seen) == len(set(seen.tolist())) == 16 * 62
    spread = np.mean([np.ptp(lengths[batch]) for batch in epoch])
    assert spread < 10 < np.ptp(lengths)
    assert np.corrcoef([lengths[batch].mean() for batch in epoch], range(len(epoch)))[0, 1] < 0.5, (
        "not sorted by length"
    )


def test_the_order_is_a_function_of_the_seed_and_the_step() -> None:
    lengths = np.arange(100)
    late = Buckets(lengths, 8, seed=1)[31]
    walked = Buckets(lengths, 8, seed=1)
    assert [walked[step] for step in range(32)][31].tolist() == late.tolist()
    assert Buckets(lengths, 8, seed=2)[31].tolist() != late.tolist()
    assert walked[0].tolist() != walked[walked.steps].tolist()
    assert Buckets(np.arange(3), 8, seed=1)[0].shape == (8,)


def test_the_control_has_as_many_parameters() -> None:
    def count(**sizes: object) -> int:
        with torch.device("meta"):
            system = Seq2Seq(
                source_words=4000, target_words=4000, embedding=256, encoder=256, readout=256, tied=True, **sizes
            )
        return sum(p.numel() for p in system.parameters())

    assert abs(count(attention="none", decoder=446) / count(attention="additive", decoder=384) - 1) < 0.002


def test_perfect_and_blind_translations_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = recipe()

    def copied(model: Seq2Seq, sources: list[list[int]], *given: object, **named: object) -> list:
        return [(source[:-1], 0.0) for source in sources]

    monkeypatch.setattr("sightline.recipes.translations.search", copied)
    found = measure(made, data)
    assert found["bleu"] == pytest.approx(100)
    assert found["exact"] == 1
    assert found["bleu_blind"] < 30
    assert sum(row["pairs"] for row in found["by_length"]) == 40
    assert [row["words"] for row in found["by_length"]] == ["1-5", "6-10"]


def test_alignments_are_counted_against_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = recipe("reverse")

    def backwards(model: Seq2Seq, source: list[int], target: list[int], pieces: object) -> np.ndarray:
        return np.pad(np.eye(len(target))[::-1], ((0, 0), (0, len(source) - len(target))))

    monkeypatch.setattr("sightline.recipes.translations.alignment", backwards)
    assert measure(made, data)["aligned"] == 1
    assert measure(made, Pairs(data.source, data.target, [a[::-1] for a in data.alignment]))["aligned"] < 0.3


def test_data_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="expected multi30k:FOLDER"):
        open_data("folder:x", "train")
    with pytest.raises(ValueError, match="transduction tasks are"):
        open_data("transduction:sort", "train")


def test_languages_are_read_from_the_spec(tmp_path: Path) -> None:
    for language, word in (("de", "Hund"), ("en", "dog"), ("fr", "chien")):
        (tmp_path / f"val.{language}").write_text(f"{word}\n", encoding="utf-8")
    assert open_data(f"multi30k:{tmp_path}", "val").source == ["Hund"]
    assert open_data(f"multi30k:{tmp_path}:fr-en", "val").source == ["chien"]
    assert open_data(f"multi30k:{tmp_path}:fr-en", "val").target == ["dog"]


@pytest.mark.slow
def test_a_tiny_run_learns_and_its_folder_translates(tmp_path: Path) -> None:
    run = train("seq2seq", "transduction:copy", out=tmp_path / "run", tiny=True)
    figures = evaluate(run / "weights", "transduction:copy")
    assert figures["bleu"] > 10 * figures["bleu_blind"]
    assert figures["aligned"] > 0.5
    for name in ("samples.png", "curves.png", "metrics.json", "weights/card.json", "weights/pieces.json"):
        assert (run / name).stat().st_size > 0
    found = translate("a b c", system=run / "weights")
    assert found.attention is not None
    assert found.attention.source == ("a", "b", "c", "<end>")
