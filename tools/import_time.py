"""What `minirt --help` costs, held against a budget: a slow start is paid by every command.

Two measures, for a busy machine bends the second: which modules are imported, and how much CPU time the start takes in
units of an empty Python's (the least of several runs each, so that both are seen at their best).
"""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, str(Path(sys.executable).with_name("minirt")), "--help"]
LATE = (
    "google.protobuf",
    "grpc",
    "isal",
    "minirt.crimessages",
    "pyroute2",
    "pyseccomp",
    "rich",
    "urllib3",
    "zstandard",
)
"""What only some commands need, and those import it when they do."""
MODULES = 130
EMPTY_STARTS = 7.0
RUNS = 7


def main() -> int:
    """Print the measures; return 1 when one is over its budget."""
    modules = imported(COMMAND)
    early = [name for name in LATE if name in modules]
    empty_s, help_s = cpu_s([sys.executable, "-c", "pass"]), cpu_s(COMMAND)
    print(
        f"minirt --help: {len(modules)} modules (budget {MODULES}), "
        f"{help_s * 1000:.0f} ms of CPU, {help_s / empty_s:.1f} of an empty Python's {empty_s * 1000:.0f} ms "
        f"(budget {EMPTY_STARTS})"
    )
    if early:
        print(f"imported too early: {', '.join(early)}")
    return int(bool(early) or len(modules) > MODULES or help_s / empty_s > EMPTY_STARTS)


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
