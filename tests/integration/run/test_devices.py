"""What a container may do with devices: nodes it can make, and cannot open; and those that it is given."""

import contextlib
import json
import os
import stat
from pathlib import Path

import pytest

from tests.command import Minirt

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

RUN = ("run", "--rm", "--network", "none", "--cap-add", "SYSLOG")
"""With the capability that reading /dev/kmsg takes besides: what is refused is refused by the filter."""
TRY = "try() { mknod /n $1 $2 $3 && { (: < /n) 2>&1 | sed 's/.*: //'; rm /n; }; }"
"""Make a node and open it for reading: nothing is said when that goes well, else why not."""


@pytest.fixture
def disk(tmp_path: Path) -> str:
    """The node of a block device that this machine lets root open: a disk of its own, or else a loop device."""
    lines = Path("/proc/partitions").read_text().splitlines()[2:]
    for major, minor in (*(map(int, line.split()[:2]) for line in lines), (7, 0)):
        node = tmp_path / f"{major}-{minor}"
        os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(major, minor))
        with contextlib.suppress(OSError):
            os.close(os.open(node, os.O_RDONLY))
            return f"b {major} {minor}"
    pytest.skip("no block device can be opened on this machine")


def opened(minirt: Minirt, busybox: str, *flags: str, nodes: str) -> list[str]:
    """Make and open each of ``nodes`` ("c 1 3; b 8 0") in a container; return what was said of each ("" is well)."""
    script = "; ".join(f'echo "=$(try {node})"' for node in nodes.split("; "))
    return [line[1:] for line in minirt.output(*RUN, *flags, busybox, "sh", "-c", f"{TRY}; {script}").splitlines()]


PATH = "/usr/bin:/bin"
REFUSED = "Operation not permitted"


def test_the_hosts_disk_and_memory_can_be_made_and_not_opened(minirt: Minirt, busybox: str, disk: str) -> None:
    found = opened(minirt, busybox, nodes=f"{disk}; c 1 1; c 1 11; c 10 229; b 7 0; c 4 0; c 1 3")
    assert found == [*[REFUSED] * 6, ""]


def test_more_capabilities_open_no_more(minirt: Minirt, busybox: str, disk: str) -> None:
    assert opened(minirt, busybox, "--cap-add", "ALL", nodes=f"c 1 11; {disk}") == [REFUSED] * 2


def test_a_privileged_container_may_use_every_device(minirt: Minirt, busybox: str, disk: str) -> None:
    assert opened(minirt, busybox, "--privileged", nodes=f"c 1 11; {disk}") == ["", ""]


def test_what_every_container_has_works(minirt: Minirt, busybox: str) -> None:
    script = """
        for name in null zero full random urandom; do head -c 1 /dev/$name > /dev/null && echo $name; done
        : <> /dev/ptmx && echo ptmx
        : > /dev/tty && echo tty; : > /dev/console && echo console; : <> /dev/pts/0 && echo pts
    """
    said = minirt.output(*RUN, "-t", busybox, "sh", "-c", script).split()
    assert said == ["null", "zero", "full", "random", "urandom", "ptmx", "tty", "console", "pts"]


def test_what_is_executed_later_is_filtered_too(minirt: Minirt, busybox: str) -> None:
    minirt.output("run", "-d", "--network", "none", "--name", "one", busybox, "sleep", "1000")
    try:
        done = minirt("exec", "one", "sh", "-c", "mknod /n c 1 11 && head -c 1 /n")
        assert REFUSED in done.stderr
    finally:
        minirt.output("rm", "-f", "one")


LOOK = "stat -c '%A %u %g %t %T' {path}; head -c 0 {path} && echo read; true 2>/dev/null >> {path} && echo written"


@pytest.mark.parametrize(
    ("flag", "path", "may"),
    [
        ("/dev/kmsg", "/dev/kmsg", ["read", "written"]),
        ("/dev/kmsg:/dev/log/k", "/dev/log/k", ["read", "written"]),
        ("/dev/kmsg:r", "/dev/kmsg", ["read"]),
        ("/dev/kmsg:/dev/k:w", "/dev/k", ["written"]),
    ],
)
def test_a_device_is_given(minirt: Minirt, busybox: str, flag: str, path: str, may: list[str]) -> None:
    host = os.stat("/dev/kmsg")
    script = LOOK.format(path=path)
    node, *found = minirt(*RUN, "--device", flag, busybox, "sh", "-c", script).stdout.splitlines()
    assert node == f"{stat.filemode(host.st_mode)} {host.st_uid} {host.st_gid} 1 b"
    assert found == may


def test_a_link_of_the_host_is_followed(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/kmsg")
    flag = f"{tmp_path}/link:/dev/k"
    assert minirt.output(*RUN, "--device", flag, busybox, "stat", "-c", "%F %t:%T", "/dev/k").endswith("file 1:b")


def test_a_directory_of_devices_is_given_whole(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    os.mknod(tmp_path / "a", 0o640 | stat.S_IFCHR, os.makedev(1, 11))
    os.mknod(tmp_path / "inner/b", 0o600 | stat.S_IFBLK, os.makedev(7, 7))
    (tmp_path / "file").touch()
    script = "find /dev/mine ! -type d | sort; head -c 0 /dev/mine/a && echo read"
    said = minirt.output(*RUN, "--device", f"{tmp_path}:/dev/mine", busybox, "sh", "-c", script).split()
    assert said == ["/dev/mine/a", "/dev/mine/inner/b", "read"]


def test_a_rule_opens_what_the_container_makes(minirt: Minirt, busybox: str) -> None:
    flags = ["--device-cgroup-rule", "c 1:* r", "--device-cgroup-rule", "b *:7 rwm"]
    found = opened(minirt, busybox, *flags, nodes="c 1 11; c 10 229; b 7 7; b 7 6")
    assert found[:2] == ["", REFUSED]
    assert found[2] != REFUSED
    assert found[3] == REFUSED


def test_a_device_and_privileged_go_together(minirt: Minirt, busybox: str) -> None:
    flags = ["--privileged", "--device", "/dev/kmsg", "--device", "/dev/kmsg:/dev/k"]
    assert minirt.output(*RUN, *flags, busybox, "sh", "-c", "ls /dev/k /dev/kmsg").split() == ["/dev/k", "/dev/kmsg"]


def test_best_effort_limits_lose_no_device(minirt: Minirt, busybox: str) -> None:
    flags = ["--best-effort-limits", "-m", "64m", "--device", "/dev/kmsg"]
    assert minirt.output(*RUN, *flags, busybox, "sh", "-c", "head -c 0 /dev/kmsg && echo read") == "read"


def test_a_dry_run_shows_the_rules(minirt: Minirt, busybox: str) -> None:
    said = minirt.output("run", "--dry-run", "--device", "/dev/kmsg:r", busybox, "true")
    [line] = [line for line in said.splitlines() if "device filter" in line]
    assert "deny a *:* rwm; " in line
    assert "allow c 1:11 r; " in line
    assert "device filter" not in minirt.output("run", "--dry-run", "--privileged", busybox, "true")


def test_a_vendors_device(minirt: Minirt, busybox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By CDI: a node and the right to use it, a mount, a variable, a group, a hook in sight of the new root."""
    monkeypatch.setenv("MINIRT_CDI", str(tmp_path))
    (tmp_path / "library").write_text("of the vendor's\n")
    hook = tmp_path / "hook"
    hook.write_text(
        '#!/bin/sh\ncat > $1/state; echo made > $(sed \'s/.*"bundle":"\\([^"]*\\).*/\\1/\' $1/state)/rootfs/made\n'
    )
    hook.chmod(0o755)
    edits = {
        "env": ["VENDOR=1"],
        "deviceNodes": [{"path": "/dev/vendor", "hostPath": "/dev/kmsg"}],
        "mounts": [{"hostPath": f"{tmp_path}/library", "containerPath": "/lib/vendor", "options": ["ro"]}],
        "additionalGids": [4242],
        "hooks": [
            {"hookName": "createContainer", "path": str(hook), "args": ["hook", str(tmp_path)], "env": [f"PATH={PATH}"]}
        ],
    }
    device = {"name": "0", "containerEdits": edits}
    (tmp_path / "v.json").write_text(json.dumps({"cdiVersion": "1.0.0", "kind": "v.com/d", "devices": [device]}))
    script = "echo $VENDOR; cat /lib/vendor; (: < /dev/vendor) && echo opened; cat /made; id -G"
    lines = minirt.output(*RUN, "--device", "v.com/d=0", busybox, "sh", "-c", script).splitlines()
    assert lines == ["1", "of the vendor's", "opened", "made", "0 4242"]
    state = json.loads((tmp_path / "state").read_text())
    assert (state["status"], state["pid"] > 1) == ("creating", True)
    assert "no file in" in minirt(*RUN, "--device", "v.com/d=1", busybox, "true").stderr
