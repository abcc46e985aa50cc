import pytest

from minirt.errors import Unsupported
from minirt.linux import mount
from minirt.linux.mount import MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC
from minirt.linux.mount import MOUNT_ATTR_NOSUID as NOSUID
from minirt.linux.mount import MOUNT_ATTR_RDONLY as RDONLY
from minirt.oci.options import ATIME, Attributes, MountOptions, parse

REC = mount.MS_REC


def own(given: int, taken: int = 0) -> MountOptions:
    return MountOptions(Attributes(given, taken))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), MountOptions()),
        (("ro", "nosuid"), own(RDONLY | NOSUID)),
        (("ro", "rw"), own(0, RDONLY)),
        (("rw", "ro"), own(RDONLY)),
        (("nodev", "suid", "dev", "nosuid"), own(NOSUID, MOUNT_ATTR_NODEV)),
        (("strictatime", "noatime"), own(MOUNT_ATTR_NOATIME, ATIME)),
        (("noatime", "relatime"), own(0, ATIME)),
        (("nodiratime",), own(MOUNT_ATTR_NODIRATIME)),
        (("defaults", "silent", "nodev"), own(MOUNT_ATTR_NODEV)),
        (("rro", "rexec"), MountOptions(below=Attributes(RDONLY, MOUNT_ATTR_NOEXEC))),
        (("rro", "ro", "rrw"), MountOptions(Attributes(RDONLY), Attributes(0, RDONLY))),
        (("size=64m", "huge"), MountOptions(data=(("size", "64m"), ("huge", None)))),
        (("mode=a=b",), MountOptions(data=(("mode", "a=b"),))),
        (("bind",), MountOptions(bind=True)),
        (("rbind", "ro"), MountOptions(Attributes(RDONLY), bind=True, recursive=True)),
        (("rbind", "rslave"), MountOptions(bind=True, recursive=True, propagation=mount.MS_SLAVE | REC)),
        (("bind", "shared", "private"), MountOptions(bind=True, propagation=mount.MS_PRIVATE)),
        (("unbindable",), MountOptions(propagation=mount.MS_UNBINDABLE)),
        (("tmpcopyup",), MountOptions(copy_up=True)),
        (("bind", "idmap"), MountOptions(bind=True, idmap="idmap")),
        (("rbind", "idmap", "ridmap"), MountOptions(bind=True, recursive=True, idmap="ridmap")),
    ],
)
def test_sorted_into_what_the_kernel_wants(options: tuple[str, ...], found: MountOptions) -> None:
    assert parse(options, "x") == found


@pytest.mark.parametrize(
    "options", [("remount",), ("rbind", "size=1"), ("bind", "sync"), ("bind", "tmpcopyup"), ("ro", "remount")]
)
def test_refused_by_name(options: tuple[str, ...]) -> None:
    with pytest.raises(Unsupported, match=f"{options[-1]}.*") as refusal:
        parse(options, "mounts[3].options")
    assert "mounts[3].options" in str(refusal.value)


def test_a_mount_of_type_bind_is_one_without_the_option() -> None:
    assert parse(("ro",), "x", bind=True) == MountOptions(Attributes(RDONLY), bind=True)
    with pytest.raises(Unsupported, match="size"):
        parse(("size=1",), "x", bind=True)
