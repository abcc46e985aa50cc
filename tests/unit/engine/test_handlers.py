"""Runtime handlers: which there are, and what they can do."""

from pathlib import Path

import pytest

from minirt.engine import handlers
from minirt.engine.records import ContainerConfig, ImageVolume, SandboxConfig, Volume
from minirt.errors import NotFound, Unsupported


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a runc that knows rro, and a crun too old to say what it knows."""
    for name, script in (("runc", """echo '{"mountOptions": ["ro", "rro"]}'"""), ("crun", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_those_are_offered_that_are_installed(installed: Path) -> None:
    assert handlers.installed() == ("runc", "crun")
    (installed / "crun").unlink()
    assert handlers.installed() == ("runc",)
    assert handlers.program("runc") == str(installed / "runc")
    assert (handlers.program(""), handlers.program("minirt")) == ("", "")


@pytest.mark.parametrize(("name", "why"), [("kata", "there are minirt, runc"), ("crun", "not installed")])
def test_others_are_refused(installed: Path, name: str, why: str) -> None:
    (installed / "crun").unlink()
    with pytest.raises(NotFound, match=why):
        handlers.program(name)


def test_a_runtime_is_asked_what_it_can_do(installed: Path) -> None:
    assert handlers.features("runc").recursive_read_only_mounts
    assert not handlers.features("crun").recursive_read_only_mounts
    assert handlers.features("minirt").user_namespaces
    assert not handlers.features("minirt", maps_ids=False).user_namespaces


def test_what_would_not_be_as_asked_is_refused(installed: Path) -> None:
    pod = SandboxConfig("web", "uid", handler="runc", uid_map=((0, 1_000_000, 65_536),))
    with pytest.raises(Unsupported, match="map its ids"):
        handlers.check_sandbox(pod)
    container = ContainerConfig("main", "image", volumes=(Volume("/a", "/b", readonly=True, recursive=True),))
    handlers.check_container("runc", container)
    with pytest.raises(Unsupported, match="recursive"):
        handlers.check_container("crun", container)
    mounts_image = ContainerConfig("main", "image", images=(ImageVolume("image", "/b"),))
    handlers.check_container("minirt", mounts_image)
    with pytest.raises(Unsupported, match="mount an image"):
        handlers.check_container("runc", mounts_image)
