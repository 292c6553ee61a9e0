"""What looking costs: the lens against a plain forward pass and against eager attention with its maps kept.

    python benchmarks/lens.py                       # every size, table printed and saved beside this file
    python benchmarks/lens.py --tokens 901 --rounds 7
    python benchmarks/lens.py --device cuda

All variants of one size are run in turn within each round (plain, class row, all rows, all rows read, eager), so that
the machine's mood falls on all of them alike; the table shows the median over rounds of the ratio within a round.
Models are `transformers` ViTs with random weights: time does not depend on the values.

On Linux the script starts itself once more with glibc told to keep freed memory.  Otherwise each large tensor is mapped
and faulted in afresh, which on a virtual machine can cost more than the arithmetic and buries every difference.  This
favours eager attention, whose maps are the largest of these tensors.
"""

import argparse
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel
from transformers import __version__ as transformers_version

import sightline

SIZES = {"ViT-B/16": (768, 12, 16), "ViT-S/8": (384, 6, 8)}
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
EAGER_LIMIT = 8 * 2**30  # maps above this do not fit beside the model on the machine this is written for


@dataclass
class Row:
    model: str
    tokens: int
    batch: int
    depth: int
    plain: float
    ratios: dict[str, float]
    eager: float | None
    kept: int
    maps: int


def build(model: str, tokens: int, depth: int, device: str) -> ViTModel:
    dim, heads, patch = SIZES[model]
    side = round((tokens - 1) ** 0.5) * patch
    config = ViTConfig(
        hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim,
        image_size=side, patch_size=patch,
    )  # fmt: skip
    return ViTModel(config, add_pooling_layer=False).eval().to(device)


def variants(net: ViTModel, pixels: torch.Tensor, eager: bool) -> dict[str, Callable[[], object]]:
    def plain() -> object:
        return net(pixels)

    def row() -> object:
        with sightline.record(net, queries=sightline.CLS, limit=2**36) as seen:
            net(pixels)
        return seen

    def everything() -> object:
        with sightline.record(net, limit=2**36) as seen:
            net(pixels)
        return seen

    def read() -> object:
        return [site.weights.sum() for site in everything()]  # one layer's matrix at a time

    def written() -> object:
        net.set_attn_implementation("eager")
        try:
            return net(pixels, output_attentions=True)
        finally:
            net.set_attn_implementation("sdpa")

    chosen = {"plain": plain, "class row": row, "plain again": plain, "all rows": everything, "all rows, read": read}
    return chosen | ({"eager + maps": written} if eager else {})


def clock(run: Callable[[], object], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    held = run()
    if device != "cpu":
        torch.cuda.synchronize()
    spent = time.perf_counter() - start
    del held
    return spent


@torch.no_grad()
def measure(model: str, tokens: int, batch: int, rounds: int, device: str) -> Row:
    _, heads, _ = SIZES[model]
    depth = 12 if tokens < 3000 else 3 if batch == 1 else 1  # ratios do not depend on depth; this keeps a pass short
    net = build(model, tokens, depth, device)
    pixels = torch.randn(batch, 3, net.config.image_size, net.config.image_size, device=device)
    maps = depth * batch * heads * tokens * tokens * 4
    runs = variants(net, pixels, maps <= EAGER_LIMIT)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):  # the first round warms up
        order = list(runs.items())
        for name, run in order if number % 2 else order[::-1]:
            spent = clock(run, device)
            if number:
                times[name].append(spent)
    ratios = {name: statistics.median(a / b for a, b in zip(times[name], times["plain"], strict=True)) for name in runs}
    with sightline.record(net, queries=sightline.CLS) as seen:
        net(pixels)
    eager = None
    if "eager + maps" in times:
        eager = statistics.median(a / b for a, b in zip(times["all rows, read"], times["eager + maps"], strict=True))
    return Row(model, tokens, batch, depth, statistics.median(times["plain"]), ratios, eager, seen.bytes, maps)


HEADER = (
    "| model | tokens | batch | layers | plain forward, s | plain again | class row | all rows | all rows, read "
    "| eager + maps | eager / class row | all rows read / eager | class rows kept | eager maps kept | share |\n"
    + "|---|"
    + "---:|" * 14
)


def line(row: Row) -> str:
    r = row.ratios
    eager = f"{r['eager + maps']:.2f}" if row.eager is not None else "not run"
    faster = f"{r['eager + maps'] / r['class row']:.2f}" if row.eager is not None else "-"
    against = f"{row.eager:.2f}" if row.eager is not None else "-"
    return (
        f"| {row.model} | {row.tokens} | {row.batch} | {row.depth} | {row.plain:.3f} | {r['plain again']:.2f} | "
        f"{r['class row']:.3f} | {r['all rows']:.2f} | {r['all rows, read']:.2f} | {eager} | {faster} | {against} | "
        f"{row.kept / 1e6:.2f} MB | {row.maps / 1e6:.0f} MB | 1/{row.maps / row.kept:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[197, 901, 3601])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--model", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    what = torch.cuda.get_device_name() if given.device != "cpu" else f"{platform.machine()}, {given.threads} threads"
    lines = [
        f"torch {torch.__version__}, transformers {transformers_version}, {given.device} ({what}), float32, "
        f"{given.rounds} rounds; times are relative to the plain SDPA forward of the same round.",
        "",
        HEADER,
    ]
    print("\n".join(lines), flush=True)
    for tokens in given.tokens:
        for model in given.model:
            for batch in given.batch:
                lines.append(line(measure(model, tokens, batch, given.rounds, given.device)))
                print(lines[-1], flush=True)
                gc.collect()
    out = given.out or Path(__file__).parent / "results" / f"lens-{given.device}.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    main()
