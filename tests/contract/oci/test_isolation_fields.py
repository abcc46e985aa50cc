"""What config.json keeps from a container: paths, devices, system calls; and the kernel parameters that it sets.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.contract.oci.container import Container

pytestmark = [pytest.mark.root, pytest.mark.peer]

DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


@pytest.fixture
def secret(root: Path) -> Path:
    """A directory in the root with a file in it."""
    (root / "secret").mkdir()
    (root / "secret/file").write_text("secret\n")
    return root / "secret"


def test_a_masked_file_is_empty(container: Container, secret: Path) -> None:
    container.linux["maskedPaths"] = ["/secret/file"]
    assert container.says("cat /secret/file; ls /secret") == "file"


def test_a_masked_directory_is_empty(container: Container, secret: Path) -> None:
    container.linux["maskedPaths"] = ["/secret"]
    assert container.says("ls -A /secret") == ""


def test_a_masked_directory_is_read_only(container: Container, secret: Path) -> None:
    container.linux["maskedPaths"] = ["/secret"]
    assert container.script("echo >/secret/new").run().returncode != 0


def test_a_masked_file_takes_no_writing(container: Container, secret: Path) -> None:
    container.linux["maskedPaths"] = ["/secret/file"]
    container.script("echo new >/secret/file").run()
    assert (secret / "file").read_text() == "secret\n"


def test_what_is_not_there_is_not_masked(container: Container) -> None:
    container.linux["maskedPaths"] = ["/no/such/path", "/proc/no-such-file"]
    assert container.says("echo fine") == "fine"


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list"])
def test_a_file_of_proc_is_masked(container: Container, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"{path}: this kernel has none")
    assert container.says(f"head -c 1 {path} | wc -c") == "0"


@pytest.mark.parametrize("path", ["/secret", "/secret/file"])
def test_a_read_only_path(container: Container, secret: Path, path: str) -> None:
    container.linux["readonlyPaths"] = [path]
    assert container.says("cat /secret/file") == "secret"
    assert container.script("echo new >/secret/file").run().returncode != 0
    assert (secret / "file").read_text() == "secret\n"


def test_what_is_not_there_is_not_made_read_only(container: Container) -> None:
    container.linux["readonlyPaths"] = ["/no/such/path"]
    assert container.says("echo fine") == "fine"


def test_proc_sys_is_read_only(container: Container) -> None:
    assert container.script("echo other >/proc/sys/kernel/hostname").run().returncode != 0


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_that_every_container_has(container: Container, name: str) -> None:
    """The specification, "Default Devices"."""
    major, minor = DEVICES[name]
    assert container.says(f"stat -c '%F %t %T %a' /dev/{name}") == f"character special file {major:x} {minor:x} 666"


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_every_container_has(container: Container, name: str) -> None:
    assert container.says(f"readlink /dev/{name}") == LINKS[name]


def test_ptmx(container: Container) -> None:
    """The specification: "/dev/ptmx [...] a bind-mount or symlink of the container's /dev/pts/ptmx"."""
    assert container.says("stat -L -c '%t %T' /dev/ptmx /dev/pts/ptmx") == "5 2\n5 2"


def test_null_works(container: Container) -> None:
    assert container.says("echo gone >/dev/null; cat /dev/null; head -c 4 /dev/zero | wc -c") == "4"


@pytest.mark.parametrize(
    ("kind", "major", "minor", "shown"),
    [("c", 1, 3, "character special file 1 3"), ("b", 7, 200, "block special file 7 c8"), ("p", 0, 0, "fifo 0 0")],
)
def test_a_device(container: Container, kind: str, major: int, minor: int, shown: str) -> None:
    container.linux["devices"] = [{"path": "/dev/made", "type": kind, "major": major, "minor": minor}]
    assert container.says("stat -c '%F %t %T' /dev/made") == shown


def test_a_devices_mode_and_owner(container: Container) -> None:
    device = {"path": "/dev/made", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8}
    container.linux["devices"] = [device]
    assert container.says("stat -c '%a %u %g' /dev/made") == "640 7 8"


def test_a_device_in_a_directory_of_its_own(container: Container) -> None:
    container.linux["devices"] = [{"path": "/dev/deep/er/made", "type": "c", "major": 1, "minor": 3}]
    assert container.says("stat -c %F /dev/deep/er/made") == "character special file"


def test_a_device_outside_of_dev(container: Container, root: Path) -> None:
    container.linux["devices"] = [{"path": "/var/made", "type": "c", "major": 1, "minor": 3}]
    assert container.says("stat -c %F /var/made") == "character special file"
    assert stat.S_ISCHR((root / "var/made").stat().st_mode)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "0\t7"),
        ("kernel.shmmax", "123456"),
        ("kernel.msgmax", "4321"),
        ("fs.mqueue.msg_max", "17"),
    ],
)
def test_a_kernel_parameter(container: Container, name: str, value: str) -> None:
    path = Path("/proc/sys", *name.split("."))
    before = path.read_text()
    container.linux["sysctl"] = {name: value}
    assert container.says(f"cat {path}") == value
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["vm.swappiness", "kernel.pid_max", "fs.file-max"])
def test_a_kernel_parameter_of_the_host_is_refused(container: Container, name: str) -> None:
    container.linux["sysctl"] = {name: Path("/proc/sys", *name.split(".")).read_text().strip()}
    assert container.try_create().returncode != 0
    assert not container.exists


def seccomp(container: Container, *rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> None:
    """Give a container a filter of system calls."""
    container.linux["seccomp"] = {"defaultAction": default, "syscalls": list(rules), **more}


def test_a_system_call_is_refused(container: Container) -> None:
    seccomp(container, {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"})
    done = container.args("mkdir", "/tmp/new").run()
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EACCES, errno.EROFS])
def test_a_system_call_is_refused_with_an_errno(container: Container, number: int) -> None:
    seccomp(container, {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": number})
    assert os.strerror(number) in container.args("mkdir", "/tmp/new").run().stderr


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"])
def test_a_system_call_ends_its_caller(container: Container, action: str) -> None:
    """By SIGSYS, 31."""
    seccomp(container, {"names": ["mkdir", "mkdirat"], "action": action})
    done = container.script("mkdir /tmp/new; echo $?").run()
    assert done.stdout == "159\n"


def test_a_filter_of_arguments(container: Container) -> None:
    """kill(…, 10) is refused, kill(…, 12) is not."""
    argument = {"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}
    seccomp(container, {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [argument]})
    container.process["capabilities"] = {}
    assert container.says("trap : USR1 USR2; kill -12 $$ && echo sent; kill -10 $$ || echo refused") == "sent\nrefused"


def test_a_filter_of_everything_but(container: Container) -> None:
    """The specification's `defaultErrnoRet` is what the others are answered."""
    rest = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EROFS}
    seccomp(container, rest, default="SCMP_ACT_LOG")
    assert container.script("echo fine; mkdir /tmp/new").run().stdout == "fine\n"


def test_a_filter_is_seen_in_the_status(container: Container) -> None:
    seccomp(container, {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"})
    assert container.says("grep ^Seccomp: /proc/self/status").split()[1] == "2"


def test_without_a_filter_there_is_none(container: Container) -> None:
    assert container.says("grep ^Seccomp: /proc/self/status").split()[1] == "0"


def test_the_filter_is_execs_too(container: Container) -> None:
    seccomp(container, {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"})
    container.create().start()
    assert "Operation not permitted" in container.exec("mkdir", "/tmp/new").stderr


@pytest.mark.parametrize("wanted", [True, False])
def test_a_filter_with_and_without_new_privileges(container: Container, wanted: bool) -> None:
    container.process["noNewPrivileges"] = wanted
    container.process["user"] = {"uid": 1000, "gid": 1000}
    seccomp(container, {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"})
    assert "Operation not permitted" in container.args("mkdir", "/tmp/new").run().stderr


def test_a_system_call_that_is_unknown_is_passed_over(container: Container) -> None:
    """Profiles name those of newer kernels and of other machines."""
    seccomp(container, {"names": ["no_such_system_call", "mkdir"], "action": "SCMP_ACT_ERRNO"})
    assert container.says("echo fine") == "fine"


def test_an_action_that_is_unknown_is_an_error(container: Container) -> None:
    seccomp(container, {"names": ["mkdir"], "action": "SCMP_ACT_NONSENSE"})
    assert container.try_create().returncode != 0
    assert not container.exists


def test_architectures(container: Container) -> None:
    own = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    seccomp(container, {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}, architectures=own)
    assert "Operation not permitted" in container.args("mkdir", "/tmp/new").run().stderr
