"""What moving points costs: PS-ViT beside the same network on a fixed grid, and beside a Vision Transformer.

    python benchmarks/ps_vit.py                  # table printed and saved beside this file
    python benchmarks/ps_vit.py --rounds 9 --out table.md

The weights are random, as time does not depend on them, but the points move: offsets are drawn.  Multiply-adds of
matrix products and convolutions are counted by torch itself.  Time is processor time of one thread for a batch, divided
by the batch, the median over rounds in which all networks take turns; training is forward and backward.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sightline.recipes.ps_vit_control import Control
from sightline.systems.ps_vit import PSViT, ps_vit_tiny_14
from sightline.systems.vit import vit_tiny_16

HEADER = "| network | pictures | parameters | multiply-adds | read, ms a picture | learn, ms a picture |\n"
HEADER += "|---|---:|---:|---:|---:|---:|"


def scattered(model: PSViT) -> PSViT:
    """Draws the offsets, so that points lie between the cells and off the grid as in trained networks."""
    for step in model.steps:
        if isinstance(step.offset, nn.Linear):
            nn.init.normal_(step.offset.weight, std=0.05)
    return model


def networks() -> dict[str, tuple[nn.Module, int]]:
    """Builds what is compared, with the side of its pictures."""
    small = {"image_size": 64, "points": 4, "dim": 48, "depth": 6, "heads": 3, "stem": (16, 16, 32, 16), "classes": 10}
    tiny = {"image_size": 224, "points": 14, "dim": 192, "depth": 12, "heads": 3, "stem": (64, 64, 192, 64)}
    return {
        "small PS-ViT, 4 looks at 4 × 4 points": (scattered(PSViT(**small, iterations=4)), 64),  # type: ignore[arg-type]
        "the same on its grid": (Control(**small, kind="grid"), 64),  # type: ignore[arg-type]
        "1 look": (PSViT(**small, iterations=1), 64),  # type: ignore[arg-type]
        "PS-ViT-Ti/14": (scattered(ps_vit_tiny_14()), 224),
        "Ti/14 on its grid": (Control(**tiny, kind="grid", classes=1000), 224),  # type: ignore[arg-type]
        "ViT-Ti/16": (vit_tiny_16(), 224),
    }


def multiply_adds(network: nn.Module, image: Tensor) -> int:
    """Counts the multiply-adds of matrix products and convolutions for one picture."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() // 2


def learn(network: nn.Module, images: Tensor) -> None:
    """Computes the logits and the gradient of a loss."""
    network.zero_grad()
    F.cross_entropy(network(images), torch.zeros(len(images), dtype=torch.long)).backward()


@torch.no_grad()
def read(network: nn.Module, images: Tensor) -> None:
    """Computes the logits."""
    network(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ps-vit-cpu.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    built = networks()
    images = {side: torch.randn(given.batch, 3, side, side) for _, side in built.values()}
    tasks: tuple[Callable[[nn.Module, Tensor], None], ...] = (read, learn)
    taken: dict[tuple[str, str], list[float]] = {(name, task.__name__): [] for name in built for task in tasks}
    for round_number in range(given.rounds + 1):
        for name, (network, side) in built.items():
            for task in tasks:
                network.train(task is learn)
                start = time.process_time()
                task(network, images[side])
                if round_number:  # the first warms up
                    taken[name, task.__name__].append((time.process_time() - start) / given.batch * 1e3)
    lines = [f"torch {torch.__version__}, {platform.machine()} CPU, one thread, batch {given.batch}.", "", HEADER]
    for name, (network, side) in built.items():
        count = sum(parameter.numel() for parameter in network.parameters())
        work = multiply_adds(network.eval(), images[side][:1])
        times = " | ".join(f"{statistics.median(taken[name, task.__name__]):.2f}" for task in tasks)
        lines.append(f"| {name} | {side} px | {count:,} | {work / 1e6:,.1f} M | {times} |")
    print("\n".join(lines))
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
