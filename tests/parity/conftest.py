"""Fixtures for what is compared with docker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.parity.both import IMAGE, Both
from tests.peers.docker import Dockerd


@pytest.fixture(scope="module")
def docker(dockerd: Dockerd) -> Dockerd:
    """A dockerd that has already mounted what it keeps mounted."""
    dockerd.output("run", "--rm", "--network", "host", IMAGE, "true")
    return dockerd


@pytest.fixture
def both(docker: Dockerd, minirt: Minirt, busybox_archives: list[Path]) -> Iterator[Both]:
    """Both with the very same image, that of the archive."""
    minirt.output("image", "load", busybox_archives[0])
    yield Both(docker, minirt)
    if docker.output("ps", "--all", "--quiet"):
        docker.output("rm", "--force", "one")
