"""What a process looks like from outside, in proc(5)'s terms, without what must differ (pids, times, addresses)."""

import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from minirt.namespaces.kinds import PROC_NAMES

STATUS = {
    *("Umask", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed"),
    *("SigIgn", "SigBlk", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
}


class Mount(NamedTuple):
    """A mount: where, of which file system, which part of it, with which options, and those of its file system."""

    point: str
    fstype: str
    root: str
    options: str
    own: str


def process(pid: int) -> dict[str, Any]:
    """Return everything about a process that its runtime decides."""
    proc = Path(f"/proc/{pid}")
    return {
        **status(pid),
        **limits(pid),
        "descriptors": sorted(os.listdir(proc / "fd")),
        "leads its session and group": session(pid),
        "environment": sorted((proc / "environ").read_bytes().decode().removesuffix("\0").split("\0")),
        "arguments": (proc / "cmdline").read_bytes(),
        "cwd": os.readlink(proc / "cwd"),
        "oom_score_adj": (proc / "oom_score_adj").read_text(),
        "nice and policy": scheduling(pid),
        "coredump_filter": (proc / "coredump_filter").read_text(),
        "timerslack": (proc / "timerslack_ns").read_text(),
        "personality": (proc / "personality").read_text(),
        "dumpable": (proc / "environ").stat().st_uid == (proc / "status").stat().st_uid,
    }


def status(pid: int) -> dict[str, list[str]]:
    """Return the fields of STATUS."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.split() for name, _, value in lines if name in STATUS}


def limits(pid: int) -> dict[str, list[str]]:
    """Return the soft and the hard limit of each resource."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:25].strip(): line[25:].split()[:2] for line in lines}


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def session(pid: int) -> bool:
    """Say whether a process leads its own session and process group, with no terminal. Source: proc_pid_stat(5)."""
    group, its_session, terminal = _stat(pid)[2:5]
    return (int(group), int(its_session), terminal) == (pid, pid, "0")


def scheduling(pid: int) -> tuple[str, ...]:
    """Return priority, nice, real-time priority and policy."""
    fields = _stat(pid)
    return (fields[15], fields[16], fields[37], fields[38])


def mounts(pid: int) -> list[Mount]:
    """Return every mount. Source: proc_pid_mountinfo(5).

    ``ro`` counts where the kernel heeds it first, on the mount: runc sets it on the file system as well. The own
    options of the empty directories that mask others do not matter: they are read-only.
    """
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        row = line.split()
        dash = row.index("-", 6)
        own = row[dash + 3].partition(",")[2]
        masks = row[dash + 1] == "tmpfs" and row[5].startswith("ro,")
        found.append(Mount(row[4], row[dash + 1], row[3], row[5], "" if masks else own))
    return sorted(found)


def namespaces(pid: int) -> set[str]:
    """Return the kinds of namespace, as the OCI spec names them, that a process does not share with this one."""
    return {
        kind
        for kind, name in (PROC_NAMES | {"user": "user", "time": "time"}).items()
        if os.stat(f"/proc/{pid}/ns/{name}").st_ino != os.stat(f"/proc/self/ns/{name}").st_ino
    }


def devices(pid: int) -> dict[str, tuple[Any, ...]]:
    """Return the entries of /dev: mode, owner, device number, or the link's target."""
    top = Path(f"/proc/{pid}/root/dev")
    return {str(path.relative_to(top)): _entry(path) for path in sorted(top.rglob("*"))}


def _entry(path: Path) -> tuple[Any, ...]:
    found = path.lstat()
    target = os.readlink(path) if path.is_symlink() else ""
    return stat.filemode(found.st_mode), found.st_uid, found.st_gid, found.st_rdev, target
