import json
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import InvalidInput
from minirt.oci import spec as specs
from minirt.oci.spec import Mount, Process, Root, Spec

LEAST = {"ociVersion": "1.2.0", "process": {"args": ["true"]}, "root": {"path": "rootfs"}}


def loaded(directory: Path, content: Any) -> Spec:
    (directory / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return specs.load(directory / "config.json")


def test_the_least(tmp_path: Path) -> None:
    found = loaded(tmp_path, LEAST)
    assert found == Spec("1.2.0", Process(("true",)), Root("rootfs"))
    assert found.process.user.umask is None


def test_there_and_back(tmp_path: Path) -> None:
    spec = Spec("1.2.0", Process(("a",), env=("A=b",)), Root("r", True), mounts=(Mount("/x", "tmpfs", "y", ("ro",)),))
    specs.save(spec, tmp_path / "config.json")
    assert specs.load(tmp_path / "config.json") == spec
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(specs.as_plain(spec)))


def test_a_mount_is_its_own_cause() -> None:
    assert Mount("/data").cause == "mounts /data"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"hooks": {"prestart": [{}]}}, r"\$.hooks.prestart\[0\]"),
        ({"linux": {"seccomp": {}}}, r"defaultAction.*\$.linux.seccomp"),
        (
            {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_X"}}},
            r"SCMP_ACT_X.*\$.linux.seccomp.defaultAction",
        ),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG", "listenerPath": 1}}}, "listenerPath"),
        ({"linux": {"namespaces": [{"type": "users"}]}}, r"\$.linux.namespaces\[0\].type"),
        ({"linux": {"devices": [{"path": "/dev/x", "type": "z"}]}}, r"\$.linux.devices\[0\].type"),
        ({"linux": {"rootfsPropagation": "sharing"}}, r"\$.linux.rootfsPropagation"),
        ({"linux": {"uidMappings": [{"containerID": 0}]}}, r"\$.linux.uidMappings\[0\]"),
        (
            {"linux": {"resources": {"devices": [{"allow": True, "type": "p"}]}}},
            r"\$.linux.resources.devices\[0\].type",
        ),
        ({"linux": {"resources": {"devices": [{"type": "c"}]}}}, "allow"),
        ({"process": {"args": "true"}}, r"\$.process.args"),
        ({"root": {}}, "path"),
        ({"mounts": [{"type": "proc"}]}, r"\$.mounts\[0\]"),
    ],
)
def test_what_is_wrong_or_not_offered_is_named(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidInput, match=where):
        loaded(tmp_path, LEAST | change)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"ociVersion": 1}', "\udc00".encode(errors="surrogatepass").decode("latin1")]
)
def test_no_specification_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"config\.json"):
        loaded(tmp_path, text)


def test_a_bundle_without_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a bundle holds"):
        specs.load(tmp_path / "config.json")
