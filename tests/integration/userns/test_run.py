"""``minirt run`` in user namespaces: who one is inside and outside, whose the files are, what is refused."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.engine.idranges import DEFAULT, SIZE
from tests.command import Minirt
from tests.contract.oci.container import fields

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

FIRST = DEFAULT[0]
QUIET = ("--network", "none")
AUTO = (*QUIET, "--userns", "auto")


@pytest.fixture(autouse=True)
def no_subordinate_ids(tmp_path: Path) -> Iterator[Path]:
    """Files of subordinate ids of this test's own, empty, in the mount namespace of the tests."""
    own = tmp_path / "subid"
    own.write_text("")
    for name in ("subuid", "subgid"):
        Path("/etc", name).touch()
        subprocess.run(["mount", "--bind", own, f"/etc/{name}"], check=True)
    yield own
    for name in ("subuid", "subgid"):
        subprocess.run(["umount", f"/etc/{name}"], check=True)


def run(minirt: Minirt, image: str, script: str, *flags: str) -> list[str]:
    """Run a script in a user namespace; return the words that it says."""
    return minirt.output("run", "--rm", *AUTO, *flags, image, "sh", "-c", script).split()


def inspected(minirt: Minirt, container: str) -> dict[str, object]:
    """Return what ``minirt inspect`` says."""
    found: dict[str, object] = json.loads(minirt.output("inspect", container))[0]
    return found


def test_a_range_of_its_own(minirt: Minirt, busybox: str) -> None:
    said = run(minirt, busybox, "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; id -g")
    assert said == ["0", str(FIRST), str(SIZE)] * 2 + ["allow", "0", "0"]


def test_two_containers_share_no_id(minirt: Minirt, busybox: str) -> None:
    ids = [minirt.output("run", "-d", *AUTO, busybox, "sleep", "1000") for _ in range(3)]
    pids = [int(inspected(minirt, one)["state"]["pid"]) for one in ids]  # type: ignore[index]
    assert [fields(pid)["Uid"].split()[0] for pid in pids] == [str(FIRST + at * SIZE) for at in range(3)]
    minirt.output("rm", "-f", ids[1])
    again = minirt.output("run", "-d", *AUTO, busybox, "sleep", "1000")
    assert inspected(minirt, again)["user_namespace"] == {
        "uid_map": [[0, FIRST + SIZE, SIZE]],
        "gid_map": [[0, FIRST + SIZE, SIZE]],
    }
    minirt.output("rm", "-f", ids[0], ids[2], again)


def test_subordinate_ids_of_minirt_are_used_first(minirt: Minirt, busybox: str, no_subordinate_ids: Path) -> None:
    no_subordinate_ids.write_text("containers:700000:65536\nminirt:500000:65536\n")
    assert run(minirt, busybox, "cat /proc/self/uid_map") == ["0", "500000", str(SIZE)]


def test_none_is_free(minirt: Minirt, busybox: str, no_subordinate_ids: Path) -> None:
    no_subordinate_ids.write_text("minirt:500000:65536\n")
    one = minirt.output("run", "-d", *AUTO, busybox, "sleep", "1000")
    done = minirt("run", *AUTO, busybox, "true")
    assert done.returncode == 125
    assert "are all taken (give more to minirt there, or remove containers)" in done.stderr
    minirt.output("rm", "-f", one)


def test_explicit_maps(minirt: Minirt, busybox: str) -> None:
    flags = ("--uidmap", "0:100000:10", "--uidmap", "10:300000:5", "--gidmap", "0:200000:1000")
    script = "cat /proc/self/uid_map /proc/self/gid_map"
    said = minirt.output("run", "--rm", *QUIET, *flags, busybox, "sh", "-c", script).split()
    assert said == ["0", "100000", "10", "10", "300000", "5", "0", "200000", "1000"]


def test_one_map_is_for_groups_as_well(minirt: Minirt, busybox: str) -> None:
    said = minirt.output("run", "--rm", *QUIET, "--uidmap", "0:100000:10", busybox, "cat", "/proc/self/gid_map")
    assert said.split() == ["0", "100000", "10"]


def test_the_ids_of_a_user(minirt: Minirt, busybox: str, no_subordinate_ids: Path) -> None:
    no_subordinate_ids.write_text("me:500000:1000\n")
    said = minirt.output("run", "--rm", *QUIET, "--subuidname", "me", busybox, "cat", "/proc/self/uid_map")
    assert said.split() == ["0", "500000", "1000"]


def test_the_hosts(minirt: Minirt, busybox: str) -> None:
    said = minirt.output("run", "--rm", *QUIET, "--userns", "host", busybox, "cat", "/proc/self/uid_map")
    assert said.split() == Path("/proc/self/uid_map").read_text().split()


def test_the_images_files_are_roots_inside(minirt: Minirt, busybox: str) -> None:
    assert run(minirt, busybox, "stat -c %u:%g / /bin /bin/busybox /etc/passwd /etc/hosts /dev/shm") == ["0:0"] * 6


def test_the_images_files_stay_the_hosts_roots_outside(minirt: Minirt, busybox: str) -> None:
    """What is changed is a copy in the container's own layer, where it is the mapped root's."""
    script = "chmod 700 /etc/passwd; chown 33:44 /etc/group; echo >/new; rm /bin/wc; sleep 1000"
    one = minirt.output("run", "-d", *AUTO, busybox, "sh", "-c", script)
    layers = inspected(minirt, one)["layers"]
    assert isinstance(layers, dict)
    upper, lower = Path(layers["upper"]), Path(layers["lower"][0])
    assert minirt("exec", one, "sh", "-c", "until [ -e /new -a ! -e /bin/wc ]; do sleep 0.05; done").returncode == 0
    assert {path.stat().st_uid for path in (upper, upper / "new", upper / "etc", upper / "etc/passwd")} == {FIRST}
    assert ((upper / "etc/group").stat().st_uid, (upper / "etc/group").stat().st_gid) == (FIRST + 33, FIRST + 44)
    assert {path.lstat().st_uid for path in (lower, *lower.rglob("*"))} == {0}
    minirt.output("rm", "-f", one)
    assert not upper.exists()


def test_a_volumes_files_are_the_same_users_as_on_disk(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/given").write_text("of root\n")
    os.chown(tmp_path / "volume/given", 7, 8)
    script = "stat -c %u:%g /v /v/given; echo >/v/made; mkdir /v/dir; chown 5:6 /v/dir"
    assert run(minirt, busybox, script, "-v", f"{tmp_path}/volume:/v") == ["0:0", "7:8"]
    made, directory = (tmp_path / "volume/made").stat(), (tmp_path / "volume/dir").stat()
    assert (made.st_uid, made.st_gid, directory.st_uid, directory.st_gid) == (0, 0, 5, 6)


def test_a_volume_whose_ids_cannot_be_mapped_is_an_error(minirt: Minirt, busybox: str) -> None:
    done = minirt("run", "--rm", *AUTO, "-v", "/sys/kernel:/v", busybox, "true")
    assert done.returncode == 125
    assert "cannot map the ids of the files in /sys/kernel: " in done.stderr
    assert "file systems without idmapped mounts" in done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "mknod /tmp/disk b 8 0",
        "mknod /tmp/null c 1 3",
        "was=$(cat /proc/sys/kernel/panic); echo $was >/proc/sys/kernel/panic",
        "swapon /etc/passwd",
        "insmod /etc/passwd",
        "nice -n -5 true",
        "chown 99999 /tmp",
        "umount /proc/sys /proc && ls /proc/sys",
    ],
)
def test_root_inside_has_no_power_over_the_host(minirt: Minirt, busybox: str, script: str) -> None:
    """Even with every capability: they count for the namespaces that the container owns, and for nothing else."""
    done = minirt("run", "--rm", *AUTO, "--privileged", busybox, "sh", "-c", script)
    assert done.returncode not in (0, 125), done.stdout + done.stderr


def test_root_inside_cannot_mount_a_disk_of_the_hosts(minirt: Minirt, busybox: str) -> None:
    """Nor open it: the nodes of a privileged container belong to the host's root."""
    script = """mkdir /mnt; for disk in /dev/[hsv]d[a-z] /dev/loop0; do
        [ -b $disk ] || continue
        mount -t ext4 $disk /mnt && echo mounted $disk; head -c 1 $disk >/dev/null && echo read $disk; done; true"""
    assert run(minirt, busybox, script, "--privileged") == []


def test_root_inside_has_power_over_what_is_its_own(minirt: Minirt, busybox: str) -> None:
    script = """set -e
        mkdir /mnt; mount -t tmpfs x /mnt; echo >/mnt/x; hostname own; hostname; ping -c 1 127.0.0.1 >/dev/null
        echo 1 >/proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward"""
    assert run(minirt, busybox, script, "--privileged") == ["own", "1"]


def test_exec_joins_it(minirt: Minirt, busybox: str) -> None:
    one = minirt.output("run", "-d", *AUTO, busybox, "sleep", "1000")
    script = "readlink -f /proc/self/ns/user /proc/1/ns/user >/dev/null; cat /proc/self/uid_map; id -u; echo >/made"
    assert minirt.output("exec", one, "sh", "-c", script).split() == ["0", str(FIRST), str(SIZE), "0"]
    assert minirt.output("exec", "-u", "33:44", one, "sh", "-c", "id -u; id -g").split() == ["33", "44"]
    layers = inspected(minirt, one)["layers"]
    assert isinstance(layers, dict)
    assert Path(layers["upper"], "made").stat().st_uid == FIRST
    done = minirt("exec", "-u", "70000", one, "true")
    assert "cannot run as user 70000: the container's user namespace has no id 70000" in done.stderr
    minirt.output("rm", "-f", one)


def test_a_terminal(minirt: Minirt, busybox: str) -> None:
    assert run(minirt, busybox, "tty; stat -c %u /dev/console", "-t") == ["/dev/pts/0", "0"]


def test_another_user(minirt: Minirt, busybox: str) -> None:
    assert run(minirt, busybox, "id -u; id -g; echo >/tmp/x 2>/dev/null; echo $?", "-u", "33:44")[:2] == ["33", "44"]


def test_the_hosts_network(minirt: Minirt, busybox: str) -> None:
    """Its interfaces are there, and cannot be changed."""
    script = "ls /sys/class/net; ip link set lo mtu 1000 2>/dev/null; echo $?; readlink /proc/self/ns/net"
    said = minirt.output("run", "--rm", "--network", "host", "--userns", "auto", busybox, "sh", "-c", script).split()
    assert said[-1] == os.readlink("/proc/self/ns/net")
    assert said[-2] != "0"
    assert set(said[:-2]) == set(os.listdir("/sys/class/net"))


def test_a_bridge(minirt: Minirt, busybox: str) -> None:
    script = "ip -4 addr show eth0 | grep -c 10.77; ping -c 1 10.77.0.1 >/dev/null; echo $?"
    said = minirt.output("run", "--rm", "--userns", "auto", busybox, "sh", "-c", script).split()
    assert said == ["1", "0"]


REFUSED = [
    (["--userns", "bogus"], "--userns bogus: there is no such user namespace"),
    (["--userns", "auto", "--uidmap", "0:1:1"], "--userns auto asks for another"),
    (["--userns", "auto", "--pid", "host"], "the PID namespace is the host's"),
    (["--userns", "auto", "--ipc", "host"], "the IPC namespace is the host's"),
    (["--userns", "auto", "-u", "70000"], "has no id 70000"),
    (["--uidmap", "none"], "it is not INSIDE:HOST:SIZE"),
    (["--uidmap", "0:-1:5"], "it is not INSIDE:HOST:SIZE"),
    (["--uidmap", "0:1000:0"], "0:1000:0 maps no id at all"),
    (["--uidmap", "1:1000:10"], "it has no line for id 0"),
    (["--uidmap", "0:1000:10", "--uidmap", "9:5000:1"], "overlap inside"),
    (["--uidmap", "0:1000:10", "--gidmap", "0:1:5", "--gidmap", "5:3:1"], "--gidmap: .* overlap outside"),
    (["--uidmap", "0:4294967290:10"], "leads out of the ids"),
    ([word for at in range(341) for word in ("--uidmap", f"{at}:{1000 + at}:1")], "at most 340"),
    (["--subuidname", "nosuch"], "cannot use the ids of 'nosuch': /etc/subuid has none"),
    (["--subuidname", "nosuch", "--uidmap", "0:1:1"], "leave one of them out"),
]


@pytest.mark.parametrize(("flags", "why"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_what_makes_no_sense_is_refused(minirt: Minirt, busybox: str, flags: list[str], why: str) -> None:
    done = minirt("run", "--rm", *QUIET, *flags, busybox, "true")
    assert done.returncode == 125
    assert re.search(why, done.stderr), done.stderr
    assert minirt.output("ps", "-a", "-q") == ""


def test_what_a_run_that_died_has_taken_is_free_again(minirt: Minirt, busybox: str) -> None:
    """A sandbox without its process: prune removes it, and its ids with it."""
    with minirt.start("run", *AUTO, busybox, "sh", "-c", "echo up; sleep 1000") as client:
        assert client.stdout
        assert client.stdout.readline() == "up\n"
        (one,) = minirt.output("ps", "-q").split()
        client.kill()
    minirt.output("rm", "-f", one)
    assert run(minirt, busybox, "cat /proc/self/uid_map")[1] == str(FIRST)


def test_a_dry_run_tells_of_it(minirt: Minirt, busybox: str) -> None:
    lines = minirt.output("run", "--dry-run", *AUTO, busybox, "true").splitlines()
    assert any("mount --bind -o idmap " in line for line in lines)
    assert f"shim    write 0 {FIRST} {SIZE} to uid_map" in lines
    assert minirt.output("ps", "-a", "-q") == ""
