"""What a test needs of this machine, probed; and MINIRT_REQUIRE, with which a missing thing is a failure.

A test says what it needs by a marker (``root``, ``vm``, ``needs("crun", "strace")``) and is skipped, with the reason,
where a probe does not find it. In a place that is known to have it, a skip would be a hole in the tests:
``MINIRT_REQUIRE=cgroup2,crun`` turns each skip for want of those into a failure.
"""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests import leaks

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
Reason = str | None


def no_root() -> Reason:
    """Return why root tests cannot run."""
    return None if os.geteuid() == 0 else "root: not root"


def no_controllers() -> Reason:
    """Return which cgroup v2 controllers are missing."""
    if reason := no_cgroup2():
        return reason
    top = leaks.cgroup2_tops()[0]
    there = (top / "cgroup.controllers").read_text().split()
    missing = [name for name in CONTROLLERS if name not in there]
    return f"cgroup2: no controller {', '.join(missing)} in {top}" if missing else None


def no_cgroup2() -> Reason:
    """Return why no cgroup can be made at all."""
    return None if leaks.cgroup2_tops() else "cgroup2: it is not mounted"


def no_program(*programs: str) -> Callable[[], Reason]:
    """Return a probe for programs on PATH."""

    def probe() -> Reason:
        missing = [program for program in programs if not shutil.which(program)]
        return f"{missing[0]}: not installed" if missing else None

    return probe


PROBES: dict[str, Callable[[], Reason]] = {
    "root": no_root,
    "cgroup2": no_controllers,
    "cgroup2_tree": no_cgroup2,
    "docker": no_program("docker", "dockerd"),
    "containerd": no_program("containerd", "ctr"),
    "podman": no_program("podman", "conmon"),
    "crun": no_program("crun"),
    "runc": no_program("runc"),
    "registry": no_program("docker-registry"),
    "skopeo": no_program("skopeo"),
    "umoci": no_program("umoci"),
    "mmdebstrap": no_program("mmdebstrap"),
    "openssl": no_program("openssl"),
    "perl": no_program("perl"),
    "strace": no_program("strace"),
    "gcc": no_program("gcc"),
    "busybox": no_program("busybox"),
    "nft": no_program("nft"),
    "setpriv": no_program("setpriv"),
    "vagrant": no_program("vagrant"),
    "kubectl": no_program("kubectl"),
}
OF_MARKERS = {"root": ("root",), "vm": ("root", "cgroup2")}


def by_marker(item: pytest.Item) -> Iterator[str]:
    """Return the names of what a test's kind asks for."""
    for marker, names in OF_MARKERS.items():
        if item.get_closest_marker(marker):
            yield from names


def skip_unless_met(item: pytest.Item) -> None:
    """Skip a test whose needs this machine does not meet."""
    named = [name for mark in item.iter_markers("needs") for name in mark.args]
    for name in (*by_marker(item), *named):
        if reason := PROBES[name]():
            pytest.skip(reason)


def required() -> frozenset[str]:
    """Return the words of MINIRT_REQUIRE."""
    return frozenset(filter(None, os.environ.get("MINIRT_REQUIRE", "").split(",")))


def broken_promise(reason: str, names: set[str]) -> Reason:
    """Return what to say of a skip that MINIRT_REQUIRE forbids, if it does.

    A reason begins with the name of what is missing ("crun: not installed"); ``names`` are needed besides.
    """
    promised = required() & (names | {reason.partition(":")[0]})
    return f"MINIRT_REQUIRE={','.join(sorted(promised))}, and yet: {reason}" if promised else None
