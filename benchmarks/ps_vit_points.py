"""What moving the points is worth: PS-ViT of one, two and four looks beside a fixed grid and points sent at random.

    python benchmarks/ps_vit_points.py train --data placed64:mnist+photographs --out runs/points/placed --seeds 5
    python benchmarks/ps_vit_points.py train --data cifar10:cifar10 --out runs/points/cifar10 \\
        --arms grid4 looks4 --seeds 3 steps=2000
    python benchmarks/ps_vit_points.py collect runs/points/placed runs/points/cifar10

All arms have the same layers, pictures, steps and order of pictures, and the same parameters but for the offsets (98
numbers a look).  `grid4` and `random4` are `looks4` with its points held, or moved by normal draws.  Words key=value go
to the recipe.  `train` skips what is there; the weights of the first seed stay.  `collect` prints and saves the tables,
accuracy and paired differences to the grid as mean ± standard deviation over the seeds, and draws
docs/images/ps-vit-points.png.
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "grid4": ("ps_vit_control", {"kind": "grid", "iterations": 4}),
    "random4": ("ps_vit_control", {"kind": "random", "iterations": 4}),
    "looks1": ("ps_vit", {"iterations": 1}),
    "looks2": ("ps_vit", {"iterations": 2}),
    "looks4": ("ps_vit", {"iterations": 4}),
}
TOLD = {
    "grid4": "fixed grid, read 4 times",
    "random4": "random moves, 4 looks",
    "looks1": "1 look (grid)",
    "looks2": "2 looks",
    "looks4": "4 looks",
}
COLOURS = {"grid4": "0.45", "random4": "tab:red", "looks1": "0.7", "looks2": "tab:cyan", "looks4": "tab:blue"}


def train_one(job: tuple[str, int, str, Path, dict[str, str], int]) -> str:
    """Trains one arm from one seed, and keeps of it what the tables need."""
    import torch

    from sightline.recipes.train import train

    arm, seed, data, out, words, threads = job
    torch.set_num_threads(threads)
    folder = out / f"{arm}-{seed}"
    system, sizes = ARMS[arm]
    if (folder / "checkpoints" / "last.ckpt").is_file():
        train(resume=folder)
    else:
        train(system, data, out=folder, seed=seed, **sizes | words)
    shutil.rmtree(folder / "checkpoints")
    if seed:
        shutil.rmtree(folder / "weights")
    return str(folder)


def train_all(
    data: str, out: Path, arms: Sequence[str], seeds: Sequence[int], processes: int, words: dict[str, str]
) -> None:
    """Trains what is not there yet, several runs at a time: small networks leave most of a GPU idle."""
    threads = max(1, multiprocessing.cpu_count() // (4 * processes))  # others work here too
    jobs = [(arm, seed, data, out, words, threads) for seed in seeds for arm in arms]
    jobs = [job for job in jobs if not (out / f"{job[0]}-{job[1]}" / "metrics.json").is_file()]
    if processes == 1:
        for job in jobs:
            print(train_one(job), flush=True)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for folder in pool.imap_unordered(train_one, jobs):
            print(folder, flush=True)


def read_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Reads what each arm measured, for the seeds that all arms have; ValueError where there are none."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*-*/metrics.json")):
        arm, seed = file.parent.name.rsplit("-", 1)
        found.setdefault(arm, {})[int(seed)] = json.loads(file.read_text(encoding="utf-8"))
    seeds = sorted(set.intersection(*map(set, found.values()))) if "grid4" in found else []
    if not seeds:
        told = {arm: sorted(runs) for arm, runs in found.items()}
        raise ValueError(f"{folder}: seeds {told or 'of no runs'}; expected one that all arms have, grid4 among them")
    return {arm: [found[arm][seed] for seed in seeds] for arm in ARMS if arm in found}


def spread(values: Sequence[float], digits: int = 1, sign: bool = False) -> str:
    """Writes mean ± standard deviation of percentages."""
    plus = "+" if sign else ""
    error = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):{plus}.{digits}f} ± {100 * error:.{digits}f}"


def tables(folder: Path, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Writes the tables of one folder of runs, as lines of Markdown."""
    seeds = len(runs["grid4"])
    plan = json.loads(next(folder.glob("grid4-*/run.json")).read_text(encoding="utf-8"))
    settings, first = plan["settings"], runs["grid4"][0]
    kind = plan["data"].split(":")[0]
    lines = [
        f"## {kind}, {seeds} seeds",
        "",
        f"{first['measured']['pictures']:,} held-out pictures, chance {first['measured']['chance']:.0%}; "
        f"{settings['steps']:,} steps of {settings['batch']}, rate {settings['rate']:g}, {first['machine']}.",
        "",
        "| arm | parameters | right, % | against the fixed grid, same seed | better in | seconds |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    grid = [run["measured"]["top1"] for run in runs["grid4"]]
    for arm, found in runs.items():
        top1 = [run["measured"]["top1"] for run in found]
        gains = [one - other for one, other in zip(top1, grid, strict=True)]
        paired = ("", "") if arm == "grid4" else (spread(gains, 2, True), f"{sum(g > 0 for g in gains)} of {seeds}")
        seconds = round(statistics.median(run["seconds"] for run in found))
        cells = (TOLD[arm], f"{found[0]['parameters']:,}", spread(top1, 2), *paired, str(seconds))
        lines.append(f"| {' | '.join(cells)} |")
    if "box" in first["measured"]:
        blind = [run["measured"]["blind"] for found in runs.values() for run in found]
        lines += ["", f"Without the digits (blind): {spread(blind)} % right.", "", *_shares(runs)]
    return lines


def _shares(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    looks = max(len(found[0]["measured"]["box"]) for found in runs.values())
    lines = [
        "| share of the points, % | "
        + " | ".join(f"look {number + 1}" for number in range(looks))
        + " | of the area |",
        "|---|" + "---:|" * (looks + 1),
    ]
    for arm, found in runs.items():
        if arm == "looks1":  # the first look of all others
            continue
        for part, told in (("box", "in the digit's box"), ("ink", "on its strokes")):
            each = list(zip(*(run["measured"][part] for run in found), strict=True))
            cells = [spread(values) for values in each] + [""] * (looks - len(each))
            area = 100 * found[0]["measured"][f"{part}_area"]
            lines.append(f"| {TOLD[arm]}, {told} | {' | '.join(cells)} | {area:.1f} |")
    return lines


def draw(folders: dict[Path, dict[str, list[dict[str, Any]]]], file: Path) -> None:
    """Draws accuracy by arm, a dot for each seed, and the share of points on the digit by look."""
    from matplotlib.figure import Figure

    shown = [(folder, runs) for folder, runs in folders.items() if "box" in runs["grid4"][0]["measured"]]
    figure = Figure(figsize=(4.2 * len(folders) + 5.2 * len(shown), 3.8), layout="constrained")
    axes = figure.subplots(1, len(folders) + len(shown), squeeze=False)[0]
    for axis, (folder, runs) in zip(axes, folders.items(), strict=False):
        for place, (arm, found) in enumerate(runs.items()):
            top1 = [100 * run["measured"]["top1"] for run in found]
            axis.plot([place] * len(top1), top1, "o", color=COLOURS[arm], alpha=0.55, markersize=5)
            axis.plot([place - 0.25, place + 0.25], [statistics.mean(top1)] * 2, color=COLOURS[arm], linewidth=2.5)
        axis.set_xticks(range(len(runs)), [TOLD[arm].replace(", ", ",\n").replace(" (", "\n(") for arm in runs])
        axis.tick_params(axis="x", labelsize=8, labelrotation=30)
        axis.set(ylabel="right, % (a dot a seed, a bar the mean)", title=_title(folder, runs))
    for axis, (folder, runs) in zip(axes[len(folders) :], shown, strict=True):
        for arm in ("looks4", "looks2", "random4"):
            for part, style in (("box", "-"), ("ink", "--")):
                if arm in runs:
                    _line(axis, runs[arm], part, style, arm)
        for part in ("box", "ink"):
            area = 100 * runs["grid4"][0]["measured"][f"{part}_area"]
            axis.axhline(area, color="0.6", linewidth=0.9, linestyle=":")
            axis.text(1, area, f" share of the picture ({part})", fontsize=7, color="0.4", va="bottom")
        axis.set(xlabel="look", ylabel="points on the digit, %", title=_title(folder, runs))
        axis.set_xticks(range(1, 5))
        axis.set_ylim(0, 1.4 * axis.get_ylim()[1])
        axis.legend(fontsize=7, ncols=2, loc="upper left")
    figure.savefig(file, dpi=130)


def _title(folder: Path, runs: dict[str, list[dict[str, Any]]]) -> str:
    first = runs["grid4"]
    return f"{folder.name}, {first[0]['passes']:,} pictures shown, {len(first)} seeds"


def _line(axis: Any, found: list[dict[str, Any]], part: str, style: str, arm: str) -> None:
    each = [[100 * value for value in run["measured"][part]] for run in found]
    means = [statistics.mean(values) for values in zip(*each, strict=True)]
    places = range(1, len(means) + 1)
    axis.plot(places, means, style, color=COLOURS[arm], marker="o", markersize=4, label=f"{TOLD[arm]}, {part}")
    for run in each:
        axis.plot(places, run, style, color=COLOURS[arm], alpha=0.3, linewidth=0.7)


def collect(folders: Sequence[Path], out: Path, figure: Path) -> None:
    """Prints and saves the tables of the folders, and draws the figure."""
    runs = {folder: read_runs(folder) for folder in folders}
    lines = ["# Moving points against a fixed grid", "", "`python benchmarks/ps_vit_points.py train … && … collect …`"]
    for folder, found in runs.items():
        lines += ["", *tables(folder, found)]
    print("\n".join(lines))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(runs, figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    training = tasks.add_parser("train")
    training.add_argument("--data", required=True, help="placed64:ITEMS+PHOTOGRAPHS, cifar10:FOLDER …")
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    training.add_argument("--seeds", type=int, default=5, help="how many")
    training.add_argument("--first", type=int, default=0, help="the first seed")
    training.add_argument("--processes", type=int, default=1)
    collecting = tasks.add_parser("collect")
    collecting.add_argument("runs", type=Path, nargs="+")
    collecting.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "ps-vit-points.md")
    collecting.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "ps-vit-points.png")
    given, words = parser.parse_known_args()
    if given.task == "collect":
        collect(given.runs, given.out, given.figure)
        return
    pairs = [word.split("=", 1) for word in words]
    if any(len(pair) != 2 for pair in pairs):
        parser.error(f"expected key=value, given {' '.join(words)}")
    seeds = range(given.first, given.first + given.seeds)
    train_all(given.data, given.out, given.arms, seeds, given.processes, dict(pairs))


if __name__ == "__main__":
    main()
