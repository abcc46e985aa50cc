"""The same device rules under runc, crun and minirt: what a process is refused, of nodes that lie there.

Only what all mean alike is asked: where a rule denies less than an open wants, crun lets it through; where a rule takes
from a wider one, runc refuses to start; and "a" with numbers is everything to runc. runc filters by cgroup v1 where the
machine has it, crun and minirt by eBPF.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from minirt.security.capabilities import held_here
from tests import requirements
from tests.command import Minirt
from tests.contract.clean_start import runtimes
from tests.peers import oci
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer, pytest.mark.needs("busybox", "cgroup2_tree")]

NODES = (("b", 7, 6), ("b", 7, 7), ("c", 10, 237), ("c", 10, 229), ("c", 1, 11), ("c", 1, 3), ("c", 5, 2))
OPENS = {"r": "<", "w": ">>"}
ALL, NONE = {"allow": True, "access": "rwm"}, {"allow": False, "access": "rwm"}


def rule(allow: bool, kind: str, access: str, major: int | None = None, minor: int | None = None) -> dict[str, Any]:
    numbers = {"major": major, "minor": minor}
    return {"allow": allow, "type": kind, "access": access} | {k: v for k, v in numbers.items() if v is not None}


CASES = {
    "what runc spec has": [NONE],
    "all": [ALL],
    "none and all": [NONE, ALL],
    "one": [NONE, rule(True, "b", "rwm", 7, 7)],
    "one to be read": [NONE, rule(True, "c", "r", 10, 237)],
    "one to be written": [NONE, rule(True, "c", "w", 1, 11)],
    "any minor": [NONE, rule(True, "b", "rw", 7)],
    "any major": [NONE, rule(True, "c", "rw", None, 237)],
    "-1 is any": [NONE, rule(True, "c", "rw", 10, -1)],
    "any of a type": [NONE, rule(True, "b", "r")],
    "the last decides": [NONE, rule(True, "b", "rwm", 7, 7), rule(False, "b", "rwm", 7, 7)],
    "and of access": [NONE, rule(True, "b", "rw", 7, 7), rule(False, "b", "w", 7, 7)],
    "all but one": [ALL, rule(False, "b", "rwm", 7, 7)],
    "all but writing": [ALL, rule(False, "b", "w", 7)],
    "none behind all": [ALL, rule(False, "b", "rwm", 7, 7), NONE],
    "what is always allowed": [ALL, NONE, rule(False, "c", "rwm", 1, 3)],
}


def made(directory: Path, root: Path, rules: list[dict[str, Any]]) -> Path:
    """Make a bundle that opens each node in /look and writes what it was refused to /look/said."""
    look = directory / "look"
    look.mkdir(parents=True)
    for kind, major, minor in NODES:
        mode = stat.S_IFBLK if kind == "b" else stat.S_IFCHR
        os.mknod(look / f"{kind}{major}:{minor}", 0o600 | mode, os.makedev(major, minor))
    tries = [
        f"(: {sign} /look/{kind}{major}:{minor}) 2>&1 | grep -q 'not permitted' && echo {access} {kind}{major}:{minor}"
        for kind, major, minor in NODES
        for access, sign in OPENS.items()
    ]
    script = f"({'; '.join(tries)}) > /look/new; mv /look/new /look/said; sleep 1000"
    bundle = oci.bundle(directory / "bundle", root, "sh", "-c", script)
    config = json.loads((bundle / "config.json").read_text())
    config["mounts"] = [one for one in config["mounts"] if one["type"] != "cgroup"]
    config["mounts"].append({"destination": "/look", "type": "bind", "source": str(look), "options": ["bind"]})
    config["linux"] |= {"cgroupsPath": f"/{os.environ['MINIRT_CGROUP']}/clean", "resources": {"devices": rules}}
    for capabilities in config["process"]["capabilities"].values():
        capabilities.append("CAP_SYSLOG")
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def refused(name: str, directory: Path, root: Path, rules: list[dict[str, Any]]) -> set[str]:
    """Return what a process is refused under a runtime: ``r b7:6``."""
    bundle = made(directory / f"{name}-made", root, rules)
    said = directory / f"{name}-made/look/said"
    with runtimes.one(name, directory / name) as runtime:
        runtime.start(bundle)
        await_true(said.exists, "what was refused")
        return set(said.read_text().splitlines())


@pytest.fixture(params=["runc", "crun"])
def peer(request: pytest.FixtureRequest) -> str:
    """runc or crun; crun 1.8 raises a limit before it loads a program, and starts nothing where it must not."""
    name: str = request.param
    if reason := requirements.no_program(name)():
        pytest.skip(reason)
    if name == "crun" and "CAP_SYS_RESOURCE" not in held_here():
        pytest.skip("CAP_SYS_RESOURCE: without it crun cannot set RLIMIT_MEMLOCK")
    return name


@pytest.mark.parametrize("rules", CASES.values(), ids=CASES)
def test_as_under_runc_and_crun(
    rules: list[dict[str, Any]], peer: str, minirt: Minirt, tmp_path: Path, busybox_root: Path
) -> None:
    theirs, ours = (refused(name, tmp_path, busybox_root, rules) for name in (peer, "minirt"))
    assert ours == theirs
    assert (ours == set()) == (rules[-1] == ALL)
