"""A clean start in life: what a container's process has, and what it has not, is the same as under runc.

Each container is looked at from outside, and so is a process that is executed in it later. The program is `sleep`,
which touches nothing of what it was given. Where minirt's own parent is dirty (signals blocked and ignored, an odd
umask, descriptors that exec passes on), nothing of that shows in a container; runc passes it on.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minirt.security.capabilities import DEFAULT
from tests.command import Minirt
from tests.contract.clean_start import looks, runtimes
from tests.contract.clean_start.looks import Mount
from tests.peers import oci

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.needs("runc", "busybox", "cgroup2_tree")]

ENVIRONMENT = ["PATH=/bin", "HOME=/root", "GREETING=hello world", "EMPTY="]
"""With HOME, which runc looks up and adds where it is missing."""
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")


def five(*names: str, user: bool = False, ambient: bool = False) -> dict[str, list[str]]:
    """Return the five sets as the engine makes them: a user other than root has only what is ambient."""
    active = list(names) if ambient or not user else []
    raised = list(names) if ambient else []
    bounds = {"bounding": list(names), "effective": active, "permitted": active}
    return bounds | {"inheritable": raised, "ambient": raised}


class Case(NamedTuple):
    """What a bundle has beside the usual, in its ``process`` and at its top."""

    process: dict[str, Any]
    top: dict[str, Any]


CASES = {
    "root": Case({"capabilities": five(*DEFAULT)}, {}),
    "user": Case(
        {
            "user": {"uid": 1000, "gid": 100, "additionalGids": [4, 20], "umask": 0o027},
            "capabilities": five(*DEFAULT, user=True),
            "cwd": "/tmp",
        },
        {"hostname": "its-own"},
    ),
    "less": Case({"capabilities": five("CAP_CHOWN", "CAP_KILL"), "noNewPrivileges": True}, {}),
    "more": Case({"capabilities": five(*DEFAULT, "CAP_NET_ADMIN", "CAP_SYS_PTRACE")}, {}),
    "nothing": Case({"capabilities": five()}, {}),
    "ambient": Case(
        {
            "user": {"uid": 1000, "gid": 1000},
            "capabilities": five("CAP_NET_BIND_SERVICE", "CAP_CHOWN", user=True, ambient=True),
        },
        {},
    ),
    "limits": Case(
        {
            "capabilities": five(*DEFAULT),
            "oomScoreAdj": 500,
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512},  # Go raises the soft one, at times for good
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096},
                {"type": "RLIMIT_NPROC", "soft": 100, "hard": 100},
            ],
        },
        {},
    ),
}


class Found(NamedTuple):
    """One container, seen from outside, and a process executed in it."""

    init: dict[str, Any]
    later: dict[str, Any]
    mounts: list[Mount]
    devices: dict[str, Any]
    namespaces: set[str]
    hostname: str


@pytest.fixture
def dirt() -> Iterator[None]:
    """Make this process one that nobody would want to inherit from."""
    umask = os.umask(0o077)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD})
    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    stray = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(stray, True)
    os.environ["STRAY"] = "not for containers"
    yield
    del os.environ["STRAY"]
    os.close(stray)
    signal.signal(signal.SIGUSR2, ignored)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.umask(umask)


def bundle(directory: Path, root: Path, case: Case, cgroup: str) -> tuple[Path, dict[str, Any]]:
    """Make a bundle for both; return it with its process."""
    made = oci.bundle(directory, root, "sleep", "1000", **case.top)
    config = json.loads((made / "config.json").read_text())
    config["process"] |= {"env": ENVIRONMENT, "noNewPrivileges": False} | case.process
    config["linux"] |= {"cgroupsPath": cgroup, "namespaces": [{"type": kind} for kind in NAMESPACES]}
    if oci.is_hybrid():  # runc would mount cgroup v1 there
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    (made / "config.json").write_text(json.dumps(config))
    return made, config["process"]


def found(name: str, directory: Path, made: Path, process: dict[str, Any]) -> Found:
    """Start the bundle under a runtime, look, and end it."""
    with runtimes.one(name, directory / name) as runtime:
        pid = runtime.start(made)
        user = {name: value for name, value in process["user"].items() if name != "umask"}  # which runc exec ignores
        later = runtime.execute(process | {"args": ["sleep", "1001"], "user": user})
        hostname = subprocess.run(["nsenter", f"--target={pid}", "--uts", "hostname"], capture_output=True, check=True)
        return Found(
            looks.process(pid),
            looks.process(later),
            looks.mounts(pid),
            looks.devices(pid),
            looks.namespaces(pid),
            hostname.stdout.decode().strip(),
        )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_under_runc(case: Case, minirt: Minirt, tmp_path: Path, busybox_root: Path) -> None:
    made, process = bundle(tmp_path / "bundle", busybox_root, case, f"/{os.environ['MINIRT_CGROUP']}/clean")
    runc, ours = (found(name, tmp_path, made, process) for name in ("runc", "minirt"))
    assert not differences(ours.init, runc.init)
    assert not differences(ours.later, runc.later)
    assert ours.mounts == runc.mounts
    assert ours.devices == runc.devices
    assert ours.namespaces == runc.namespaces == set(NAMESPACES)
    assert ours.hostname == runc.hostname == case.top.get("hostname", "runc")


def differences(ours: dict[str, Any], runcs: dict[str, Any]) -> list[str]:
    """Return what is not the same in two looks at a process, one a line."""
    return [f"{key}: {ours[key]}, under runc {runcs[key]}" for key in ours if ours[key] != runcs[key]]


def test_whatever_minirt_was_started_with(minirt: Minirt, tmp_path: Path, busybox_root: Path, dirt: None) -> None:
    made, process = bundle(tmp_path / "bundle", busybox_root, CASES["root"], f"/{os.environ['MINIRT_CGROUP']}/clean")
    ours = found("minirt", tmp_path, made, process)
    for one in (ours.init, ours.later):
        is_clean(one)


def is_clean(process: dict[str, Any]) -> None:
    """Check what must be so for the fourteen default capabilities, whatever runc does."""
    nothing, fourteen = ["0" * 16], ["00000000a80425fb"]
    assert {process[name] == nothing for name in ("SigIgn", "SigBlk", "SigCgt", "CapInh", "CapAmb")} == {True}
    assert {process[name] == fourteen for name in ("CapBnd", "CapPrm", "CapEff")} == {True}
    assert process["Umask"] == ["0022"]
    assert process["descriptors"] == ["0", "1", "2"]
    assert process["leads its session and group"]
    assert process["environment"] == sorted(ENVIRONMENT)
