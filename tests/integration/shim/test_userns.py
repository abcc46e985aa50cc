"""A shim's containers in user namespaces: the same process as runc's, and a root that is an overlay."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from minirt import paths
from minirt.shim import protocol
from minirt.shim.client import ShimClient
from tests.contract.clean_start import looks, runtimes
from tests.contract.oci.container import fields
from tests.peers import oci

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "runc", "cgroup2_tree")]

FIRST = 100_000
MAP = [{"containerID": 0, "hostID": FIRST, "size": 65_536}]


@pytest.fixture
def bundle(tmp_path: Path, busybox_root: Path) -> Path:
    """A bundle whose root belongs to the mapped root, and whose program sleeps in a user namespace."""
    root = Path(shutil.copytree(busybox_root, tmp_path / "root", symlinks=True))
    for path in (root, *root.rglob("*")):
        os.chown(path, FIRST, FIRST, follow_symlinks=False)
    made = oci.bundle(tmp_path / "bundle", root, "sleep", "1000")
    config = json.loads((made / "config.json").read_text())
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    config["linux"]["namespaces"] = [{"type": "user"}, *config["linux"]["namespaces"]]
    config["linux"] |= {"uidMappings": MAP, "gidMappings": MAP, "cgroupsPath": f"/{os.environ['MINIRT_CGROUP']}/own"}
    (made / "config.json").write_text(json.dumps(config))
    for directory in made.parents[:-2]:
        directory.chmod(directory.stat().st_mode | 0o111)
    return made


def process(bundle: Path, *words: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((bundle / "config.json").read_text())["process"] | {"args": list(words)}
    return description


def test_it_looks_as_under_runc(bundle: Path, tmp_path: Path) -> None:
    seen, mounts, devices = [], [], []
    for name in ("runc", "minirt"):
        with runtimes.one(name, tmp_path / name) as runtime:
            pid = runtime.start(bundle)
            exec_pid = runtime.execute(process(bundle, "sleep", "1000"))
            seen.append([(looks.process(one), looks.namespaces(one)) for one in (pid, exec_pid)])
            mounts.append([entry[:3] for entry in looks.mounts(pid)])
            devices.append(looks.devices(pid))
            queues = devices[-1].pop("mqueue")
            assert queues[:2] == ("drwxrwxrwt", FIRST)
    assert seen[0] == seen[1]
    assert mounts[0] == mounts[1]
    assert devices[0] == devices[1]


def test_a_root_that_is_an_overlay(bundle: Path, tmp_path: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    overlay = protocol.Overlay((config["root"]["path"],), str(tmp_path / "upper"), str(tmp_path / "work"))
    config["root"]["path"] = "rootfs"
    config["process"]["args"] = ["sh", "-c", "echo >/written; mkdir /tmp/made; exec sleep 1000"]
    (bundle / "config.json").write_text(json.dumps(config))
    for path in (tmp_path / "upper", tmp_path / "work", bundle / "rootfs"):
        path.mkdir()
    os.chown(tmp_path / "upper", FIRST, FIRST)
    with runtimes.one("minirt", tmp_path / "own"), ShimClient("clean") as shim:
        shim.call(protocol.Create(container="clean", bundle=str(bundle), overlay=overlay))
        pid = int(shim.call(protocol.Start(container="clean"))["pid"])
        assert fields(pid)["Uid"].split() == [str(FIRST)] * 4
        runtimes.await_true((tmp_path / "upper/tmp/made").exists, "the program's directory")
    assert (tmp_path / "upper/written").stat().st_uid == FIRST
    assert not paths.container_dir("clean").exists()
