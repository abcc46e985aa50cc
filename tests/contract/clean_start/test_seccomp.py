"""The same profile under runc and under minirt: every system call of every ABI gets the same answer."""

import platform
from pathlib import Path
from typing import Any

import msgspec
import pytest

from minirt.security.capabilities import DEFAULT
from minirt.security.conditional import here, resolve
from minirt.security.syscalls import default_profile
from tests.contract.clean_start import runtimes
from tests.peers import oci, verdicts
from tests.peers.daemon import await_true
from tests.peers.verdicts import Verdicts

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.needs("runc", "busybox", "cgroup2_tree", "gcc"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe knows the ABIs of x86_64"),
]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks."""
    return verdicts.build(tmp_path_factory.mktemp("verdicts"))


def default_for(*capabilities: str) -> dict[str, Any]:
    """Return minirt's own profile for who may have these."""
    found: dict[str, Any] = msgspec.to_builtins(resolve(default_profile(), capabilities, here()))
    return found


ALL = {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
"""Where not all are named, a call of another's ABI ends the process."""

ALLOWED: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", **ALL}
PROFILES: dict[str, dict[str, Any]] = {
    "default": default_for(*DEFAULT),
    "administrator": default_for(*DEFAULT, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"),
    "nothing listed": ALLOWED,
    "errno of one's own": ALLOWED | {"syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]},
    "not known": ALLOWED | {"syscalls": [{"names": ["no_such_call", "kill"], "action": "SCMP_ACT_ERRNO"}]},
    "one of two conditions": ALLOWED
    | {
        "syscalls": [
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "args": [
                    {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"},
                    {"index": 0, "value": 40, "op": "SCMP_CMP_GE"},
                ],
            }
        ]
    },
    "masked": ALLOWED
    | {
        "syscalls": [
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 0x10000000, "valueTwo": 0x10000000, "op": "SCMP_CMP_MASKED_EQ"}],
            }
        ]
    },
    "listed, and no errno": {key: value for key, value in default_for().items() if key != "defaultErrnoRet"},
    "listed, and ENOSYS": default_for() | {"defaultErrnoRet": 38},
}


def asked(name: str, probe: Path, root: Path, profile: dict[str, Any], directory: Path) -> Verdicts:
    """Return the verdicts in a container of runc's or minirt's."""
    with runtimes.one(name, directory) as runtime:
        runtime.start(bundle(directory / "bundle", probe, root, profile))
        await_true(lambda: verdicts.is_written(directory / "bundle/verdicts/of"), "the probe's end")
    return verdicts.read(directory / "bundle/verdicts/of")


def bundle(directory: Path, probe: Path, root: Path, profile: dict[str, Any]) -> Path:
    """Make a bundle that probes its own filter."""
    made = oci.bundle(directory, root, "/mnt/verdicts", "/tmp/of", "stay")
    (directory / "verdicts").mkdir()
    config = msgspec.json.decode((made / "config.json").read_bytes())
    config["mounts"] += [
        {"destination": "/mnt", "type": "bind", "source": str(probe.parent), "options": ["rbind", "ro"]},
        {"destination": "/tmp", "type": "bind", "source": str(directory / "verdicts"), "options": ["rbind"]},
    ]
    config["process"]["noNewPrivileges"] = False
    config["linux"]["seccomp"] = profile
    (made / "config.json").write_bytes(msgspec.json.encode(config))
    return made


@pytest.mark.parametrize("named", PROFILES)
def test_every_verdict_is_runcs(named: str, probe: Path, busybox_root: Path, tmp_path: Path) -> None:
    profile = PROFILES[named]
    theirs = asked("runc", probe, busybox_root, profile, tmp_path / "runc")
    ours = asked("minirt", probe, busybox_root, profile, tmp_path / "minirt")
    assert verdicts.differences(ours, theirs) == {}
    assert len(ours) > 1800
