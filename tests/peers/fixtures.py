"""The peers as fixtures: started when first asked for, skipped where they are not installed.

docker is ended after each file of tests, for its FORWARD DROP is felt by whatever comes next; the others stay for the
session, as their images then need to be loaded only once.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import requirements
from tests.peers import busybox, oci
from tests.peers.containerd import Containerd
from tests.peers.docker import Dockerd
from tests.peers.podman import Podman
from tests.peers.registry import Registry


def _skip_without(*names: str) -> None:
    for name in ("root", *names):
        if reason := requirements.PROBES[name]():
            pytest.skip(reason)


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of busybox. Look only: whoever writes makes a copy (or an overlay)."""
    _skip_without("busybox")
    return busybox.root_file_system(tmp_path_factory.mktemp("busybox") / "root")


@pytest.fixture(scope="session")
def busybox_archives(tmp_path_factory: pytest.TempPathFactory, busybox_root: Path) -> list[Path]:
    """Image archives for the peers: localhost/busybox, and localhost/pause for their sandboxes."""
    where = tmp_path_factory.mktemp("archives")
    pause = busybox.archive(where / "pause.tar", busybox_root, name=busybox.PAUSE, command=("/bin/sleep", "1000000"))
    return [busybox.archive(where / "busybox.tar", busybox_root), pause]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory, busybox_archives: list[Path]) -> Iterator[Dockerd]:
    """A dockerd that has localhost/busybox."""
    _skip_without("docker")
    daemon = Dockerd(tmp_path_factory.mktemp("docker") / "own", busybox_archives)
    yield daemon
    daemon.close()


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory, busybox_archives: list[Path]) -> Iterator[Containerd]:
    """A containerd with a CRI face that has localhost/busybox."""
    _skip_without("containerd", "runc")
    daemon = Containerd(tmp_path_factory.mktemp("containerd") / "own", busybox_archives, busybox.PAUSE)
    yield daemon
    daemon.close()


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory, busybox_archives: list[Path]) -> Iterator[Podman]:
    """A podman that has localhost/busybox."""
    _skip_without("podman")
    own = Podman(tmp_path_factory.mktemp("podman") / "own", busybox_archives, busybox.PAUSE)
    yield own
    own.close()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An empty registry on loopback."""
    _skip_without("registry")
    daemon = Registry(tmp_path_factory.mktemp("registry") / "own")
    yield daemon
    daemon.close()


@pytest.fixture
def runc(tmp_path: Path) -> oci.Runtime:
    """Run runc, with a state directory of this test's own."""
    _skip_without("runc")
    return oci.runc(tmp_path / "runc")


@pytest.fixture
def crun(tmp_path: Path) -> oci.Runtime:
    """Run crun, with a state directory of this test's own."""
    _skip_without("crun")
    return oci.crun(tmp_path / "crun")
