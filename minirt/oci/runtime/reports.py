"""What is told of containers (ps, list, events, features, spec), and how they are frozen (pause, resume)."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minirt.cgroups import lifecycle as cgroups
from minirt.cgroups import stats, tree
from minirt.cgroups.events import OomWatch
from minirt.errors import Conflict, InvalidInput, NotFound, StepFailed, Unsupported
from minirt.linux import fds, process
from minirt.namespaces.kinds import FLAGS
from minirt.oci import VERSION
from minirt.oci.runtime import state
from minirt.oci.runtime.state import Place, State
from minirt.security import labels
from minirt.security.capabilities import DEFAULT, NAMES


def pause(place: Place) -> int:
    """Freeze a running container."""
    with place.locked():
        made = _in_state(place, "pause", {"running", "created"})
        cgroups.freeze(made.cgroup)
    return 0


def resume(place: Place) -> int:
    """Let a paused container go on."""
    with place.locked():
        made = _in_state(place, "resume", {"paused"})
        cgroups.thaw(made.cgroup)
    return 0


def _in_state(place: Place, verb: str, allowed: set[str]) -> State:
    made = place.load()
    status = place.status(made)
    if status not in allowed:
        raise Conflict(f"{verb} container {place.id}", f"it is {status}", f"it must be {' or '.join(sorted(allowed))}")
    return made


def ps(place: Place, form: str, words: tuple[str, ...]) -> int:
    """Print a container's processes by their host pids: as JSON, or as ``ps`` shows them."""
    made = place.load()
    pids = cgroups.pids(made.cgroup) if made.cgroup else [made.pid] if made.is_alive else []
    if form == "json":
        sys.stdout.write(json.dumps(sorted(pids)) + "\n")
        return 0
    import subprocess

    sys.stdout.flush()
    listed = ",".join(map(str, pids)) or "0"
    return subprocess.run(["ps", *(words or ("-f",)), "-p", listed], check=False).returncode


def list_all(root: str, form: str, *, quiet: bool) -> int:
    """Print every container: its id, or a table, or JSON as ``state`` prints it."""
    found = [state.document(made, place.status(made)) for place, made in _all(root)]
    if quiet:
        sys.stdout.write("".join(f"{one['id']}\n" for one in found))
    elif form == "json":
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        rows += [(one["id"], str(one["pid"]), one["status"], one["bundle"], one["created"]) for one in found]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            sys.stdout.write(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
            )
    return 0


def _all(root: str) -> list[tuple[Place, State]]:
    found = []
    for place in state.places(root):
        try:
            found.append((place, place.load()))
        except NotFound:
            continue
    return found


def events(place: Place, flags: dict[str, Any]) -> int:
    """Print what the container uses, as JSON: once with ``--stats``, else every ``--interval`` until it has ended.

    Between these, print an event whenever the kernel has killed in it for want of memory.
    """
    interval_s = _seconds(flags["interval"])
    made = _in_state(place, "watch", {"created", "running", "paused"})
    _tell(made, "stats", _stats(made))
    if flags["stats"]:
        return 0
    for kind in _happenings(made, interval_s):
        _tell(made, kind, _stats(made) if kind == "stats" else None)
    return 0


def _tell(made: State, kind: str, data: dict[str, Any] | None) -> None:
    event = {"type": kind, "id": made.id} | ({} if data is None else {"data": data})
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _happenings(made: State, interval_s: float) -> Iterator[str]:
    """Yield "oom" as it happens and "stats" every interval, until the container has ended."""
    import select

    with contextlib.ExitStack() as stack:
        end = stack.enter_context(fds.closing(process.pidfd_open(made.pid)))
        poll = select.poll()
        poll.register(end, select.POLLIN)
        watch = OomWatch.open(made.cgroup)
        kills = 0
        if watch:
            stack.callback(watch.close)
            poll.register(watch.fileno(), select.POLLPRI)
            kills = watch.oom_kills() or 0
        due = time.monotonic() + interval_s
        while True:
            ready = [fd for fd, _ in poll.poll(max(0, due - time.monotonic()) * 1000)]
            before, kills = kills, (watch.oom_kills() or 0) if watch else 0
            if kills > before:
                yield "oom"
            if end in ready:
                return
            if not ready:
                due += interval_s
                yield "stats"


def _seconds(text: str) -> float:
    factors = {"ms": 0.001, "s": 1.0, "m": 60.0}
    for unit, factor in factors.items():
        if text.endswith(unit) and text.removesuffix(unit).replace(".", "", 1).isdigit():
            return float(text.removesuffix(unit)) * factor
    raise InvalidInput(f"use the interval {text!r}", "it is a number with ms, s or m")


def _limit(made: State, file: str) -> int:
    """Return a limit; 0 for none, as runc has it."""
    text = Path(made.cgroup, file).read_text().strip() if os.path.exists(f"{made.cgroup}/{file}") else "0"
    return int(text) if text.isdecimal() else 0


def _stats(made: State) -> dict[str, Any]:
    """Return the usage in runc's form. CPU times are nanoseconds."""
    used = stats.usage(made.cgroup)
    times = {"total": used.cpu_usec, "user": used.cpu_user_usec, "kernel": used.cpu_system_usec}
    return {
        "cpu": {
            "usage": {key: value * 1000 for key, value in times.items() if value is not None},
            "throttling": {"throttledPeriods": used.nr_throttled or 0},
        },
        "memory": {"usage": {"usage": used.memory_bytes or 0, "limit": used.memory_limit_bytes or 0}},
        "pids": {"current": used.pids or 0, "limit": _limit(made, "pids.max")},
        "blkio": {},
        "hugetlb": {},
    }


def write_spec(bundle: str, *, rootless: bool) -> int:
    """Write a config.json that runs ``sh`` in ./rootfs, with docker's capabilities, mounts and masks."""
    if rootless:
        why = "minirt-oci makes containers as root only"
        raise Unsupported("write a config.json for who is not root", why, "leave out --rootless")
    path = Path(bundle) / "config.json"
    if path.exists():
        raise Conflict(f"write {path}", "it exists already", "remove it first")
    try:
        path.write_text(json.dumps(_example(), indent="\t") + "\n")
    except OSError as error:
        raise StepFailed.from_os_error(f"write {path}", error) from error
    return 0


def _example() -> dict[str, Any]:
    held = list(DEFAULT)
    tmpfs = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": held, "effective": held, "permitted": held},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "minirt",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": [*tmpfs, "mode=1777", "size=65536k"],
            },
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": tmpfs},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*tmpfs, "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*tmpfs, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _has_seccomp() -> bool:
    from minirt.linux import seccomp

    try:
        seccomp.require_filters()
    except OSError:
        return False
    return True


def features() -> int:
    """Print what this runtime supports. Source: runtime-spec, features.md."""
    from minirt.namespaces.rootfs import PROPAGATION
    from minirt.oci.options import BINDS, CHANGES

    moments = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    document = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": moments,
        "mountOptions": sorted({*CHANGES, *PROPAGATION, *BINDS}),
        "linux": {
            "namespaces": sorted(FLAGS),
            "capabilities": list(NAMES),
            "seccomp": {"enabled": _has_seccomp()},
            "apparmor": {"enabled": labels.has_apparmor()},
            "selinux": {"enabled": labels.has_selinux()},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "cgroup": {"v1": False, "v2": os.path.exists(tree.find().mount), "systemd": tree.is_systemd()},
        },
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0
