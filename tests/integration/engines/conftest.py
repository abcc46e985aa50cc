"""Engines that drive an OCI runtime: podman and docker, each with its own and with minirt-oci, told the same words."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.peers import busybox, oci
from tests.peers.containerd import Containerd

MINIRT = oci.minirt(Path()).program[0]


@dataclass(frozen=True)
class Engine:
    """A docker-like command, and how it is told which runtime to use."""

    call: Callable[..., CompletedProcess[str]]
    runtime: tuple[str, ...]

    def __call__(self, *words: str | Path) -> CompletedProcess[str]:
        """Run ``docker words…`` to its end; podman takes its runtime before the verb."""
        return self.call(*words)

    def run(self, *words: str | Path, flags: tuple[str, ...] = ()) -> CompletedProcess[str]:
        """Run a container of busybox to its end and remove it."""
        return self.call("run", "--rm", *self.common(), *flags, busybox.NAME, *words)

    def common(self) -> tuple[str, ...]:
        """Return the flags that every container here has."""
        return (*self.runtime, "--network", "none")

    def background(self, *words: str, flags: tuple[str, ...] = ()) -> str:
        """Start a container of busybox and return its id."""
        return self.output("run", "--detach", *self.common(), *flags, busybox.NAME, *words)

    def output(self, *words: str | Path) -> str:
        """Run words that must succeed; return what they print."""
        done = self.call(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def inspect(self, container: str, form: str) -> str:
        """Return one field of a container."""
        return self.output("inspect", "--format", form, container)


@pytest.fixture(scope="module", params=["docker-runc", "docker-minirt", "podman-own", "podman-minirt"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """An engine with a runtime."""
    name, _, runtime = request.param.partition("-")
    if name == "docker":
        dockerd: Any = request.getfixturevalue("dockerd")
        return Engine(dockerd, ("--runtime", "minirt-oci") if runtime == "minirt" else ())
    podman: Any = request.getfixturevalue("podman")
    if runtime == "minirt":
        return Engine(lambda *words: podman("--runtime", MINIRT, *words), ())
    return Engine(podman, ())


@pytest.fixture(params=["runc", "minirt-oci"])
def chosen(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The flags that choose a runtime for ctr."""
    return ("--runc-binary", MINIRT if request.param == "minirt-oci" else "runc")


@pytest.fixture
def ctr(containerd: Containerd) -> Iterator[Containerd]:
    """A containerd without containers of ours, before and after."""
    yield containerd
    containerd("tasks", "delete", "--force", "one")
    containerd("containers", "delete", "one")
