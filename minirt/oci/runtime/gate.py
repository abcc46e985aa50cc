"""Where a container's init waits, when no shim stays with it: for hooks during ``create``, for ``start`` after it.

create ◀─ {"type": "hooks"} ─ init      all mounts are made; said only where there are hooks to run then
create ─▶ {"type": "go", "state": …}    prestart and createRuntime have run; init runs createContainer
create ◀─ {"type": "ready"} ─ init      at the gate; create ends, init listens on gate.sock
start  ─▶ {"type": "start", "state": …} through gate.sock; init runs startContainer, then execve
start  ◀─ {"type": "listener"} + fd     of a seccomp filter that asks somebody
start  ◀─ {"type": "failed", …}, or the end of file when execve has closed init's end

``run`` starts what it has made itself: there the last two go over the pair, and no gate.sock is made.
"""

import os
from collections.abc import Callable
from typing import Any

from msgspec import structs

from minirt.linux import fds, sockets
from minirt.linux.operation import Operation
from minirt.linux.sockets import Socket
from minirt.namespaces.rootfs import MoveRoot, PivotRoot, ReadonlyRoot
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


OWN_PAIR = -1
"""The gate of a container that its own maker starts: the pair that they have."""


class WaitAtGate(Operation[Init], frozen=True):
    """Stand at the gate until ``start`` calls."""

    listener: int
    hooks: tuple[Hook, ...] = ()

    def describe(self) -> str:
        """Return the operation in words."""
        own = "".join(f", run {hook.path}" for hook in self.hooks)
        return f"say ready, wait for start{own}"

    def execute(self, context: Init) -> None:
        """Report, then wait. From a call on the caller takes the shim's place."""
        sync.send(context.sync, {"type": "ready"})
        message = self._own(context) if self.listener == OWN_PAIR else self._called(context)
        hooks.run("startContainer", self.hooks, message["state"], context.blank)

    def _own(self, context: Init) -> dict[str, Any]:
        message, _ = sync.receive(context.sync)
        if message is None:
            os._exit(125)
        return message

    def _called(self, context: Init) -> dict[str, Any]:
        context.sync.close()
        message = None
        while message is None:  # who calls and says nothing was killed; the next one may
            context.sync = sockets.accept(self.listener)
            message, _ = sync.receive(context.sync)
        os.close(self.listener)
        return message


def with_gate(plan: Plan, listener: int, moments: Hooks, preserved: int) -> Plan:
    """Return a plan whose init waits on ``listener``, runs its hooks, and keeps ``preserved`` descriptors from 3 on."""
    kept = (*([listener] if listener != OWN_PAIR else []), *range(3, 3 + preserved))
    inside: list[Operation[Init]] = []
    is_built = not (moments.prestart or moments.create_runtime or moments.create_container)
    for operation in plan.inside:
        if isinstance(operation, ReadonlyRoot | PivotRoot | MoveRoot) and not is_built:
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


def call(path: str, state: str, command: str, on_listener: Callable[[int], None]) -> None:
    """Let the init that waits at a gate through; return once its program runs.

    ``on_listener`` gets the descriptor of its seccomp filter's listener, if it has one.

    Raises:
        MinirtError: what init failed at.
        OSError: nobody waits there.
    """
    directory, name = os.path.split(path)
    with (
        fds.closing(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as at,
        sockets.seqpacket() as connection,
    ):
        connection.connect(f"/proc/self/fd/{at}/{name}")
        os.unlink(path)
        open_own(connection, state, command, on_listener)


def open_own(pair: Socket, state: str, command: str, on_listener: Callable[[int], None]) -> None:
    """Let the init at the other end through; return once its program runs. Raises MinirtError: what init failed at."""
    sync.send(pair, {"type": "start", "state": state})
    message, received = sync.receive(pair)
    while message is not None and message["type"] == "listener":
        on_listener(received[0])
        message, received = sync.receive(pair)
    if message is not None:
        raise sync.failure(message, command)
