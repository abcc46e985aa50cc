"""Another OCI runtime, runc or crun: the bundle it is given, its command lines, and what its errors mean.

    <container>/runtime/config.json     the spec, in that runtime's words
    <container>/runtime/state/          its own state (``--root``): what it forgets goes with the container's directory
    <container>/runtime/*.log           what each of its commands had to say

Each command runs in a mount namespace of its own, where the container's root is mounted for ``create``: the host sees
no mount and has none to clean up. On a machine with hybrid cgroups it finds cgroup v2 alone in /sys/fs/cgroup.
Source: https://github.com/opencontainers/runtime-spec, and the runtimes' own manual pages
"""

import os

import msgspec
from msgspec import Struct, structs

from minirt import decoding
from minirt.cgroups.plan import DelegateUnit, EnableControllers, MakeCgroup, plan_cgroup
from minirt.cgroups.tree import Tree
from minirt.errors import CommandNotFound, MinirtError, NotExecutable, ShimError
from minirt.linux import mount
from minirt.linux.operation import Operation
from minirt.namespaces.kinds import MakeNamespace
from minirt.namespaces.rootfs import HideBelow, MountOverlay, SetPropagation
from minirt.oci.compile import DEFAULT_PATH, ROOT_PROPAGATION
from minirt.oci.init import Chdir, Execute, FindExecutable, Init, NewSession, SetUmask, Stdio
from minirt.oci.plan import Plan
from minirt.oci.spec import Linux, Process, Spec

VERSION = "1.0.2"
"""The version that a bundle has: there are runtimes that refuse any other, and none that reads less for it."""
CGROUPS = "/sys/fs/cgroup"
"""Where other runtimes look for cgroups, whatever is mounted elsewhere."""


class MountCgroups(Operation[Init], frozen=True):
    """Show cgroup v2, and not v1, where another runtime looks for it."""

    def describe(self) -> str:
        """Return the operation in words."""
        return f"mount -t cgroup2 none {CGROUPS}"

    def execute(self, context: Init) -> None:
        """Mount it; the caller has seen to it that nobody else sees it."""
        mount.mount("none", CGROUPS, "cgroup2", 0)


class _Line(Struct):
    """One line of a runtime's log."""

    msg: str = ""
    level: str = ""


class Runtime(Struct, frozen=True):
    """A runtime's ``program``, and the directory of its own that it has for one container."""

    program: str
    container: str
    directory: str

    @property
    def name(self) -> str:
        """Return what it is called."""
        return os.path.basename(self.program)

    def path(self, name: str) -> str:
        """Return a file's path in the directory."""
        return f"{self.directory}/{name}"

    def arguments(self, log: str, *words: str) -> tuple[str, ...]:
        """Return the command line of ``runtime words…`` about the container; it is to be run in the directory."""
        options = ("--root", self.path("state"), "--log", self.path(log), "--log-format", "json")
        return (self.program, *options, *words, self.container)

    def error(self, command: str, log: str, code: int, executed: str) -> MinirtError:
        """Return why one of its commands has failed: the last error of its log.

        ``executed`` is the program that the container, or the exec, was to execute.
        """
        why = _last_error(self.path(log)) or f"it ended with code {code} and gave no reason"
        kind = _kind(why, executed)
        if kind:
            return kind(f"execute {executed!r}", f"{self.name} says: {why}", "is it in the image, and executable?")
        return ShimError(f"{command} by {self.name}", why, f"it is {self.program} that refuses")


def _last_error(path: str) -> str:
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ""
    found = ""
    for line in lines:
        try:
            read = decoding.from_json(line, _Line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        found = read.msg if read.level in {"error", "fatal"} else found
    return found


def _kind(why: str, executed: str) -> "type[CommandNotFound | NotExecutable] | None":
    """Return what an error says of the program, None where it is about something else: runtimes tell it in words."""
    told = why.lower()
    if executed.lower() not in told and "exec" not in told:
        return None
    if "not found" in told or ("no such file" in told and executed.lower() in told):
        return CommandNotFound
    if "permission denied" in told or "exec format error" in told or "is a directory" in told:
        return NotExecutable
    return None


def plan_of(spec: Spec, tree: Tree) -> Plan:
    """Return what is left to do for the shim: the cgroup, whose limits the runtime writes.

    Raises:
        InvalidInput: the cgroup's path makes no sense.
    """
    path = spec.linux.cgroups_path
    steps = plan_cgroup(path, spec.linux.resources, tree)
    made = tuple(one for one in steps if isinstance(one, DelegateUnit | MakeCgroup | EnableControllers))
    return Plan(command=spec.process.args[0], cgroup=tree.at(path), shim=made, stage=(), new=(), inside=())


def config_of(spec: Spec, rootfs: str, tree: Tree) -> Spec:
    """Return a spec as another runtime reads it: with whole paths, and no name for what is not the container's.

    Where it leaves the root's propagation open, runc has slave and crun private, which cuts volumes off from the host.
    """
    kinds = {space.type for space in spec.linux.namespaces}
    linux: Linux = structs.replace(
        spec.linux,
        cgroups_path=tree.at(spec.linux.cgroups_path).removeprefix(tree.mount),
        rootfs_propagation=spec.linux.rootfs_propagation or "rslave",
    )
    root = structs.replace(spec.root, path=rootfs)
    hostname = spec.hostname if "uts" in kinds else ""
    return structs.replace(spec, oci_version=VERSION, root=root, linux=linux, hostname=hostname)


def with_root(spec: Spec, overlay: MountOverlay, tree: Tree) -> list[Operation[Init]]:
    """Return what makes the mount namespace of ``create``: the root is in it, and in no other."""
    propagation = ROOT_PROPAGATION.get(spec.linux.rootfs_propagation, "rslave")
    hidden = [HideBelow(overlay.target)] if propagation == "rshared" else []
    return [MakeNamespace("mount"), SetPropagation(propagation), *hidden, *_cgroups(tree), overlay]


def without_root(tree: Tree) -> list[Operation[Init]]:
    """Return what makes the mount namespace of every other command."""
    return [MakeNamespace("mount"), SetPropagation("rslave"), *_cgroups(tree)]


def _cgroups(tree: Tree) -> list[Operation[Init]]:
    return [] if tree.mount == CGROUPS else [HideBelow(CGROUPS), MountCgroups()]


def execution(runtime: Runtime, arguments: tuple[str, ...]) -> list[Operation[Init]]:
    """Return what becomes a command of the runtime, in a session of its own, and of whose environment only PATH."""
    return [
        NewSession(),
        Stdio(),
        SetUmask(0o022),
        Chdir(runtime.directory),
        FindExecutable(runtime.program, ()),
        Execute(arguments, (f"PATH={os.environ.get('PATH', DEFAULT_PATH)}",)),
    ]


def encoded(document: Spec | Process) -> bytes:
    """Return a spec, or the process of an exec, as its file has it: what others miss is there also if it is empty."""
    plain = msgspec.to_builtins(document)
    process = plain.get("process", {}) if isinstance(document, Spec) else plain
    for name, usual in (("cwd", "/"), ("user", {"uid": 0, "gid": 0}), ("capabilities", {})):
        process.setdefault(name, usual)
    return msgspec.json.encode(plain)
