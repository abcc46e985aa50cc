"""The same cases for three OCI runtimes; RUNTIME=runc (or crun, or minirt-oci) chooses one.

A case stands for something only if one of the peers passes it. Where the other does not, or on this version not yet,
the test is marked ``differs`` with what is different, and its failure there is expected.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.contract.oci.container import Container
from tests.peers import oci
from tests.peers.daemon import remove_cgroups
from tests.peers.oci import Runtime

RUNTIMES: dict[str, Callable[[Path], Runtime]] = {"runc": oci.runc, "crun": oci.crun, "minirt-oci": oci.minirt}
CHOSEN = [os.environ["RUNTIME"]] if "RUNTIME" in os.environ else list(RUNTIMES)

APPLETS = (
    *("awk", "cat", "cut", "echo", "env", "false", "grep", "head", "hostname", "id", "ls", "mkdir", "mount"),
    *("readlink", "sh", "sleep", "sort", "stat", "stty", "true", "tty", "wc"),
)


@pytest.fixture(params=CHOSEN)
def runtime(request: pytest.FixtureRequest, tmp_path: Path, v1_cgroups: None) -> Runtime:
    """One of the runtimes, with a state directory of this test's own."""
    own = RUNTIMES[request.param](tmp_path / "state")
    if not shutil.which(own.program[-1]):
        pytest.skip(f"{request.param}: not installed")
    for mark in request.node.iter_markers("differs"):
        if mark.args[0] == own.name:
            reason = f"{own.name} differs: {mark.args[1]}"
            request.applymarker(pytest.mark.xfail(reason=reason, run=mark.kwargs.get("run", True)))
    return own


@pytest.fixture(scope="session")
def v1_cgroups() -> Iterator[None]:
    """Remove what runc leaves of a parent cgroup in the hierarchies of cgroup v1."""
    yield
    if set(leaks.cgroup_mounts()) - set(leaks.cgroup2_tops()):
        remove_cgroups(os.environ["MINIRT_CGROUP"])


@pytest.fixture
def root(tmp_path: Path, busybox_root: Path) -> Path:
    """A root file system of this test's own, with those of APPLETS; the program alone is a link to the shared one.

    crun 1.8 can be led to write to a file of the root (CVE-2025-31133): no other test's may come to harm.
    """
    own = tmp_path / "root"
    for name in (path.name for path in busybox_root.iterdir() if path.is_dir()):
        (own / name).mkdir(parents=True)
    (own / "tmp").chmod(0o1777)
    (own / "bin/busybox").hardlink_to(busybox_root / "bin/busybox")
    for name in ("passwd", "group"):
        shutil.copy(busybox_root / "etc" / name, own / "etc")
    for name in APPLETS:
        (own / "bin" / name).symlink_to("busybox")
    return own


@pytest.fixture
def container(runtime: Runtime, tmp_path: Path, root: Path) -> Iterator[Container]:
    """A container that would sleep; nothing of it is made yet."""
    own = Container(runtime, tmp_path, root)
    yield own
    own.leave_nothing()


@pytest.fixture
def created(container: Container) -> Container:
    """A container that is created, not started."""
    return container.create()


@pytest.fixture
def running(created: Container) -> Container:
    """A container whose program sleeps."""
    return created.start()


@pytest.fixture
def stopped(running: Container) -> Container:
    """A container whose program was killed."""
    return running.stop()
