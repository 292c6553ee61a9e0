"""The table of self-supervision as Markdown, JSON and a picture, from the rows that runs left (ssl_table.py)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.recipes.plan import TrainingError
from sightline.recipes.ssl_rows import ROWS

Found = dict[str, Any]
NETWORKS = {"": "", "resnet": "ResNet", "vit": "ViT"}


def found_rows(out: Path) -> list[Found]:
    """Reads every `row.json` below a folder, in the order of the table.

    Raises ValueError where there is none, where a row is there twice, and for rows of different data, budgets or
    scales, which no table can compare.
    """
    rows: dict[str, Found] = {}
    for file in sorted(out.rglob("row.json")):
        row = json.loads(file.read_text(encoding="utf-8"))
        if row["row"] in rows:
            raise TrainingError(f"{file}: the row {row['row']} is there twice; remove one of its folders")
        rows[row["row"]] = row
    if not rows:
        raise TrainingError(f"{out}: no row is finished here; run `sightline reproduce ssl-table --data …` first")
    given = {(row["data"], row["budget"], row["scale"]) for row in rows.values()}
    if len(given) > 1:
        raise TrainingError(f"{out}: rows of different data, budgets or scales: {sorted(map(str, given))}")
    return [rows[name] for name in ROWS if name in rows]


def collections(row: Found) -> list[str]:
    """Names the collections of a row that were measured, in the order of its parts."""
    return [part["name"] for part in row["parts"]]


def heads(rows: Sequence[Found]) -> list[str]:
    """Gives the table's columns."""
    figures = [f"{name} {figure}" for name in collections(rows[0]) for figure in ("linear", "k-NN")]
    return ["method", "network", "parameters", "images/s", "trained/s", *figures]


def cells(rows: Sequence[Found]) -> list[list[str]]:
    """Gives the table's lines: accuracies in percent, speeds in pictures a second."""
    lines = []
    for row in rows:
        size = f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "-"
        trains = row["train_per_s"] is not None and row["row"].split("/")[0] != "random"
        speeds = [
            f"{row['images_per_s']:,.0f}" if row["images_per_s"] else "-",
            f"{row['train_per_s']:,.0f}" if trains else "-",
        ]
        shares = [f"{100 * part[figure]:.1f}" for part in row["parts"] for figure in ("linear", "knn")]
        lines.append([row["title"], NETWORKS[row["architecture"]] or "-", size, *speeds, *shares])
    return lines


def write_report(rows: Sequence[Found], out: Path) -> list[Path]:
    """Writes `table.md`, `table.json` and `table.png` into a folder."""
    table, figures, picture = out / "table.md", out / "table.json", out / "table.png"
    head = heads(rows)
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *cells(rows)]
    table.write_text("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n", encoding="utf-8")
    figures.write_text(json.dumps({"rows": list(rows)}, indent=1), encoding="utf-8")
    draw(rows, picture)
    return [table, figures, picture]


def draw(rows: Sequence[Found], path: Path) -> None:
    """Draws k-NN and linear accuracy of each row and collection, and how sure DINO's teachers were over their runs."""
    from matplotlib.figure import Figure

    names = collections(rows[0])
    traced = [row for row in rows if row["traced"] and "each" in row["traced"][0][1]]
    panels = len(names) + bool(traced)
    figure = Figure(figsize=(5.2 * panels, 0.3 * len(rows) + 1.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    labels = [", ".join(filter(None, (row["title"], NETWORKS[row["architecture"]]))) for row in rows]
    for number, (axis, name) in enumerate(zip(axes, names, strict=False)):
        for place, row in enumerate(rows):
            part = row["parts"][number]
            axis.plot([100 * part["knn"], 100 * part["linear"]], [place, place], color="0.75", zorder=1)
            axis.scatter(100 * part["knn"], place, color="C0", zorder=2, label="" if place else "k-NN")
            axis.scatter(100 * part["linear"], place, color="C1", zorder=2, label="" if place else "linear")
        axis.axvline(100 * rows[0]["parts"][number]["chance"], color="0.6", linestyle=":", linewidth=1)
        axis.set(title=name, xlabel="accuracy, %")
        axis.set_yticks(range(len(rows)), labels if not number else [""] * len(rows))
        axis.invert_yaxis()
        axis.grid(alpha=0.25)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8)
    if traced:
        draw_entropies(traced, axes[-1])
    figure.savefig(path, dpi=110)


def draw_entropies(traced: Sequence[Found], axis: Any) -> None:
    """Draws the entropies of DINO's teachers over their runs (the paper's figure 7)."""
    for number, row in enumerate(traced):
        steps = [step for step, _ in row["traced"]]
        for kind, style in (("each", "-"), ("mean", ":")):
            values = [told[kind] for _, told in row["traced"]]
            label = f"{row['title']}, {NETWORKS[row['architecture']]}" if kind == "each" else None
            axis.plot(steps, values, style, color=f"C{number}", label=label)
    axis.set(title="the teacher's entropy, of each answer (line)\nand of their mean (dots)", xlabel="step")
    axis.set_ylim(-0.02, 1.02)
    axis.set_ylabel("share of log K")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.25)
