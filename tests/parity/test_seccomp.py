"""What docker's default profile and minirt's say to every system call, in containers of the same command line."""

import platform
from pathlib import Path

import pyseccomp
import pytest

from minirt.security.unknown import X32_BIT
from tests.command import Minirt
from tests.peers import verdicts
from tests.peers.docker import Dockerd
from tests.peers.verdicts import Verdicts

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.needs("docker", "busybox", "cgroup2_tree", "gcc"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe knows the ABIs of x86_64"),
]

IMAGE = "localhost/busybox"
EPERM = 1
ARCHITECTURES = {
    "x86_64": pyseccomp.Arch.X86_64,
    "real": pyseccomp.Arch.X86_64,
    "x32": pyseccomp.Arch.X32,
    "i386": pyseccomp.Arch.X86,
}
ALLOWED_SINCE = {
    *("name_to_handle_at", "process_vm_readv", "process_vm_writev", "pkey_mprotect", "pkey_alloc", "pkey_free"),
    *("cachestat", "fchmodat2", "futex_wake", "futex_wait", "futex_requeue", "map_shadow_stack", "mseal"),
    *("clock_settime64", "set_mempolicy_home_node", "statmount", "listmount"),
    *("getxattrat", "setxattrat", "listxattrat", "removexattrat"),
}
"""What docker's profile allows (some of it to who has a capability) only since 20.10, which Debian 12 has."""

REFUSED_SINCE = {"io_uring_setup", "io_uring_enter", "io_uring_register", "set_mempolicy_home_node"}
"""And what it refuses since then. The last was ENOSYS there: the profile did not know it."""

SOCKETS_REFUSED_SINCE = {38, 40}
"""AF_ALG and AF_VSOCK, since 29 and 23."""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks."""
    directory = tmp_path_factory.mktemp("verdicts")
    directory.chmod(0o755)
    return verdicts.build(directory)


def asked(run: Dockerd | Minirt, probe: Path, directory: Path, options: list[str]) -> Verdicts:
    """Return the verdicts in a container."""
    directory.mkdir()
    directory.chmod(0o777)
    volumes = ["-v", f"{probe.parent}:/mnt:ro", "-v", f"{directory}:/tmp"]
    done = run("run", "--rm", "--network", "none", *volumes, *options, IMAGE, "/mnt/verdicts", "/tmp/of")
    assert done.returncode == 0, done.stderr
    return verdicts.read(directory / "of")


OPTIONS = [
    [],
    ["--user", "1000:1000"],
    ["--cap-drop", "ALL"],
    ["--cap-add", "SYS_ADMIN"],
    ["--cap-add", "SYS_PTRACE", "--cap-add", "SYS_TIME", "--cap-add", "SYS_NICE", "--cap-add", "DAC_READ_SEARCH"],
    ["--cap-add", "SYS_BOOT", "--cap-add", "SYS_PACCT", "--cap-add", "SYSLOG", "--cap-add", "SYS_TTY_CONFIG"],
    ["--cap-add", "SYS_RAWIO", "--cap-add", "SYS_MODULE"],
    ["--security-opt", "seccomp=unconfined"],
    ["--security-opt", "no-new-privileges"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_every_verdict_is_dockers(
    dockerd: Dockerd,
    minirt: Minirt,
    busybox: str,
    probe: Path,
    tmp_path: Path,
    options: list[str],
) -> None:
    theirs = asked(dockerd, probe, tmp_path / "theirs", options)
    ours = asked(minirt, probe, tmp_path / "ours", options)
    found = verdicts.differences(ours, theirs)
    assert {(name_of(*key[:2]), *key, *pair) for key, pair in found.items() if not is_newer(key, pair[0])} == set()


def name_of(abi: str, number: int) -> str:
    """Return a system call's name, its number where libseccomp has none."""
    try:
        name: bytes = pyseccomp.resolve_syscall(ARCHITECTURES[abi], number | (X32_BIT if abi == "x32" else 0))
    except ValueError:
        return str(number)
    return name.decode()


def is_newer(key: tuple[str, int, int], ours: int) -> bool:
    """Say whether a verdict of ours is as it is because docker's profile has changed since 20.10."""
    abi, number, first = key
    name = name_of(abi, number)
    if name == "socket":
        return ours == EPERM and first in SOCKETS_REFUSED_SINCE
    return name in (REFUSED_SINCE if ours == EPERM else ALLOWED_SINCE)
