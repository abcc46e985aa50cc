"""Cold start of an OCI runtime: ``minirt-oci run`` of /bin/true and ``runc run``, from the call to its end.

Both are given the same config.json, with docker's capabilities, masks and seccomp profile, and a cgroup; each is a
process of its own, as podman and containerd call it, and leaves nothing.
"""

import subprocess
from pathlib import Path

from minirt.shim.zygote import Zygote
from tests import leaks
from tests.bench.measure import Result, interleaved
from tests.bench.warm import make_bundle, no_cgroups_left
from tests.peers import oci
from tests.peers.daemon import remove_cgroups
from tests.peers.oci import Runtime

PARENT = "minirt-bench-oci"
CGROUP = f"/{PARENT}"


def bench(place: Path, root: Path, zygote: Zygote, runs: int) -> Result:
    """Return the ratio of a cold ``minirt-oci run`` to ``runc run``."""
    bundle = make_bundle(place / "bundle", root, cgroup=f"{CGROUP}/one", filtered=True)
    ours, theirs = oci.minirt(place / "ours"), oci.runc(place / "theirs")
    with no_cgroups_left(CGROUP):
        try:
            timings = interleaved({"minirt": lambda: _run(ours, bundle), "runc": lambda: _run(theirs, bundle)}, runs)
        finally:
            if set(leaks.cgroup_mounts()) - set(leaks.cgroup2_tops()):
                remove_cgroups(PARENT)
    return Result("cold run by an OCI runtime", "runc", timings["minirt"], timings["runc"], 1.0)


def _run(runtime: Runtime, bundle: Path) -> None:
    command = runtime.command("run", "--bundle", bundle, "bench")
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
