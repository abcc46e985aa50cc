"""What the flags of create and run change of a plan, and where a pidfd goes that a caller wants.

Source: runc's create and run; for ``--pidfd-socket``, which came with runc 1.2, its docs/terminals.md is the pattern.
"""

import os
from typing import Any

from msgspec import Struct, field, structs

from minirt.errors import InvalidInput, StepFailed, Unsupported
from minirt.linux import sockets
from minirt.linux.operation import Operation
from minirt.namespaces.rootfs import MoveRoot, PivotRoot
from minirt.oci.init import Init, NewKeyring
from minirt.oci.plan import Plan

MANAGERS = ("cgroupfs", "systemd", "disabled")

INIT, EXECUTED = "standard", "setns"
"""What runc names a container's init, and a process executed later, where it sends their pidfd."""


class Options(Struct, frozen=True):
    """What create is told besides the bundle. ``terminals`` gets the master that no socket was given for.

    ``manager`` is who makes the cgroup: ``cgroupfs`` is minirt itself, ``systemd``, ``disabled`` nobody.
    """

    console_socket: str = ""
    pid_file: str = ""
    pidfd_socket: str = ""
    preserve_fds: int = 0
    detach: bool = True
    no_pivot: bool = False
    no_new_keyring: bool = False
    manager: str = "cgroupfs"
    terminals: list[int] = field(default_factory=list)

    def applied(self, plan: Plan) -> Plan:
        """Return the plan as the flags want it.

        Raises:
            InvalidInput: one does not go with the spec.
        """
        if not (self.no_pivot or self.no_new_keyring):
            return plan
        kept = (one for one in plan.inside if not (self.no_new_keyring and isinstance(one, NewKeyring)))
        return structs.replace(plan, inside=tuple(self._root(one, plan) for one in kept))

    def _root(self, one: Operation[Init], plan: Plan) -> Operation[Init]:
        if not (self.no_pivot and isinstance(one, PivotRoot)):
            return one
        if plan.has_user or one.shared:
            why = (
                "in a user namespace, or with linux.rootfsPropagation shared, it would leave the host's mounts in sight"
            )
            raise InvalidInput("use --no-pivot", why, "leave it out")
        return MoveRoot()


def manager(flags: dict[str, Any]) -> str:
    """Return who makes the cgroup: runc's flag, or crun's. Raises InvalidInput: there is none of this name."""
    name: str = flags["cgroup_manager"] or "cgroupfs"
    if name not in MANAGERS:
        raise InvalidInput(f"use --cgroup-manager={name}", f"it is none of {', '.join(MANAGERS)}")
    return "systemd" if flags["systemd_cgroup"] else name


def check_rootless(word: str) -> None:
    """Refuse what --rootless asks for: nothing here is done without root.

    Raises:
        Unsupported: it is true.
        InvalidInput: it is neither true, false nor auto.
    """
    if word == "true":
        raise Unsupported("use --rootless=true", "minirt-oci makes containers as root only", "leave it out")
    if word not in {"", "false", "auto"}:
        raise InvalidInput(f"use --rootless={word}", "it is none of true, false, auto")


def send_pidfd(path: str, pidfd: int, name: str) -> None:
    """Send a process's pidfd, with its ``name``, to the one who listens at ``path``. Raises StepFailed: nobody does."""
    try:
        with sockets.stream() as connection:
            connection.connect(os.fsencode(path))
            sockets.send(connection, name.encode(), [pidfd])
    except OSError as error:
        raise StepFailed.from_os_error(f"send the pidfd to {path}", error, do="does anybody listen there?") from error
