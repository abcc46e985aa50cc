"""What a spec may say and minirt does not do: refused by its place, or a warning; what says nothing passes."""

from typing import Any

import msgspec
import pytest

from minirt.errors import InvalidInput, Unsupported
from minirt.oci import refusals
from minirt.oci.spec import Spec


def spec(process: dict[str, Any] | None = None, linux: dict[str, Any] | None = None, **top: Any) -> Spec:
    content = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}} | top
    return msgspec.convert(content | {"process": {"args": ["a"]} | (process or {}), "linux": linux or {}}, Spec)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("windows", spec(windows={})),
        ("solaris", spec(solaris={})),
        ("vm", spec(vm={"kernel": {}})),
        ("zos", spec(zos={})),
        ("process.commandLine", spec({"commandLine": "cmd"})),
        ("process.user.username", spec({"user": {"username": "ContainerUser"}})),
        ("linux.intelRdt", spec(linux={"intelRdt": {"closID": "x"}})),
        ("linux.netDevices", spec(linux={"netDevices": {"eth0": {}}})),
        ("linux.memoryPolicy", spec(linux={"memoryPolicy": {"mode": "MPOL_BIND"}})),
        ("linux.personality.flags", spec(linux={"personality": {"domain": "LINUX", "flags": ["x"]}})),
    ],
)
def test_refused_by_its_place(field: str, found: Spec) -> None:
    with pytest.raises(Unsupported, match=rf"cannot use {field}: .*leave it out"):
        refusals.check(found)


def test_a_version_to_come_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"ociVersion is '2\.0\.0'"):
        refusals.check(spec(ociVersion="2.0.0"))


def test_what_says_nothing_passes() -> None:
    empty = {"mountLabel": "", "netDevices": {}, "timeOffsets": {}, "personality": {"domain": "LINUX"}}
    found = spec({"commandLine": "", "apparmorProfile": "", "selinuxLabel": "", "execCPUAffinity": {}}, empty)
    refusals.check(found)
    assert list(refusals.warnings(found)) == []


def test_what_is_left_out_is_warned_of() -> None:
    found = spec(
        linux={"mountLabel": "system_u:object_r:container_file_t:s0"}, mounts=[{"destination": "data", "type": "tmpfs"}]
    )
    assert list(refusals.warnings(found)) == [
        "linux.mountLabel system_u:object_r:container_file_t:s0 is ignored: minirt labels no mounts",
        "mounts[0].destination data is relative: it is taken from the container's /",
    ]
