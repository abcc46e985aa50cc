"""The pod face with streams: Exec, Attach and PortForward, that answer with a URL."""

# ruff: noqa: N802 (the methods are the CRI's RPCs)
from typing import Any

from minirt.cri.streaming.remote import Wanted
from minirt.cri.streaming.server import Ports, StreamingServer
from minirt.crimessages import api_pb2 as cri
from minirt.engine import containers, store
from minirt.engine.face import EngineFace
from minirt.engine.lists import Lists
from minirt.engine.records import CRI, ContainerRecord
from minirt.errors import Conflict, InvalidInput
from minirt.shim.zygote import Zygote


class ServedFace(EngineFace):
    """What ``minirt serve`` offers: the engine's face, a streaming server beside it, and lists that it remembers."""

    def __init__(self, zygote: Zygote, streams: StreamingServer, **options: Any) -> None:
        super().__init__(zygote, CRI, **options)
        self._urls = streams
        self.lists = Lists(self, CRI)

    def Exec(self, request: cri.ExecRequest) -> cri.ExecResponse:
        """Return the URL at which a command can be executed in a running container.

        Raises:
            InvalidInput: no command, no stream, or a terminal with a stream for errors of its own.
            Conflict: the container does not run.
        """
        if not request.cmd:
            raise InvalidInput("exec", "there is no command", "give cmd")
        _check_streams(request)
        record = self._running(request.container_id, "exec in")
        return cri.ExecResponse(url=self._urls.url_of(_wanted(record, request, tuple(request.cmd))))

    def Attach(self, request: cri.AttachRequest) -> cri.AttachResponse:
        """Return the URL at which one can talk to a running container's own process.

        Raises:
            InvalidInput: as Exec's; or ``tty`` is not what the container was made with.
            Conflict: the container does not run.
        """
        _check_streams(request)
        record = self._running(request.container_id, "attach to")
        if request.tty != record.config.terminal:
            has = "has a terminal" if record.config.terminal else "has no terminal"
            raise InvalidInput(f"attach to {record.config.name}", f"it {has}", "ask with the same tty")
        return cri.AttachResponse(url=self._urls.url_of(_wanted(record, request, ())))

    def PortForward(self, request: cri.PortForwardRequest) -> cri.PortForwardResponse:
        """Return the URL at which connections to a ready sandbox's ports can be made.

        Raises:
            Conflict: the sandbox is stopped.
        """
        record = store.sandbox_of(self._owner, request.pod_sandbox_id)
        if record.state != "ready":
            raise Conflict(f"forward to ports of {record.config.name}", f"the sandbox is {record.state}")
        return cri.PortForwardResponse(url=self._urls.url_of(Ports(record, tuple(request.port))))

    def _running(self, key: str, verb: str) -> ContainerRecord:
        record = store.container_of(self._owner, key)
        if (state := containers.status(record).state) != "running":
            raise Conflict(f"{verb} {record.config.name}", f"it is {state}", "start it first")
        return record


def _check_streams(request: cri.ExecRequest | cri.AttachRequest) -> None:
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidInput("stream", "none of stdin, stdout and stderr is asked for", "ask for one")
    if request.tty and request.stderr:
        raise InvalidInput("stream", "a terminal has no stream for errors of its own", "leave out stderr, or tty")


def _wanted(record: ContainerRecord, request: cri.ExecRequest | cri.AttachRequest, command: tuple[str, ...]) -> Wanted:
    return Wanted(record, command, request.tty, request.stdin, request.stdout, request.stderr)
