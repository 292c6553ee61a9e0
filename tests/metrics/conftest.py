import pytest

from sightline.metrics.java import missing_for


@pytest.fixture
def needs_java() -> None:
    """For tests that run the official programs: Java and the package that brings them."""
    lacking = missing_for("METEOR")
    if lacking:
        pytest.skip(lacking)
