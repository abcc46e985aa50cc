"""What builds a container's file system and identity: what each operation says, refuses, and does without root."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minirt.errors import InvalidInput
from minirt.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from minirt.linux.operation import Operation
from minirt.namespaces import inroot
from minirt.namespaces.devices import MakeDevice, MakeSymlink
from minirt.namespaces.kinds import JoinNamespace, OffsetClocks, SetHostname
from minirt.namespaces.layers import MountLayers
from minirt.namespaces.mounts import BindMount, MaskPath, MountFilesystem, ReadonlyPath, attribute_names
from minirt.namespaces.rootfs import (
    BindRootfs,
    HideBelow,
    MapLayer,
    MountOverlay,
    PivotRoot,
    ReadonlyRoot,
    SetPropagation,
)
from minirt.namespaces.sysctl import WriteSysctl, plan_sysctls

RO_NOSUID = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        (MountFilesystem("proc", "proc", "/proc"), "mount -t proc proc /proc"),
        (MountFilesystem("tmpfs", "t", "/t", RO_NOSUID), "mount -t tmpfs t /t -o ro,nosuid"),
        (
            MountFilesystem("tmpfs", "t", "/t", MOUNT_ATTR_NODEV, (("size", "1m"), ("huge", None))),
            "mount -t tmpfs t /t -o size=1m,huge,nodev",
        ),
        (BindMount("/srv", "/data"), "mount --rbind /srv /data"),
        (BindMount("/srv", "/data", MOUNT_ATTR_RDONLY, recursive=False), "mount --bind /srv /data -o ro"),
        (MaskPath("/proc/kcore"), "mask /proc/kcore"),
        (ReadonlyPath("/proc/sys"), "mount --rbind -o ro /proc/sys /proc/sys"),
        (SetPropagation("rslave"), "mount --make-rslave /"),
        (MountOverlay(("/a", "/b"), "/up", "/work", "/root"), "mount overlay of 2 layers on /root (upperdir /up)"),
        (MapLayer("/a", ((0, 1, 1),), ((0, 1, 1),)), "mount --bind -o idmap /a /a"),
        (MountLayers(("/a", "/b"), "/x"), "mount 2 layers on /x -o ro"),
        (MountLayers(("/a",), "/x", "etc/a", RO_NOSUID), "mount etc/a of 1 layers on /x -o ro,nosuid"),
        (BindRootfs("/root"), "mount --rbind /root /root"),
        (ReadonlyRoot(), "mount_setattr / MOUNT_ATTR_RDONLY"),
        (PivotRoot(), "pivot_root . . && umount -l .  (the host's file system goes out of sight)"),
        (MakeDevice("/dev/null", "c", 1, 3), "mknod -m 666 /dev/null c 1 3"),
        (MakeDevice("/dev/sda", "b", 8, 0, 0o660, 0, 6), "mknod -m 660 /dev/sda b 8 0"),
        (MakeSymlink("/dev/fd", "/proc/self/fd"), "ln -s /proc/self/fd /dev/fd"),
        (JoinNamespace("network", "/run/ns/net"), "setns /run/ns/net (CLONE_NEWNET)"),
        (JoinNamespace("pid", "/run/ns/pid"), "setns /run/ns/pid (CLONE_NEWPID)"),
        (JoinNamespace("time", "/run/ns/time"), "setns /run/ns/time (CLONE_NEWTIME)"),
        (
            OffsetClocks((("monotonic", 60, 5), ("boottime", -1, 0))),
            "unshare CLONE_NEWTIME, write monotonic 60 s 5 ns, boottime -1 s 0 ns to /proc/self/timens_offsets",
        ),
        (HideBelow("/bundle/rootfs"), "mount --make-private of the mount that /bundle/rootfs is on"),
        (
            BindMount("/a", "/b", MOUNT_ATTR_RDONLY, taken=MOUNT_ATTR_NOSUID, below=MOUNT_ATTR_NODEV, below_taken=1),
            "mount --rbind /a /b -o ro,suid,rnodev,rrw",
        ),
        (
            BindMount("/a", "/b", uid_map=((0, 1, 1),), gid_map=((0, 1, 1),), idmap_below=True),
            "mount --rbind /a /b -o ridmap",
        ),
        (MountFilesystem("tmpfs", "t", "/t", copy_up=True), "mount -t tmpfs t /t -o tmpcopyup"),
        (
            PivotRoot(shared=True),
            "pivot_root . . && mount --make-rslave . && umount -l .  (the host's file system goes out of sight)",
        ),
        (SetHostname("box"), "sethostname box"),
        (WriteSysctl("net.core.somaxconn", "100"), "sysctl net.core.somaxconn=100"),
    ],
)
def test_described_in_the_kernels_words(operation: Operation[Any], line: str) -> None:
    assert operation.describe() == line


def test_a_mount_names_what_caused_it() -> None:
    assert MountFilesystem("tmpfs", "t", "/t", cause="spec.volumes[0]").because == "spec.volumes[0]"
    assert BindMount("/a", "/b", cause="mounts /b").because == "mounts /b"
    assert MaskPath("/x").because == ""


def test_attributes_as_mount_writes_them() -> None:
    assert attribute_names(0) == ""
    assert attribute_names(RO_NOSUID | MOUNT_ATTR_NODEV) == "ro,nosuid,nodev"


@pytest.mark.parametrize("kind", ["", "d", "file", "cc"])
def test_a_device_of_no_kind(kind: str) -> None:
    with pytest.raises(InvalidInput, match="/dev/x"):
        MakeDevice("/dev/x", kind, 1, 1)


@pytest.mark.parametrize(
    ("key", "path", "owner"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward", "network"),
        ("net/ipv4/conf/eth0.100/rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter", "network"),
        ("kernel.shmmax", "/proc/sys/kernel/shmmax", "ipc"),
        ("fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max", "ipc"),
        ("kernel/domainname", "/proc/sys/kernel/domainname", "uts"),
    ],
)
def test_where_a_sysctl_is_and_whose(key: str, path: str, owner: str) -> None:
    found = WriteSysctl(key, "1")
    assert (found.path, found.owner) == (path, owner)


@pytest.mark.parametrize(
    "key",
    [
        "kernel.panic",
        "vm.swappiness",
        "fs.file-max",
        "",
        "net",
        "net/../kernel/panic",
        "../../etc/passwd",
        "kernel.sem.x",
    ],
)
def test_a_sysctl_of_the_whole_machine_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="whole machine"):
        WriteSysctl(key, "1")


def test_the_host_name_is_not_set_twice() -> None:
    with pytest.raises(InvalidInput, match=r"kernel\.hostname.*set the hostname"):
        WriteSysctl("kernel.hostname", "box")


def test_sysctls_need_a_namespace_that_is_not_the_hosts() -> None:
    values = {"net.core.somaxconn": "1", "kernel.sem": "2"}
    assert plan_sysctls(values, ("network", "ipc")) == [WriteSysctl(*pair) for pair in values.items()]
    assert plan_sysctls({}, ()) == []
    with pytest.raises(InvalidInput, match=r"kernel\.sem"):
        plan_sysctls(values, ("network",))


class TestInRoot:
    """Whatever an image's symlinks say, a path inside stays inside."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Iterator[int]:
        (tmp_path / "secret").write_text("of the host")
        (tmp_path / "root/etc").mkdir(parents=True)
        (tmp_path / "root/etc/file").write_text("of the image")
        for name, target in (
            ("up", "../.."),
            ("abs", "/etc"),
            ("out", str(tmp_path)),
            ("loop", "loop"),
            ("none", "/new/x"),
        ):
            (tmp_path / "root" / name).symlink_to(target)
        fd = os.open(tmp_path / "root", os.O_PATH)
        yield fd
        os.close(fd)

    @staticmethod
    def path_of(fd: int) -> str:
        found = os.readlink(f"/proc/self/fd/{fd}")
        os.close(fd)
        return found

    @pytest.mark.parametrize(
        "path", ["/etc/file", "etc/file", "/../../etc/file", "/up/etc/file", "/abs/file", "/up/../abs/file"]
    )
    def test_found_inside(self, root: int, tmp_path: Path, path: str) -> None:
        assert self.path_of(inroot.open_path(root, path)) == f"{tmp_path}/root/etc/file"

    @pytest.mark.parametrize("path", ["/secret", "/../secret", "/up/secret", "/out/secret"])
    def test_what_is_outside_is_not_there(self, root: int, path: str) -> None:
        with pytest.raises(FileNotFoundError):
            inroot.open_path(root, path)

    def test_a_loop(self, root: int) -> None:
        with pytest.raises(OSError, match="Too many levels"):
            inroot.make_directory(root, "/loop/x")

    @pytest.mark.parametrize(
        ("path", "made"), [("/a/b/c", "a/b/c"), ("/up/d", "d"), ("/abs/e", "etc/e"), ("/out/f", None), ("/../g", "g")]
    )
    def test_directories_are_made_inside(self, root: int, tmp_path: Path, path: str, made: str | None) -> None:
        place = self.path_of(inroot.make_directory(root, path))
        assert place.startswith(f"{tmp_path}/root/")
        assert made is None or (tmp_path / "root" / made).is_dir()
        assert sorted(os.listdir(tmp_path)) == ["root", "secret"]

    def test_files_are_made_inside(self, root: int, tmp_path: Path) -> None:
        assert self.path_of(inroot.make_file(root, "/new/dir/file")) == f"{tmp_path}/root/new/dir/file"
        assert self.path_of(inroot.make_file(root, "/abs/file")) == f"{tmp_path}/root/etc/file"
        assert (tmp_path / "root/etc/file").read_text() == "of the image"

    def test_what_a_dangling_link_names_is_made(self, root: int, tmp_path: Path) -> None:
        (tmp_path / "root/etc/resolv.conf").symlink_to("../run/systemd/stub.conf")
        (tmp_path / "root/etc/chain").symlink_to("resolv.conf.d")
        (tmp_path / "root/etc/resolv.conf.d").symlink_to("/../../var/d")
        (tmp_path / "root/a/b").mkdir(parents=True)
        (tmp_path / "root/a/b/beside").symlink_to("../c")
        (tmp_path / "root/deep").symlink_to("a/b")
        assert self.path_of(inroot.make_file(root, "/etc/resolv.conf")) == f"{tmp_path}/root/run/systemd/stub.conf"
        assert self.path_of(inroot.make_directory(root, "/abs/chain/x")) == f"{tmp_path}/root/var/d/x"
        assert self.path_of(inroot.make_directory(root, "/none/y")) == f"{tmp_path}/root/new/x/y"
        assert self.path_of(inroot.make_directory(root, "/deep/beside/z/")) == f"{tmp_path}/root/a/c/z"

    def test_a_directory_below_a_file_is_refused(self, root: int) -> None:
        with pytest.raises(NotADirectoryError):
            inroot.make_directory(root, "/etc/file/x")

    def test_links_of_dev_are_made_once(self, root: int, tmp_path: Path) -> None:
        context = SimpleNamespace(rootfs_fd=root)
        MakeSymlink("/dev/fd", "/proc/self/fd").execute(context)
        MakeSymlink("/dev/fd", "/elsewhere").execute(context)
        assert os.readlink(tmp_path / "root/dev/fd") == "/proc/self/fd"

    @pytest.mark.parametrize("operation", [MaskPath("/none/x"), ReadonlyPath("/none/x"), MaskPath("/etc/file/x")])
    def test_what_is_not_there_needs_no_cover(self, root: int, operation: Operation[Any]) -> None:
        operation.execute(SimpleNamespace(rootfs_fd=root))
