"""How a container ends: ``kill`` sends a signal, ``delete`` takes down what ``create`` made.

Engines call both for each container, and most have no hooks to run then: nothing is imported here that reads a spec.
"""

import contextlib
import os
import signal

from minirt import journal
from minirt.cgroups import lifecycle as cgroups
from minirt.errors import Conflict, InvalidInput, MinirtError
from minirt.linux import process
from minirt.oci.runtime import state
from minirt.oci.runtime.state import Place, State


def kill(place: Place, number: int, *, everything: bool = False) -> None:
    """Send a signal to a container's init, or to all its processes. Raises Conflict: it does not run."""
    made = place.load()
    if everything and made.cgroup:
        for pid in cgroups.pids(made.cgroup):
            with contextlib.suppress(ProcessLookupError):
                journal.step("kill", os.kill, pid, number)
        return
    if not made.is_alive:
        raise Conflict(f"kill {place.id}", "container not running", f"remove it: minirt-oci delete {place.id}")
    pidfd = process.pidfd_open(made.pid)
    try:
        process.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)
    if number == signal.SIGKILL and place.status(made) == "paused":
        cgroups.thaw(made.cgroup)


def delete(place: Place, *, force: bool = False) -> list[str]:
    """Remove a container; return what its poststop hooks failed at. With ``force`` one that is gone is fine.

    Raises:
        Conflict: it runs, and ``force`` is not given.
        NotFound: there is none, and ``force`` is not given.
    """
    if force and not os.path.exists(place.directory):
        return []
    with place.locked():
        made = place.load() if os.path.exists(place.file) or not force else None
        if made is None:
            place.remove()
            return []
        status = place.status(made)
        if status in {"running", "paused"} and not force:
            do = "stop it first, or use --force"
            raise Conflict(f"delete container {place.id} that is not stopped", f"it is {status}", do)
        return take_down(place, made)


def take_down(place: Place, made: State, *, owns_cgroup: bool = True) -> list[str]:
    """Kill what lives, remove the cgroup, run poststop, forget; return what failed on the way."""
    if made.is_alive:
        pidfd = process.pidfd_open(made.pid)
        try:
            process.pidfd_send_signal(pidfd, signal.SIGKILL)
            if made.cgroup:
                cgroups.kill(made.cgroup)
            _await_end(pidfd)
        finally:
            os.close(pidfd)
    failures: list[MinirtError] = []
    if made.cgroup and owns_cgroup:
        failures += _stop_scope(made) if made.scope else []
        cgroups.end(made.cgroup)
    failures += _run_poststop(made) if made.has_poststop else []
    place.remove()
    return [str(failure) for failure in failures]


def _stop_scope(made: State) -> list[MinirtError]:
    """Have systemd forget the scope, empty by then: it would wait for those who live in it."""
    from minirt.cgroups import systemd

    cgroups.kill(made.cgroup)
    try:
        systemd.stop(made.scope)
    except MinirtError as error:
        return [error]
    return []


def _run_poststop(made: State) -> list[MinirtError]:
    from minirt.oci import hooks, spec

    try:
        found = spec.load(f"{made.bundle}/config.json").hooks.poststop
    except InvalidInput:  # the bundle may be gone by now: then its hooks are gone, too
        return []
    return hooks.run_all("poststop", found, state.encoded(state.document(made, "stopped")))


def _await_end(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(10_000)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
