"""What is said of a run where no terminal shows a bar."""

from types import SimpleNamespace

import lightning
import pytest

from sightline.recipes.progress import Lines


class Run(lightning.Trainer):
    """A run that is told where it is."""

    global_step, max_steps, accumulate_grad_batches = 0, 0, 1  # type: ignore[assignment]

    def __init__(self, step: int, steps: int) -> None:
        self.global_step, self.max_steps = step, steps  # type: ignore[misc]


def said(steps: int, capsys: pytest.CaptureFixture[str], lines: Lines, begins: int = 0) -> list[str]:
    trainer, recipe = Run(begins, steps), lightning.LightningModule()
    lines.on_train_start(trainer)
    for step in range(begins, steps):
        trainer.global_step = step + 1
        lines.on_train_batch_end(trainer, recipe, {"loss": 0.5})
    lines.on_train_end(trainer)
    captured = capsys.readouterr()
    assert captured.out == "", "what is printed on stdout is a result"
    return captured.err.splitlines()


def test_a_line_at_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(200, capsys, Lines())
    assert told[0] == "sightline: training, step 0 of 200"
    assert told[1] == "sightline: training, step 20 of 200 (10%), loss 0.500"
    assert len(told) == 12
    assert "measuring" in told[-1]
    assert len(said(3, capsys, Lines())) == 5
    assert len(said(200, capsys, Lines(), begins=190)) == 3, "a resumed run goes on from where it is"


def test_a_slow_run_is_not_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 40))
    monkeypatch.setattr("sightline.recipes.progress.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    assert len(said(1000, capsys, Lines())) > 400
