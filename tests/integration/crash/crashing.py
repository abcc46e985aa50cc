"""A test build of the funnel: minirt, but its journal.step kills its own process before or after one chosen step.

    test ── {"words": ["run", …]} ──▶ launcher ── fork ──▶ cli ─▶ zygote ─▶ shim ─▶ keeper, pause, stage, init
      │                                                    └── forks of one Python: all have this journal.step ──┘
      └── Fuse: a mapped file that all of these share: which stage dies, at which of its steps; and what it has done

The stages are those of the journal. A launcher has everything imported, so that a run costs what its work costs.
With ``files`` the fuse counts, in place of the steps, what changes the files of MINIRT_STATE and MINIRT_ROOT.

Run it as ``python -m tests.integration.crash.crashing FUSE``; it takes requests from stdin, a JSON object a line.
"""

import ctypes
import functools
import importlib
import json
import mmap
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from minirt import journal
from minirt.linux.calls import Call
from minirt.linux.launch import launch
from minirt.oci import direct

STAGES = ("cli", "zygote", "shim", "keeper", "pause", "stage", "init")
NEVER = -1
MAX_STEPS = 2048
WARM = (
    *("cli.main", "cli.run", "cli.pod", "cli.podrun", "cli.containers", "cli.exec", "cli.system", "cli.streams"),
    *("engine.prune", "kubelet.prune", "shim.server", "network.bridge", "cli.limits", "engine.images"),
    *(
        "cli.image",
        "images.archive",
        "images.fsck",
        "images.pull",
        "images.reclaim",
        "images.registry",
        "images.rootfs",
    ),
)
GETPID, KILL = {"x86_64": (39, 62), "aarch64": (172, 129)}.get(platform.machine(), (-1, -1))
DEATH = (Call(GETPID, ()), Call(KILL, (0, signal.SIGKILL), takes=True))
CHANGES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Fuse(ctypes.Structure):
    """Who dies where: a page that the test and every process of its minirt have mapped."""

    _fields_ = (
        ("stage", ctypes.c_char * 16),
        ("point", ctypes.c_int),
        ("after", ctypes.c_int),
        ("files", ctypes.c_int),
        ("blown", ctypes.c_int),
        ("count", ctypes.c_int),
        ("steps", (ctypes.c_char * 64) * MAX_STEPS),
    )

    @classmethod
    def at(cls, path: Path) -> "Fuse":
        """Map a file as a fuse; it is made if it is not there."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, ctypes.sizeof(cls))
        mapped = mmap.mmap(fd, ctypes.sizeof(cls))
        os.close(fd)
        return cls.from_buffer(mapped)

    def arm(self, stage: str, point: int = NEVER, *, after: bool = False, files: bool = False) -> None:
        """Count from now on, and have ``stage`` die at its step number ``point``."""
        self.point = NEVER
        self.count = self.blown = 0
        self.after, self.files, self.stage = after, files, stage.encode()
        self.point = point

    def is_due(self, name: str, *, files: bool) -> bool:
        """Count one step of this process; say whether it is the one."""
        if journal.stage.encode() != self.stage or bool(self.files) != files:
            return False
        number = self.count
        self.count = number + 1
        self.steps[number].value = name.encode()[:63]
        return bool(number == self.point)

    def blow(self) -> None:
        """Kill this process. PID 1 of a PID namespace cannot, and ends as if it had been: with the same status."""
        self.blown = 1
        if os.getpid() == 1:
            os._exit(128 + signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    @property
    def names(self) -> list[str]:
        """Return the names of the steps that were counted, in order."""
        return [self.steps[number].value.decode(errors="replace") for number in range(self.count)]


def install(fuse: Fuse) -> None:
    """Put the fuse into the funnel."""
    real = journal.step

    def step(name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        due = fuse.is_due(f"{name} {journal.shown(args)}" if args else name, files=False)
        if due and not fuse.after:
            fuse.blow()
        me = os.getpid()
        try:
            return real(name, function, *args, **kwargs)
        finally:
            if due and me == os.getpid():  # fork and clone3 return twice: it is the parent that dies
                fuse.blow()

    journal.step = step
    places = tuple(os.environ[name] for name in ("MINIRT_STATE", "MINIRT_ROOT"))

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if fuse.files and _changes_a_file(event, args, places) and fuse.is_due(f"{event} {args[0]}", files=True):
            fuse.blow()

    sys.addaudithook(audit)
    direct.launch = functools.partial(_launch, fuse)


def _launch(fuse: Fuse, flags: int, cgroup_fd: int, calls: Sequence[Call], *rest: Any) -> Any:
    """Launch a process that makes calls in place of steps: where it is to die, one more of them kills it."""
    stage, journal.stage = journal.stage, "init"
    made: list[Call] = []
    for one in calls:
        due = bool(one.name) and fuse.is_due(f"{one.name} {journal.shown(one.shown)}", files=False)
        fuse.blown = fuse.blown or int(due)
        death = DEATH if due else ()
        made += [one, *death] if fuse.after else [*death, one]
    journal.stage = stage
    return launch(flags, cgroup_fd, made, *rest)


def _changes_a_file(event: str, args: tuple[Any, ...], places: tuple[str, ...]) -> bool:
    """Say whether an audit event is a change in ``places``; a path relative to a descriptor counts as one."""
    if event == "open":
        return bool(args[2] & WRITING) and str(args[0]).startswith(places)
    return event in CHANGES and (str(args[0]).startswith(places) or not str(args[0]).startswith("/"))


def serve() -> NoReturn:
    """Run what is asked for, one after the other, until there is nobody who asks."""
    for module in WARM:
        importlib.import_module(f"minirt.{module}")
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as output:
            pid = os.fork()
            if pid == 0:
                _run(json.loads(line)["words"], output.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            output.seek(0)
            answer = {"code": code, "output": output.read()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    sys.exit(0)


def _run(words: list[str], output: int) -> NoReturn:
    from minirt.cli.main import main

    code: Any = 1
    try:
        for number, fd in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
            os.dup2(fd, number)
        sys.argv = ["minirt", *words]
        main()
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001  a fork must not return into the loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    install(Fuse.at(Path(sys.argv[1])))
    serve()
