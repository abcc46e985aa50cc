"""Device nodes that are asked for, as specs have them; the null device and the terminal's are on every machine."""

import os
import stat
from pathlib import Path

import pytest

from minirt.cgroups.devices import ALLOW_ALL
from minirt.cgroups.resources import DeviceRule, Resources
from minirt.crimessages import api_pb2 as cri
from minirt.engine.compile import device_rules
from minirt.engine.devices import DEFAULT_RULES, devices_at, host_devices, rules_for
from minirt.engine.messages import container_config
from minirt.engine.records import ContainerConfig, Security
from minirt.errors import InvalidInput
from minirt.oci.spec import Device


def null_at(path: str) -> Device:
    about = os.stat("/dev/null")
    return Device(path, "c", 1, 3, stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid)


def test_a_node_keeps_numbers_mode_and_owner_under_its_new_name() -> None:
    assert devices_at("/dev/null", "/dev/other") == (null_at("/dev/other"),)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    assert devices_at(f"{tmp_path}/link", "/dev/it") == (null_at("/dev/it"),)


def test_a_directory_is_what_is_below_it() -> None:
    found = {device.path: device for device in devices_at("/dev", "/dev/hosts")}
    assert found["/dev/hosts/null"] == null_at("/dev/hosts/null")
    assert found.keys() >= {f"/dev/hosts/{device.path.removeprefix('/dev/')}" for device in host_devices()}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent", "No such file or directory"),
        ("file", "it is no device"),
        ("empty", "no device is in that directory"),
    ],
)
def test_what_is_no_device(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=said):
        devices_at(f"{tmp_path}/{name}", "/dev/x")


def test_rules_are_of_each_node() -> None:
    nodes = (null_at("/dev/a"), Device("/dev/b", "b", 8, 1))
    assert rules_for(nodes, "rw") == (DeviceRule(True, "c", 1, 3, "rw"), DeviceRule(True, "b", 8, 1, "rw"))


def test_a_containers_own_come_behind_those_of_every_container() -> None:
    own = (DeviceRule(True, "c", 10, 229, "rw"),)
    config = ContainerConfig("one", "image", resources=Resources(devices=own))
    assert device_rules(config) == (*DEFAULT_RULES, *own)
    privileged = ContainerConfig("one", "image", resources=Resources(devices=own), security=Security(privileged=True))
    assert device_rules(privileged) == (ALLOW_ALL,)


def test_the_cris_devices_and_their_permissions() -> None:
    asked = cri.Device(container_path="/dev/n", host_path="/dev/null", permissions="r")
    config = container_config(cri.ContainerConfig(metadata=cri.ContainerMetadata(name="x"), devices=[asked]), "")
    assert config.devices == (null_at("/dev/n"),)
    assert config.resources.devices == (DeviceRule(True, "c", 1, 3, "r"),)
    asked = cri.Device(container_path="/dev/n", host_path="/dev/null")
    assert (
        container_config(cri.ContainerConfig(metadata=cri.ContainerMetadata(name="x"), devices=[asked]), "")
        .resources.devices[0]
        .access
        == "rwm"
    )
