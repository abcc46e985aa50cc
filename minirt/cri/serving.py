"""``minirt serve`` from its start to its end: one server a state directory, ended by SIGTERM or SIGINT.

Containers are their shims' and go on without it, whether it ends or is killed; the next server finds them on disk.
Without its zygote a server can make no sandbox, and having threads it can fork no other: should the zygote be killed,
the server executes itself anew, in the same process.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from minirt import paths
from minirt.cri.server import server_for
from minirt.cri.streaming.face import ServedFace
from minirt.cri.streaming.server import StreamingServer
from minirt.engine import example, prune
from minirt.errors import Conflict, InvalidInput, MinirtError, StepFailed
from minirt.linux import process
from minirt.shim.zygote import Zygote

GRACE_S = 5.0
"""How long calls under way may take when the server is told to end."""
DESCRIPTORS = 1 << 16
"""More would be of no use, and programs that we start may try each one that they may have."""
STREAM_THREADS = 64
"""How many execs, attaches and forwarded connections may begin at once."""
LONGEST_PATH = 107
"""Characters of a unix socket's path. Source: unix(7), sun_path."""

log = logging.getLogger(__name__)


def run(zygote: Zygote, listen: Path, **options: Any) -> None:
    """Serve the CRI on the unix socket ``listen`` until SIGTERM or SIGINT. ``options`` are EngineFace's.

    Raises:
        Conflict: another server has this state directory.
        InvalidInput: ``listen`` cannot be a socket's path.
        MinirtError: it cannot be bound.
    """
    check(listen)
    _allow_descriptors()
    with _alone():
        streams = StreamingServer()
        face = ServedFace(zygote, streams, **options)
        is_over = asyncio.run(_serve(face, streams, listen, zygote))
    zygote.close()
    if not is_over:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def check(listen: Path) -> None:
    """Refuse what cannot become the path of our socket. Raises InvalidInput."""
    if not listen.is_absolute() or len(os.fsencode(listen)) > LONGEST_PATH:
        why = f"a unix socket's path is absolute and has at most {LONGEST_PATH} bytes"
        raise InvalidInput(f"listen on {listen}", why, "use for example /run/minirt/minirt.sock")
    if listen.exists() and not listen.is_socket():
        raise InvalidInput(f"listen on {listen}", "there is a file that is no socket", "remove it, or use another path")


def _rehearse(zygote: Zygote) -> None:
    """Have the zygote do once what all of its shims will do; without that they take more memory, and nothing else."""
    try:
        zygote.rehearse(example.spec())
    except MinirtError as error:
        log.warning("cannot rehearse: %s", error)


def _allow_descriptors() -> None:
    """Have enough of them: the lists take one a container. The zygote's children keep what we had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock of the one server that this state directory may have."""
    paths.state_root().mkdir(parents=True, exist_ok=True)
    fd = os.open(paths.state_root() / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        why = f"another minirt serve has {paths.state_root()}"
        raise Conflict("serve", why, "stop it first, or set MINIRT_STATE and MINIRT_ROOT") from None
    finally:
        os.close(fd)


async def _serve(face: ServedFace, streams: StreamingServer, listen: Path, zygote: Zygote) -> bool:
    """Serve until a signal, or the zygote's end; return whether it was a signal."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(STREAM_THREADS, thread_name_prefix="stream"))
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    pidfd = process.pidfd_open(zygote.pid)
    loop.add_reader(pidfd, ended.set)
    rehearsal = loop.run_in_executor(None, _rehearse, zygote)
    server = server_for(face)
    _bind(server, listen)
    await streams.start()
    await loop.run_in_executor(None, face.begin)
    await server.start()
    log.info("serving the CRI on %s", listen)
    _tell_systemd("READY=1")
    sweeping = loop.run_in_executor(None, _sweep)
    await ended.wait()
    is_over = zygote.is_alive
    _tell_systemd("STOPPING=1" if is_over else "RELOADING=1")
    streams.close()
    await server.stop(GRACE_S if is_over else 0)
    await asyncio.gather(rehearsal, sweeping)
    listen.unlink(missing_ok=True)
    loop.remove_reader(pidfd)
    os.close(pidfd)
    log.info("ended; containers go on" if is_over else "the zygote has died: starting anew; containers go on")
    return is_over


def _bind(server: object, listen: Path) -> None:
    """Bind the socket, for root alone: who may speak to it may do anything."""
    listen.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{listen}")  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise MinirtError(f"listen on {listen}", str(error), "is its directory there, and writable?") from error
    finally:
        os.umask(before)


def _sweep() -> None:
    """Remove what an earlier server left half made."""
    try:
        for line in prune.prune():
            log.info("removed %s", line)
    except (MinirtError, OSError) as error:
        log.warning("cannot remove all that crashes left: %s", error)


def _tell_systemd(state: str) -> None:
    """Tell systemd where we are, if it started us and waits for it. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        try:
            notify.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            failed = StepFailed.from_os_error("tell systemd that the server is ready", error)
            log.warning("%s", failed)
