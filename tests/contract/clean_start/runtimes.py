"""The same bundle under runc or crun and under minirt, told by the same words; minirt is a shim, told over a socket."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from minirt import paths
from minirt.oci.spec import Process
from minirt.shim import protocol
from minirt.shim.client import ShimClient
from minirt.shim.zygote import Zygote
from tests.peers import oci
from tests.peers.daemon import await_true


class Runtime(Protocol):
    """Starts a bundle's process, and further ones in its container; both return the host's pid once it is executed."""

    def start(self, bundle: Path) -> int: ...

    def execute(self, process: dict[str, Any]) -> int: ...


class Runc:
    """runc, or crun, with one container."""

    def __init__(self, directory: Path, name: str = "runc") -> None:
        self._name = name
        self._runc = {"runc": oci.runc, "crun": oci.crun}[name](directory / "state")
        self._directory = directory

    def start(self, bundle: Path) -> int:
        return self._pid_of("run", "--detach", "--bundle", bundle)

    def execute(self, process: dict[str, Any]) -> int:
        description = self._directory / "process.json"
        description.write_text(json.dumps(process))
        return self._pid_of("exec", "--detach", "--process", description)

    def _pid_of(self, *words: str | Path) -> int:
        pid_file = self._directory / "pid"
        done = self._runc.detached(*words, "--pid-file", pid_file, "clean")
        assert done.returncode == 0, done.stderr
        pid = int(pid_file.read_text())
        await_true(lambda: not Path(f"/proc/{pid}/comm").read_text().startswith(self._name), "the execve")
        return pid

    def close(self) -> None:
        self._runc("delete", "--force", "clean")


class Minirt:
    """A shim with one container, as the engine makes it."""

    def __init__(self) -> None:
        self._zygote = Zygote()
        (paths.sandbox_dir("clean")).mkdir(parents=True)
        (paths.container_dir("clean")).mkdir(parents=True)
        self._zygote.spawn_shim("clean")
        self._shim = ShimClient("clean")

    def start(self, bundle: Path) -> int:
        self._shim.call(protocol.Create(container="clean", bundle=str(bundle)))
        return int(self._shim.call(protocol.Start(container="clean"))["pid"])

    def execute(self, process: dict[str, Any]) -> int:
        with open(os.devnull, "r+b") as null:
            request = protocol.Exec(container="clean", session="one", process=msgspec.convert(process, Process))
            return int(self._shim.call(request, [null.fileno()] * 3)["pid"])

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._shim.call(protocol.Stop(container="clean", signal=9, grace_s=0))
        self._shim.call(protocol.Shutdown())
        self._shim.close()
        self._zygote.close()
        for path in sorted(paths.state_root().rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@contextlib.contextmanager
def one(name: str, directory: Path) -> Iterator[Runtime]:
    """Yield runc, crun or minirt; end what it started."""
    directory.mkdir()
    runtime: Runc | Minirt = Minirt() if name == "minirt" else Runc(directory, name)
    try:
        yield runtime
    finally:
        runtime.close()
