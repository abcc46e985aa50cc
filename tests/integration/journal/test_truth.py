"""The journal tells the truth: per process, its steps are the calls that strace sees, in order, with their outcome.

What is compared, and from when on: of every process that opens the journal's file, what comes after; of every process
that one of those makes, everything from its birth until it executes a program. What a process does before it opens
the journal (the interpreter's start, imports) is no part of it, nor is what only asks (PR_GET_…, PR_CAPBSET_READ, and
libseccomp's looks at what the kernel can do, which name no filter).
"""

import ast
import json
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirt import journal
from minirt.journal import Record
from tests import leaks
from tests.command import COMMAND, Minirt
from tests.integration.journal import strace
from tests.integration.journal.strace import Call, Process

pytestmark = [pytest.mark.root, pytest.mark.needs("strace", "busybox", "cgroup2_tree")]

STEPS = set(strace.TRACED.split()) - {"clone", "vfork", "open", "openat"} | {"fork"}
ASKING_PRCTLS = {3, 16, 23}
"""PR_GET_DUMPABLE, PR_GET_NAME, PR_CAPBSET_READ."""
ASKING_FOR_A_SIZE = [35, 15]
"""PR_SET_MM, PR_SET_MM_MAP_SIZE."""
CUT = 200


def written(processes: dict[int, Process]) -> list[Record]:
    """Return the records as strace saw them written, whatever has become of the file; by time, as a reader sorts."""
    lines = [
        call.strings[0]
        for process in processes.values()
        for call in process.calls
        if call.name == "write" and call.path.endswith("/journal.ndjson")
    ]
    return sorted(Record(*json.loads(line)) for line in lines)


def window(process: Process) -> list[Call]:
    """Return the calls of a process that the journal should hold; none where it does not keep one."""
    if process.parent and process.birth in window(process.parent) and not process.is_spawned:
        return process.until_execve
    for number, call in enumerate(process.calls):
        if call.name == "openat" and call.errno == 0 and "journal.ndjson" in call.arguments:
            return process.calls[number:]
    return []


def step_of(call: Call) -> str:
    """Return what the journal calls a call ("": it is none of its)."""
    if call.name in strace.FORKS and call.clone_flags & strace.CLONE_VM:
        return ""
    if call.name in ("write", "mkdir", "rmdir"):
        where = call.path if call.name == "write" else call.strings[0]
        return call.name if any(where.startswith(f"{top}/") for top in leaks.cgroup2_tops()) else ""
    if call.name == "prctl" and (call.values[0] in ASKING_PRCTLS or call.values[:2] == ASKING_FOR_A_SIZE):
        return ""
    if call.name == "seccomp" and "filter=" not in call.arguments:
        return ""
    if call.name == "prlimit64" and call.arguments.split(", ")[2] == "NULL":
        return ""
    name = "fork" if call.name == "clone" else call.name
    return name if name in STEPS else ""


def is_of_strace(record: Record) -> bool:
    """Say whether strace was asked for the call that a record speaks of."""
    if record.step in ("write", "mkdir", "rmdir"):
        return any(record.arguments.startswith(f"'{top}/") for top in leaks.cgroup2_tops())
    return record.step in STEPS


def seen(processes: dict[int, Process]) -> dict[int, list[Call]]:
    """Return each process's calls that belong into the journal."""
    found = {pid: [call for call in window(one) if step_of(call)] for pid, one in processes.items()}
    return {pid: calls for pid, calls in found.items() if calls}


def said(records: list[Record]) -> dict[int, list[Record]]:
    """Return each process's records of what strace was asked for."""
    found: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if is_of_strace(record):
            found[record.pid].append(record)
    return dict(found)


def values(record: Record) -> list[object]:
    """Return the numbers and strings that a record's arguments hold, one level deep."""
    arguments = ast.literal_eval(f"({record.arguments},)") if record.arguments else ()
    if record.step == "mknodat":
        arguments = (*arguments[:3], os.makedev(*arguments[3:]))
    flat = [one for argument in arguments for one in (argument if isinstance(argument, tuple) else (argument,))]
    return [one for one in flat if one is not None]


def sets(call: Call) -> list[int]:
    """Return the sets of a capset: strace writes one beyond 32 bits as its lower and its upper half."""
    halves = re.findall(r"(?:effective|permitted|inheritable)=(\w+)(?:\|(\w+))?", call.arguments)
    return [int(lower, 0) | int(upper or "0", 0) << 32 for lower, upper in halves]


def agrees(record: Record, call: Call) -> bool:
    """Say whether the record's arguments are found among the call's, in order; it has fewer (no sizes, no structs)."""
    if record.step == "execve":
        return record.arguments in call.strings
    if record.step == "capset":
        return values(record) == sets(call)
    there = iter([call.path, *call.values] if record.step == "write" else call.values)
    return all(any(_same(mine, its) for its in there) for mine in values(record))


def _same(mine: object, its: object) -> bool:
    if isinstance(mine, str) and isinstance(its, str) and len(mine) == CUT:
        return its.startswith(mine.removesuffix("..."))
    return mine == its or (mine == -1 and its == 2**64 - 1)


def prove(processes: dict[int, Process], records: list[Record]) -> dict[str, int]:
    """Hold a journal against strace; return how many steps were proved of each stage."""
    calls, steps = seen(processes), said(records)
    for pid in sorted({*calls, *steps}):
        stage = steps[pid][0].stage if pid in steps else "a process without records"
        of_strace = [(step_of(call), call.errno) for call in calls.get(pid, ())]
        of_journal = [(record.step, record.errno) for record in steps.get(pid, ())]
        assert of_journal == of_strace, f"{stage} ({pid})"
        for record, call in zip(steps[pid], calls[pid], strict=True):
            assert agrees(record, call), f"{stage}: the journal says {record}, strace {call}"
    proved: dict[str, int] = defaultdict(int)
    for records_ in steps.values():
        proved[records_[0].stage] += len(records_)
    return dict(proved)


Proved = Callable[..., dict[str, int]]


@pytest.fixture
def proved(minirt: Minirt, busybox: str, tmp_path: Path) -> Iterator[Proved]:
    """Run a shell script under strace (``minirt`` in it is this test's), and prove the journal that it leaves."""

    def run(script: str) -> dict[str, int]:
        script = f'minirt() {{ {shlex.quote(COMMAND)} "$@"; }}\n{script}'
        processes = strace.trace(tmp_path / "strace", minirt.env, "sh", "-c", script)
        records = written(processes)
        for kept in minirt.state.glob("sandboxes/*/journal.ndjson"):
            assert journal.read_file(str(kept)) == records
        return prove(processes, records)

    yield run
    for name in minirt.output("ps", "-aq").split():
        minirt.output("rm", "-f", name)
    for name in minirt.output("pod", "ps", "-q").split():
        minirt.output("pod", "rm", "-f", name)


@pytest.mark.parametrize(
    "options",
    [
        "--network none",
        "--network bridge",
        "--network host --pid host --ipc host",
        "--network none --read-only --user 1000:100 --cap-drop ALL --cap-add CHOWN --oom-score-adj 500 -v /usr:/v:ro",
        "--network none --privileged",
        "--network none -t",
    ],
)
def test_a_container_that_ends_well(proved: Proved, busybox: str, options: str) -> None:
    steps = proved(f"minirt run --trace {options} {busybox} true")
    assert steps["init"] > 80
    assert steps["shim"] > 5
    assert steps["zygote"] == 1
    assert steps["cli"] > 1
    assert steps["keeper"] > 1


def test_a_command_that_is_not_found(proved: Proved, busybox: str) -> None:
    steps = proved(f"minirt run -d --trace --network none {busybox} no-such-command")
    assert steps["init"] > 80


def test_a_command_that_the_kernel_refuses(proved: Proved, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("neither a program nor a script")
    (tmp_path / "text").chmod(0o755)
    assert proved(f"minirt run --trace --network none -v {tmp_path}/text:/text:ro {busybox} /text")["init"] > 80


def test_a_mount_that_fails(proved: Proved, busybox: str) -> None:
    steps = proved(f"minirt run --trace --network none -v /proc/1/ns/mnt:/mnt {busybox} true")
    assert 20 < steps["init"] < 80


def test_processes_executed_later(proved: Proved, busybox: str) -> None:
    steps = proved(f"""
        minirt run -d --trace --network none --name one {busybox} sleep 1000
        minirt exec one true
        minirt exec -u 1000 -t one true
        minirt exec one no-such-command
        minirt stop -t 0 one
    """)
    assert steps["shim"] >= 3 * len(("prctl", "setns", "clone3", "setns"))


POD = """
apiVersion: v1
kind: Pod
metadata: {name: shared}
spec:
  shareProcessNamespace: true
  restartPolicy: Never
  securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "80"}]}
  containers:
  - {name: one, image: localhost/busybox, imagePullPolicy: Never, command: ["true"]}
  - {name: two, image: localhost/busybox, imagePullPolicy: Never, command: ["true"]}
"""


def test_a_pod_that_shares_its_processes(proved: Proved, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(POD)
    steps = proved(f"minirt pod run --keep --trace {tmp_path}/pod.yaml")
    assert set(steps) == {"cli", "zygote", "shim", "keeper", "pause", "stage", "init"}
    assert steps["stage"] == 2 * len(("prctl", "setns", "clone3"))
