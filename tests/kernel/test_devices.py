"""Device filters in this kernel: attached to a cgroup, asked about what processes in it open and make."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.cgroups import lifecycle, tree
from minirt.cgroups.devices import ALLOW_ALL, DENY_ALL, REMEDIES, AttachDeviceFilter, Rules, compile_rules, plan_devices
from minirt.cgroups.plan import MakeCgroup
from minirt.cgroups.resources import DeviceRule
from minirt.errors import StepFailed
from minirt.linux import bpf, operation

pytestmark = [pytest.mark.root, pytest.mark.needs("cgroup2_tree")]

MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
NULL, ZERO, KMSG = ("c", 1, 3), ("c", 1, 5), ("c", 1, 11)


@pytest.fixture
def cgroup() -> Iterator[str]:
    """A cgroup of this test's own, directly below the mount."""
    path = f"{tree.find().mount}/minirt-test-devices"
    operation.run([MakeCgroup(path)], None)
    yield path
    lifecycle.end(path)


def outcome(cgroup: str, node: Path, device: tuple[str, int, int], access: str) -> int:
    """Make a node in a process of the cgroup and open it; return the errno (0: it went well)."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            Path(cgroup, "cgroup.procs").write_text("0")
            kind, major, minor = device
            if "m" in access:
                os.mknod(node, 0o600 | (stat.S_IFCHR if kind == "c" else stat.S_IFBLK), os.makedev(major, minor))
            if mode := access.replace("m", ""):
                os.open(node, MODES[mode] | os.O_NONBLOCK)
            code = 0
        except OSError as error:
            code = error.errno or 254
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def node_of(directory: Path, device: tuple[str, int, int]) -> Path:
    """Make a node where nothing filters."""
    path = directory / "node"
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(*device[1:]))
    return path


@pytest.mark.parametrize(
    ("rules", "device", "access", "expected"),
    [
        ((DENY_ALL,), NULL, "r", errno.EPERM),
        ((DENY_ALL, DeviceRule(True, "c", 1, 3, "r")), NULL, "r", 0),
        ((DENY_ALL, DeviceRule(True, "c", 1, 3, "r")), NULL, "rw", errno.EPERM),
        ((DENY_ALL, DeviceRule(True, "c", 1, 3, "r"), DeviceRule(True, "c", 1, -1, "w")), NULL, "rw", 0),
        ((DENY_ALL, DeviceRule(True, "c", 1, None, "rw")), ZERO, "rw", 0),
        ((DENY_ALL, DeviceRule(True, "b", 1, None, "rwm")), ZERO, "r", errno.EPERM),
        ((ALLOW_ALL, DeviceRule(False, "c", 1, 5, "w")), ZERO, "r", 0),
        ((ALLOW_ALL, DeviceRule(False, "c", 1, 5, "w")), ZERO, "rw", errno.EPERM),
    ],
)
def test_opening(
    cgroup: str, tmp_path: Path, rules: Rules, device: tuple[str, int, int], access: str, expected: int
) -> None:
    node = node_of(tmp_path, device)
    AttachDeviceFilter(cgroup, rules).execute(None)
    assert outcome(cgroup, node, device, access) == expected
    os.close(os.open(node, os.O_RDWR))


def test_what_every_container_may(cgroup: str, tmp_path: Path) -> None:
    """Make any node, and open the harmless ones; an open node of another kind is a door out."""
    operation.run(plan_devices(cgroup, (DENY_ALL,)), None)
    assert outcome(cgroup, tmp_path / "null", NULL, "mrw") == 0
    assert outcome(cgroup, tmp_path / "kmsg", KMSG, "m") == 0
    assert outcome(cgroup, tmp_path / "kmsg", KMSG, "r") == errno.EPERM
    assert outcome(cgroup, tmp_path / "disk", ("b", 7, 0), "m") == 0
    assert outcome(cgroup, tmp_path / "disk", ("b", 7, 0), "r") == errno.EPERM


def test_a_cgroup_below_is_kept_to_the_rules_of_those_above(cgroup: str, tmp_path: Path) -> None:
    below = f"{cgroup}/below"
    os.mkdir(below)
    node = node_of(tmp_path, ZERO)
    AttachDeviceFilter(cgroup, (ALLOW_ALL, DeviceRule(False, "c", 1, 5, "w"))).execute(None)
    AttachDeviceFilter(below, (DENY_ALL, DeviceRule(True, "c", 1, 5, "w"), DeviceRule(True, "c", 1, 3, "r"))).execute(
        None
    )
    assert outcome(below, node, ZERO, "w") == errno.EPERM
    assert outcome(below, node, ZERO, "r") == errno.EPERM
    assert outcome(cgroup, node, ZERO, "r") == 0
    assert outcome(below, Path(os.devnull), NULL, "r") == 0


def test_a_whole_dev_is_not_too_much_for_the_verifier(cgroup: str, tmp_path: Path) -> None:
    many = tuple(DeviceRule(True, "cb"[n % 2], n % 40, n, "rwm") for n in range(500))
    AttachDeviceFilter(cgroup, (DENY_ALL, *many, DeviceRule(True, "c", 1, 3, "r"))).execute(None)
    assert outcome(cgroup, Path(os.devnull), NULL, "r") == 0
    assert outcome(cgroup, Path(os.devnull), NULL, "rw") == errno.EPERM


def test_signals_do_not_keep_a_program_from_being_loaded() -> None:
    """A shim gets one whenever a child of its own ends: the verifier gives up (EAGAIN), and is asked again."""
    program = compile_rules((DENY_ALL, *(DeviceRule(True, "c", 1, n, "r") for n in range(40))))
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        for _ in range(100):
            os.close(bpf.prog_load(program))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_verifiers_words_are_in_the_error() -> None:
    with pytest.raises(OSError, match="last insn is not an exit or jmp") as caught:
        bpf.prog_load(compile_rules((DENY_ALL,))[:-8])
    assert caught.value.errno == errno.EINVAL


def test_a_directory_that_is_no_cgroup(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=f"bpf attach a device filter to {tmp_path}"):
        AttachDeviceFilter(str(tmp_path), (DENY_ALL,)).execute(None)


WITHOUT_RIGHTS = """
from minirt.cgroups.devices import DENY_ALL, AttachDeviceFilter
from minirt.errors import StepFailed
try:
    AttachDeviceFilter("/", (DENY_ALL,)).execute(None)
except StepFailed as error:
    print(error)
"""


@pytest.mark.needs("setpriv")
def test_without_the_right_to_it_says_which() -> None:
    drop = ["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"]
    done = subprocess.run([*drop, sys.executable, "-c", WITHOUT_RIGHTS], capture_output=True, text=True, check=True)
    assert "Operation not permitted" in done.stdout
    assert REMEDIES[errno.EPERM] in done.stdout
