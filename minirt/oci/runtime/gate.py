"""Where a container's init waits, when no shim stays with it: for hooks during ``create``, for ``start`` after it.

create ◀─ {"type": "hooks"} ─ init      all mounts are made; said only where there are hooks to run then
create ─▶ {"type": "go", "state": …}    prestart and createRuntime have run; init runs createContainer
create ◀─ {"type": "ready"} ─ init      at the gate; create ends, init listens on gate.sock
start  ─▶ {"type": "start", "state": …} through gate.sock; init runs startContainer, then execve
start  ◀─ {"type": "failed", …}, or the end of file when execve has closed init's end
"""

import os
import socket

from msgspec import structs

from minirt.linux import fds
from minirt.linux.operation import Operation
from minirt.namespaces.rootfs import PivotRoot, ReadonlyRoot
from minirt.oci import hooks, sync
from minirt.oci.hooks import Hook, Hooks
from minirt.oci.init import CloseInherited, Execute, Init, WaitForStart
from minirt.oci.plan import Plan


class AwaitHooks(Operation[Init], frozen=True):
    """Let the runtime run its hooks, then run those of the container."""

    hooks: tuple[Hook, ...] = ()

    def describe(self) -> str:
        """Return the operation in words."""
        own = "".join(f", run {hook.path}" for hook in self.hooks)
        return f"wait for prestart and createRuntime hooks{own}"

    def execute(self, context: Init) -> None:
        """Say that all is mounted, wait, run. The end of the pair means that nobody wants this container any more."""
        sync.send(context.sync, {"type": "hooks"})
        message, _ = sync.receive(context.sync)
        if message is None:
            os._exit(125)
        hooks.run("createContainer", self.hooks, message["state"])


class WaitAtGate(Operation[Init], frozen=True):
    """Stand at the gate until ``start`` calls."""

    listener: int
    hooks: tuple[Hook, ...] = ()

    def describe(self) -> str:
        """Return the operation in words."""
        own = "".join(f", run {hook.path}" for hook in self.hooks)
        return f"say ready, wait for start{own}"

    def execute(self, context: Init) -> None:
        """Report, then listen. From the call on the caller takes the shim's place."""
        sync.send(context.sync, {"type": "ready"})
        context.sync.close()
        message = None
        with socket.socket(fileno=self.listener) as listener:
            while message is None:  # who calls and says nothing was killed; the next one may
                context.sync, _ = listener.accept()
                message, _ = sync.receive(context.sync)
        hooks.run("startContainer", self.hooks, message["state"], context.blank)


def with_gate(plan: Plan, listener: int, moments: Hooks, preserved: int) -> Plan:
    """Return a plan whose init waits on ``listener``, runs its hooks, and keeps ``preserved`` descriptors from 3 on."""
    kept = (listener, *range(3, 3 + preserved))
    inside: list[Operation[Init]] = []
    is_built = not (moments.prestart or moments.create_runtime or moments.create_container)
    for operation in plan.inside:
        if isinstance(operation, ReadonlyRoot | PivotRoot) and not is_built:
            inside.append(AwaitHooks(moments.create_container))
            is_built = True
        match operation:
            case CloseInherited():
                inside.append(structs.replace(operation, keep=kept))
            case WaitForStart():
                inside.append(WaitAtGate(listener, moments.start_container))
            case Execute():
                inside.append(structs.replace(operation, preserved=preserved))
            case _:
                inside.append(operation)
    return structs.replace(plan, inside=tuple(inside))


def call(path: str, state: str, command: str) -> None:
    """Let the init that waits at a gate through; return once its program runs.

    Raises:
        MinirtError: what init failed at.
        OSError: nobody waits there.
    """
    directory, name = os.path.split(path)
    with (
        fds.closing(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as at,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
    ):
        connection.connect(f"/proc/self/fd/{at}/{name}")
        os.unlink(path)
        sync.send(connection, {"type": "start", "state": state})
        message, _ = sync.receive(connection)
    if message is not None:
        raise sync.failure(message, command)
