"""The table of self-supervision: its rows, what is kept, and what cannot be compared."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from sightline.recipes import ssl_table
from sightline.recipes.backbone import build
from sightline.recipes.plan import NAMES, TrainingError, new_plan
from sightline.recipes.ssl_report import cells, found_rows, heads, write_report
from sightline.recipes.ssl_rows import ROWS, SETTINGS, SIZES
from sightline.recipes.ssl_table import images_per_second, run_row

pytestmark = pytest.mark.usefixtures("no_drawings")


def test_every_row_is_a_recipe_with_settings_that_it_has() -> None:
    assert {row.recipe for row in ROWS.values() if row.recipe} <= set(NAMES)
    assert sum(row.architecture == "resnet" for row in ROWS.values()) == 11
    assert [name for name, row in ROWS.items() if row.ablation] == [
        "no_centring/vit",
        "no_sharpening/vit",
        "no_momentum/vit",
    ]
    for row in ROWS.values():
        for sizes in SIZES.values() if row.recipe else ():
            given = SETTINGS[row.architecture] | sizes[row.architecture] | row.settings
            new_plan(row.recipe, "folder:photos", False, given)  # refuses what it does not know


def test_rows_of_one_network_share_the_schedules_of_rate_and_decay() -> None:
    for architecture in ("resnet", "vit"):
        schedules = set()
        for name, row in ROWS.items():
            if row.architecture == architecture and not name.startswith("random"):
                plan = new_plan(row.recipe, "folder:photos", False, SETTINGS[architecture] | row.settings)
                schedules.add(tuple(plan["settings"][key] for key in ("rate", "warm", "decay", "last_decay")))
        assert len(schedules) == 1


def test_networks_of_a_scale_are_of_like_size() -> None:
    counts = {
        scale: [sum(p.numel() for p in build(None, **sizes).parameters()) for sizes in both.values()]
        for scale, both in SIZES.items()
    }
    assert max(counts["tiny"]) < 1e5
    assert max(counts["small"]) / min(counts["small"]) < 2
    assert max(counts["full"]) / min(counts["full"]) < 2


def test_speed_is_pictures_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(1, 0.5)  # half a second between two looks at the clock
    monkeypatch.setattr(ssl_table, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    # six batches of 8 after the one that warms up, until 3 seconds are over, and a last look at 3.5
    assert images_per_second(build(None, **SIZES["tiny"]["vit"]), 8, seconds=3.0) == round(6 * 8 / 3.5, 1)


@pytest.mark.timeout(180)
def test_rows_are_kept_and_make_a_table(tints: str, tmp_path: Path) -> None:
    given = {"data": tints, "out": tmp_path, "budget": 320, "scale": "tiny"}
    made = [run_row(name, **given) for name in ("no_momentum/vit", "pixels")]
    assert made[0]["passes"] == 320
    assert len(made[0]["traced"]) == 10
    assert {"loss", "each", "mean"} == set(made[0]["traced"][0][1])
    written = (tmp_path / "no_momentum-vit" / "metrics.json").stat().st_mtime_ns
    assert run_row("no_momentum/vit", **given) == json.loads(json.dumps(made[0]))
    assert (tmp_path / "no_momentum-vit" / "metrics.json").stat().st_mtime_ns == written
    with pytest.raises(TrainingError, match="holds this row with budget 320; ask for the same"):
        run_row("pixels", **(given | {"budget": 640}))
    with pytest.raises(TrainingError, match=r"holds this row with more \{\}; ask for the same"):
        run_row("no_momentum/vit", rate=0.1, **given)
    rows = found_rows(tmp_path)
    assert [row["row"] for row in rows] == ["pixels", "no_momentum/vit"]  # the table's order
    assert heads(rows)[-2:] == ["tints0 linear", "tints0 k-NN"]
    assert cells(rows)[0][:4] == ["raw pixels", "-", "-", "-"]
    assert float(cells(rows)[1][-1]) == pytest.approx(100 * made[0]["parts"][0]["knn"], abs=0.06)
    table, figures, picture = write_report(rows, tmp_path)
    assert table.read_text().count("\n") == 4
    assert json.loads(figures.read_text())["rows"] == rows
    assert picture.stat().st_size > 10_000
    row = json.loads((tmp_path / "pixels" / "row.json").read_text())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "row.json").write_text(json.dumps(row))
    with pytest.raises(TrainingError, match="there twice"):
        found_rows(tmp_path)
    (tmp_path / "elsewhere" / "row.json").write_text(json.dumps(row | {"row": "dino/vit", "budget": 1}))
    with pytest.raises(TrainingError, match="different data"):
        found_rows(tmp_path)


def test_a_run_that_was_cut_off_goes_on(tints: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.recipes import byol

    moved, stop = byol.Recipe.moved, 4

    def cut(self: byol.Recipe, step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt
        moved(self, step)

    given = {"data": tints, "budget": 192, "scale": "tiny", "save_every": 2}
    whole = run_row("byol/vit", out=tmp_path / "whole", **given)
    monkeypatch.setattr(byol.Recipe, "moved", cut)
    with pytest.raises(TrainingError, match="stopped"):
        run_row("byol/vit", out=tmp_path / "cut", **given)
    assert not list((tmp_path / "cut").rglob("row.json"))
    monkeypatch.setattr(byol.Recipe, "moved", moved)
    for told, key, other in (("data", "data", f"2*{tints}"), ("budget", "budget", 96), ("more", "rate", 0.1)):
        with pytest.raises(TrainingError, match=f"holds this row with {told} "):
            run_row("byol/vit", out=tmp_path / "cut", **(given | {key: other}))
    again = run_row("byol/vit", out=tmp_path / "cut", **given)
    assert again["parts"] == whole["parts"]
    assert again["traced"] == whole["traced"]


def test_a_run_without_its_row_is_not_taken_for_another(tmp_path: Path) -> None:
    folder = tmp_path / "byol-vit"
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")  # complete, but cut off before its row was written
    (folder / "asked.json").write_text(json.dumps({"data": "folder:a", "budget": 9, "scale": "tiny", "more": {}}))
    with pytest.raises(TrainingError, match="holds this row with data 'folder:a', budget 9; ask for the same"):
        run_row("byol/vit", "folder:b", tmp_path, budget=10, scale="tiny")
    (folder / "asked.json").unlink()
    with pytest.raises(TrainingError, match="holds this row with data 'unknown'"):
        run_row("byol/vit", "folder:b", tmp_path, budget=10, scale="tiny")


def test_columns_are_named_after_what_was_measured(tints: str, tmp_path: Path) -> None:
    photos = tmp_path / "holiday+sea"
    photos.mkdir()
    Image.new("RGB", (32, 32)).save(photos / "one.png")
    made = run_row("pixels", f"photos:{photos}+{tints}+{tints}", tmp_path, budget=1, scale="tiny")
    name = Path(tints.removeprefix("folder:")).name
    assert heads([made])[-4:] == [f"{name} linear", f"{name} k-NN", f"{name} (2) linear", f"{name} (2) k-NN"]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no row 'dino/mlp' in the table; there are: pixels"):
        run_row("dino/mlp", "folder:x", tmp_path, budget=10)
    with pytest.raises(TrainingError, match="no row is finished here"):
        found_rows(tmp_path)
    assert not torch.is_inference_mode_enabled()
