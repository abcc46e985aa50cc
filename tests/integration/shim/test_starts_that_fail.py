"""A start that fails says why, ends the container, harms nobody else, and leaves a shim that can be ended."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minirt.cgroups import tree
from minirt.errors import Conflict
from tests.command import COMMAND, Minirt
from tests.contract.clean_start import runtimes
from tests.peers import busybox as busybox_peer
from tests.peers import oci

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]


def test_a_log_that_cannot_be_written(minirt: Minirt, busybox: str) -> None:
    (minirt.root / "logs").write_text("not a directory")
    done = minirt("run", "--name", "one", busybox, "true")
    assert done.returncode == 125
    assert "Not a directory" in done.stderr
    assert minirt.output("ps", "-aq") == ""


@pytest.mark.needs("runc")
def test_a_cgroup_that_somebody_else_lives_in(minirt: Minirt, tmp_path: Path, busybox_root: Path) -> None:
    bundle = oci.bundle(tmp_path / "bundle", busybox_root, "sleep", "1000")
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["cgroupsPath"] = f"/{os.environ['MINIRT_CGROUP']}/taken"
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    (bundle / "config.json").write_text(json.dumps(config))
    cgroup = Path(tree.find().at(config["linux"]["cgroupsPath"]))
    cgroup.mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as other:
        (cgroup / "cgroup.procs").write_text(str(other.pid))
        try:
            with runtimes.one("minirt", tmp_path / "own") as runtime, pytest.raises(Conflict, match="live in it"):
                runtime.start(bundle)
            assert (cgroup / "cgroup.procs").read_text().split() == [str(other.pid)]
        finally:
            other.kill()
    cgroup.rmdir()


def test_a_dev_of_the_hosts_is_left_as_it_is(minirt: Minirt, busybox: str) -> None:
    before = {path.name: os.lstat(path) for path in Path("/dev").iterdir()}
    assert "null" in minirt.output("run", "--rm", "-v", "/dev:/dev", busybox, "ls", "/dev").split()
    assert {path.name for path in Path("/dev").iterdir()} == before.keys()
    assert os.lstat("/dev/ptmx").st_ino == before["ptmx"].st_ino


def test_an_image_whose_links_lead_to_what_is_not_there(minirt: Minirt, tmp_path: Path) -> None:
    root = busybox_peer.root_file_system(tmp_path / "root")
    shutil.rmtree(root / "var")
    (root / "var").symlink_to("/nowhere/yet")
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    minirt.output("image", "import", root, "localhost/dangling")
    words = ("run", "--rm", "--network", "none", "-v", "/usr:/var/data:ro", "localhost/dangling")
    assert "share" in minirt.output(*words, "/bin/ls", "/nowhere/yet/data").split()
    minirt.output(*words, "/bin/cat", "/run/systemd/resolve/stub-resolv.conf")
    assert minirt.output(*words, "/bin/ls", "/nowhere/yet").split() == ["data"]


@pytest.mark.parametrize("ignored", ["CHLD", "PIPE USR1 CHLD TERM"])
def test_whoever_ignores_signals_can_run_containers(minirt: Minirt, busybox: str, ignored: str) -> None:
    words = ["sh", "-c", f'trap "" {ignored}; exec "$0" "$@"', COMMAND, "run", "--rm", busybox, "true"]
    done = subprocess.run(words, env=minirt.env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
