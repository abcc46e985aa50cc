"""What a test left behind: each kind of thing is listed before and after, named, and then ended.

Looking must be cheap (every root test pays for it twice), so each kind has one cheap question, and only what is new
afterwards is described at length. What the kernel takes down in its own time (a network namespace's links, a process
that was just told to end) gets until GRACE_S.
"""

import contextlib
import gc
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minirt.linux import mount, process
from tests.isolation import children_of

GRACE_S = 15.0
KEPT_SUFFIXES = (".lock", ".bpf")
"""A lock file may outlive what it locks: removing it under somebody who waits for it would make two locks of one.
Compiled seccomp profiles are a cache."""

Seen = tuple[str, ...]


class Kind(NamedTuple):
    """One kind of thing that can leak: how to list it, to describe one, and to end one. The oldest are listed first."""

    name: str
    seen: Callable[[], Seen]
    end: Callable[[str], object]
    described: Callable[[str], str] = str


def processes() -> Seen:
    """Return "pid start-time" of every process below this one or its reaper, which orphans are given to."""
    waiting = [os.getpid(), *([os.getppid()] if os.geteuid() == 0 else [])]
    known = dict.fromkeys(waiting, "")
    while waiting:
        for pid in children_of(waiting.pop()):
            with contextlib.suppress(OSError):
                if pid not in known:
                    known[pid] = f"{pid} {process.start_time(pid)}"
                    waiting.append(pid)
    return tuple(filter(None, known.values()))


def _command(key: str) -> str:
    pid, _ = key.split()
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return f"{pid} {words or Path(f'/proc/{pid}/comm').read_text().strip()}"
    return f"{pid} (gone by now)"


def _kill(key: str) -> None:
    pid, started = map(int, key.split())
    with contextlib.suppress(OSError):
        if process.start_time(pid) == started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def mounts() -> Seen:
    """Return "id type mount-point" of every mount of this namespace. Source: proc_pid_mountinfo(5)."""
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return tuple(f"{row[0]} {row[row.index('-', 6) + 1]} {row[4]}" for row in rows)


PASSING: set[str] = set()
"""Mount points that come and go with a peer's own processes, whose last one may outlive the test."""


def _lasting_mounts() -> Seen:
    return tuple(key for key in mounts() if str(_point(key)) not in PASSING)


def unmount_below(directory: Path) -> None:
    """Unmount everything at or below a directory, the last mounted first."""
    for key in reversed(mounts()):
        if _point(key).is_relative_to(directory):
            mount.umount2(str(_point(key)), mount.MNT_DETACH)


def _unmount(key: str) -> None:
    with contextlib.suppress(OSError):
        mount.umount2(str(_point(key)), mount.MNT_DETACH)


def _point(key: str) -> Path:
    return Path(key.split()[2].encode().decode("unicode_escape"))


def links() -> Seen:
    """Return the names of this network namespace's interfaces."""
    return tuple(name for _, name in socket.if_nameindex())


def cgroup_mounts(kinds: tuple[str, ...] = ("cgroup", "cgroup2")) -> list[Path]:
    """Return where the hierarchies are mounted: those of cgroup v1, and the one of v2."""
    return [_point(key) for key in mounts() if key.split()[1] in kinds]


def cgroup2_tops() -> list[Path]:
    """Return where cgroup2 is mounted."""
    return cgroup_mounts(("cgroup2",))


def cgroup_tops() -> list[Path]:
    """Return where MINIRT_CGROUP lies: below the mount, or below a unit that systemd has delegated."""
    name = os.environ["MINIRT_CGROUP"]
    return [found for top in cgroup2_tops() for found in (*top.glob(name), *top.glob(f"*/{name}"))]


def cgroups() -> Seen:
    """Return the cgroups below MINIRT_CGROUP, which itself stays for the whole session."""
    return tuple(path for top in cgroup_tops() for path in _with_all_below(top)[1:])


def remove_cgroups(top: Path) -> None:
    """Kill what is in a cgroup or below it, and remove all of them."""
    for path in reversed(_with_all_below(top)):
        _remove_cgroup(path)


def _with_all_below(top: Path) -> list[str]:
    return [where for where, _, _ in os.walk(top)]


def _remove_cgroup(key: str) -> None:
    """Kill and remove; the kernel says EBUSY until the last of those killed is really gone."""
    deadline = time.monotonic() + GRACE_S
    while Path(key).exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            Path(key, "cgroup.kill").write_text("1")
            os.rmdir(key)


def rules() -> Seen:
    """Return the lines of the nftables ruleset, asking nft only when the kernel's generation number has moved."""
    global _ruleset
    generation = _generation()
    if generation != _ruleset[0] and shutil.which("nft"):
        listed = subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True)
        _ruleset = (generation, tuple(listed.stdout.splitlines()))
    return _ruleset[1]


_ruleset: tuple[int, Seen] = (0, ())


def _generation() -> int:
    """Return the generation of this network namespace's nftables rules; 0 where the kernel has no nftables.

    Source: linux/netfilter/nf_tables.h, NFT_MSG_GETGEN; the answer's first attribute is NFTA_GEN_ID, big endian.
    """
    getgen, newgen, request = 0x0A10, 0x0A0F, 1
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netfilter:
        netfilter.send(struct.pack("=IHHIIBBH", 20, getgen, request, 1, 0, 0, 0, 0))
        answer = netfilter.recv(4096)
    return struct.unpack_from(">I", answer, 24)[0] if struct.unpack_from("=H", answer, 4)[0] == newgen else 0


def descriptors() -> Seen:
    """Return "number what-it-is" of this process's open descriptors."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return tuple(found)


def _leave(_: str) -> None:
    """Leave a descriptor: an object of this process may still believe that the number is its own. Or a thread."""


def threads() -> Seen:
    """Return "ident name" of the threads that this process would wait for before it ends."""
    return tuple(f"{one.ident} {one.name}" for one in threading.enumerate() if not one.daemon)


def state_files() -> Seen:
    """Return every file and socket under MINIRT_STATE. Empty directories may stay, and so may lock files."""
    found = [Path(where) / name for where, _, names in os.walk(os.environ["MINIRT_STATE"]) for name in names]
    return tuple(str(path) for path in found if path.suffix not in KEPT_SUFFIXES)


KINDS = (
    Kind("process", processes, _kill, _command),
    Kind("mount", _lasting_mounts, _unmount),
    Kind("network link", links, lambda name: subprocess.run(["ip", "link", "delete", name], check=False)),
    Kind("cgroup", cgroups, _remove_cgroup),
    Kind("nftables rule", rules, lambda _: subprocess.run(["nft", "flush", "ruleset"], check=False)),
    Kind("descriptor", descriptors, _leave),
    Kind("thread", threads, _leave),
    Kind("state file", state_files, os.unlink),
)
UNPRIVILEGED = tuple(kind for kind in KINDS if kind.name in ("process", "descriptor", "thread"))

Look = dict[str, Seen]


def look(kinds: tuple[Kind, ...]) -> Look:
    """Return what there is now."""
    return {kind.name: kind.seen() for kind in kinds}


def leaks_since(before: Look, kinds: tuple[Kind, ...]) -> list[str]:
    """End whatever was not there ``before``; return a line for each, [] when there is nothing.

    Of each kind the newest is ended first, and the kinds in their order: no file can go that is mounted on.
    """
    new = _new_after_grace(before, kinds)
    lines = [f"{kind.name}: {kind.described(key)}" for kind, key in new]
    for kind in kinds:
        for key in reversed([key for one, key in new if one is kind]):
            kind.end(key)
    return lines


def _new_after_grace(before: Look, kinds: tuple[Kind, ...]) -> list[tuple[Kind, str]]:
    deadline = time.monotonic() + GRACE_S
    while new := _new(before, kinds):
        gc.collect()
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return new


def _new(before: Look, kinds: tuple[Kind, ...]) -> list[tuple[Kind, str]]:
    return [(kind, key) for kind in kinds for key in kind.seen() if key not in before[kind.name]]
