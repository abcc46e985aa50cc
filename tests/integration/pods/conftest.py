"""Fixtures for pods."""

from pathlib import Path

import pytest

from tests.command import Minirt
from tests.integration.pods.manifests import Pods


@pytest.fixture
def pods(minirt: Minirt, busybox: str, tmp_path: Path) -> Pods:
    """Pods of this test's own minirt, which has the image busybox."""
    return Pods(minirt, tmp_path)
