"""Pictures of the generated world per second, beside the published time of CLEVR in Blender.

    python benchmarks/scenes.py                        # 64, 128 and 256 pixels, one and two threads
    python benchmarks/scenes.py --sizes 64 --threads 2 --seconds 20

A picture is counted whole: its scene is drawn at random, checked, cast, shaded and turned into bytes.  The clock on the
wall is what counts; the processor's own time is printed beside it, since on a busy machine the wall clock measures the
neighbours too.

CLEVR's own renderer says of itself (README of `image_generation` in facebookresearch/clevr-dataset-gen): about 4 s for
a picture of 320 x 240 in Blender on a Pascal Titan X, with its default settings.  That is a path tracer of another
quality on another machine: the row only says what a data set of that kind used to cost.
"""

import argparse
import os
import platform
import sys
import time

import torch

from sightline.data.scenes import Scenes

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_ARENA_MAX": "1",
}  # fmt: skip
BLENDER = 1 / 4.0


def measure(size: int | tuple[int, int], threads: int, seconds: float) -> tuple[float, float, int]:
    """Pictures per second of the wall clock, per second of processor time, and how many were drawn."""
    torch.set_num_threads(threads)
    height, width = (size, size) if isinstance(size, int) else size
    batch = max(4, min(256, 2**21 // (height * width)))
    scenes = Scenes(seed=0, size=size, count=10**9)
    scenes.images(range(batch))  # warms up
    start, used, drawn = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        scenes.images(range(batch + drawn, 2 * batch + drawn))
        drawn += batch
    return drawn / (time.perf_counter() - start), drawn / (time.process_time() - used), drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0)
    chosen = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print("| picture | threads | pictures/s | pictures per processor second | drawn |\n|---|---:|---:|---:|---:|")
    sizes: list[int | tuple[int, int]] = [*chosen.sizes, (240, 320)]
    for size in sizes:
        for threads in chosen.threads:
            wall, processor, drawn = measure(size, threads, chosen.seconds)
            shown = f"{size} x {size}" if isinstance(size, int) else "320 x 240"
            print(f"| {shown} | {threads} | {wall:.1f} | {processor:.1f} | {drawn} |", flush=True)
    print(f"| 320 x 240, CLEVR in Blender on a Titan X (published) | GPU | about {BLENDER:.2f} | | |")


if __name__ == "__main__":
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        os.environ.update(KEEP_MEMORY)
        os.execv(sys.executable, [sys.executable, *sys.argv])  # glibc reads these only at the start
    main()
