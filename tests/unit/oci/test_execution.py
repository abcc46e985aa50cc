"""How a process is run: in words, with what is refused, and what can be set without root."""

import os
from typing import Any

import pytest

from minirt.errors import InvalidInput
from minirt.linux.operation import Operation
from minirt.oci.execution import SetAffinity, SetIoPriority, SetPersonality, SetScheduler, cpu_list
from tests.unit.oci.test_operations import in_a_child


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        (SetScheduler("SCHED_BATCH", nice=5), "sched_setattr SCHED_BATCH nice 5"),
        (
            SetScheduler("SCHED_FIFO", ("SCHED_FLAG_RESET_ON_FORK",), priority=3),
            "sched_setattr SCHED_FIFO SCHED_FLAG_RESET_ON_FORK priority 3",
        ),
        (
            SetScheduler("SCHED_DEADLINE", (), 0, 0, 1, 2, 3),
            "sched_setattr SCHED_DEADLINE runtime 1 deadline 2 period 3",
        ),
        (SetIoPriority("IOPRIO_CLASS_IDLE"), "ioprio_set IOPRIO_CLASS_IDLE 0"),
        (SetAffinity((0, 3)), "sched_setaffinity 0,3"),
        (SetPersonality("LINUX32"), "personality LINUX32"),
    ],
)
def test_described_in_the_kernels_words(operation: Operation[Any], line: str) -> None:
    assert operation.describe() == line


def test_a_scheduler_is_set() -> None:
    def policy() -> tuple[int, int]:
        SetScheduler("SCHED_BATCH", nice=7).execute(None)
        return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

    assert in_a_child(policy) == str((os.SCHED_BATCH, 7))


def test_an_io_priority_is_taken() -> None:
    assert in_a_child(lambda: SetIoPriority("IOPRIO_CLASS_BE", 7).execute(None)) == "None"


def test_cpus_are_set() -> None:
    first = min(os.sched_getaffinity(0))

    def cpus() -> list[int]:
        SetAffinity((first,)).execute(None)
        return sorted(os.sched_getaffinity(0))

    assert in_a_child(cpus) == str([first])


def test_a_personality_is_seen_by_uname() -> None:
    def machine() -> str:
        SetPersonality("LINUX32").execute(None)
        return os.uname().machine

    assert in_a_child(machine) in {"i686", "armv8l", os.uname().machine.replace("x86_64", "i686")}


@pytest.mark.parametrize(("text", "cpus"), [("0", (0,)), ("0-2,7", (0, 1, 2, 7)), ("3, 1", (1, 3))])
def test_lists_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert cpu_list(text, "x") == cpus


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "3-1", "0-99999999999"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"use process\.execCPUAffinity\.initial"):
        cpu_list(text, "process.execCPUAffinity.initial")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SetScheduler("SCHED_X"), "process.scheduler.policy"),
        (lambda: SetScheduler("SCHED_OTHER", ("X",)), "process.scheduler.flags"),
        (lambda: SetScheduler("SCHED_OTHER", nice=20), "process.scheduler.nice"),
        (lambda: SetIoPriority("X"), "process.ioPriority.class"),
        (lambda: SetIoPriority("IOPRIO_CLASS_BE", 8), "process.ioPriority.priority"),
        (lambda: SetPersonality("BSD"), "linux.personality.domain"),
    ],
)
def test_refused_by_its_place(make: Any, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        make()
