"""Fixtures for images: a store of the test's own, and a way into a real registry."""

from pathlib import Path

import pytest

from minirt.images.store import ImageStore
from tests.integration.images.making import Layout
from tests.peers.daemon import output
from tests.peers.registry import Registry


class Push:
    """Push layouts into the registry with skopeo, each under a repository of its own."""

    def __init__(self, registry: Registry) -> None:
        self.host = registry.address
        self._count = 0

    def __call__(self, layout: Layout, tag: str = "latest", *, docker: bool = False) -> str:
        """Return the full name under which a registry now has what ``layout`` has as ``tag``."""
        self._count += 1
        name = f"{self.host}/{layout.top.parent.name.lower()}/{self._count}:{tag}"
        kind = ["--format", "v2s2"] if docker else ["--preserve-digests"]
        output(
            "skopeo", "copy", "--all", *kind, "--dest-tls-verify=false", f"oci:{layout.top}:{tag}", f"docker://{name}"
        )
        return name


@pytest.fixture
def push(registry: Registry) -> Push:
    return Push(registry)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "layout").mkdir()
    return Layout(tmp_path / "layout")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")
