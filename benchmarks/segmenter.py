"""What Segmenter costs by the size of its patches, and by its decoder.

    python benchmarks/segmenter.py                   # one thread
    python benchmarks/segmenter.py --save            # writes results/segmenter-cpu.md
    python benchmarks/segmenter.py --rounds 9 --device cuda

One picture of 288 x 384 pixels (CamVid's frames, filled up to whole patches) goes through the network of
recipes/segmenter.py (6 layers of 192, 11 classes) with patches of 32, 16 and 8 pixels and each decoder, and through the
hybrid, which reads the picture at 384 x 512.  Multiply-adds are counted by torch's FlopCounterMode with the attention
written out.  All variants run in turn within each round, and the median over rounds is told; on a CPU it is the time
that the one thread worked, so that neighbours on a shared machine count little.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sightline.systems.segmenter import Segmenter
from sightline.systems.segmenter_hybrid import SegmenterHybrid

CLASSES = 11
SIZE, LARGER = (288, 384), (384, 512)


def variants() -> dict[str, tuple[nn.Module, tuple[int, int], int]]:
    """Each network with the size of its picture and the number of its tokens."""
    made: dict[str, tuple[nn.Module, tuple[int, int], int]] = {}
    for patch in (32, 16, 8):
        tokens = (SIZE[0] // patch) * (SIZE[1] // patch)
        for name, sizes in (("mask", {"depth": 6}), ("linear", {"depth": 8, "decoder_depth": 0})):
            network = Segmenter(image_size=SIZE, patch=patch, dim=192, heads=3, classes=CLASSES, **sizes)
            made[f"patch {patch}, {name}"] = network, SIZE, tokens
    made["hybrid, mask"] = SegmenterHybrid(classes=CLASSES), LARGER, (LARGER[0] // 16) * (LARGER[1] // 16)
    return made


@torch.no_grad()
def multiply_adds(network: nn.Module, size: tuple[int, int]) -> float:
    """Counts the multiply-adds of one picture, in units of 10^9."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(torch.zeros(1, 3, *size))
    return counter.get_total_flops() / 2 / 1e9


@torch.no_grad()
def measure(rounds: int, device: str) -> list[tuple[str, int, float, float, float]]:
    """Gives (name, tokens, multiply-adds, parameters, milliseconds) of each variant."""
    networks = {name: (network.eval(), size, tokens) for name, (network, size, tokens) in variants().items()}
    counted = {name: multiply_adds(network, size) for name, (network, size, _) in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    clock = time.process_time if device == "cpu" else time.perf_counter
    for turn in range(rounds + 1):
        for name, (network, size, _) in networks.items():
            network.to(device)
            image = torch.randn(1, 3, *size, device=device)
            if device != "cpu":
                torch.cuda.synchronize()
            start = clock()
            network(image)
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[name].append(clock() - start)
    return [
        (
            name,
            tokens,
            counted[name],
            sum(parameter.numel() for parameter in network.parameters()) / 1e6,
            1000 * statistics.median(times[name]),
        )
        for name, (network, _, tokens) in networks.items()
    ]


def table(rows: list[tuple[str, int, float, float, float]]) -> str:
    """Writes the rows in Markdown."""
    head = "| network | tokens | multiply-adds, 10^9 | parameters, 10^6 | ms a picture |"
    lines = [head, "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {tokens:,} | {adds:.2f} | {size:.2f} | {ms:.0f} |" for name, tokens, adds, size, ms in rows]
    return "\n".join(lines)


def main() -> None:
    """Parses the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", action="store_true", help="write results/segmenter-DEVICE.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = table(measure(given.rounds, given.device))
    machine = torch.cuda.get_device_name() if given.device != "cpu" else f"{platform.machine()}, one thread"
    text = f"One picture at a time, {machine}, torch {torch.__version__}, median of {given.rounds}.\n\n{made}\n"
    print(text)
    if given.save:
        file = Path(__file__).parent / "results" / f"segmenter-{given.device}.md"
        file.write_text(f"# Segmenter by patch size\n\n`python benchmarks/segmenter.py`: {text}", encoding="utf-8")


if __name__ == "__main__":
    main()
