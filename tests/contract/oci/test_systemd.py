"""The container's cgroup as a scope of systemd's (``--systemd-cgroup``): where systemd is PID 1, ``vm/run --systemd``.

Source: systemd.resource-control(5), https://systemd.io/CGROUP_DELEGATION
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.cgroups import tree
from tests import leaks
from tests.contract.oci.container import Container
from tests.peers.daemon import await_true, output, run
from tests.peers.oci import Runtime

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(not tree.is_systemd(), reason="systemd: it is not PID 1"),
]
MIB = 1 << 20


class WithSystemd(Runtime):
    """A runtime that is told to ask systemd for cgroups, as engines tell it."""

    def command(self, *words: str | Path) -> list[str | Path]:
        """Return the command line of ``runtime --systemd-cgroup words…``."""
        return super().command("--systemd-cgroup", *words)


@pytest.fixture
def scoped(runtime: Runtime, tmp_path: Path, root: Path) -> Iterator[Container]:
    """A container that is to be in a scope of this test's own."""
    name = f"test{os.getpid()}"
    own = Container(WithSystemd(runtime.program, runtime.state), tmp_path, root, name)
    own.linux["cgroupsPath"] = f"system.slice:minirt:{name}"
    own.linux["namespaces"] = [space for space in own.linux["namespaces"] if space["type"] != "cgroup"]
    yield own
    own.leave_nothing()


def unit(container: Container) -> str:
    return f"minirt-{container.name}.scope"


def shown(container: Container, name: str) -> str:
    return output("systemctl", "show", "--value", "--property", name, unit(container)).strip()


def directory(container: Container) -> Path:
    return leaks.cgroup2_tops()[0] / "system.slice" / unit(container)


def test_the_process_is_in_the_scope(scoped: Container) -> None:
    scoped.create()
    assert f"/system.slice/{unit(scoped)}" in scoped.proc("cgroup").read_text()
    assert (shown(scoped, "ActiveState"), shown(scoped, "Delegate")) == ("active", "yes")
    procs = [pid for file in directory(scoped).rglob("cgroup.procs") for pid in file.read_text().split()]
    assert procs == [str(scoped.pid)], "and nobody else; crun makes a cgroup below"


def test_exec_is_in_it_too(scoped: Container) -> None:
    scoped.create().start()
    assert unit(scoped) in scoped.exec("cat", "/proc/self/cgroup").stdout


def test_limits_are_the_scopes_and_survive_a_reload(scoped: Container) -> None:
    scoped.linux["resources"] = {
        "memory": {"limit": 64 * MIB},
        "cpu": {"quota": 20000, "period": 100000, "cpus": "0"},
        "pids": {"limit": 20},
    }
    scoped.create()
    assert [shown(scoped, name) for name in ("MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "AllowedCPUs")] == [
        str(64 * MIB),
        "20",
        "200ms",
        "0",
    ]
    output("systemctl", "daemon-reload")
    found = {name: (directory(scoped) / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")}
    assert found == {"memory.max": str(64 * MIB), "pids.max": "20", "cpu.max": "20000 100000"}


def test_update_tells_systemd(scoped: Container) -> None:
    scoped.create()
    assert scoped.runtime("update", "--memory", str(32 * MIB), scoped.name).returncode == 0
    assert shown(scoped, "MemoryMax") == str(32 * MIB)
    assert (directory(scoped) / "memory.max").read_text().strip() == str(32 * MIB)


def test_the_scope_goes_with_the_container(scoped: Container) -> None:
    scoped.create().start().stop()
    assert scoped("delete").returncode == 0
    await_true(lambda: shown(scoped, "LoadState") == "not-found", "the scope's end")
    assert not directory(scoped).exists()


def test_the_name_is_free_after_too_much_memory(scoped: Container) -> None:
    scoped.linux["resources"] = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    scoped.script("a=x; while :; do a=$a$a; done")
    assert [scoped.run().returncode for _ in range(2)] == [137, 137]


def test_a_name_that_is_taken_is_an_error(scoped: Container) -> None:
    command = ["systemd-run", "--quiet", "--scope", f"--unit={unit(scoped)}", "sleep", "1000"]
    with subprocess.Popen(command) as other:
        try:
            await_true(lambda: shown(scoped, "ActiveState") == "active", "the other scope")
            assert scoped.try_create().returncode != 0
            assert not scoped.exists
            assert other.poll() is None
        finally:
            run("systemctl", "kill", unit(scoped))


@pytest.mark.parametrize(
    "path",
    ["/a/b", "a:b", pytest.param("a.slice:b:c:d", marks=pytest.mark.differs("crun", "it takes b:c:d for the name"))],
)
def test_a_path_that_is_not_systemds_is_an_error(scoped: Container, path: str) -> None:
    scoped.linux["cgroupsPath"] = path
    assert scoped.try_create().returncode != 0
    assert not scoped.exists


def test_without_a_path_there_is_a_scope_all_the_same(scoped: Container) -> None:
    del scoped.linux["cgroupsPath"]
    scoped.create()
    assert f"{scoped.name}.scope" in scoped.proc("cgroup").read_text()


def test_a_create_that_fails_leaves_no_scope(scoped: Container) -> None:
    scoped.mount("/mnt", "bind", "/no/such/source", "bind")
    assert scoped.try_create().returncode != 0
    await_true(lambda: shown(scoped, "LoadState") == "not-found", "the scope's end")
