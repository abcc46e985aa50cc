"""Make the machine's disk from Debian's packages: what is on it, and the hash of all that decides it.

Everything in this file is part of the recipe: a change to it makes a new disk.
"""

import hashlib
import io
import json
import os
import shlex
import subprocess
import tarfile
import tomllib
from pathlib import Path

from report import VmError, step

VM = Path(__file__).resolve().parent
TREE = VM.parent
SUITE = "trixie"
SIZE = "16G"
UNREAD = ("man", "doc", "locale", "info")

# Where each file of the tree goes; with pyproject.toml they are the recipe. The machine's /srv/minirt holds just what
# the C module and the virtual environment are built from: each run unpacks the tree of its moment over it.
FILES = {
    "vm/provision": "usr/local/lib/minirt-vm/provision",
    "vm/init": "usr/local/lib/minirt-vm/init",
    "vm/job": "usr/local/lib/minirt-vm/job",
    "vm/minirt-vm.service": "etc/systemd/system/minirt-vm.service",
    "setup.py": "srv/minirt/setup.py",
    "minirt/linux/_build.py": "srv/minirt/minirt/linux/_build.py",
    "minirt/linux/execute.c": "srv/minirt/minirt/linux/execute.c",
}
TEXTS = {
    "etc/hosts": "127.0.0.1 localhost minirt-vm\n::1 localhost\n",
    "srv/minirt/README.md": "",
    "srv/minirt/minirt/__init__.py": "",
    "srv/minirt/minirt/linux/__init__.py": "",
}
# The usual initrd (udev, everything that could be a disk) takes a third of the time to boot under emulation.
INITRD = "mktirfs -m no -M no --include-modules=virtio_pci,virtio_blk,ext4 -o /boot/initrd $(ls /lib/modules)"
TRUST = "/etc/ssl/certs/ca-certificates.crt"


def recipe() -> str:
    """Return the hash of everything that decides what is on the disk."""
    digest = hashlib.sha256(dependencies())
    for name in (*FILES, "vm/image.py"):
        digest.update(f"\0{name}\0".encode() + (TREE / name).read_bytes())
    return digest.hexdigest()[:16]


def dependencies() -> bytes:
    """Return the part of pyproject.toml that the virtual environment is made of, so that a lint rule builds no disk."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    parts = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    return json.dumps(parts, sort_keys=True).encode()


def make(work: Path) -> None:
    """Make ``disk.raw``, ``vmlinuz`` and ``initrd`` in a directory. Raises VmError."""
    with step("Debian's packages and the virtual environment"):
        install(work)
    with step("the file system"):
        make_file_system(work)


def install(work: Path) -> None:
    """Install Debian, provisioned, as ``root.tar``, in a chroot; needs the network and root or subordinate ids."""
    write_stage(work / "stage.tar")
    hooks = [
        # What this host trusts is lent to the chroot while it fetches from PyPI: a mirror may have its own certificate.
        f'if [ -e {TRUST} ]; then cp {TRUST} "$1{TRUST}"; fi',
        'chroot "$1" /usr/local/lib/minirt-vm/provision',
        'chroot "$1" update-ca-certificates --fresh',
        f"chroot \"$1\" sh -c '{INITRD}'",
        'echo minirt-vm >"$1/etc/hostname"; : >"$1/etc/resolv.conf"',
    ]
    command = ["mmdebstrap", "--variant=minbase", "--skip=output/dev", *apt_options()]
    # Nobody reads manuals on it, and a machine that is half built is not kept.
    command += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in UNREAD)]
    command += ["--include=linux-image-amd64,tiny-initramfs,ca-certificates"]
    command += [f"--essential-hook=tar-in {shlex.quote(str(work / 'stage.tar'))} /"]
    command += [f"--customize-hook={hook}" for hook in hooks]
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
        cp {root}/boot/initrd {root}/../initrd
        rm -r {root} {root}.tar"""
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


def search_path() -> str:
    """Return PATH with the administrator's directories, which a user's often lacks: mke2fs is there."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
