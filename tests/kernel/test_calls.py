"""What operations do as system calls, for a child without Python, is what they do when they are executed."""

import os
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from minirt import journal
from minirt.linux.operation import Operation
from minirt.oci import sync
from minirt.oci.compile import compile_birth, compile_process
from minirt.oci.execution import SetPersonality
from minirt.oci.init import Init
from minirt.oci.spec import Capabilities, Process, User
from minirt.security.operations import SetOomScoreAdj

pytestmark = pytest.mark.root

SETS = ("CAP_CHOWN", "CAP_KILL")
PROCESS = Process(
    args=("true",),
    env=("PATH=/usr/bin:/bin", "HOME=/"),
    cwd="/tmp",
    user=User(uid=1000, gid=100, additional_gids=(4, 20)),
    capabilities=Capabilities(bounding=SETS, effective=SETS, permitted=SETS, inheritable=SETS, ambient=("CAP_KILL",)),
    no_new_privileges=True,
)


@pytest.fixture
def context() -> Iterator[Init]:
    shims, inits = sync.pair()
    with shims, inits:
        yield Init(inits, (0, 1, 2))


def executed(plan: Sequence[Operation[Init]], context: Init) -> list[tuple[str, str]]:
    """Return the records of a child that executes the operations, as far as it comes."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        found: list[tuple[str, str]] = []
        journal.sink = lambda record: found.append((record.step, record.arguments))
        try:
            kept = os.fdopen(os.dup2(writer, 2), "wb")  # which CloseInherited leaves open
            for operation in plan:
                operation.execute(context)
        finally:
            kept.write(msgspec.json.encode(found))
            kept.flush()
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        records = msgspec.json.decode(said.read(), type=list[tuple[str, str]])
    os.waitpid(pid, 0)
    return records


def test_the_calls_are_those_of_the_execution(context: Init) -> None:
    named = ("WaitForStart", "Execute")
    plan = [SetPersonality("LINUX"), *compile_birth(1), *compile_process(PROCESS, 40, console=False)]
    plan = [SetOomScoreAdj(500), *(one for one in plan if type(one).__name__ not in named)]
    assert all(operation.is_calls for operation in plan)
    said = [(call.name, journal.shown(call.shown)) for one in plan for call in one.calls(context) if call.name]
    assert executed(plan, context) == said
    assert len(said) > 50
