"""A container's status.json: written by its shim alone, read by everyone.

    (no file) ──▶ created ──▶ running ──▶ exited        written to a temporary name and renamed

A reader that finds "created" or "running" and no live shim looks whether the process itself (pid and start time) is
still there: if not, its exit went unseen and is reported as unknown, code 255.
"""

import contextlib
import os
import time
from _thread import get_native_id
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, structs

from minirt import decoding, paths
from minirt.linux import fds, process

State = Literal["created", "running", "exited", "unknown"]
UNKNOWN_CODE = 255


class Status(Struct, frozen=True, omit_defaults=True):
    """Times are CLOCK_REALTIME nanoseconds, 0 for not yet; ``pid`` is the host's."""

    state: State
    pid: int = 0
    start_time: int = 0
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    warnings: tuple[str, ...] = ()

    def exited(self, code: int, reason: str, message: str = "") -> "Status":
        """Return this status after the exit, now."""
        return structs.replace(
            self, state="exited", finished_at=time.time_ns(), exit_code=code, reason=reason, message=message
        )

    def is_alive(self) -> bool:
        """Say whether its very process still runs."""
        return process.is_alive(self.pid, self.start_time)


def write(container_id: str, status: Status) -> None:
    """Replace the container's status file."""
    replace_file(paths.container_dir(container_id) / "status.json", msgspec.json.encode(status))


def read(container_id: str) -> Status | None:
    """Return the container's status as last written; None before its first, "unknown" where it cannot be read."""
    try:
        with open(f"{paths.container_dir(container_id)}/status.json", "rb") as file:
            return decoding.from_json(file.read(), Status)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        return Status(state="unknown", exit_code=UNKNOWN_CODE, message=str(error))


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part. Raises OSError: ENOSPC."""
    temporary = f"{path.parent}/.{path.name}.{get_native_id()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        with fds.closing(fd):
            while data:
                data = data[os.write(fd, data) :]
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
