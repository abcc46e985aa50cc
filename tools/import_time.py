"""What it costs to start `minirt` and `minirt-oci`, held against budgets: every command pays for a slow start.

Two measures, for a busy machine bends the second: which modules are imported, and how much CPU time the start takes in
units of an empty Python's (the least of several runs each, so that both are seen at their best).
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from minirt import launcher

RUNS = 7
BARE = [sys.executable, "-ISB", "-c"]
"""Python as minirt-oci's launcher starts it."""
LATE = (
    "google.protobuf",
    "grpc",
    "isal",
    "jeepney",
    "minirt.crimessages",
    "pyroute2",
    "pyseccomp",
    "rich",
    "urllib3",
    "zstandard",
)
"""What only some commands need, and those import it when they do."""
WITH_A_SPEC = ("minirt.oci.spec", "msgspec", "socket")
"""What only those commands of minirt-oci need that read a config.json."""

ALONE = "from minirt import imports; imports.msgspec_alone()"


class Start(NamedTuple):
    """A start and its budget; ``empty`` is the Python, doing nothing, whose CPU time is the unit."""

    name: str
    command: list[str]
    empty: list[str]
    modules: int
    empty_starts: float
    late: tuple[str, ...] = LATE


def main() -> int:
    """Print the measures; return 1 when one is over its budget."""
    met = [_is_met(start) for start in starts()]
    return int(not all(met))


def starts() -> list[Start]:
    """Return what is measured."""
    bare = [*BARE, "pass"]
    minirt = str(Path(sys.executable).with_name("minirt"))
    call = "from minirt.oci.runtime.command import main; main()"
    return [
        Start("minirt --help", [sys.executable, minirt, "--help"], [sys.executable, "-c", "pass"], 130, 9.0),
        Start("minirt-oci --version", [*_oci(call), "--version"], bare, 62, 4.0, LATE + WITH_A_SPEC),
        Start("minirt-oci delete", _oci("import minirt.oci.runtime.ending"), bare, 90, 5.5, LATE + WITH_A_SPEC),
        Start("minirt-oci run", _oci(f"{ALONE}; import minirt.oci.runtime.lifecycle"), bare, 150, 9.0),
    ]


def _oci(code: str) -> list[str]:
    path = f"import sys; sys.path += {launcher.directories_of(launcher.COMMANDS['minirt-oci'].packages)}"
    return [*BARE, f"{path}; {code}"]


def _is_met(start: Start) -> bool:
    modules = imported(start.command)
    early = [name for name in start.late if name in modules]
    empty_s, whole_s = cpu_s(start.empty), cpu_s(start.command)
    print(
        f"{start.name}: {len(modules)} modules (budget {start.modules}), "
        f"{whole_s * 1000:.0f} ms of CPU, {whole_s / empty_s:.1f} of an empty Python's {empty_s * 1000:.0f} ms "
        f"(budget {start.empty_starts})"
    )
    if early:
        print(f"imported too early: {', '.join(early)}")
    return not early and len(modules) <= start.modules and whole_s / empty_s <= start.empty_starts


def imported(command: list[str]) -> set[str]:
    """Return the names of the modules that a Python command imports, by its own account (-X importtime)."""
    python, *rest = command
    done = subprocess.run([python, "-X", "importtime", *rest], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def cpu_s(command: list[str]) -> float:
    """Return the least CPU time, user and system, that the command took in RUNS runs."""
    return min(_one_run(command) for _ in range(RUNS))


def _one_run(command: list[str]) -> float:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
