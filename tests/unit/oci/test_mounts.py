"""One entry of ``mounts`` to one operation."""

from typing import Any

import msgspec
import pytest

from minirt.errors import InvalidInput, Unsupported
from minirt.linux.mount import MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MS_PRIVATE, MS_REC, MS_SHARED
from minirt.namespaces.layers import MountLayers
from minirt.namespaces.mounts import BindMount, MountFilesystem
from minirt.oci.mounts import compile_mount
from minirt.oci.spec import Mount

IDS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
LINE = ((0, 100000, 65536),)


def made(host_cgroups: str = "", **fields: Any) -> Any:
    return compile_mount(msgspec.convert({"destination": "/x", **fields}, Mount), "mounts[2]", "/bundle", host_cgroups)


def bound(*options: str, **fields: Any) -> Any:
    return made(source="/srv", options=["rbind", *options], **fields)


def test_a_bind_takes_and_gives() -> None:
    assert bound("ro", "exec") == BindMount("/srv", "/x", MOUNT_ATTR_RDONLY, cause="mounts /x", taken=8)


def test_a_bind_without_propagation_is_private_all_the_way_down() -> None:
    assert bound().propagation == MS_PRIVATE | MS_REC
    assert bound("rshared").propagation == MS_SHARED | MS_REC
    assert bound("shared").propagation == MS_SHARED


def test_a_relative_source_is_the_bundles_and_a_relative_destination_the_roots() -> None:
    operation = made(destination="a/b", source="files", type="bind")
    assert (operation.source, operation.target, operation.recursive) == ("/bundle/files", "/a/b", False)
    assert made(destination="a", type="proc").target == "/a"


def test_the_recursive_family() -> None:
    assert bound("rro", "rexec").describe() == "mount --rbind /srv /x -o rro,rexec"
    assert made(type="tmpfs", options=["rro"]).attributes == MOUNT_ATTR_RDONLY


def test_ids() -> None:
    assert bound("idmap", uidMappings=IDS, gidMappings=IDS).uid_map == LINE
    assert bound(uidMappings=IDS, gidMappings=IDS).describe() == "mount --rbind /srv /x -o idmap"
    assert bound("ridmap", "ro", uidMappings=IDS, gidMappings=IDS).describe() == "mount --rbind /srv /x -o ro,ridmap"


def test_a_file_systems_own() -> None:
    assert made(type="tmpfs", source="t", options=["tmpcopyup", "size=1m", "shared"]) == MountFilesystem(
        "tmpfs", "t", "/x", 0, (("size", "1m"),), "mounts /x", copy_up=True, propagation=MS_SHARED
    )


def test_cgroups() -> None:
    assert made(type="cgroup", source="cgroup").fstype == "cgroup2"
    assert made("/sys/fs/cgroup", type="cgroup", options=["ro", "nosuid"]).describe() == (
        "mount --rbind /sys/fs/cgroup /x -o ro,nosuid"
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"type": "bind"}, "without a source"),
        ({"source": "/srv"}, "no type"),
        ({"type": "tmpfs", "options": ["idmap"]}, "only a bind"),
        ({"type": "tmpfs", "uidMappings": IDS}, "only a bind"),
        ({"type": "proc", "options": ["tmpcopyup"]}, "for tmpfs, not for proc"),
        ({"type": "bind", "source": "/s", "options": ["idmap"]}, "both uidMappings and gidMappings"),
        ({"type": "bind", "source": "/s", "uidMappings": IDS}, "both uidMappings and gidMappings"),
        ({"type": "bind", "source": "/s", "options": ["tmpcopyup"]}, "tmpcopyup"),
    ],
)
def test_refused_by_its_place(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=rf"mounts\[2\].*{why}"):
        made(**fields)


LAYERS = ["lowerdir+=/a=b", "lowerdir+=/c,d"]


def test_layers_and_a_part_of_them() -> None:
    options = ["nosuid", *LAYERS, "X-mount.subdir=etc/x"]
    assert made(type="overlay", options=options) == MountLayers(
        ("/a=b", "/c,d"), "/x", "etc/x", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, cause="mounts /x"
    )
    assert isinstance(made(type="overlay", options=[*LAYERS, "upperdir=/u", "workdir=/w"]), MountFilesystem)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("tmpfs", ["X-mount.subdir=a"]), ("overlay", [*LAYERS, "rshared"]), ("none", ["bind", *LAYERS])],
)
def test_what_layers_cannot_have(kind: str, options: list[str]) -> None:
    with pytest.raises(Unsupported):
        made(type=kind, source="/x", options=options)
