"""What docker's default profile and minirt's say to every system call, in containers of the same command line."""

import platform
from pathlib import Path

import pytest

from tests.command import Minirt
from tests.peers import verdicts
from tests.peers.docker import Dockerd
from tests.peers.verdicts import Verdicts

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.needs("docker", "busybox", "cgroup2_tree"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe knows the ABIs of x86_64"),
]

IMAGE = "localhost/busybox"
EPERM, ENOSYS = 1, 38
AF_ALG = 38
SOCKET = {"x86_64": 41, "x32": 41, "i386": 359}

LATER = {("x86_64", SOCKET["x86_64"], AF_ALG): EPERM}
"""What docker allowed before 29.5, and refuses since: sockets of the kernel's ciphers."""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks."""
    return verdicts.build(tmp_path_factory.mktemp("verdicts"))


def asked(run: Dockerd | Minirt, probe: Path, directory: Path, options: list[str]) -> Verdicts:
    """Return the verdicts in a container."""
    directory.mkdir()
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
    ["--cap-add", "BPF", "--cap-add", "PERFMON", "--cap-add", "SYS_RAWIO"],
    ["--security-opt", "seccomp=unconfined"],
    ["--security-opt", "no-new-privileges"],
    ["--privileged"],
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
    theirs = asked(dockerd, probe, tmp_path / "docker", options)
    ours = asked(minirt, probe, tmp_path / "minirt", options)
    found = verdicts.differences(ours, theirs)
    assert {key: pair for key, pair in found.items() if LATER.get(key) != pair[0]} == {}
