"""What this machine offers: each probe runs in a child, and what it changed ends with it.

system check ── fork ──▶ child: unshare what it is about to change ─ try ─ one line over a pipe ─ _exit
             ◀── ok / limited / missing, and what to do ──┘
"""

import contextlib
import errno
import json
import os
from typing import Any, Literal

import msgspec
from msgspec import Struct

from minirt.engine.probes import Limited, Probe, probes
from minirt.errors import MinirtError

Status = Literal["ok", "limited", "missing"]


class Finding(Struct, frozen=True):
    """What came of one probe. ``do`` is "" where nothing is to be done."""

    name: str
    status: Status
    needed: bool
    detail: str
    do: str = ""

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON's plain types."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def check() -> list[Finding]:
    """Try everything. The caller must have no other thread, for it forks."""
    return [_in_child(probe) for probe in probes()]


def is_enough(findings: list[Finding]) -> bool:
    """Say whether everything that minirt needs is there."""
    return not any(finding.needed and finding.status == "missing" for finding in findings)


def _in_child(probe: Probe) -> Finding:
    """Run a probe in a child; what it changed ends with it."""
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"fork in a process with {threads} threads: who has threads never forks")
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reader)
        with contextlib.suppress(BrokenPipeError):
            os.write(writer, json.dumps(_found(probe).as_plain()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        text = said.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        return Finding(probe.name, "missing", probe.needed, f"its probe ended with wait status {status}", probe.do)
    return Finding(**json.loads(text))


def _found(probe: Probe) -> Finding:
    try:
        return Finding(probe.name, "ok", probe.needed, probe.look())
    except Limited as less:
        return Finding(probe.name, "limited", probe.needed, str(less))
    except MinirtError as error:
        do = error.do or _remedy(probe, getattr(error, "errno", 0))
        return Finding(probe.name, "missing", probe.needed, error.why, do)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        return Finding(probe.name, "missing", probe.needed, why, _remedy(probe, error.errno or 0))
    except BaseException as error:  # noqa: BLE001  a forked child must not go on as its parent
        return Finding(probe.name, "missing", probe.needed, repr(error), "this is a bug in minirt's probe")


def _remedy(probe: Probe, number: int) -> str:
    refused = number in (errno.EPERM, errno.EACCES)
    return "run it with sudo" if refused and os.geteuid() else probe.do
