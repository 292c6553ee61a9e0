"""Shared fixtures.  Importing this file first also turns on run-time checks of every shape in a signature."""

import os
from pathlib import Path

from jaxtyping import install_import_hook

# Before anything of the package is imported: every jaxtyping annotation below `sightline` is checked by beartype.
install_import_hook("sightline", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)  # pytest-xdist runs one process a core


@pytest.fixture
def shared() -> Path:
    """The folder with golden kits and real data; a test that needs it says so where it is absent."""
    folder = Path(os.environ.get("SIGHTLINE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"needs the golden kits and data folder, not found at {folder} (set SIGHTLINE_SHARED)")
    return folder
