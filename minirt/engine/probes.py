"""What there is to try on a machine, each thing for real.

A probe returns what it found, or raises: ``Limited`` where minirt works with less, any other error where it cannot. It
runs in a process of its own, which ends right after, so that its namespaces, mounts and links end as well.
"""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from minirt import paths
from minirt.cgroups import lifecycle, missing, tree
from minirt.cgroups.devices import DENY_ALL, AttachDeviceFilter
from minirt.cgroups.plan import CONTROLLERS, MakeCgroup
from minirt.errors import NetworkError
from minirt.linux import fds, mount, operation, process, seccomp
from minirt.namespaces import idmap
from minirt.security.capabilities import DEFAULT, NAMES, NUMBERS, held_here, last_cap, ordered

FILE_SYSTEMS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2")
NAMESPACES = {
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "uts": process.CLONE_NEWUTS,
    "ipc": process.CLONE_NEWIPC,
    "network": process.CLONE_NEWNET,
    "cgroup": process.CLONE_NEWCGROUP,
}
RIGHTS = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", *DEFAULT)
"""The capabilities without which no container can be built, or given what it has by default."""

LOSSES = {
    "CAP_SYS_RESOURCE": "oom_score_adj cannot be lowered nor limits raised: containers run with a warning",
    "CAP_SYS_MODULE": "kernel modules are not loaded when first used",
}


class Limited(Exception):
    """It works, with less; the text says with what less."""


class Probe(Struct, frozen=True):
    """One thing to try, and what to do where it is missing (errors of minirt bring their own)."""

    name: str
    look: Callable[[], str]
    do: str
    needed: bool = True


def probes() -> Iterator[Probe]:
    """Yield every probe, in the order of the table."""
    yield Probe("root", _root, "run it with sudo")
    yield Probe("capabilities", _capabilities, "run outside of a container, or in one with --privileged")
    yield Probe("system calls", _system_calls, "use Linux 5.12 or later")
    yield Probe("file systems", _file_systems, "boot a kernel with it, or: modprobe it")
    yield Probe("overlayfs", _overlayfs, "modprobe overlay; set MINIRT_ROOT to a directory on ext4, xfs or btrfs")
    do = "set MINIRT_ROOT to a directory on ext4, xfs or btrfs; without it, run without --userns and hostUsers: false"
    yield Probe("idmapped mounts", _idmapped, do, needed=False)
    for kind, flag in NAMESPACES.items():
        yield Probe(f"{kind} namespace", _namespace(flag), "run as root, on a kernel with CONFIG_NAMESPACES")
    yield Probe("user namespace", _namespace(process.CLONE_NEWUSER), "sysctl user.max_user_namespaces", needed=False)
    yield Probe("cgroup v2", _cgroup_v2, "mount -t cgroup2 none /sys/fs/cgroup, or use vm/run")
    for controller in CONTROLLERS:
        yield Probe(f"cgroup v2 {controller}", _controller(controller), "use vm/run")
    yield Probe("cgroup.kill", _cgroup_kill, "use Linux 5.14 or later")
    yield Probe("device filters", _device_filters, "boot a kernel with CONFIG_CGROUP_BPF, or run all --privileged")
    yield Probe(
        "seccomp", _seccomp, "boot a kernel with CONFIG_SECCOMP_FILTER, or use --security-opt seccomp=unconfined"
    )
    yield Probe("bridge", _link("bridge"), "modprobe bridge")
    yield Probe("veth", _link("veth"), "modprobe veth")
    yield Probe("nftables", _nftables, "apt-get install nftables; modprobe nft_masq")
    yield Probe("iptables", _iptables, "", needed=False)


def _root() -> str:
    if os.geteuid():
        raise PermissionError(errno.EPERM, f"this is user {os.geteuid()}: what needs root is told as missing below")
    return f"Linux {os.uname().release}"


def _capabilities() -> str:
    there = frozenset(name for name in NAMES if NUMBERS[name] <= last_cap())
    lacking = ordered(there - held_here())
    if lost := [name for name in lacking if name in RIGHTS]:
        raise PermissionError(errno.EPERM, f"without {', '.join(lost)}")
    if lacking:
        raise Limited("; ".join(f"without {name}" + _loss(name) for name in lacking))
    return f"all {len(there)}"


def _loss(name: str) -> str:
    return f": {LOSSES[name]}" if name in LOSSES else ", which no container can then have"


def _system_calls() -> str:
    _private_mounts()
    os.close(process.pidfd_open(os.getpid()))
    with fds.closing(os.open("/", os.O_PATH)) as root:
        os.close(fds.openat2(root, ".", os.O_PATH))
    with fds.closing(mount.open_tree(-100, "/", mount.OPEN_TREE_CLONE)) as clone:
        mount.mount_setattr(clone, "", 0, to_set=mount.MOUNT_ATTR_RDONLY)
    _end(process.clone3(0))
    return "clone3, pidfd_open, openat2, open_tree, mount_setattr"


def _file_systems() -> str:
    for fstype in FILE_SYSTEMS:
        os.close(mount.fsopen(fstype))
    return ", ".join(FILE_SYSTEMS)


def _overlayfs() -> str:
    """Stack two directories under a third, where images will be: the file system there must be able to be on top."""
    _private_mounts()
    where = _nearest(paths.data_root())
    with tempfile.TemporaryDirectory(prefix=".minirt-check-", dir=where) as place:
        for name in ("low", "lower", "upper", "work"):
            os.mkdir(f"{place}/{name}")
        with fds.closing(mount.fsopen("overlay")) as context:
            mount.fsconfig_string(context, "lowerdir+", f"{place}/low")
            mount.fsconfig_string(context, "lowerdir+", f"{place}/lower")
            mount.fsconfig_string(context, "upperdir", f"{place}/upper")
            mount.fsconfig_string(context, "workdir", f"{place}/work")
            mount.fsconfig_create(context)
            os.close(mount.fsmount(context))
    return f"on {where}"


def maps_ids() -> bool:
    """Say whether containers can have user namespaces here. For a caller without threads: it is tried in a fork."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(Exception):
            _idmapped()
            status = 0
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _idmapped() -> str:
    """Map the ids of a directory where images will be: layers of containers in user namespaces are shown like that."""
    where = _nearest(paths.data_root())
    line = ((0, 1, 1),)
    with fds.closing(mount.open_tree(-100, str(where), mount.OPEN_TREE_CLONE)) as tree:
        idmap.apply(tree, str(where), line, line, below=False)
    return f"on {where}, for layers and volumes of containers in user namespaces"


def _nearest(directory: Path) -> Path:
    while not directory.is_dir():
        directory = directory.parent
    return directory


def _namespace(flag: int) -> Callable[[], str]:
    def look() -> str:
        _end(process.clone3(flag))
        return ""

    return look


def _cgroup_v2() -> str:
    found = tree.find()
    if found.is_delegated:
        return f"{found.mount}, delegated by systemd as {tree.UNIT}"
    return found.mount if found.mount == tree.USUAL_MOUNTS[0] else f"{found.mount} (hybrid: cgroup v1 has the rest)"


def _controller(name: str) -> Callable[[], str]:
    def look() -> str:
        found = tree.find()
        if name not in found.controllers():
            raise missing.missing(name, found)
        return ""

    return look


def _cgroup_kill() -> str:
    """Clone a child into a new cgroup and kill it there."""
    path = f"{tree.find().mount}/minirt-check-{os.getpid()}"
    try:
        operation.run([MakeCgroup(path)], None)
        with fds.closing(lifecycle.open_fd(path)) as cgroup:
            child = process.clone3(0, cgroup)
        if child[0] == 0:
            signal.pause()
        has_kill = os.path.exists(f"{path}/cgroup.kill")
        lifecycle.kill(path)
        _end(child)
    finally:
        lifecycle.remove(path)
    if not has_kill:
        raise Limited("processes are frozen and killed one by one: Linux 5.14 or later has cgroup.kill")
    return "and CLONE_INTO_CGROUP"


def _device_filters() -> str:
    """Clone a child into a new cgroup that may use no device, and have it open one."""
    path = f"{tree.find().mount}/minirt-check-{os.getpid()}"
    try:
        operation.run([MakeCgroup(path), AttachDeviceFilter(path, (DENY_ALL,))], None)
        with fds.closing(lifecycle.open_fd(path)) as cgroup:
            pid, pidfd = process.clone3(0, cgroup)
        if pid == 0:
            os._exit(_is_refused(os.devnull))
        os.close(pidfd)
        refused = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        lifecycle.remove(path)
    if not refused:
        raise OSError(errno.ENOTSUP, "a filter was attached, and is not asked")
    return "eBPF, BPF_PROG_TYPE_CGROUP_DEVICE"


def _is_refused(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        return True
    return False


def _seccomp() -> str:
    seccomp.require_filters()
    return ""


def _link(kind: str) -> Callable[[], str]:
    """Make a link of a kind in a network namespace that ends with the probe."""

    def look() -> str:
        from minirt.network.rtnetlink import NLM_F_CREATE, NLM_F_EXCL, Message, Rtnetlink

        process.unshare(process.CLONE_NEWNET)
        attributes = {"IFLA_IFNAME": "check0", "IFLA_LINKINFO": {"IFLA_INFO_KIND": kind}}
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
            Rtnetlink(channel).change(Message("RTM_NEWLINK", {}, attributes, NLM_F_CREATE | NLM_F_EXCL))
        return ""

    return look


def _nftables() -> str:
    """Install the very rules of a bridge, in a network namespace that ends with the probe."""
    from minirt.network.firewall import ruleset
    from minirt.network.settings import BridgeSettings

    process.unshare(process.CLONE_NEWNET)
    rules = ruleset(BridgeSettings(), ())
    done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError("use nftables", f"nft says: {done.stderr.strip().splitlines()[0]}", "modprobe nft_masq")
    return "NAT"


def _iptables() -> str:
    """Say which backend iptables has: where its FORWARD chain drops, minirt must add to it."""
    done = subprocess.run(["iptables", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _private_mounts() -> None:
    process.unshare(process.CLONE_NEWNS)
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)


def _end(child: tuple[int, int]) -> None:
    """End a clone of ours: here in the child; in the parent, wait for it."""
    pid, pidfd = child
    if pid == 0:
        os._exit(0)
    os.close(pidfd)
    os.waitpid(pid, 0)
