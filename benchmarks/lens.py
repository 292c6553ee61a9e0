"""What looking costs: the lens against a plain forward pass and against eager attention with its maps kept.

    python benchmarks/lens.py                       # every size, table printed and saved in results/
    python benchmarks/lens.py --tokens 901 --batch 1 --rounds 7 --append
    python benchmarks/lens.py --allocator kept      # the same with glibc told to keep freed memory
    python benchmarks/lens.py --device cuda --budget 2        # alone on the GPU: bfloat16, lens-gpu.md
    python benchmarks/lens.py --device cuda --dtype float32 --tokens 197 901 --budget 1

All variants of one size are run once in each round, in an order drawn anew, so that the machine's mood falls on all of
them alike; the table shows the median over rounds of the ratio within a round.  "Class row" keeps products of the row
with the keys, which "row read" makes weights of, as whoever reads them first does.  "All rows" keeps what the matrices
are made of; "made" then makes each layer's matrix once, as eager does while it runs; "read" sums it up too, which
eager does not.
"By mode" is the class row where the dispatcher is not enough and a mode of torch sees every call (`lens/dispatch.py`);
"empty mode" is the plain pass below a mode that only hands every call on, the least that seeing so can cost.
Models are `transformers` ViTs with random weights: time does not depend on the values.  On a GPU the clock is read when
the device has finished, and the table also tells the most memory that a pass needs beyond the model and its input.

By default glibc maps each large tensor afresh and the system fills it with zeros page by page: what a user gets, and
dear for eager's maps.  `--allocator kept` starts Python with glibc told to keep freed memory, which favours eager.
"""

import argparse
import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import ViTConfig, ViTModel
from transformers import __version__ as transformers_version

import sightline
from sightline.lens import dispatch

SIZES = {"ViT-B/16": (768, 12, 16), "ViT-S/8": (384, 6, 8)}
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
# maps above this do not fit beside the model on the machines this is written for
EAGER_LIMIT = {"cpu": 8 * 2**30, "gpu": 40 * 2**30}


@dataclass
class Row:
    model: str
    tokens: int
    batch: int
    depth: int
    rounds: int
    plain: float
    ratios: dict[str, float]
    kept: int
    maps: int
    peaks: dict[str, int]


def build(model: str, tokens: int, depth: int, device: str, dtype: torch.dtype) -> ViTModel:
    dim, heads, patch = SIZES[model]
    side = round((tokens - 1) ** 0.5) * patch
    config = ViTConfig(
        hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim,
        image_size=side, patch_size=patch,
    )  # fmt: skip
    return ViTModel(config, add_pooling_layer=False).eval().to(device, dtype)


class Empty(TorchFunctionMode):
    """Hands every call on: the least that seeing a model's calls from outside can cost."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return func(*args, **kwargs) if kwargs else func(*args)


def variants(net: ViTModel, pixels: torch.Tensor, eager: bool) -> dict[str, Callable[[], object]]:
    def plain() -> object:
        return net(pixels)

    def row() -> object:
        with sightline.record(net, queries=sightline.CLS, limit=2**36) as seen:
            net(pixels)
        return seen

    def row_read() -> object:
        return [site.weights for site in row()]

    def by_mode() -> object:
        dispatch.MODE_ALWAYS = True
        try:
            return row()
        finally:
            dispatch.MODE_ALWAYS = False

    def everything() -> object:
        with sightline.record(net, limit=2**36) as seen:
            net(pixels)
        return seen

    def made() -> object:
        for site in everything():
            _ = site.weights  # one layer's matrix at a time
        return None

    def read() -> object:
        return [site.weights.sum() for site in everything()]

    def written() -> object:
        net.set_attn_implementation("eager")
        try:
            return net(pixels, output_attentions=True)
        finally:
            net.set_attn_implementation("sdpa")

    def passed_on() -> object:
        with Empty():
            return net(pixels)

    chosen = {
        "plain": plain,
        "class row": row,
        "row read": row_read,
        "plain again": plain,
        "by mode": by_mode,
        "empty mode": passed_on,
        "all rows": everything,
        "made": made,
        "read": read,
    }
    return chosen | ({"eager": written} if eager else {})


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


def peak(run: Callable[[], object]) -> int:
    """Bytes on the GPU that a run needs at most, beyond what was there before it; what it gives back counts."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    held = run()
    torch.cuda.synchronize()
    del held
    return torch.cuda.max_memory_allocated() - before


@torch.no_grad()
def measure(model: str, tokens: int, batch: int, given: argparse.Namespace) -> Row:
    _, heads, _ = SIZES[model]
    device, dtype, on_gpu = given.device, getattr(torch, given.dtype), given.device != "cpu"
    # ratios do not depend on depth; on a CPU this keeps a pass short
    depth = 12 if tokens < 3000 or on_gpu else 3 if batch == 1 else 1
    net = build(model, tokens, depth, device, dtype)
    pixels = torch.randn(batch, 3, net.config.image_size, net.config.image_size, device=device, dtype=dtype)
    maps = depth * batch * heads * tokens * tokens * dtype.itemsize
    runs = variants(net, pixels, maps <= EAGER_LIMIT["gpu" if on_gpu else "cpu"])
    runs = {name: run for name, run in runs.items() if name == "plain" or not given.only or name in given.only}
    peaks = {name: peak(run) for name, run in runs.items()} if on_gpu else {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    began, number, draw = time.perf_counter(), 0, random.Random(f"{model} {tokens} {batch}")
    # the first round warms up; a budget ends the rounds sooner, but not before the third
    while number <= given.rounds and (number < 4 or time.perf_counter() - began < given.budget):
        for name, run in draw.sample(list(runs.items()), len(runs)):  # else plain would often follow plain
            spent = clock(run, device)
            if number:
                times[name].append(spent)
        number += 1
    ratios = {name: statistics.median(a / b for a, b in zip(times[name], times["plain"], strict=True)) for name in runs}
    with sightline.record(net, queries=sightline.CLS) as seen:
        net(pixels)
    plain = statistics.median(times["plain"])
    return Row(model, tokens, batch, depth, number - 1, plain, ratios, seen.bytes, maps, peaks)


COLUMNS = (
    "model | tokens | batch | layers | rounds | plain forward, s | plain again | class row | row read | all rows | "
    "made | read | "
    "eager + maps | eager / class row | all rows / eager | made / eager | class rows kept | eager maps | share | "
    "by mode | empty mode"
)
PEAKS = ("plain", "class row", "all rows", "eager")


def header(device: str) -> str:
    columns = COLUMNS if device == "cpu" else " | ".join([COLUMNS, *(f"{name}, peak MB" for name in PEAKS)])
    return f"| {columns} |\n|---|{'---:|' * columns.count('|')}"


def line(row: Row) -> str:
    def cell(name: str, beside: str = "") -> str:
        if name not in row.ratios or (beside and beside not in row.ratios):
            return "not run"
        digits = 3 if name in ("class row", "row read", "by mode") else 2
        return f"{row.ratios[name] / row.ratios.get(beside, 1.0):.{digits}f}"

    against = [cell("eager"), cell("eager", "class row"), cell("all rows", "eager"), cell("made", "eager")]
    peaks = "".join(f" {row.peaks[name] / 1e6:.1f} |" if name in row.peaks else " not run |" for name in PEAKS)
    return (
        f"| {row.model} | {row.tokens} | {row.batch} | {row.depth} | {row.rounds} | {row.plain:.4f} | "
        f"{cell('plain again')} | {cell('class row')} | {cell('row read')} | {cell('all rows')} | {cell('made')} | "
        f"{cell('read')} | "
        f"{' | '.join(against)} | {row.kept / 1e6:.2f} MB | {row.maps / 1e6:.0f} MB | 1/{row.maps / row.kept:.0f} | "
        f"{cell('by mode')} | {cell('empty mode')} |"
        f"{peaks if row.peaks else ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[197, 901, 3601])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--model", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds for one size, at least 3 rounds")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--allocator", default="default", choices=["default", "kept"])
    parser.add_argument("--only", nargs="+", default=[], help="columns to measure, such as 'class row' (default: all)")
    parser.add_argument("--append", action="store_true", help="add lines to the table that is there")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    given.dtype = given.dtype or ("float32" if given.device == "cpu" else "bfloat16")
    use_allocator(given.allocator)
    torch.set_num_threads(given.threads)
    out = given.out or Path(__file__).parent / "results" / file_name(given)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not (given.append and out.exists()):
        out.write_text(heading(given) + header(given.device) + "\n", encoding="utf-8")
    print(out.read_text("utf-8"), end="", flush=True)
    for tokens in given.tokens:
        for model in given.model:
            for batch in given.batch:
                text = line(measure(model, tokens, batch, given))
                print(text, flush=True)
                with out.open("a", encoding="utf-8") as file:
                    file.write(text + "\n")
                gc.collect()


def file_name(given: argparse.Namespace) -> str:
    if given.device != "cpu":
        return "lens-gpu.md" if given.dtype == "bfloat16" else f"lens-gpu-{given.dtype}.md"
    return f"lens-cpu{'' if given.allocator == 'default' else '-' + given.allocator}.md"


def heading(given: argparse.Namespace) -> str:
    memory = {"default": "the system's allocator as it is", "kept": "glibc told to keep freed memory"}[given.allocator]
    what = f"cpu ({platform.machine()}, {given.threads} threads), {given.dtype}, {memory}"
    if given.device != "cpu":
        what = f"{torch.cuda.get_device_name()}, {given.dtype}"
    return (
        f"torch {torch.__version__}, transformers {transformers_version}, {what}; "
        "times are relative to the plain SDPA forward of the same round.\n\n"
    )


def use_allocator(choice: str) -> None:
    """Starts Python once more where glibc's settings, which it reads when a program starts, are not those asked for."""
    others = {name: value for name, value in os.environ.items() if name not in KEEP_MEMORY}
    wanted = others | (KEEP_MEMORY if choice == "kept" else {})
    if sys.platform == "linux" and wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)


if __name__ == "__main__":
    main()
