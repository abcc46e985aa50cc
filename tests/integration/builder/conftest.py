"""Fixtures for builds: a directory to build from, and a minirt that has busybox."""

from pathlib import Path

import pytest

from tests.command import Minirt


class Context:
    """A directory to build from."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir()

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file, with the directories above it."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def dockerfile(self, text: str) -> "Context":
        """Write the Dockerfile; what its lines have in common before them is left out."""
        import textwrap

        self.write("Dockerfile", textwrap.dedent(text).strip() + "\n")
        return self


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(tmp_path / "context")


@pytest.fixture
def builder(minirt: Minirt, busybox: str) -> Minirt:
    """A minirt with localhost/busybox."""
    assert busybox == "localhost/busybox"
    return minirt
