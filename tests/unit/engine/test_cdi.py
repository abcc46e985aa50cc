"""CDI: vendors' files read, devices found in them, and what they add to a container. Nothing is made."""

import json
from pathlib import Path
from typing import Any

import pytest

from minirt.cgroups.resources import DeviceRule
from minirt.crimessages import api_pb2 as cri
from minirt.engine import cdi, messages
from minirt.engine.records import ContainerConfig
from minirt.errors import Conflict, InvalidInput, NotFound, Unsupported
from minirt.oci.hooks import Hook
from minirt.oci.spec import Device, Mount

CONFIG = ContainerConfig("main", "busybox", env=(("A", "own"),))
NODE = {"path": "/dev/vendor0", "type": "c", "major": 240, "minor": 3, "permissions": "rw", "gid": 7}
HOOK = {"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"], "timeout": 5}
EDITS = {
    "env": ["A=1", "B=x=y"],
    "deviceNodes": [NODE, {"path": "/dev/zero2", "hostPath": "/dev/zero", "fileMode": 384}],
    "mounts": [{"hostPath": "/usr/lib/x", "containerPath": "/lib/x", "options": ["ro", "nosuid"]}],
    "hooks": [HOOK],
    "additionalGids": [44],
}


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The static files' directory, and that of those which count more."""
    monkeypatch.setenv("MINIRT_CDI", f"{tmp_path}/etc:{tmp_path}/run")
    for name in ("etc", "run"):
        (tmp_path / name).mkdir()
    return tmp_path / "etc", tmp_path / "run"


def document(edits: dict[str, Any], kind: str = "vendor.com/gpu", **more: Any) -> str:
    device = {"name": "0", "containerEdits": edits}
    return json.dumps({"cdiVersion": "0.7.0", "kind": kind, "devices": [device]} | more)


def test_what_a_device_adds(directories: tuple[Path, Path]) -> None:
    (directories[0] / "v.json").write_text(document(EDITS, containerEdits={"env": ["ALL=1"]}))
    found = cdi.applied(CONFIG, ["vendor.com/gpu=0", "vendor.com/gpu=0"])
    assert found.env == (("A", "own"), ("ALL", "1"), ("A", "1"), ("B", "x=y"))
    assert found.devices[0] == Device("/dev/vendor0", "c", 240, 3, gid=7)
    zero = found.devices[1]
    assert (zero.path, zero.major, zero.minor, zero.file_mode) == ("/dev/zero2", 1, 5, 0o600)
    assert found.resources.devices == (DeviceRule(True, "c", 240, 3, "rw"), DeviceRule(True, "c", 1, 5, "rwm"))
    assert found.mounts == (Mount("/lib/x", "bind", "/usr/lib/x", ("rbind", "ro", "nosuid")),)
    assert found.hooks == (Hook("/bin/hook", ("hook", "x"), (), 5),)
    assert found.security.groups == (44,)


def test_yaml_and_the_directory_that_counts_more(directories: tuple[Path, Path]) -> None:
    (directories[0] / "v.json").write_text(document({"env": ["FROM=etc"]}))
    (directories[1] / "v.yaml").write_text(
        "cdiVersion: 0.5.0\nkind: vendor.com/gpu\ndevices: [{name: '0', containerEdits: {env: [FROM=run]}}]\n"
    )
    assert cdi.applied(CONFIG, ["vendor.com/gpu=0"]).env[-1] == ("FROM", "run")


def test_two_files_of_one_directory_conflict(directories: tuple[Path, Path]) -> None:
    for name in ("a.json", "b.json"):
        (directories[0] / name).write_text(document({}))
    with pytest.raises(Conflict, match="both have it"):
        cdi.applied(CONFIG, ["vendor.com/gpu=0"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "v.json: Input data was truncated"),
        (document({"enw": []}), "unknown field `enw` - at `$.devices[0].containerEdits`"),
        (document({}, cdiVersion="2.0.0"), "its cdiVersion 2.0.0 is none of"),
        (document({}, kind="gpu"), "is not VENDOR/CLASS"),
        (document({}, kind="vendor.com/nic"), "no file in"),
    ],
)
def test_a_device_that_no_file_has(directories: tuple[Path, Path], text: str, said: str) -> None:
    (directories[0] / "v.json").write_text(text)
    (directories[0] / "notes.txt").write_text("not CDI's")
    with pytest.raises(NotFound) as refused:
        cdi.applied(CONFIG, ["vendor.com/gpu=0"])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"hooks": [HOOK | {"hookName": "poststop"}]}, "a hook at poststop"),
        ({"intelRdt": {"closID": "x"}}, "it needs intelRdt"),
        ({"netDevices": [{"hostInterfaceName": "eth1", "name": "eth0"}]}, "it needs netDevices"),
    ],
)
def test_what_minirt_cannot_do_is_refused(directories: tuple[Path, Path], edits: dict[str, Any], said: str) -> None:
    (directories[0] / "v.json").write_text(document(edits))
    with pytest.raises(Unsupported, match=said):
        cdi.applied(CONFIG, ["vendor.com/gpu=0"])


@pytest.mark.parametrize("name", ["gpu=0", "vendor.com/gpu", "vendor.com/gpu=", "vendor.com/gpu=-", "/dev/x=0"])
def test_what_is_no_name(directories: tuple[Path, Path], name: str) -> None:
    with pytest.raises(InvalidInput, match="VENDOR/CLASS=NAME"):
        cdi.applied(CONFIG, [name])


def test_a_kubelet_names_devices_in_the_field_or_in_annotations(directories: tuple[Path, Path]) -> None:
    (directories[0] / "v.json").write_text(document({"env": ["GPU=0"]}))
    names = {"cdi.k8s.io/plugin_x": "vendor.com/gpu=0", "other": "vendor.com/gpu=1"}
    fields: list[dict[str, Any]] = [{"CDI_devices": [cri.CDIDevice(name="vendor.com/gpu=0")]}, {"annotations": names}]
    for one in fields:
        config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="x"), **one)
        assert messages.container_config(config, "").env == (("GPU", "0"),)
