"""Warm exec: /bin/true in a container that runs, through its shim as the engine does it, and through ``crun exec``.

From the call to the exit reaped. Each has a container of its own of the same config.json, with docker's capabilities,
masks and seccomp profile, and the process has those of the container.
"""

import os
import shutil
from pathlib import Path

from msgspec import structs

from minirt import paths
from minirt.oci import spec
from minirt.shim import protocol
from minirt.shim.client import ShimClient
from minirt.shim.zygote import Zygote
from tests.bench.measure import Result, interleaved
from tests.bench.warm import Crun, make_bundle, no_cgroups_left

CGROUP = "/minirt-bench/exec"
NAME = "bench-exec"
SLEEP = ("/bin/sleep", "1000000")
COMMAND = "/bin/true"


class Ours:
    """A shim with a container that sleeps."""

    def __init__(self, zygote: Zygote, bundle: Path) -> None:
        paths.sandbox_dir(NAME).mkdir(parents=True)
        paths.container_dir(NAME).mkdir(parents=True)
        zygote.spawn_shim(NAME)
        self._shim = ShimClient(NAME)
        self._shim.call(protocol.Create(container=NAME, bundle=str(bundle), start=True))
        own = spec.load(bundle / "config.json").process
        self._process = structs.replace(own, args=(COMMAND,))
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._sessions = 0

    def __call__(self) -> None:
        self._sessions += 1
        session = f"s{self._sessions}"
        request = protocol.Exec(container=NAME, session=session, process=self._process)
        self._shim.call(request, [self._null] * 3)
        outcome = self._shim.call(protocol.Wait(container=NAME, session=session))
        assert outcome["exit_code"] == 0

    def close(self) -> None:
        os.close(self._null)
        self._shim.call(protocol.Stop(container=NAME, signal=9, grace_s=0))
        self._shim.call(protocol.Delete(container=NAME))
        self._shim.call(protocol.Shutdown())
        self._shim.close()
        shutil.rmtree(paths.container_dir(NAME))
        shutil.rmtree(paths.sandbox_dir(NAME))


def bench(place: Path, root: Path, zygote: Zygote, runs: int) -> Result:
    """Return the ratio of an exec through a shim to ``crun exec``."""
    bundles = {
        name: make_bundle(place / name, root, *SLEEP, cgroup=f"{CGROUP}/{name}", filtered=True)
        for name in ("ours", "crun")
    }
    start = ["run", "--detach", "--bundle", str(bundles["crun"]), NAME]
    end = ["delete", "--force", NAME]
    with no_cgroups_left(CGROUP):
        crun = Crun(Path("/run/crun"), start, end, ["exec", NAME, COMMAND])
        ours = Ours(zygote, bundles["ours"])
        try:
            crun.run(0)
            timings = interleaved({"minirt": ours, "crun": crun}, runs)
        finally:
            ours.close()
            crun.run(1)
            crun.close()
    return Result("warm exec in a container", "crun", timings["minirt"], timings["crun"], 0.6)
