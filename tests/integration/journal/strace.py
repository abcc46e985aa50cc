"""What strace sees of a command and everything it starts: processes, their calls in order, and who forked whom.

strace writes a file for each thread (``-ff``), with raw numbers (``-X raw``), so that a call's arguments can be held
against the journal's without a table of constants.
"""

import ast
import errno
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

TRACED = (
    "mount umount2 open_tree fsopen fsconfig fsmount move_mount mount_setattr pivot_root "
    "clone fork vfork clone3 unshare setns sethostname prctl capset seccomp execve mkdir write rmdir "
    "bpf mknodat symlinkat umask setsid setgroups setresuid setresgid prlimit64 openat open"
)
FORKS = ("clone", "clone3", "fork", "vfork")
CLONE_VM = 0x100
CLONE_THREAD = 0x10000
LINE = re.compile(
    r"(?P<at>\d+\.\d+) (?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\w+|\?)(?:<.*>(?:\(deleted\))?)?"
    r"(?: (?P<errno>E\w+) \(.*\))?"
)
TOKEN = re.compile(r'<(?P<path>[^<>"]*)>|"(?P<text>(?:[^"\\]|\\.)*)"|(?P<number>(?<![\w])-?(?:0x[0-9a-f]+|\d+)(?!\w))')


class Call(NamedTuple):
    """One call. ``values`` are the numbers and strings among its arguments; ``path`` is what its first fd leads to."""

    at: float
    name: str
    arguments: str
    result: int
    errno: int

    @property
    def values(self) -> list[int | str]:
        """Return the numbers and strings of the arguments, in order, without what -y says of descriptors."""
        return [_value(found) for found in TOKEN.finditer(self.arguments) if found["path"] is None]

    @property
    def path(self) -> str:
        """Return the path of the first descriptor among the arguments."""
        return next((found["path"] for found in TOKEN.finditer(self.arguments) if found["path"] is not None), "")

    @property
    def strings(self) -> list[str]:
        """Return the strings among the arguments."""
        return [value for value in self.values if isinstance(value, str)]

    @property
    def clone_flags(self) -> int:
        """Return the flags of a clone or clone3, with CLONE_VM for a vfork."""
        found = re.search(r"flags=(0x[0-9a-f]+|\d+)", self.arguments)
        return CLONE_VM if self.name == "vfork" else int(found[1], 0) if found else 0


def _value(found: re.Match[str]) -> int | str:
    if found["text"] is not None:
        return str(ast.literal_eval(f'b"{found["text"]}"').decode())
    number = found["number"]
    octal = len(number) > 1 and number.startswith("0") and number.isdigit()
    return int(number, 8 if octal else 0)


@dataclass
class Process:
    """One process: its main thread's calls, when it ended, who forked it and with which call, its other threads."""

    pid: int
    calls: list[Call]
    ended: float
    parent: "Process | None" = None
    birth: Call | None = None
    threads: list["Process"] = field(default_factory=list)

    @property
    def is_spawned(self) -> bool:
        """Say whether it shares its parent's memory until its execve: posix_spawn and its kin."""
        return self.birth is not None and bool(self.birth.clone_flags & CLONE_VM)

    @property
    def until_execve(self) -> list[Call]:
        """Return its calls up to the first execve that succeeded, or all of them."""
        for number, call in enumerate(self.calls):
            if call.name == "execve" and call.errno == 0:
                return self.calls[: number + 1]
        return self.calls

    def threads_at(self, moment: float) -> int:
        """Return how many threads it had at a moment."""
        return 1 + sum(one.birth.at <= moment < one.ended for one in self.threads if one.birth)


def trace(
    directory: Path, env: Mapping[str, str], *command: str | Path, timeout_s: float = 120.0
) -> dict[int, Process]:
    """Run ``command`` under strace until all that it started has ended; print its output, return processes by pid."""
    directory.mkdir()
    options = ["-f", "-ff", "-q", "-ttt", "-y", "-X", "raw", "-s", "4096", "-e", "signal=SIGKILL"]
    done = subprocess.run(
        ["strace", *options, "-e", f"trace={','.join(TRACED.split())}", "-o", directory / "of", *command],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        check=False,
        text=True,
    )
    print(done.stdout, done.stderr)
    return _family([_process(int(path.suffix[1:]), path.read_text()) for path in directory.glob("of.*")])


def _process(pid: int, text: str) -> Process:
    """Return what a file of strace's says. Raises ValueError: a line that is not understood."""
    *lines, last = text.splitlines()
    at, _, end = last.partition(" ")
    if not end.startswith("+++ "):
        raise ValueError(f"process {pid} did not end under strace: {last}")
    matches = [LINE.fullmatch(line) or _not_understood(line) for line in lines if " --- SIG" not in line]
    return Process(pid, [_call(match) for match in matches], float(at))


def _not_understood(line: str) -> NoReturn:
    raise ValueError(f"strace wrote what is not understood: {line}")


def _call(match: re.Match[str]) -> Call:
    result = 0 if match["result"] == "?" else int(match["result"], 8 if match["name"] == "umask" else 0)
    number = getattr(errno, match["errno"]) if match["errno"] else 0
    return Call(float(match["at"]), match["name"], match["arguments"], result, number)


def _family(found: list[Process]) -> dict[int, Process]:
    """Return processes by their pid, each with its parent; threads with their process."""
    by_pid = {one.pid: one for one in found}
    for parent in found:
        for call in parent.calls:
            if call.name in FORKS and call.result > 0:
                child = by_pid[call.result]
                child.parent, child.birth = parent, call
    for one in found:
        if one.birth and one.parent and one.birth.clone_flags & CLONE_THREAD:
            one.parent.threads.append(by_pid.pop(one.pid))
    return by_pid
