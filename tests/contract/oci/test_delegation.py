"""A container that divides its own cgroup: who may, and where further processes go then.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, "Delegation"
"""

from pathlib import Path

import pytest

from tests import leaks
from tests.contract.oci.container import Container
from tests.contract.oci.test_userns import mapped as mapped
from tests.contract.oci.test_userns import root as root
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]

TOP = "/sys/fs/cgroup"
LEAF = f"mkdir {TOP}/leaf && echo 1 >{TOP}/leaf/cgroup.procs"


def directory(container: Container) -> Path:
    """Return the container's cgroup."""
    return leaks.cgroup2_tops()[0] / container.linux["cgroupsPath"].lstrip("/")


def show_cgroups(container: Container, *options: str) -> Container:
    """Give a container a cgroup namespace, and a view of it."""
    spaces = [space for space in container.linux["namespaces"] if space["type"] != "cgroup"]
    container.linux["namespaces"] = [*spaces, {"type": "cgroup"}]
    container.mount(TOP, "cgroup", "cgroup", "nosuid", "noexec", "nodev", *options)
    return container


@pytest.mark.differs("runc", "1.1 gives it only where systemd makes it")
def test_the_root_of_a_user_namespace_owns_its_cgroup(mapped: Container) -> None:
    show_cgroups(mapped, "rw")
    names = ".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"
    said = mapped.says(f"cd {TOP} && stat -c %u {' '.join(names)}; {LEAF} && cat /proc/self/cgroup")
    assert said.splitlines()[:4] == ["0"] * 4
    assert "0::/leaf" in said


@pytest.mark.differs("runc", "1.1 shows the hierarchies of v1 where there are any")
def test_limits_stay_the_hosts(mapped: Container) -> None:
    show_cgroups(mapped, "rw")
    assert mapped.says(f"stat -c %u {TOP}/cgroup.max.depth") == "65534"


@pytest.mark.differs("crun", "1.8 gives it in any case")
@pytest.mark.parametrize("why", ["it is read-only", "the namespace is the host's"])
def test_it_is_not_given(mapped: Container, why: str) -> None:
    show_cgroups(mapped, "ro" if why == "it is read-only" else "rw")
    if why != "it is read-only":
        mapped.linux["namespaces"] = [space for space in mapped.linux["namespaces"] if space["type"] != "cgroup"]
    mapped.create()
    assert directory(mapped).stat().st_uid == 0


@pytest.mark.vm
def test_exec_goes_to_inits_own_leaf_where_it_has_divided_its_cgroup(container: Container) -> None:
    show_cgroups(container, "rw")
    script = f"{LEAF} && echo +pids >{TOP}/cgroup.subtree_control && echo ready; exec sleep 1000"
    container.script(script).create().start()
    await_true(lambda: "ready" in container.output.read_text(), "a divided cgroup")
    assert "0::/leaf" in container.exec("cat", "/proc/self/cgroup").stdout


@pytest.mark.differs("runc", "1.1 on a hybrid machine freezes with v1", run=False)
@pytest.mark.differs("crun", "1.8 hangs until it is thawed", run=False)
def test_exec_into_a_cgroup_that_is_frozen_is_an_error_and_no_hang(running: Container) -> None:
    assert running("pause").returncode == 0
    done = running.exec("true", options=("--ignore-paused",))
    assert done.returncode != 0
    assert "paused" in done.stderr
    assert running("resume").returncode == 0
    assert running.exec("true").returncode == 0
