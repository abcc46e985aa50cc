"""Seccomp's listener: who decides on system calls that a filter neither allows nor refuses (SCMP_ACT_NOTIFY).

    init ─ {"type": "listener"} + fd ─▶ start, or exec ─ ContainerProcessState + fd ─▶ listenerPath

The socket is connected to before the program is let go: where nobody listens, nothing runs.
Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config-linux.md, "The Container Process State"
"""

import os
import signal
from typing import Any

from minirt.errors import StepFailed
from minirt.linux import fds, sockets
from minirt.linux.sockets import Socket
from minirt.oci import VERSION
from minirt.oci.runtime import state
from minirt.security.profile import Seccomp

FD_NAME = "seccompFd"


class Listener:
    """The connection to who listens for a filter."""

    def __init__(self, profile: Seccomp) -> None:
        """Connect. Raises StepFailed: nobody listens there."""
        self._profile = profile
        self._connection = _connected(profile.listener_path)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection: it is for one state only."""
        self._connection.close()

    def hand_over(self, listener: int, pid: int, document: dict[str, Any]) -> None:
        """Send a filter's descriptor, which is closed here, with the state of the process ``pid`` that it is of.

        Raises:
            StepFailed: whoever listened is gone. The process is killed, for nobody will answer it.
        """
        with fds.closing(listener):
            message = {
                "ociVersion": VERSION,
                "fds": [FD_NAME],
                "pid": pid,
                "metadata": self._profile.listener_metadata,
                "state": document,
            }
            try:
                sockets.send(self._connection, state.encoded(message).encode(), [listener])
            except OSError as error:
                os.kill(pid, signal.SIGKILL)
                raise _failed(self._profile.listener_path, error) from error


def _connected(path: str) -> Socket:
    connection = sockets.stream()
    try:
        connection.connect(os.fsencode(path))
    except (OSError, ValueError) as error:
        connection.close()
        raise _failed(path, error) from error
    return connection


def _failed(path: str, error: Exception) -> StepFailed:
    what = f"hand the seccomp listener to linux.seccomp.listenerPath {path}"
    if isinstance(error, OSError):
        return StepFailed.from_os_error(what, error, do="does anybody listen there?")
    return StepFailed(what, str(error), "does anybody listen there?")
