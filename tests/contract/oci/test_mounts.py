"""The root file system and the mounts that config.json asks for.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#mounts
"""

from pathlib import Path

import pytest

from tests.contract.oci.container import Container
from tests.peers.daemon import run

pytestmark = [pytest.mark.root, pytest.mark.peer]

UNSHARED = pytest.mark.differs("crun", "1.8 makes every mount private when all of them are made")
DANGLING = pytest.mark.differs("crun", "1.8 refuses a destination that leads to what is not there")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory on the host with a file in it."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("of the host\n")
    return tmp_path / "source"


def line(container: Container, point: str) -> list[str]:
    """Return the words of the last mount on a point, as the container's program sees it."""
    rows = container.args("cat", "/proc/self/mountinfo").run().stdout.splitlines()
    return [row.split() for row in rows if row.split()[4] == point][-1]


def options(container: Container, point: str) -> set[str]:
    """Return the options of a mount and of its file system."""
    words = line(container, point)
    return {*words[5].split(","), *words[-1].split(",")}


def test_the_root_is_the_configurations(container: Container, root: Path) -> None:
    (root / "etc/mark").write_text("here\n")
    assert container.args("cat", "/etc/mark").run().stdout == "here\n"


def test_a_root_relative_to_the_bundle(container: Container, root: Path) -> None:
    root.rename(container.bundle / "rootfs")
    container.config["root"]["path"] = "rootfs"
    assert container.says("echo here") == "here"


def test_what_is_written_to_the_root_stays(container: Container, root: Path) -> None:
    container.says("echo written >/written")
    assert (root / "written").read_text() == "written\n"


def test_a_root_that_is_read_only(container: Container, root: Path) -> None:
    container.config["root"]["readonly"] = True
    assert container.script("echo >/written").run().returncode != 0
    assert not (root / "written").exists()


def test_mounts_below_a_read_only_root_are_writable(container: Container, root: Path) -> None:
    container.config["root"]["readonly"] = True
    container.mount("/tmp", "tmpfs", "tmpfs")
    assert container.says("echo yes >/tmp/written; cat /tmp/written") == "yes"


def test_nothing_of_the_hosts_tree_is_in_sight(container: Container) -> None:
    points = container.says("awk '{print $5}' /proc/self/mountinfo").split()
    own = {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"}
    assert own <= set(points)
    assert all(point.startswith(("/proc/", "/sys/", "/dev/")) for point in set(points) - own)


def test_nothing_is_mounted_outside(running: Container) -> None:
    assert str(running.bundle.parent) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("kind", ["bind", "none", ""])
def test_a_bind_mount(container: Container, source: Path, kind: str) -> None:
    """The options make it one: "for bind mounts [the type] is a dummy"."""
    container.mount("/mnt", kind, source, "bind")
    assert container.says("cat /mnt/file; echo new >/mnt/new") == "of the host"
    assert (source / "new").read_text() == "new\n"


def test_a_bind_mount_that_is_read_only(container: Container, source: Path) -> None:
    container.mount("/mnt", "bind", source, "bind", "ro")
    assert container.script("cat /mnt/file; echo >/mnt/new").run().returncode != 0
    assert not (source / "new").exists()


def test_rbind_takes_what_is_mounted_below(container: Container, source: Path) -> None:
    (source / "below").mkdir()
    assert run("mount", "-t", "tmpfs", "tmpfs", str(source / "below")).returncode == 0
    try:
        (source / "below/deep").write_text("deep\n")
        container.mount("/all", "bind", source, "rbind")
        container.mount("/one", "bind", source, "bind")
        assert container.says("cat /all/below/deep; ls /one/below") == "deep"
    finally:
        run("umount", "-l", str(source / "below"))


def test_a_bind_mount_of_a_file(container: Container, source: Path, root: Path) -> None:
    container.mount("/etc/made", "bind", source / "file", "bind", "ro")
    assert container.says("cat /etc/made") == "of the host"
    assert (root / "etc/made").is_file()


def test_a_file_over_a_file(container: Container, source: Path, root: Path) -> None:
    container.mount("/etc/group", "bind", source / "file", "bind")
    assert container.says("cat /etc/group") == "of the host"


def test_a_destination_that_is_missing_is_made(container: Container, root: Path) -> None:
    container.mount("/a/b/c", "tmpfs", "tmpfs")
    assert container.says("stat -f -c %T /a/b/c") == "tmpfs"
    assert (root / "a/b/c").is_dir()


def test_a_relative_source_is_below_the_bundle(container: Container) -> None:
    """The specification: the source is "absolute or relative to the bundle"."""
    (container.bundle / "data").mkdir()
    (container.bundle / "data/file").write_text("of the bundle\n")
    container.mount("/mnt", "bind", "data", "bind")
    assert container.says("cat /mnt/file") == "of the bundle"


def test_mounts_are_made_in_their_order(container: Container, source: Path) -> None:
    container.mount("/mnt", "tmpfs", "tmpfs")
    container.mount("/mnt/below", "bind", source, "bind")
    assert container.says("ls /mnt; cat /mnt/below/file") == "below\nof the host"


def test_a_later_mount_hides_an_earlier_one(container: Container, source: Path) -> None:
    container.mount("/mnt", "bind", source, "bind")
    container.mount("/mnt", "tmpfs", "tmpfs")
    assert container.says("ls /mnt") == ""


@DANGLING
def test_a_link_in_the_root_does_not_lead_out(container: Container, source: Path, root: Path) -> None:
    (root / "link").symlink_to(source)
    container.mount("/link", "tmpfs", "tmpfs")
    assert container.says("echo in >/link/written; cat /link/written") == "in"
    assert not (source / "written").exists()


@DANGLING
def test_dots_in_a_links_target_stay_inside(container: Container, source: Path, root: Path) -> None:
    (root / "link").symlink_to("../../../../../../deep")
    container.mount("/link/point", "bind", source, "bind")
    assert container.says("cat /deep/point/file") == "of the host"
    assert (root / "deep/point").is_dir()


def test_a_source_that_is_missing_is_an_error(container: Container, tmp_path: Path) -> None:
    container.mount("/mnt", "bind", tmp_path / "missing", "bind")
    done = container.try_create()
    assert done.returncode != 0
    assert "missing" in done.stderr
    assert "no such file or directory" in done.stderr.lower()


def test_a_file_system_that_is_unknown_is_an_error(container: Container) -> None:
    container.mount("/mnt", "nosuchfs", "none")
    assert container.try_create().returncode != 0
    assert not container.exists


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("relatime", "relatime"),
        ("nodiratime", "nodiratime"),
        ("size=64k", "size=64k"),
        ("mode=711", "mode=711"),
        ("uid=1000", "uid=1000"),
        ("nr_inodes=77", "nr_inodes=77"),
        ("sync", "sync"),
    ],
)
def test_an_option_of_tmpfs(container: Container, asked: str, seen: str) -> None:
    container.mount("/mnt", "tmpfs", "tmpfs", asked)
    assert seen in options(container, "/mnt")


@pytest.mark.differs("crun", "1.8 keeps what was set first")
@pytest.mark.parametrize("asked", [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")])
def test_a_later_option_undoes_an_earlier_one(container: Container, asked: tuple[str, str]) -> None:
    container.mount("/mnt", "tmpfs", "tmpfs", *asked)
    assert asked[0] not in options(container, "/mnt")


@pytest.mark.parametrize("asked", ["ro", "nosuid", "nodev", "noexec", "noatime"])
def test_an_option_of_a_bind_mount(container: Container, source: Path, asked: str) -> None:
    container.mount("/mnt", "bind", source, "bind", asked)
    assert asked in line(container, "/mnt")[5].split(",")


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ("private", ""),
        ("rprivate", ""),
        pytest.param("shared", "shared:", marks=UNSHARED),
        pytest.param("rshared", "shared:", marks=UNSHARED),
        ("slave", "master:"),
        ("rslave", "master:"),
        pytest.param("unbindable", "unbindable", marks=UNSHARED),
        pytest.param("runbindable", "unbindable", marks=UNSHARED),
    ],
)
def test_propagation(container: Container, source: Path, asked: str, seen: str) -> None:
    """A slave has a master only where the host's mount is shared; crun's are private here."""
    if seen == "master:" and "unshare" in container.runtime.program:
        pytest.skip("shared mounts: this runtime has a mount namespace of its own here")
    container.mount("/mnt", "bind", source, "bind", asked)
    words = line(container, "/mnt")
    tags = words[6 : words.index("-", 6)]
    assert any(tag.startswith(seen) for tag in tags) if seen else not tags


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
    ],
)
def test_a_mount_of_the_kernels(container: Container, point: str, kind: str) -> None:
    words = line(container, point)
    assert words[words.index("-", 6) + 1] == kind


def test_devpts_is_an_instance_of_its_own(container: Container) -> None:
    assert container.says("ls /dev/pts") == "ptmx"


def test_the_cgroup_mount_shows_something_of_cgroups(container: Container) -> None:
    """The container's own part of the hierarchies that this machine has."""
    container.linux["namespaces"].append({"type": "cgroup"})
    container.mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
    rows = container.args("cat", "/proc/self/mountinfo").run().stdout.splitlines()
    below = [row for row in rows if row.split()[4].startswith("/sys/fs/cgroup")]
    assert any(" - cgroup" in row for row in below)


def test_the_roots_propagation_is_private_to_the_host(container: Container, source: Path) -> None:
    """What a container mounts is its own affair."""
    container.process["capabilities"] = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    container.linux["rootfsPropagation"] = "rslave"
    container.mount("/mnt", "bind", source, "bind")
    assert container.says("mount -t tmpfs tmpfs /mnt; stat -f -c %T /mnt") == "tmpfs"
    assert str(source) not in Path("/proc/self/mountinfo").read_text()
