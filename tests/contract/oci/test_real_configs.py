"""The config.json files that runc, containerd, podman and docker write are understood, whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.cgroups.tree import Tree
from minirt.oci import spec as specs
from minirt.oci.compile import compile_spec
from minirt.oci.plan import Plan
from tests.peers.daemon import output
from tests.peers.docker import Dockerd
from tests.peers.podman import Podman

pytestmark = [pytest.mark.root, pytest.mark.peer]
TREE = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")


def compiled(config: dict[str, Any], directory: Path) -> Plan:
    """Compile a real configuration, but for seccomp, devices and hooks, which have tests of their own."""
    config["linux"].pop("seccomp", None)
    config["linux"].get("resources", {}).pop("devices", None)
    config.pop("hooks", None)
    (directory / "config.json").write_text(json.dumps(config))
    return compile_spec(specs.load(directory / "config.json"), str(directory), None, TREE, 40)


def lines(plan: Plan) -> str:
    assert plan.warnings == ()
    return "\n".join(line for _, line in plan.lines())


@pytest.mark.needs("runc")
def test_runc_spec(tmp_path: Path) -> None:
    output("runc", "spec", "--bundle", tmp_path)
    found = lines(compiled(json.loads((tmp_path / "config.json").read_text()), tmp_path))
    assert "mount -t tmpfs tmpfs /dev -o mode=755,size=65536k,nosuid,strictatime" in found


@pytest.mark.needs("containerd")
def test_containerds_spec(tmp_path: Path) -> None:
    config = json.loads(output("ctr", "oci", "spec"))
    config["process"]["args"] = ["sh"]  # it leaves that to the image
    assert "execve sh" in lines(compiled(config, tmp_path))


@pytest.fixture
def podmans(podman: Podman, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What podman gives its runtime, for a container with a bit of everything."""
    flags = [
        "--network",
        "none",
        "--volume",
        f"{tmp_path}:/v:ro,rshared",
        "--tmpfs",
        "/t",
        "--sysctl",
        "net.core.somaxconn=9",
    ]
    made = podman.output("create", *flags, "localhost/busybox", "sleep", "1000").strip()
    podman.output("init", made)
    (file,) = podman.directory.glob(f"root/*-containers/{made}/userdata/config.json")
    yield json.loads(file.read_text())
    podman.output("rm", "--force", made)


def test_podmans(podmans: dict[str, Any], tmp_path: Path) -> None:
    found = lines(compiled(podmans, tmp_path))
    assert f"mount --rbind {tmp_path} /v -o ro" in found
    assert "mount -t tmpfs tmpfs /t -o tmpcopyup,nosuid,nodev" in found


def test_dockers(dockerd: Dockerd, tmp_path: Path) -> None:
    flags = ["--network", "none", "--volume", f"{tmp_path}:/v:ro", "--tmpfs", "/t:size=64k", "--ipc", "private"]
    flags += ["--oom-score-adj", "5", "--ulimit", "nofile=100:100", "--cpu-shares", "512", "--init"]
    made = dockerd.output("run", "--detach", *flags, "localhost/busybox", "sleep", "1000").strip()
    (file,) = dockerd.directory.glob(f"exec/containerd/daemon/io.containerd.runtime.v2.task/moby/{made}/config.json")
    config = json.loads(file.read_text())
    found = lines(compiled(config, tmp_path))
    assert f"mount --rbind {tmp_path} /v -o ro" in found
    assert "cpu.weight" in found
    dockerd.output("rm", "--force", made)
