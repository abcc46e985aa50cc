"""Warm start: the same config.json through a shim that is there already, and through ``crun run``.

From the call to the exit reaped and the state removed. Both have new mount, PID, network, IPC, UTS and cgroup
namespaces, the fourteen capabilities, the masks, and a cgroup. Where this machine's cgroups are hybrid, crun works in a
mount namespace in which it sees cgroup v2 alone; it is entered once, before anything is timed. What crun cannot do
there (limits, raised rlimits) is left out for both.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from minirt import paths
from minirt.linux import mount, process
from minirt.security import conditional, syscalls
from minirt.security.capabilities import DEFAULT
from minirt.shim import protocol
from minirt.shim.client import ShimClient
from minirt.shim.zygote import Zygote
from tests.bench.measure import Result, interleaved
from tests.peers import oci

CGROUP = "/minirt-bench/warm"


def make_bundle(
    directory: Path, root: Path, *command: str, cgroup: str = f"{CGROUP}/one", filtered: bool = False
) -> Path:
    """Make the bundle that both run: /bin/true (or ``command``), as docker has it: capabilities, masks, mounts, HOME.

    ``filtered`` adds the default seccomp profile, as docker's hardening has it.
    """
    oci.bundle(directory, root, *(command or ("/bin/true",)), hostname="bench")
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    config["process"]["capabilities"] = {kind: list(DEFAULT) for kind in ("bounding", "effective", "permitted")}
    kinds = ("mount", "pid", "network", "ipc", "uts", "cgroup")
    config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
    config["linux"]["cgroupsPath"] = cgroup
    config["process"]["env"].append("HOME=/root")
    if filtered:
        found = conditional.resolve(syscalls.default_profile(), DEFAULT, conditional.here())
        config["linux"]["seccomp"] = msgspec.to_builtins(found)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


class Ours:
    """A shim that runs one container after another."""

    def __init__(self, zygote: Zygote, bundle: Path) -> None:
        self._bundle = str(bundle)
        (paths.sandbox_dir("bench")).mkdir(parents=True)
        zygote.spawn_shim("bench")
        self._shim = ShimClient("bench")

    def __call__(self) -> None:
        directory = paths.container_dir("bench")
        directory.mkdir(parents=True)
        self._shim.call(protocol.Create(container="bench", bundle=self._bundle, start=True))
        outcome = self._shim.call(protocol.Wait(container="bench"))
        self._shim.call(protocol.Delete(container="bench"))
        shutil.rmtree(directory)
        assert outcome["exit_code"] == 0

    def close(self) -> None:
        self._shim.call(protocol.Shutdown())
        self._shim.close()
        shutil.rmtree(paths.sandbox_dir("bench"))


class Crun:
    """``crun WORDS…`` in a process that sees cgroup v2 at /sys/fs/cgroup, told to go over a pipe.

    There may be several lists of words; calling it runs the last, ``run(number)`` another.
    """

    def __init__(self, state: Path, *lists: list[str]) -> None:
        self._commands = [["crun", "--root", str(state), *words] for words in lists]
        self._go_r, self._go_w = os.pipe()
        self._done_r, self._done_w = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._serve()

    def _serve(self) -> None:
        code = 1
        try:
            os.close(self._go_w)
            if oci.is_hybrid():
                process.unshare(process.CLONE_NEWNS)
                mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
                mount.mount("none", "/sys/fs/cgroup", "cgroup2", 0)
            while number := os.read(self._go_r, 1):
                command = self._commands[number[0]]
                code = subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode
                os.write(self._done_w, bytes([code]))
            code = 0
        finally:
            os._exit(code)

    def __call__(self) -> None:
        self.run(len(self._commands) - 1)

    def run(self, number: int) -> None:
        os.write(self._go_w, bytes([number]))
        assert os.read(self._done_r, 1) == b"\0", "crun failed"

    def close(self) -> None:
        os.close(self._go_w)
        os.waitpid(self._pid, 0)


@contextlib.contextmanager
def no_cgroups_left(cgroup: str) -> Iterator[None]:
    from minirt.cgroups import lifecycle, tree

    try:
        yield
    finally:
        lifecycle.end(tree.find().at(cgroup))


def bench(place: Path, root: Path, zygote: Zygote, runs: int) -> Result:
    """Return the ratio of a warm start to ``crun run``."""
    bundle = make_bundle(place / "bundle", root)
    with no_cgroups_left(CGROUP):
        crun = Crun(Path("/run/crun"), ["run", "--bundle", str(bundle), "bench"])
        ours = Ours(zygote, bundle)
        try:
            timings = interleaved({"minirt": ours, "crun": crun}, runs)
        finally:
            ours.close()
            crun.close()
    return Result("warm start of a container", "crun", timings["minirt"], timings["crun"], 1.0)
