"""Boot the disk in QEMU for one command: what goes in, what comes out, and how it ends.

The host and vm/job in the machine speak over virtio::

    /dev/vdb (a tar)        tree and command     ──▶
    port out, port err      output               ◀──
    port control            "ready", "exit N"    ◀──   "<rows> <columns>" of the terminal ──▶
    console hvc0            a shell's terminal   ◀─▶
    ttyS0 (a file)          the kernel's words, shown only when the machine dies

Every port is one end of a socket pair that QEMU inherits: when vm/run goes, however it goes, the machine sees the end
of its control port and switches itself off.
"""

import os
import shlex
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from image import TREE

# Not of the tree but of this host: environments, caches, and what was compiled for its Python and its C library.
HOST_ONLY = {".git", ".venv", ".vagrant", ".cache", ".hypothesis", "__pycache__", "build"}
HOST_ONLY_SUFFIXES = (".so", ".o", ".egg-info", "_cache")


@dataclass(frozen=True)
class Job:
    """What to run in the machine (nothing: a shell) and how. ``environment`` is added to the command's own."""

    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    systemd: bool = False
    network: bool = False
    memory: str = "4G"
    cpus: int = 2
    timeout_s: float | None = None

    @property
    def shell(self) -> bool:
        """Whether the job is a shell on the terminal."""
        return not self.command


@dataclass(frozen=True)
class Machine:
    """One running QEMU, our ends of its ports by name, and the directory of its logs."""

    process: subprocess.Popen[bytes]
    ports: Mapping[str, socket.socket]
    directory: Path

    def last_words(self) -> str:
        """Return the end of the kernel's console and of QEMU's own messages."""
        logs = [self.directory / "console.log", self.directory / "qemu.log"]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()[-60:]]
        return "\n".join(line.rstrip() for line in lines) or "(none)"


@contextmanager
def booted(disk: Path, job: Job, accelerator: str) -> Iterator[Machine]:
    """Start QEMU for the job; whatever happens in the context, it is gone after it."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minirt-vm-")))
        write_drive(directory / "job.tar", job)
        pairs = {name: socket.socketpair() for name in ("out", "err", "control", "hvc0")}
        for ours, _ in pairs.values():
            stack.enter_context(ours)
        theirs = {name: pair[1] for name, pair in pairs.items()}
        process = start_qemu(qemu_command(disk, job, accelerator, directory, theirs), directory, theirs)
        stack.callback(stop, process)
        yield Machine(process, {name: pair[0] for name, pair in pairs.items()}, directory)


def start_qemu(command: list[str], directory: Path, ports: Mapping[str, socket.socket]) -> subprocess.Popen[bytes]:
    """Start QEMU with the machine's ends of the ports, in a session of its own: Ctrl-C is for vm/run to handle."""
    with (directory / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[port.fileno() for port in ports.values()],
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(directory)},
        )
    for port in ports.values():
        port.close()
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End QEMU, at once: there is nothing on its disk that anyone will miss."""
    process.kill()
    process.wait()


def qemu_command(
    disk: Path, job: Job, accelerator: str, directory: Path, ports: Mapping[str, socket.socket]
) -> list[str]:
    """Return QEMU's arguments: a PC without display or firmware menus, that ends where it would reboot."""
    engine = "tcg,thread=multi,tb-size=512" if accelerator == "tcg" else "kvm"
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-accel", engine, "-cpu", "max", "-smp", str(job.cpus), "-m", job.memory]
    command += ["-kernel", str(disk / "vmlinuz"), "-initrd", str(disk / "initrd"), "-append", kernel_arguments(job)]
    # snapshot: what is written goes to a temporary file, so any number of machines share the disk.
    command += ["-drive", f"file={disk / 'disk.raw'},format=raw,if=virtio,snapshot=on,cache=unsafe"]
    command += ["-drive", f"file={directory / 'job.tar'},format=raw,if=virtio,readonly=on"]
    command += ["-serial", f"file:{directory / 'console.log'}", "-device", "virtio-serial-pci"]
    for name, port in ports.items():
        device = "virtconsole" if name == "hvc0" else f"virtserialport,name={name}"
        command += ["-chardev", f"socket,id={name},fd={port.fileno()}", "-device", f"{device},chardev={name}"]
    return command + (["-nic", "user,model=virtio-net-pci"] if job.network else [])


def kernel_arguments(job: Job) -> str:
    """Return the kernel's command line."""
    init = "/lib/systemd/systemd systemd.unit=minirt-vm.service" if job.systemd else "/usr/local/lib/minirt-vm/init"
    # noinit_itable: do not fill inode tables that are thrown away with the run.
    root = "root=/dev/vda rw rootfstype=ext4 rootflags=noinit_itable"
    return f"console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 cryptomgr.notests {root} init={init}"


def write_drive(path: Path, job: Job) -> None:
    """Write the tar that the machine reads as its second disk: the tree as it is now, and the command."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(TREE, "srv/minirt", filter=of_the_tree)
        texts = {"command": command_script(job)}
        texts |= {name: "" for name, wanted in (("shell", job.shell), ("network", job.network)) if wanted}
        for name, text in texts.items():
            source = path.with_name(name)
            source.write_text(text)
            archive.add(source, f"run/minirt-vm/{name}")


def of_the_tree(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Return the member as root's, or None if it is of this host only."""
    name = Path(member.name).name
    if name in HOST_ONLY or name.endswith(HOST_ONLY_SUFFIXES):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def command_script(job: Job) -> str:
    """Return the bash script that becomes the command, in the tree."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()]
    command = shlex.join(job.command) if job.command else "bash --login"
    return "\n".join(["cd /srv/minirt", *exports, f"exec {command}", ""])
