"""A tree below a unit that systemd has delegated: where systemd is PID 1 (``vm/run --systemd``)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.cgroups import lifecycle, tree
from minirt.cgroups.tree import Tree

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not tree.is_systemd(), reason="systemd: it is not PID 1"),
]

CALLERS = 8
PROGRAM = """
import sys
from minirt.cgroups.plan import plan_cgroup
from minirt.cgroups.resources import Memory, Resources
from minirt.cgroups.tree import Tree
from minirt.linux import operation
operation.run(plan_cgroup(sys.argv[1], Resources(memory=Memory(limit=1 << 26)), Tree(*sys.argv[2:])), None)
"""


@pytest.fixture
def delegated() -> Iterator[Tree]:
    """A tree below a unit of this test's own, which is stopped at the end."""
    mount = tree.find().mount
    unit = f"minirt-test-{os.getpid()}.service"
    yield Tree(mount, f"{mount}/{unit}", f"{mount}/{unit}/minirt")
    lifecycle.kill(f"{mount}/{unit}/minirt")
    lifecycle.remove(f"{mount}/{unit}/minirt")
    subprocess.run(["systemctl", "stop", unit], check=True)


def test_all_callers_at_once_get_one_unit_and_keep_their_limits(delegated: Tree) -> None:
    fields = (delegated.mount, delegated.base, delegated.root)
    callers = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, f"pod1/{number}", *fields]) for number in range(CALLERS)
    ]
    assert [caller.wait() for caller in callers] == [0] * CALLERS
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    for number in range(CALLERS):
        assert Path(delegated.at(f"pod1/{number}"), "memory.max").read_text() == f"{1 << 26}\n"
    assert {"cpu", "memory", "pids"} <= delegated.controllers()
    assert len(lifecycle.pids(f"{delegated.base}/keeper")) == 1
    assert len(lifecycle.pids(delegated.base)) == 1
