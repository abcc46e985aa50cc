"""A bundle run to its end by minirt, runc or crun, told by one call; minirt is a shim, asked over its socket."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from minirt import paths
from minirt.errors import MinirtError
from minirt.oci.spec import Process
from minirt.shim import protocol
from minirt.shim.client import ShimClient
from minirt.shim.zygote import Zygote
from tests.peers import oci

Change = Callable[[dict[str, Any]], None]


class Ran(NamedTuple):
    """What came of a bundle: exit code, what the program wrote, and what the runtime said of it."""

    code: int
    out: str
    said: str


class Shim:
    """A shim; each bundle is a container of its own in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._zygote = Zygote()
        paths.sandbox_dir("fields").mkdir(parents=True)
        self._zygote.spawn_shim("fields")
        self._shim = ShimClient("fields")
        self._names: list[str] = []

    def start(self, bundle: Path) -> int:
        """Start a bundle; return the host's pid of its process."""
        name = f"fields{len(self._names)}"
        paths.container_dir(name).mkdir(parents=True)
        self._names.append(name)
        log = str(self._directory / f"{name}.log")
        self.warnings = self._shim.call(protocol.Create(container=name, bundle=str(bundle), log_path=log))["warnings"]
        return int(self._shim.call(protocol.Start(container=name))["pid"])

    def run(self, bundle: Path) -> Ran:
        try:
            self.start(bundle)
        except MinirtError as error:
            return Ran(error.exit_code, "", str(error))
        code = self._shim.call(protocol.Wait(container=self._names[-1]))["exit_code"]
        lines = (self._directory / f"{self._names[-1]}.log").read_text().splitlines()
        return Ran(code, "".join(line.split(" ", 3)[3] + "\n" for line in lines), "\n".join(self.warnings))

    def execute(self, process: dict[str, Any]) -> int:
        """Execute a process in the container that was started last; return its pid."""
        with open(os.devnull, "r+b") as null:
            request = protocol.Exec(container=self._names[-1], session="one", process=msgspec.convert(process, Process))
            return int(self._shim.call(request, [null.fileno()] * 3)["pid"])

    def close(self) -> None:
        for name in self._names:
            with contextlib.suppress(MinirtError):
                self._shim.call(protocol.Stop(container=name, signal=9, grace_s=0))
        self._shim.call(protocol.Shutdown())
        self._shim.close()
        self._zygote.close()
        for path in sorted(paths.state_root().rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@contextlib.contextmanager
def shim(directory: Path) -> Iterator[Shim]:
    """Yield a shim; end it and what it runs."""
    one = Shim(directory)
    try:
        yield one
    finally:
        one.close()


def bundle(directory: Path, root: Path, change: Change, *command: str) -> Path:
    """Make a bundle of ``runc spec``'s configuration, changed, with a copy of ``root`` that may be written to."""
    own = directory.with_name(f"{directory.name}-root")
    shutil.copytree(root, own, symlinks=True)
    made = oci.bundle(directory, own, *command)
    config: dict[str, Any] = json.loads((made / "config.json").read_text())
    change(config)
    (made / "config.json").write_text(json.dumps(config))
    return made


def run(name: str, directory: Path, root: Path, change: Change, *command: str) -> Ran:
    """Run ``command`` in ``root`` by the runtime ``name``."""
    made = bundle(directory / "bundle", root, change, *command)
    if name == "minirt":
        with shim(directory) as ours:
            return ours.run(made)
    done = {"runc": oci.runc, "crun": oci.crun}[name](directory / "state")("run", "--bundle", made, "fields")
    return Ran(done.returncode, done.stdout, done.stderr)
