"""Namespaces of the container's own, the runtime's, and those of others by their path.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#namespaces
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.oci.container import Container
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]

NAMES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup"}


@pytest.fixture
def other() -> Iterator[int]:
    """The pid of a process in namespaces of its own; the one of PID 1 there, for a namespace needs its first."""
    words = ["unshare", "--net", "--ipc", "--uts", "--mount", "--cgroup", "--pid", "--fork", "--kill-child"]
    with subprocess.Popen(
        [*words, "sh", "-c", "hostname other; echo; exec sleep 1000"], stdout=subprocess.PIPE
    ) as made:
        assert made.stdout
        assert made.stdout.readline() == b"\n"
        children = Path(f"/proc/{made.pid}/task/{made.pid}/children")
        yield int(children.read_text())
        made.kill()
        await_true(lambda: made.poll() is not None, "its end")


def inode(pid: int | str, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{NAMES[kind]}").st_ino


def without(container: Container, kind: str) -> None:
    """Let the container share the runtime's namespace of a kind."""
    container.linux["namespaces"] = [one for one in container.linux["namespaces"] if one["type"] != kind]


def join(container: Container, kind: str, path: str | Path) -> None:
    """Let the container be in the namespace that a path leads to."""
    without(container, kind)
    container.linux["namespaces"].append({"type": kind, "path": str(path)})


@pytest.mark.parametrize("kind", NAMES)
def test_a_new_one(container: Container, kind: str) -> None:
    without(container, "cgroup")
    container.linux["namespaces"].append({"type": "cgroup"})
    assert inode(container.create().pid, kind) != inode("self", kind)


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_the_runtimes_where_none_is_named(container: Container, kind: str) -> None:
    without(container, kind)
    if kind == "uts":
        del container.config["hostname"]
    if kind == "network":
        container.config["mounts"] = [one for one in container.config["mounts"] if one["type"] != "sysfs"]
    assert inode(container.create().pid, kind) == inode("self", kind)


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts"])
def test_one_by_its_path(container: Container, other: int, kind: str) -> None:
    if kind == "uts":
        del container.config["hostname"]
    join(container, kind, f"/proc/{other}/ns/{NAMES[kind]}")
    assert inode(container.create().pid, kind) == inode(other, kind)


def test_a_cgroup_namespace_by_its_path(container: Container, other: int) -> None:
    join(container, "cgroup", f"/proc/{other}/ns/cgroup")
    assert inode(container.create().pid, "cgroup") == inode(other, "cgroup")


def test_the_name_of_a_joined_host_is_seen(container: Container, other: int) -> None:
    del container.config["hostname"]
    join(container, "uts", f"/proc/{other}/ns/uts")
    assert container.says("hostname") == "other"


@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_one_that_is_pinned_by_a_mount(container: Container, other: int, kind: str, tmp_path: Path) -> None:
    """As `ip netns add` and CRI implementations keep theirs."""
    pin = tmp_path / "pin"
    pin.touch()
    subprocess.run(["mount", "--bind", f"/proc/{other}/ns/{NAMES[kind]}", pin], check=True)
    try:
        if kind == "uts":
            del container.config["hostname"]
        join(container, kind, pin)
        assert inode(container.create().pid, kind) == inode(other, kind)
    finally:
        subprocess.run(["umount", "-l", pin], check=True)


def test_two_containers_share_a_pid_namespace(running: Container, tmp_path: Path, root: Path) -> None:
    """The second sees the first's program as process 1."""
    await_true(running.is_executed, "the program's exec")
    second = Container(running.runtime, tmp_path / "second", root, "second")
    join(second, "pid", running.proc("ns/pid"))
    assert second.says("cat /proc/1/cmdline").split("\0")[:2] == ["sleep", "1000"]


def test_the_program_is_process_1(container: Container) -> None:
    assert container.says("echo $$") == "1"


def test_proc_is_of_the_new_pid_namespace(container: Container) -> None:
    """Only this container's processes are in it: the shell, and its `ls`."""
    pids = [name for name in container.script("ls /proc; true").run().stdout.split() if name.isdigit()]
    assert pids[0] == "1"
    assert len(pids) == 2


def test_the_network_is_empty(container: Container) -> None:
    assert container.says("ls /sys/class/net /proc/sys/net/ipv4/conf | grep -c eth; true") == "0"


def test_a_hostname(container: Container) -> None:
    container.config["hostname"] = "its-own"
    assert container.says("hostname; cat /proc/sys/kernel/hostname") == "its-own\nits-own"
    assert os.uname().nodename != "its-own"


@pytest.mark.differs("runc", "1.1 does not know the field")
def test_a_domainname(container: Container) -> None:
    container.config["domainname"] = "example.org"
    assert container.says("cat /proc/sys/kernel/domainname") == "example.org"


def test_processes_of_a_pid_namespace_end_with_its_first(container: Container) -> None:
    container.script("sleep 1000 & echo $!; sleep 1000").create().start()
    await_true(lambda: container.output.read_text() != "", "the child")
    children = [int(pid) for pid in container.proc(f"task/{container.pid}/children").read_text().split()]
    container.stop()
    await_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the children's end")


def test_kill_all_ends_what_shares_the_hosts_pids(container: Container) -> None:
    """Without a PID namespace, the children do not end with the first: podman says `kill --all`."""
    without(container, "pid")
    container.script("sleep 1000 & echo $!; wait").create().start()
    await_true(lambda: container.output.read_text() != "", "the child")
    child = int(container.output.read_text())
    assert container.runtime("kill", "--all", container.name, "KILL").returncode == 0
    container.await_end()
    await_true(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


def test_delete_ends_what_is_left_of_the_hosts_pids(container: Container) -> None:
    without(container, "pid")
    container.script("sleep 1000 & echo $!; wait").create().start()
    await_true(lambda: container.output.read_text() != "", "the child")
    child = int(container.output.read_text())
    assert container.runtime("delete", "--force", container.name).returncode == 0
    await_true(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


@pytest.mark.parametrize("path", ["/no/such/path", "/proc/self/status"])
def test_a_path_that_is_no_namespace_is_an_error(container: Container, path: str) -> None:
    join(container, "network", path)
    assert container.try_create().returncode != 0
    assert not container.exists


def test_a_path_to_another_kind_is_an_error(container: Container, other: int) -> None:
    """The specification: "MUST generate an error if `path` is not associated with a namespace of type `type`"."""
    join(container, "network", f"/proc/{other}/ns/uts")
    assert container.try_create().returncode != 0


def test_one_that_is_unknown_is_an_error(container: Container) -> None:
    container.linux["namespaces"].append({"type": "nonsense"})
    assert container.try_create().returncode != 0


@pytest.mark.differs("crun", "1.8 takes the last one")
def test_one_that_is_named_twice_is_an_error(container: Container) -> None:
    """The specification: "If a namespaces field contains duplicated namespaces with same type, [it] MUST" fail."""
    container.linux["namespaces"].append({"type": "uts"})
    assert container.try_create().returncode != 0


def test_a_joined_namespace_survives_the_container(container: Container, other: int) -> None:
    join(container, "ipc", f"/proc/{other}/ns/ipc")
    before = inode(other, "ipc")
    container.create().start().stop()
    assert container("delete").returncode == 0
    assert inode(other, "ipc") == before
    os.kill(other, signal.SIGCONT)
