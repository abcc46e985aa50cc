import pytest

from minirt.errors import Unsupported
from minirt.linux import mount
from minirt.linux.mount import MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from minirt.oci.options import MountOptions, parse


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), MountOptions()),
        (("ro", "nosuid"), MountOptions(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)),
        (("ro", "rw"), MountOptions()),
        (("nodev", "suid", "dev", "nosuid"), MountOptions(MOUNT_ATTR_NOSUID)),
        (("strictatime", "noatime"), MountOptions(MOUNT_ATTR_NOATIME)),
        (("noatime", "relatime"), MountOptions()),
        (("defaults", "nodev"), MountOptions(MOUNT_ATTR_NODEV)),
        (("size=64m", "huge"), MountOptions(data=(("size", "64m"), ("huge", None)))),
        (("mode=a=b",), MountOptions(data=(("mode", "a=b"),))),
        (("bind",), MountOptions(bind=True)),
        (("rbind", "ro"), MountOptions(MOUNT_ATTR_RDONLY, bind=True, recursive=True)),
        (("rbind", "rslave"), MountOptions(bind=True, recursive=True, propagation=mount.MS_SLAVE)),
        (("bind", "shared", "rprivate"), MountOptions(bind=True)),
    ],
)
def test_sorted_into_what_the_kernel_wants(options: tuple[str, ...], found: MountOptions) -> None:
    assert parse(options, "x") == found


@pytest.mark.parametrize("options", [("tmpcopyup",), ("ro", "idmap"), ("rbind", "size=1"), ("bind", "sync")])
def test_refused_by_name(options: tuple[str, ...]) -> None:
    with pytest.raises(Unsupported, match=f"{options[-1]}.*") as refusal:
        parse(options, "mounts[3].options")
    assert "mounts[3].options" in str(refusal.value)
