"""The figure of Bahdanau et al.: what becomes of long sentences, without and with attention.

    python benchmarks/seq2seq_lengths.py train --out runs/lengths          # six small networks, 3 seeds each
    python benchmarks/seq2seq_lengths.py draw --out runs/lengths \\
        --translators none=runs/none/weights additive=runs/additive/weights --data multi30k:FOLDER

The task is a sentence of random letters written backwards (data/transduction.py): trained on 5 to 20 letters, tested
on 5 to 40. The network without attention is as large as the one with it: a wider decoder. `draw` measures on the test
split and writes docs/images/seq2seq-lengths.png and a table; with --translators also the right half, BLEU on
Multi30k's test_2016_flickr by the length of the source.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from sightline.recipes.train import evaluate, train

ROOT = Path(__file__).resolve().parents[1]
TASK, SEEDS = "transduction:reverse", (0, 1, 2)
SMALL: dict[str, Any] = {"words": 80, "embedding": 48, "readout": 48, "encoder": 48, "dropout": 0.0}
RUN: dict[str, Any] = {"steps": 2500, "batch": 64, "rate": 3e-3, "smoothing": 0.0, "average": 0.99, "beam": 1}
DECODERS = {"none": 112, "additive": 96}  # 141,297 and 140,609 parameters
COLOURS = {"none": "tab:orange", "additive": "tab:blue"}


def train_all(out: Path) -> None:
    """Trains what is not there yet; goes on with what was cut off."""
    for seed in SEEDS:
        for kind, width in DECODERS.items():
            folder = out / f"{kind}-{seed}"
            if (folder / "metrics.json").is_file():
                continue
            if (folder / "checkpoints" / "last.ckpt").is_file():
                train(resume=folder)
            else:
                train("seq2seq", TASK, out=folder, attention=kind, decoder=width, seed=seed, **SMALL | RUN)
            print(folder, flush=True)


def measured(weights: Path, data: str, split: str) -> dict[str, Any]:
    """The figures of a split, measured once and kept beside the weights."""
    kept = weights / f"{split}.json"
    if not kept.is_file():
        kept.write_text(json.dumps(evaluate(weights, data, split=split), indent=1), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def draw(out: Path, translators: dict[str, Path], data: str) -> None:
    """Draws both halves and prints the table of the left one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10 if translators else 5.5, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 if translators else 1, squeeze=False)[0]
    print("| attention | " + " | ".join(f"{n}-{n + 4}" for n in range(1, 40, 5)) + " | aligned |")
    for kind in DECODERS:
        runs = [measured(out / f"{kind}-{seed}" / "weights", TASK, "test") for seed in SEEDS]
        curves = {row["words"]: [] for row in runs[0]["by_length"]}
        for run in runs:
            for row in run["by_length"]:
                curves[row["words"]].append(100 * row["exact"])
        ends = [int(words.split("-")[1]) for words in curves]
        means = [statistics.mean(values) for values in curves.values()]
        axes[0].plot(ends, means, marker="o", color=COLOURS[kind], label=f"attention: {kind}")
        for values in zip(*curves.values(), strict=True):
            axes[0].plot(ends, values, color=COLOURS[kind], alpha=0.35, linewidth=0.8)
        cells = [f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for v in curves.values()]
        aligned = [run["aligned"] for run in runs if "aligned" in run]
        told = f"{statistics.mean(aligned):.3f} ± {statistics.stdev(aligned):.3f}" if aligned else "-"
        print(f"| {kind} | " + " | ".join(cells) + f" | {told} |")
    axes[0].axvspan(20.5, 41, color="0.92", zorder=0)
    axes[0].set(xlabel="letters (grey: longer than any in training)", ylabel="written backwards without a slip, %")
    axes[0].set(ylim=(-3, 103), title="Random letters, 3 seeds")
    axes[0].legend(fontsize=8)
    for kind, weights in translators.items():
        rows = [row for row in measured(weights, data, "test_2016_flickr")["by_length"] if row["pairs"] >= 20]
        ends = [int(row["words"].split("-")[1]) for row in rows]
        axes[1].plot(
            ends, [row["bleu"] for row in rows], marker="o", color=COLOURS.get(kind), label=f"attention: {kind}"
        )
        axes[1].set_xticks(ends, [row["words"] for row in rows])
    if translators:
        axes[1].set(xlabel="words of the German sentence", ylabel="BLEU", title="Multi30k test_2016_flickr")
        axes[1].set_ylim(bottom=0)
        axes[1].legend(fontsize=8)
    figure.savefig(ROOT / "docs" / "images" / "seq2seq-lengths.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "draw"))
    parser.add_argument("--out", type=Path, default=Path("runs/lengths"))
    parser.add_argument("--translators", nargs="*", default=[], help="KIND=WEIGHTS of translators of Multi30k")
    parser.add_argument("--data", default="", help="multi30k:FOLDER")
    options = parser.parse_args()
    if options.what == "train":
        train_all(options.out)
    else:
        named = dict(pair.split("=", 1) for pair in options.translators)
        draw(options.out, {kind: Path(path) for kind, path in named.items()}, options.data)


if __name__ == "__main__":
    main()
