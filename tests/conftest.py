"""Shared fixtures.  Importing this file first also turns on run-time checks of every shape in a signature."""

import gzip
import os
import struct
from pathlib import Path

from run_time_checks import check_modules

# Before anything of the package is imported: every annotation below `sightline` is checked by beartype at each call.
# Not in the interceptor, whose work becomes part of compiled graphs (Dynamo cannot trace the checks) and which reads by
# whom it is called, and not in record and select, whose own refusals of wrong arguments are tested.
SOURCE = Path(__file__).resolve().parents[1] / "src" / "sightline"
CHECKED = sorted(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if path.name
    not in (
        "__init__.py",
        "intercept.py",
        "compiled.py",
        "capture.py",
        "dispatch.py",
        "key.py",
        "frame.py",
        "hooks.py",
        "deferred.py",
        "products.py",
        "record.py",
        "select.py",
    )
)
check_modules(CHECKED)

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

torch.set_num_threads(1)  # pytest-xdist runs one process a core
# on a machine that is busy an example may take any time: no test is to fail for that
hypothesis.settings.register_profile("any pace", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any pace")


@pytest.fixture
def shared() -> Path:
    """The folder with golden kits and real data; a test that needs it says so where it is absent."""
    folder = Path(os.environ.get("SIGHTLINE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"needs the golden kits and data folder, not found at {folder} (set SIGHTLINE_SHARED)")
    return folder


@pytest.fixture(scope="session")
def placed_spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Data to learn from in seconds: three easy signs in MNIST's files, and ten blurred patterns as photographs."""
    items, grounds = tmp_path_factory.mktemp("items"), tmp_path_factory.mktemp("grounds")
    rng = np.random.default_rng(0)
    for part, count in (("train", 400), ("t10k", 120)):
        labels = rng.integers(0, 3, count)
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[labels == 0, 4:24, 11:17] = 255  # a bar
        pixels[labels == 1, 11:17, 4:24] = 255  # one lying down
        pixels[labels == 2, 6:22, 6:22] = 255  # a square
        for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (items / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes(), 1))
    for number in range(10):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8))
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(grounds / f"{number}.png")
    return f"placed40:{items}+{grounds}"
