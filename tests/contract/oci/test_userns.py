"""User namespaces: root inside is nobody outside, and yet has all that a container needs.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md#user-namespace-mappings
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.oci.container import Container, fields
from tests.peers.daemon import await_true

pytestmark = [pytest.mark.root, pytest.mark.peer]

FIRST, SIZE = 100_000, 65_536
MAP = [{"containerID": 0, "hostID": FIRST, "size": SIZE}]
EVERY = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD")


def give(root: Path, first: int = FIRST) -> None:
    """Make the mapped root the owner of a directory and what is in it, and let others pass on the way there."""
    for path in (root, *root.rglob("*")):
        os.chown(path, first, first, follow_symlinks=False)


@pytest.fixture
def root(tmp_path: Path, busybox_root: Path) -> Path:
    """A root file system of the mapped root's: copies, for its files get another owner."""
    own = Path(shutil.copytree(busybox_root, tmp_path / "root", symlinks=True))
    give(own)
    return own


@pytest.fixture
def mapped(container: Container) -> Container:
    """A container in a user namespace of its own, at a place that everybody may reach."""
    for directory in (container.bundle, *container.bundle.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o111)
    container.linux["namespaces"].append({"type": "user"})
    container.linux.update({"uidMappings": MAP, "gidMappings": MAP})
    container.process["capabilities"] = {name: list(EVERY) for name in ("bounding", "effective", "permitted")}
    return container


@pytest.fixture
def other() -> Iterator[int]:
    """The pid of a process in a user namespace of its own, with the same maps."""
    with subprocess.Popen(["unshare", "--user", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE) as made:
        assert made.stdout
        assert made.stdout.readline() == b"\n"
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{made.pid}/{name}").write_text(f"0 {FIRST} {SIZE}\n")
        yield made.pid
        made.kill()
        await_true(lambda: made.poll() is not None, "its end")


@pytest.mark.parametrize("name", ["uid_map", "gid_map"])
def test_the_map_is_seen_inside(mapped: Container, name: str) -> None:
    assert mapped.says(f"cat /proc/self/{name}").split() == ["0", str(FIRST), str(SIZE)]


def test_maps_of_several_lines(mapped: Container) -> None:
    several = [{"containerID": 0, "hostID": FIRST, "size": 10}, {"containerID": 10, "hostID": 300_000, "size": 5}]
    mapped.linux.update(
        {"uidMappings": several, "gidMappings": [*several, {"containerID": 99, "hostID": 99, "size": 1}]}
    )
    assert mapped.says("cat /proc/self/uid_map").split() == [*f"0 {FIRST} 10 10 300000 5".split()]
    assert mapped.says("cat /proc/self/gid_map").split()[6:] == ["99", "99", "1"]


def test_root_inside_is_the_mapped_user_outside(mapped: Container) -> None:
    mapped.create().start()
    await_true(mapped.is_executed, "the program's exec")
    outside = fields(mapped.pid)
    assert outside["Uid"].split() == [str(FIRST)] * 4
    assert outside["Gid"].split() == [str(FIRST)] * 4


def test_it_is_root_inside(mapped: Container) -> None:
    assert mapped.says("id -u; id -g; stat -c %u:%g /bin") == "0\n0\n0:0"


def test_another_user_inside(mapped: Container) -> None:
    mapped.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7]}
    mapped.create().start()
    await_true(mapped.is_executed, "the program's exec")
    outside = fields(mapped.pid)
    assert outside["Uid"].split()[0] == str(FIRST + 1000)
    assert outside["Gid"].split()[0] == str(FIRST + 1001)
    assert str(FIRST + 7) in outside["Groups"].split()


def test_groups_can_be_set_inside(mapped: Container) -> None:
    assert mapped.says("cat /proc/self/setgroups") == "allow"


def test_what_root_writes_belongs_to_the_mapped_user(mapped: Container, root: Path) -> None:
    mapped.says("echo >/written; mkdir /made")
    assert {(root / name).stat().st_uid for name in ("written", "made")} == {FIRST}


def test_capabilities_count_inside(mapped: Container) -> None:
    assert mapped.says("hostname elsewhere; hostname; mount -t tmpfs tmpfs /tmp; chown 5 /tmp; stat -c %u /tmp") == (
        "elsewhere\n5"
    )


def test_capabilities_do_not_count_outside(mapped: Container, tmp_path: Path) -> None:
    """A file of the host's root stays closed to who has CAP_DAC_OVERRIDE and CAP_CHOWN over its own only."""
    secret = tmp_path / "secret"
    secret.write_text("of the host\n")
    secret.chmod(0o600)
    mapped.mount("/secret", "bind", secret, "bind")
    done = mapped.script("stat -c %u /secret; cat /secret; echo >/secret; chown 0 /secret; true").run()
    assert done.stdout.strip() == "65534"
    assert secret.read_text() == "of the host\n"
    assert secret.stat().st_uid == 0


def test_no_device_can_be_made(mapped: Container) -> None:
    assert mapped.script("mknod /tmp/null c 1 3").run().returncode != 0


@pytest.mark.parametrize("name", ["null", "zero", "full", "random", "urandom", "tty"])
def test_a_device_is_the_hosts(mapped: Container, name: str) -> None:
    host = os.stat(f"/dev/{name}").st_rdev
    seen = mapped.says(f"stat -c '%F %t %T' /dev/{name}")
    assert seen == f"character special file {os.major(host):x} {os.minor(host):x}"


def test_devices_work(mapped: Container) -> None:
    assert mapped.says("echo gone >/dev/null; head -c 3 /dev/zero | od -An -tx1; ls /dev/pts") == "00 00 00\nptmx"


def test_a_device_of_the_configurations(mapped: Container) -> None:
    mapped.linux["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]
    if not Path("/dev/kmsg").exists():
        pytest.skip("this machine has no /dev/kmsg")
    assert mapped.says("stat -c '%t %T' /dev/kmsg") == "1 b"


@pytest.mark.parametrize(
    ("point", "kind"),
    [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/mqueue", "mqueue")],
)
def test_a_mount_of_the_kernels(mapped: Container, point: str, kind: str) -> None:
    rows = [row.split() for row in mapped.says("cat /proc/self/mountinfo").splitlines()]
    row = next(row for row in rows if row[4] == point)
    assert row[row.index("-") + 1] == kind


def test_proc_is_of_the_new_pid_namespace(mapped: Container) -> None:
    assert mapped.says("echo $$; cat /proc/1/comm; :") == "1\nsh"


def test_masked_and_read_only_paths(mapped: Container) -> None:
    mapped.linux.update({"maskedPaths": ["/proc/kcore", "/sys/firmware"], "readonlyPaths": ["/proc/sys"]})
    assert (
        mapped.says("head -c 1 /proc/kcore; ls -A /sys/firmware; echo x 2>/dev/null >/proc/sys/kernel/hostname; :")
        == ""
    )


def test_nothing_of_the_hosts_tree_is_in_sight(mapped: Container) -> None:
    points = mapped.says("awk '{print $5}' /proc/self/mountinfo").split()
    assert all(point == "/" or point.startswith(("/proc", "/sys", "/dev")) for point in points)


def test_a_bind_mount_from_where_only_root_may_go(mapped: Container, tmp_path: Path) -> None:
    """The source is the caller's to name: the way there need not be open to the mapped user."""
    closed = tmp_path / "closed"
    (closed / "source").mkdir(parents=True)
    (closed / "source/file").write_text("readable\n")
    closed.chmod(0o700)
    mapped.mount("/mnt", "bind", closed / "source", "bind")
    assert mapped.says("cat /mnt/file") == "readable"


def test_a_bind_mount_that_is_read_only(mapped: Container, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.chown(source, FIRST, FIRST)
    mapped.mount("/mnt", "bind", source, "bind", "ro")
    assert mapped.script("echo >/mnt/new").run().returncode != 0
    assert not list(source.iterdir())


@pytest.mark.differs("runc", "1.1 has no idmapped mounts")
def test_a_bind_mount_with_the_containers_map(mapped: Container, tmp_path: Path) -> None:
    """What root has on disk is root's inside, and the other way round."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("of root\n")
    mapped.mount("/mnt", "bind", source, "bind", "idmap")
    assert mapped.says("stat -c %u /mnt/file; echo >/mnt/new; stat -c %u /mnt/new") == "0\n0"
    assert (source / "new").stat().st_uid == 0


def test_a_root_that_is_read_only(mapped: Container, root: Path) -> None:
    mapped.config["root"]["readonly"] = True
    assert mapped.script("echo >/written").run().returncode != 0
    assert not (root / "written").exists()


def test_a_sysctl_of_its_own_network(mapped: Container) -> None:
    mapped.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert mapped.says("cat /proc/sys/net/ipv4/ip_forward") == "1"


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "mount"])
def test_the_other_namespaces_are_owned_by_it(mapped: Container, kind: str) -> None:
    """NS_GET_USERNS of each leads to the container's user namespace. Source: ioctl_ns(2)."""
    names = {"network": "net", "mount": "mnt"}
    own = os.stat(f"/proc/{mapped.create().pid}/ns/user").st_ino
    assert own != os.stat("/proc/self/ns/user").st_ino
    assert owner(mapped.pid, names.get(kind, kind)) == own


def owner(pid: int, name: str) -> int:
    """Return the inode of the user namespace that owns one of a process's."""
    import fcntl

    fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
    user = fcntl.ioctl(fd, 0xB701)
    inode = os.fstat(user).st_ino
    os.close(user)
    os.close(fd)
    return inode


def test_a_terminal(mapped: Container, tmp_path: Path) -> None:
    """It is one of the container's own devpts, and its console."""
    mapped.process["terminal"] = True
    mapped.script("stat -c '%u' /dev/console; tty; sleep 1000")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        listener.listen(1)
        mapped.create("--console-socket", tmp_path / "console").start()
        connection, _ = listener.accept()
        with connection:
            _, received, _, _ = socket.recv_fds(connection, 4096, 1)
    with open(received[0], "rb", buffering=0) as master:
        said = b""
        while said.count(b"\n") < 2:
            said += master.read(4096)
    assert said.split() == [b"0", b"/dev/pts/0"]


def test_exec_is_in_it(mapped: Container) -> None:
    mapped.create().start()
    done = mapped.exec(
        "sh", "-c", "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/1/ns/user"
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[:4] == ["0", "0", str(FIRST), str(SIZE)]
    assert words[4] == words[5]


@pytest.mark.differs("crun", "1.8 is not allowed to look at an init that waits")
def test_exec_before_start_is_in_it(mapped: Container) -> None:
    mapped.create()
    done = mapped.exec("cat", "/proc/self/uid_map")
    assert done.stdout.split() == ["0", str(FIRST), str(SIZE)], done.stderr


def test_exec_as_another_user(mapped: Container) -> None:
    mapped.create().start()
    user = {"uid": 12, "gid": 13, "additionalGids": [14]}
    assert mapped.exec_process("sh", "-c", "id -u; id -G", user=user) == "12\n13 14"


def test_exec_writes_as_the_mapped_user(mapped: Container, root: Path) -> None:
    mapped.create().start()
    assert mapped.exec("touch", "/touched").returncode == 0
    assert (root / "touched").stat().st_uid == FIRST


def test_it_is_in_its_cgroup(mapped: Container) -> None:
    mapped.create()
    assert mapped.linux["cgroupsPath"] in mapped.proc("cgroup").read_text()


def test_one_by_its_path(mapped: Container, other: int) -> None:
    mapped.linux["namespaces"][-1]["path"] = f"/proc/{other}/ns/user"
    mapped.create().start()
    await_true(mapped.is_executed, "the program's exec")
    assert os.stat(mapped.proc("ns/user")).st_ino == os.stat(f"/proc/{other}/ns/user").st_ino
    assert fields(mapped.pid)["Uid"].split()[0] == str(FIRST)
    assert owner(mapped.pid, "mnt") == os.stat(f"/proc/{other}/ns/user").st_ino


def test_exec_in_one_by_its_path(mapped: Container, other: int) -> None:
    mapped.linux["namespaces"][-1]["path"] = f"/proc/{other}/ns/user"
    mapped.create().start()
    assert mapped.exec("cat", "/proc/self/uid_map").stdout.split() == ["0", str(FIRST), str(SIZE)]


def test_a_network_of_the_hosts_by_its_path(mapped: Container, tmp_path: Path) -> None:
    """As podman and CRI implementations make one before the container: joined while the rights are there."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE) as made:
        assert made.stdout
        assert made.stdout.readline() == b"\n"
        path = f"/proc/{made.pid}/ns/net"
        mapped.linux["namespaces"] = [one for one in mapped.linux["namespaces"] if one["type"] != "network"]
        mapped.linux["namespaces"].append({"type": "network", "path": path})
        mapped.config["mounts"] = [one for one in mapped.config["mounts"] if one["type"] != "sysfs"]
        try:
            assert os.stat(mapped.create().proc("ns/net")).st_ino == os.stat(path).st_ino
        finally:
            made.kill()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("uidMappings", marks=pytest.mark.differs("crun", "1.8 takes the ids of /etc/subuid")),
        "gidMappings",
    ],
)
def test_a_user_namespace_without_maps_is_an_error(mapped: Container, name: str) -> None:
    del mapped.linux[name]
    assert mapped.try_create().returncode != 0
    assert not mapped.exists


@pytest.mark.parametrize(
    "lines",
    [
        [{"containerID": 0, "hostID": FIRST, "size": 0}],
        [{"containerID": 0, "hostID": FIRST, "size": 10}, {"containerID": 5, "hostID": 300_000, "size": 10}],
        [{"containerID": 1, "hostID": FIRST, "size": 10}],
    ],
    ids=["empty", "overlapping", "without root"],
)
def test_a_map_that_makes_no_sense_is_an_error(mapped: Container, lines: list[dict[str, Any]]) -> None:
    mapped.linux.update({"uidMappings": lines, "gidMappings": lines})
    assert mapped.try_create().returncode != 0
    assert not mapped.exists


def test_nothing_of_it_stays(mapped: Container, root: Path) -> None:
    mapped.create().start().stop()
    assert mapped("delete").returncode == 0
    assert not mapped.exists
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
