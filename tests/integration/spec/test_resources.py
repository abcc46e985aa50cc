"""Limits of a bundle are files of its cgroup, or are refused by their place."""

import os
from pathlib import Path
from typing import Any

import pytest

from minirt.cgroups import tree
from tests.integration.spec import running

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "runc", "cgroup2_tree")]


def limited(path: str = "", **resources: Any) -> running.Change:
    def change(config: dict[str, Any]) -> None:
        config["linux"] |= {"resources": resources, "cgroupsPath": path or "fields/one"}

    return change


def test_files_of_ones_own_are_written(tmp_path: Path, busybox_root: Path) -> None:
    change = limited(unified={"cgroup.max.depth": "3", "cgroup.max.descendants": "7"})
    made = running.bundle(tmp_path / "bundle", busybox_root, change, "sleep", "1000")
    with running.shim(tmp_path) as shim:
        pid = shim.start(made)
        cgroup = Path(tree.find().at("fields/one"))
        assert (cgroup / "cgroup.procs").read_text() == f"{pid}\n"
        assert (cgroup / "cgroup.max.depth").read_text() == "3\n"
        assert (cgroup / "cgroup.max.descendants").read_text() == "7\n"
    cgroup.parent.rmdir()


@pytest.mark.parametrize(
    ("resources", "why"),
    [
        ({"memory": {"swappiness": 10}}, "cannot use linux.resources.memory.swappiness: cgroup v2 has no such limit"),
        ({"network": {"classID": 1}}, "cannot use linux.resources.network.classID: cgroup v2 has no such limit"),
        ({"hugepageLimits": [{"pageSize": "2 MB", "limit": 1}]}, "no page size"),
        ({"unified": {"../x.y": "1"}}, "no name of a cgroup v2 file"),
    ],
)
def test_refused_before_anything_is_made(
    resources: dict[str, Any], why: str, tmp_path: Path, busybox_root: Path
) -> None:
    ran = running.run("minirt", tmp_path, busybox_root, limited(**resources), "true")
    assert why in ran.said
    assert not os.path.exists(tree.find().at("fields"))


@pytest.mark.vm
def test_idle_and_burst(tmp_path: Path, busybox_root: Path) -> None:
    change = limited(cpu={"quota": 50000, "period": 100000, "burst": 10000, "shares": 512, "idle": 1})
    made = running.bundle(tmp_path / "bundle", busybox_root, change, "sleep", "1000")
    with running.shim(tmp_path) as shim:
        shim.start(made)
        cgroup = Path(tree.find().at("fields/one"))
        assert (cgroup / "cpu.idle").read_text() == "1\n"
        assert (cgroup / "cpu.max.burst").read_text() == "10000\n"
    cgroup.parent.rmdir()
