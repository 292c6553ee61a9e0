"""What an answer costs against the size of the canvas: RAM beside a convolution and fully connected layers.

    python benchmarks/ram.py                        # 60 to 1000 pixels, table printed and saved beside this file
    python benchmarks/ram.py --sizes 60 100 --rounds 20

RAM is the paper's model for cluttered canvases (six glimpses of 12 x 12 at three scales), the controls are those of
recipes/ram_control.py, which must read every pixel: their first fully connected layer is as wide as the canvas.
The weights are random, as time does not depend on them.

Multiply-adds of the layers are counted by torch itself, for one canvas; those of the retina's averaging (one for each
pixel of a coarse window) are added.  Time is processor time of one thread for a batch, divided by the batch, the median
over rounds in which all networks take turns.  The canvas is in memory when the clock starts, as a camera's would be.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sightline.recipes.ram_control import Control
from sightline.systems.ram import RAM, ram_translated

HEADER = (
    "| canvas | pixels read by RAM | RAM, multiply-adds | conv | full | RAM, ms a canvas | conv | full |\n"
    "|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def multiply_adds(run: Callable[[Tensor], object], image: Tensor) -> int:
    """Counts the multiply-adds of matrix products and convolutions for one canvas."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(image)
    return counter.get_total_flops() // 2


def averaging(model: RAM) -> int:
    """Counts the additions with which a path's coarse windows become patches."""
    return model.glimpses * sum((model.patch * model.factor**k) ** 2 for k in range(1, model.scales))


def measure(side: int, batch: int, rounds: int) -> str:
    """Builds the networks for one canvas size and gives the row of the table."""
    torch.manual_seed(0)
    ram = ram_translated().eval()
    controls = {kind: Control(kind=kind, image_size=side).eval() for kind in ("conv", "full")}
    networks: dict[str, nn.Module] = {"ram": ram, **controls}
    images = torch.rand(batch, 1, side, side)
    counts = {name: multiply_adds(network, images[:1]) for name, network in networks.items()}
    counts["ram"] += averaging(ram)
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network(images)
        for _ in range(rounds):
            for name, network in networks.items():
                start = time.process_time()
                network(images)
                taken[name].append((time.process_time() - start) / batch * 1e3)
    read = sum((ram.patch * ram.factor**k) ** 2 for k in range(ram.scales)) * ram.glimpses
    numbers = " | ".join(f"{counts[name] / 1e6:,.2f} M" for name in networks)
    times = " | ".join(f"{statistics.median(taken[name]):.3f}" for name in networks)
    return f"| {side} | {read:,} of {side * side:,} | {numbers} | {times} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 100, 200, 400, 700, 1000])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ram-cpu.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"torch {torch.__version__}, {platform.machine()} CPU, one thread, batch {given.batch}.", "", HEADER]
    print("\n".join(lines), flush=True)
    for side in given.sizes:
        lines.append(measure(side, given.batch, given.rounds))
        print(lines[-1], flush=True)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
