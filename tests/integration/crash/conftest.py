"""A lab for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.integration.crash.lab import Lab


@pytest.fixture
def lab(minirt: Minirt, busybox: str, tmp_path: Path) -> Iterator[Lab]:
    """A minirt that has localhost/busybox and can be made to die at any step."""
    with Lab(minirt, tmp_path / "fuse") as own:
        yield own
