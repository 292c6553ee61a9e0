"""Shared fixtures.  Importing this file first also turns on run-time checks of every shape in a signature."""

import os
from pathlib import Path

from jaxtyping import install_import_hook

# Before anything of the package is imported: every annotation below `sightline` is checked by beartype at each call.
# Not in the interceptor, whose work becomes part of compiled graphs (Dynamo cannot trace the checks), and not in
# record and select, whose own refusals of wrong arguments are tested.
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
        "frame.py",
        "hooks.py",
        "record.py",
        "select.py",
    )
)
install_import_hook(CHECKED, "beartype.beartype")

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
