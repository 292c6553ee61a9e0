"""Pictures of the generated world per second, beside the published time of CLEVR in Blender.

    python benchmarks/scenes.py                        # 64, 128 and 256 pixels, one and two processes
    python benchmarks/scenes.py --sizes 64 --processes 2 --seconds 20

A picture is counted whole: its scene is drawn at random, checked, cast, shaded and turned into bytes.  The clock on the
wall is what counts; the processor's own time is printed beside it, since on a busy machine the wall clock measures the
neighbours too.  Every process uses one thread, as the workers of a data loader do: the calls are too short for several
threads to share one, least of all on a busy machine.

CLEVR's own renderer says of itself (README of `image_generation` in facebookresearch/clevr-dataset-gen): about 4 s for
a picture of 320 x 240 in Blender on a Pascal Titan X, with its default settings.  That is a path tracer of another
quality on another machine: the row only says what a data set of that kind used to cost.
"""

import argparse
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from sightline.data.scenes import Scenes

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
BLENDER = 1 / 4.0


def measure(size: int | tuple[int, int], number: int, seconds: float) -> tuple[float, float, int]:
    """Pictures per second of the wall clock, per second of processor time, and how many were drawn."""
    torch.set_num_threads(1)
    height, width = (size, size) if isinstance(size, int) else size
    batch = max(4, min(256, 2**20 // (height * width)))
    scenes = Scenes(seed=number, size=size, count=10**9)
    scenes.images(range(batch))  # warms up
    start, used, drawn = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        scenes.images(range(batch + drawn, 2 * batch + drawn))
        drawn += batch
    return drawn / (time.perf_counter() - start), drawn / (time.process_time() - used), drawn


def together(size: int | tuple[int, int], processes: int, seconds: float) -> tuple[float, float, int]:
    """The same of several processes at once: their pictures per second in all, and of each processor second."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(measure, [size] * processes, range(processes), [seconds] * processes))
    return sum(f[0] for f in found), sum(f[1] for f in found) / processes, sum(f[2] for f in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0)
    chosen = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print("| picture | processes | pictures/s | pictures per processor second | drawn |\n|---|---:|---:|---:|---:|")
    sizes: list[int | tuple[int, int]] = [*chosen.sizes, (240, 320)]
    for size in sizes:
        for processes in chosen.processes:
            wall, processor, drawn = together(size, processes, chosen.seconds)
            shown = f"{size} x {size}" if isinstance(size, int) else "320 x 240"
            print(f"| {shown} | {processes} | {wall:.1f} | {processor:.1f} | {drawn} |", flush=True)
    print(f"| 320 x 240, CLEVR in Blender on a Titan X (published) | GPU | about {BLENDER:.2f} | | |")


if __name__ == "__main__":
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        os.environ.update(KEEP_MEMORY)
        os.execv(sys.executable, [sys.executable, *sys.argv])  # glibc reads these only at the start
    main()
