"""Fixtures for registries: an image to give and take, settings and credentials of the test's own."""

import os
from pathlib import Path

import pytest

from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, directory, entry, layer

NAME = "localhost/made:1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with no credentials, and a directory for settings; no proxies."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    top = tmp_path / "home"
    (top / "certs.d").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(top))
    monkeypatch.setenv("MINIRT_REGISTRIES", str(top / "certs.d"))
    return top


@pytest.fixture
def minirt(tmp_path: Path) -> Minirt:
    return Minirt(tmp_path / "store", tmp_path / "state")


@pytest.fixture
def made(tmp_path: Path, minirt: Minirt) -> ImageStore:
    """A store with an image of three layers, of which one is large enough to be interrupted."""
    (tmp_path / "layout").mkdir()
    layers = [layer(directory("etc"), entry("etc/issue", b"here")), layer(entry("big", os.urandom(3_000_000)))]
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image([*layers, layer(entry("etc/.wh.issue"))], Cmd=["/bin/true"]), NAME)
    store = ImageStore(minirt.root)
    store.load(layout.top)
    return store
