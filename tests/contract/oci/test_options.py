"""Options of create, run and exec that change how a container is made: each is heeded, or refused."""

import ctypes
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.cgroups import tree
from tests import leaks
from tests.contract.oci.container import Container

pytestmark = [pytest.mark.root, pytest.mark.peer]


def test_no_pivot_runs_in_the_root(container: Container) -> None:
    container.script("ls -d /bin /root-of-the-test 2>/dev/null; cat /proc/1/comm; pwd")
    assert container.run("--no-pivot").stdout.split() == ["/bin", "sh", "/"]


def test_no_pivot_leaves_nothing_of_the_host_in_sight(container: Container, tmp_path: Path) -> None:
    container.script(f"ls {tmp_path} 2>/dev/null; cd /; ls -d ../../../{tmp_path} 2>/dev/null; echo end")
    assert container.run("--no-pivot").stdout.split() == ["end"]


def test_no_pivot_keeps_the_masks(container: Container) -> None:
    script = "mount | grep -c ' on /proc type proc'; head -c 1 /proc/kcore | wc -c; echo x 2>/dev/null >/proc/sys/vm/x"
    done = container.script(f"{script} || echo refused").run("--no-pivot")
    assert done.stdout.split() == ["1", "0", "refused"]


def test_no_pivot_with_mounts_and_a_read_only_root(container: Container, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    container.mount("/mnt", "bind", tmp_path / "data", "bind")
    container.config["root"]["readonly"] = True
    done = container.script("touch /mnt/new; touch /new 2>/dev/null || echo refused").run("--no-pivot")
    assert done.stdout == "refused\n", done.stderr
    assert (tmp_path / "data/new").exists()


def test_no_pivot_and_exec(container: Container) -> None:
    container.create("--no-pivot").start()
    assert container.exec("ls", "/bin/sh").stdout == "/bin/sh\n"


@pytest.fixture
def keyring() -> Iterator[str]:
    """The name of this thread's session keyring, which is new."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = f"minirt-test-{os.getpid()}"
    made = libc.syscall(250, 1, name.encode())  # keyctl, KEYCTL_JOIN_SESSION_KEYRING
    if made < 0:
        pytest.skip(f"keyctl: {os.strerror(ctypes.get_errno())}")
    yield name
    libc.syscall(250, 1, None)


@pytest.mark.parametrize(("option", "is_seen"), [((), False), (("--no-new-keyring",), True)])
def test_the_session_keyring(container: Container, keyring: str, option: tuple[str, ...], is_seen: bool) -> None:
    """A user sees the keys that are in its session's keyring, whoever owns them."""
    container.process["user"] = {"uid": 1000, "gid": 1000}
    container.linux["maskedPaths"] = []
    assert (keyring in container.script("cat /proc/keys").run(*option).stdout) is is_seen


class Receiver:
    """Who listens for one pidfd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = ""
        self.pidfd = -1
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            message, descriptors, _, _ = socket.recv_fds(connection, 100, 1)
            self.name = message.decode()
            self.pidfd = descriptors[0] if descriptors else -1

    def wait(self) -> int:
        """Return the pid that the descriptor is of."""
        self._thread.join(10)
        lines = Path(f"/proc/self/fdinfo/{self.pidfd}").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("Pid:")))

    def close(self) -> None:
        """Stop listening."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            if self._thread.is_alive():
                last.connect(str(self.path))
        self._thread.join()
        if self.pidfd >= 0:
            os.close(self.pidfd)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    own = Receiver(tmp_path / "pidfd.sock")
    yield own
    own.close()


@pytest.mark.differs("runc", "1.2 has it")
@pytest.mark.differs("crun", "1.8 has none")
class TestPidfdSocket:
    """Source: runc 1.2's create(8), "--pidfd-socket"."""

    def test_of_init(self, container: Container, receiver: Receiver) -> None:
        container.create("--pidfd-socket", receiver.path)
        assert receiver.wait() == container.pid
        assert receiver.name == "standard"
        container.start().stop()
        assert select.select([receiver.pidfd], [], [], 10)[0]

    def test_of_an_executed_process(self, container: Container, receiver: Receiver, tmp_path: Path) -> None:
        container.create().start()
        file = tmp_path / "exec.pid"
        options = ("--detach", "--pid-file", file, "--pidfd-socket", receiver.path)
        container.runtime.detached("exec", *options, container.name, "sleep", "1000")
        assert receiver.wait() == int(file.read_text())
        assert receiver.name == "setns"

    def test_where_nobody_listens(self, container: Container, tmp_path: Path) -> None:
        done = container.try_create("--pidfd-socket", tmp_path / "nobody.sock")
        assert done.returncode != 0
        assert "nobody.sock" in done.stderr
        assert not container.exists


@pytest.mark.parametrize("program", ["minirt-oci"])
@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (("--rootless=true",), (), "as root only"),
        (("--rootless=perhaps",), (), "none of true, false, auto"),
        (("--cgroup-manager=other",), (), "none of cgroupfs, systemd, disabled"),
        ((), ("--no-pivot",), "it would leave the host's mounts in sight"),
    ],
)
def test_what_is_not_offered(
    container: Container, program: str, before: tuple[str, ...], after: tuple[str, ...], why: str
) -> None:
    """minirt-oci's own words: its peers have rootless containers."""
    if container.runtime.name != program:
        pytest.skip("peers have it")
    container.linux["rootfsPropagation"] = "shared"
    container.write()
    done = container.runtime(*before, "create", "--bundle", container.bundle, *after, container.name)
    assert done.returncode == 1
    assert why in done.stderr
    assert not container.exists


@pytest.mark.differs("runc", "1.1 looks for it in the hierarchies of v1, where there are any")
def test_exec_in_a_cgroup_below(running: Container) -> None:
    """Source: runc's exec(8), "--cgroup"."""
    below = leaks.cgroup2_tops()[0] / running.linux["cgroupsPath"].lstrip("/") / "below"
    below.mkdir()
    done = running.exec("cat", "/proc/self/cgroup", options=("--cgroup", "below"))
    assert "/below" in done.stdout
    assert "below" not in running.exec("cat", "/proc/self/cgroup").stdout


@pytest.mark.skipif(tree.is_systemd(), reason="systemd: it is PID 1 here")
def test_systemd_that_does_not_run_is_an_error(container: Container) -> None:
    container.linux["cgroupsPath"] = f"system.slice:minirt:{container.name}"
    container.write()
    done = container.runtime("--systemd-cgroup", "create", "--bundle", container.bundle, container.name)
    assert done.returncode != 0
    assert not container.exists


@pytest.mark.parametrize("path", ["elsewhere", "../other"])
def test_exec_in_a_cgroup_that_is_not_there(running: Container, path: str) -> None:
    assert running.exec("true", options=("--cgroup", path)).returncode != 0
    assert running.status() == "running"
