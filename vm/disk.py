"""Keep the machine's disks in the user's cache: one per recipe (image.py), built once.

A disk is a directory under ``$XDG_CACHE_HOME/minirt/vm`` that is named by the hash of all that goes into it::

    <hash>/disk.raw   ext4, sparse; booted through throw-away overlays, never written
    <hash>/vmlinuz    the kernel that lies on it
    <hash>/initrd     only what mounting it takes
    lock              held exclusively while a disk is built, shared while one is looked up
    accelerator-<boot id>   "kvm" or "tcg": what a boot has proved since this host started

It is built under a temporary name and renamed, so a disk that exists is complete. A running machine holds a shared lock
on its directory. Before another is built, all but the newest go that nobody holds (two stay, for two branches).
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from image import as_owner_of_all_ids, make, recipe, search_path
from report import VmError, say, step

KEPT_DISKS = 2
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
}
PROGRAMS_OF_USERS = {"newuidmap": "uidmap"}
"""With it mmdebstrap gives files any owner without root; the user needs a line in /etc/subuid and /etc/subgid."""


@contextmanager
def held_disk(may_build: bool = True) -> Iterator[Path]:
    """Yield the directory of the disk, which stays while the context lasts.

    Where there is none it is built. Raises VmError if that fails or must not be.
    """
    with ExitStack() as stack:
        disk = cache() / recipe()
        while True:
            with locked(cache() / "lock", fcntl.LOCK_SH):
                if disk.exists():
                    os.utime(disk)
                    stack.enter_context(held(disk, fcntl.LOCK_SH))
                    break
            if not may_build:
                raise VmError("cannot run a machine: it is not built yet (vm/run --build)")
            with locked(cache() / "lock", fcntl.LOCK_EX):
                if not disk.exists():
                    remove_old_disks()
                    build(disk)
        yield disk


def cache() -> Path:
    """Return the directory of all disks, which is never in the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "minirt" / "vm"


def require_programs() -> None:
    """Raise VmError that names the Debian packages of the programs this host lacks."""
    programs = PROGRAMS if os.geteuid() == 0 else PROGRAMS | PROGRAMS_OF_USERS
    missing = [package for name, package in programs.items() if not shutil.which(name, path=search_path())]
    if missing:
        raise VmError(f"cannot run a machine: programs are missing (sudo apt-get install {' '.join(missing)})")


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold a flock (shared or exclusive) on a file, made if it is not there. Say so when that has to wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not try_lock(file.fileno(), how):
            say("waiting for another vm/run, which is building a disk or trying KVM")
            fcntl.flock(file, how)
        yield


def remove_old_disks() -> None:
    """Remove what killed builds left, and all disks but the newest that nobody runs from. Needs the lock."""
    entries = [path for path in cache().iterdir() if path.is_dir()]
    disks = sorted((path for path in entries if path.suffix != ".new"), key=lambda path: path.stat().st_mtime)
    for path in [path for path in entries if path.suffix == ".new"] + disks[: 1 - KEPT_DISKS]:
        with held(path, fcntl.LOCK_EX) as unused:
            if unused:
                subprocess.run([*as_owner_of_all_ids(), "rm", "-rf", str(path)], check=True)


def build(disk: Path) -> None:
    """Build a disk under a temporary name and rename it. Raises VmError as ``image.make``."""
    say(f"building the machine's disk, once: {disk}")
    work = Path(tempfile.mkdtemp(suffix=".new", dir=disk.parent))
    with step("in all"):
        make(work)
    work.rename(disk)


@contextmanager
def held(directory: Path, how: int) -> Iterator[bool]:
    """Hold a flock (shared or exclusive) on a directory. Yield False if others hold it in a way that forbids ours."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield try_lock(descriptor, how)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, how: int) -> bool:
    """Take a flock without waiting. Return whether it was to be had."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
