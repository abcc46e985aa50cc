"""Build the machine's disk from Debian's packages, once per recipe, into the user's cache.

A disk is a directory under ``$XDG_CACHE_HOME/minirt/vm`` that is named by the hash of all that goes into it::

    <hash>/disk.raw   ext4, sparse; booted through throw-away overlays, never written
    <hash>/vmlinuz    the kernel that lies on it
    <hash>/initrd     only what mounting it takes
    lock              held while a disk is built
    accel-<boot id>   "kvm" or "tcg": what a boot has proved since this host started

It is built under a temporary name and renamed, so a disk that exists is complete. A running machine holds a shared lock
on its directory; disks that nobody holds go, but for the newest two (switching between two branches costs nothing).
"""

import fcntl
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VM = Path(__file__).resolve().parent
TREE = VM.parent
SUITE = "trixie"
SIZE = "16G"
KEPT_DISKS = 2

# Where each file of the tree goes; with pyproject.toml they are the recipe. The machine's /srv/minirt holds just what
# the C module and the virtual environment are built from: each run unpacks the tree of its moment over it.
FILES = {
    "vm/provision": "usr/local/lib/minirt-vm/provision",
    "vm/init": "usr/local/lib/minirt-vm/init",
    "vm/job": "usr/local/lib/minirt-vm/job",
    "vm/minirt-vm.service": "etc/systemd/system/minirt-vm.service",
    "setup.py": "srv/minirt/setup.py",
    "minirt/linux/_build.py": "srv/minirt/minirt/linux/_build.py",
}
# An initrd of everything takes longer to unpack under emulation than the machine takes to boot.
TEXTS = {
    "etc/initramfs-tools/conf.d/minirt": "MODULES=list\nCOMPRESS=lz4\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "srv/minirt/README.md": "",
    "srv/minirt/minirt/__init__.py": "",
    "srv/minirt/minirt/linux/__init__.py": "",
}
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
}
TRUST = "/etc/ssl/certs/ca-certificates.crt"


class VmError(Exception):
    """The machine could not be built or run: what, why, and what to do."""


def cache() -> Path:
    """Return the directory of all disks, which is never in the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "minirt" / "vm"


def search_path() -> str:
    """Return PATH with the administrator's directories, which a user's often lacks: mke2fs is there."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def require_programs() -> None:
    """Raise VmError that names the Debian packages of the programs this host lacks."""
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name, path=search_path())]
    if missing:
        raise VmError(f"cannot run a machine: programs are missing (sudo apt-get install {' '.join(missing)})")


def dependencies() -> bytes:
    """Return the part of pyproject.toml that the virtual environment is made of, so that a lint rule builds no disk."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    parts = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    return json.dumps(parts, sort_keys=True).encode()


def recipe() -> str:
    """Return the hash of everything that decides what is on the disk."""
    digest = hashlib.sha256(dependencies())
    for name in (*FILES, "vm/disk.py"):
        digest.update(f"\0{name}\0".encode() + (TREE / name).read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def held_disk() -> Iterator[Path]:
    """Yield the directory of the built disk, building it where there is none; it stays while the context lasts."""
    with locked(cache() / "lock", fcntl.LOCK_EX):
        disk = cache() / recipe()
        if not disk.exists():
            build(disk)
        os.utime(disk)
        in_use = os.open(disk, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(in_use, fcntl.LOCK_SH)
        remove_old_disks()
    try:
        yield disk
    finally:
        os.close(in_use)


@contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold a flock on a file, made if it is not there. Say so when another has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another vm/run is building the disk: waiting for it")
            fcntl.flock(file, how)
        yield


def remove_old_disks() -> None:
    """Remove all disks but the newest and those in use, and what a killed build left. Needs the builder's lock."""
    entries = [path for path in cache().iterdir() if path.is_dir()]
    disks = sorted((path for path in entries if path.suffix != ".new"), key=lambda path: path.stat().st_mtime)
    for path in [path for path in entries if path.suffix == ".new"] + disks[:-KEPT_DISKS]:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        except BlockingIOError:
            say(f"keeping {path}: a machine is running from it")
        finally:
            os.close(descriptor)


def build(disk: Path) -> None:
    """Build a disk under a temporary name and rename it. Raises VmError with the failing command's last words."""
    say(f"building the machine's disk once, a few minutes: {disk}")
    work = Path(tempfile.mkdtemp(suffix=".new", dir=disk.parent))
    with step("building the disk"):
        with step("Debian's packages, the virtual environment"):
            install(work)
        with step("the file system"):
            make_file_system(work)
    for name in ("root.tar", "stage.tar"):
        (work / name).unlink()
    shutil.rmtree(work / "root")
    work.rename(disk)


def install(work: Path) -> None:
    """Install Debian, provisioned, as ``root.tar``, in a chroot; needs the network and root or subordinate ids."""
    write_stage(work / "stage.tar")
    # What this host trusts is lent to the chroot while it fetches from PyPI: a mirror may have the site's certificate.
    lend = f'if [ -e {TRUST} ]; then cp {TRUST} "$1{TRUST}"; fi'
    provision = 'chroot "$1" /usr/local/lib/minirt-vm/provision'
    take_back = 'chroot "$1" update-ca-certificates --fresh'
    command = ["mmdebstrap", "--variant=minbase", "--skip=output/dev", *apt_options()]
    command += ["--include=linux-image-amd64,initramfs-tools,lz4,zstd,ca-certificates"]
    command += [f"--essential-hook=tar-in {shlex.quote(str(work / 'stage.tar'))} /"]
    command += [f"--customize-hook={hook}" for hook in (lend, provision, take_back)]
    run_logged([*command, SUITE, str(work / "root.tar")], work / "build.log")


def write_stage(path: Path) -> None:
    """Write the tar of what goes onto the disk beside Debian's packages."""
    with tarfile.open(path, "w") as archive:
        for name, target in {**FILES, "pyproject.toml": "srv/minirt/pyproject.toml"}.items():
            member = archive.gettarinfo(TREE / name, target)
            member.uid = member.gid = 0
            with (TREE / name).open("rb") as file:
                archive.addfile(member, file)
        for target, text in TEXTS.items():
            member = tarfile.TarInfo(target)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def apt_options() -> list[str]:
    """Return the proxies that this host's apt is told to use, for mmdebstrap asks no configuration of the host."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return [f"--aptopt={line}" for line in dump.splitlines() if "::Proxy " in line]


def make_file_system(work: Path) -> None:
    """Make ``disk.raw`` of ``root.tar`` without mounting anything, and put its kernel and initrd beside it."""
    root, disk = shlex.quote(str(work / "root")), shlex.quote(str(work / "disk.raw"))
    # The overlay of each run is thrown away: no journal, no room kept for root.
    script = f"""set -e
        mkdir -p {root}/dev
        tar -x --numeric-owner --xattrs --xattrs-include='*' -C {root} -f {root}.tar
        mke2fs -q -t ext4 -O ^has_journal -m 0 -L minirt-vm -d {root} {disk} {SIZE}
        cp {root}/boot/vmlinuz-* {root}/../vmlinuz
        cp {root}/boot/initrd.img-* {root}/../initrd"""
    run_logged([*as_owner_of_all_ids(), "sh", "-c", script], work / "build.log")


def as_owner_of_all_ids() -> list[str]:
    """Return what runs a command so that it can give files any owner: nothing for root, else a user namespace."""
    return [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--map-auto", "--"]


def run_logged(command: list[str], log: Path) -> None:
    """Run a command into a log. Raises VmError with the log's last lines if it fails."""
    environment = {**os.environ, "PATH": search_path()}
    with log.open("ab") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, check=False)
    if done.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise VmError(f"cannot build the machine: {command[0]} ended with {done.returncode}, saying\n{last}")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what was done and how long it took, once it is."""
    begin = time.monotonic()
    yield
    say(f"{time.monotonic() - begin:5.0f} s  {what}")


def say(text: str) -> None:
    """Tell the caller on stderr, which vm/run keeps apart from the command's output but for the prefix."""
    print(f"vm/run: {text}", file=sys.stderr, flush=True)
