"""The CRI's gRPC services, as a thin adapter over anything that has the pod face.

    caller ── unix socket ──▶ event loop ──▶ a thread of the pool ──▶ face.RunPodSandbox(request)
                                 ▲ response, or an error's status code ──┘

A list that shows what it showed last time is answered by the event loop itself (engine/lists.py).
The method table is made from the interface's own description; what the face has not is UNIMPLEMENTED. A caller that
goes away, or whose deadline passes, ends the call and not the thread: what the thread then brings forth is undone.
"""

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from minirt.cri import codes
from minirt.crimessages import api_pb2 as cri
from minirt.engine.lists import METHODS, Lists
from minirt.errors import MinirtError

SERVICES = ("RuntimeService", "ImageService")
THREADS = 256
"""How many calls may be at work at once; most of them wait for a shim."""
LARGEST_MESSAGE = 64 << 20
"""Bytes: an ExecSync answers with up to 16 MiB of each stream."""

log = logging.getLogger(__name__)
Unary = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]
Streaming = Callable[[Any, grpc.aio.ServicerContext], AsyncIterator[Any]]

UNDO: dict[str, Callable[[Any, Any], object]] = {
    "RunPodSandbox": lambda face, made: face.RemovePodSandbox(
        cri.RemovePodSandboxRequest(pod_sandbox_id=made.pod_sandbox_id)
    ),
    "CreateContainer": lambda face, made: face.RemoveContainer(
        cri.RemoveContainerRequest(container_id=made.container_id)
    ),
}
"""How to undo what was made for a caller that has gone."""
CANCELLABLE = {"PullImage"}
"""The methods of the face that take ``is_cancelled``."""


class Services:
    """The CRI's services over one face."""

    def __init__(self, face: Any) -> None:
        self._face = face
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cri")

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register every method that the face has."""
        for name in SERVICES:
            methods = cri.DESCRIPTOR.services_by_name[name].methods
            table = {method.name: self._handler(method) for method in methods if hasattr(self._face, method.name)}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"runtime.v1.{name}", table),))

    def _handler(self, method: Any) -> grpc.RpcMethodHandler:
        lists = getattr(self._face, "lists", None)
        if lists and method.name in METHODS:
            return grpc.unary_unary_rpc_method_handler(self._list(method.name, lists))
        request = getattr(cri, method.input_type.name).FromString
        response = getattr(cri, method.output_type.name).SerializeToString
        work = getattr(self._face, method.name)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(method.name), request, response)
        return grpc.unary_unary_rpc_method_handler(self._unary(method.name, work), request, response)

    def _list(self, name: str, lists: Lists) -> Unary:
        """Return the handler of a list; it takes and gives messages as they are sent."""
        look = self._unary(name, functools.partial(lists.answer, name))

        async def call(request: bytes, context: grpc.aio.ServicerContext) -> Any:
            known = lists.again(name, request)
            return await look(request, context) if known is None else known

        return call

    def _unary(self, name: str, method: Callable[..., Any]) -> Unary:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            cancelled = threading.Event()
            extra = (cancelled.is_set,) if name in CANCELLABLE else ()
            work = self._pool.submit(method, request, *extra)
            try:
                return await asyncio.shield(asyncio.wrap_future(work))
            except asyncio.CancelledError:
                cancelled.set()
                work.add_done_callback(lambda done: self._undo(name, done))
                raise
            except Exception as error:  # noqa: BLE001  every failure becomes a status
                return await _abort(name, error, context)

        return call

    def _undo(self, name: str, done: "Future[Any]") -> None:
        """Undo what came of a call that nobody waits for any more."""
        if name in UNDO and not done.exception():
            log.info("%s: its caller has gone, so it is undone", name)
            UNDO[name](self._face, done.result())

    def _stream(self, name: str) -> Streaming:
        method = getattr(self._face, name)

        async def call(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                found = await asyncio.wrap_future(self._pool.submit(method, request))
                async for item in _items(found, self._pool):
                    yield item
            except Exception as error:  # noqa: BLE001  every failure becomes a status
                await _abort(name, error, context)

        return call


async def _items(found: Iterator[Any], pool: Executor) -> AsyncIterator[Any]:
    """Yield what an iterator that blocks gives, read by a thread; ``cancel`` it when the reader leaves."""
    over = object()
    try:
        while True:
            item = await asyncio.wrap_future(pool.submit(next, found, over))
            if item is over:
                return
            yield item
    finally:
        if hasattr(found, "cancel"):
            found.cancel()


async def _abort(name: str, error: Exception, context: grpc.aio.ServicerContext) -> None:
    """End a call with an error's status. What is no MinirtError is a fault of ours: the log has its traceback."""
    if isinstance(error, MinirtError):
        code, text = codes.of(error)
    elif isinstance(error, OSError):
        code, text = grpc.StatusCode.INTERNAL, f"cannot do {name}: {error}"
        log.warning("%s: %s", name, error)
    else:
        code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        log.error("%s failed", name, exc_info=error)
    await context.abort(code, text)


def server_for(face: Any) -> grpc.aio.Server:
    """Return a server of the CRI over a face; bind it, and start it."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        ]
    )
    Services(face).add_to(server)
    return server
