"""The short way into a container: a process whose steps are all system calls, and that needs no Python for them.

    caller   operations ─ calls ─▶ clone3 ───────────────────────────────▶ outcomes ─▶ the same messages as init's
    child                             └─ call, call, … execve (all in C) ┘

An operation offers its ``calls``; where all of a plan's do, this way is taken (exec, usually), else the long one, in
which a fork of the caller executes the operations themselves. Both do the same, and leave the same records.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from minirt import journal
from minirt.errors import StepFailed
from minirt.linux.calls import Call
from minirt.linux.launch import Batch, Outcome, Program, launch
from minirt.linux.operation import Operation
from minirt.oci.init import Execute, Init

Message = dict[str, Any]


class Ahead:
    """What a process that runs no Python will have done: by operation, the calls that each takes."""

    def __init__(
        self, steps: list[tuple[Operation[Init], Call]], last: Operation[Init], context: Init, name: str
    ) -> None:
        self._steps = steps
        self._context = context
        self._name = name
        self._cause = journal.cause
        self._execute = last
        self._batch: Batch | None = None

    def launch(self, flags: int, cgroup_fd: int) -> tuple[int, int]:
        """Make the process; return its pid and pidfd. Raises OSError as clone3 does."""
        assert isinstance(self._execute, Execute)
        context, filter = self._context, self._context.filter
        becoming = Program(
            self._execute.args,
            self._execute.env,
            filter.program if filter else b"",
            filter.length if filter else 0,
            filter.flags if filter else 0,
            self._execute.preserved,
        )
        calls = [call for _, call in self._steps]
        pid, pidfd, self._batch = launch(flags, cgroup_fd, calls, becoming, context.sync.fileno(), context.blank)
        return pid, pidfd

    def messages(self) -> Iterator[Message]:
        """Yield what init would have said until it went through its gate, or failed. Its pair must have ended."""
        assert self._batch
        made, error = 0, None
        for (operation, _), (call, outcome) in zip(self._steps, self._batch.outcomes(), strict=False):
            made += 1
            number = -outcome.result if outcome.result < 0 else 0
            if call.name and journal.sink:
                yield {"type": "step", "record": list(self._record(operation, call, outcome))}
            if not number:
                continue
            if not call.is_excused(number):
                error = call.refused(number) if call.refused else _refusal(operation, number, self._name)
                yield {"type": "failed", **error.to_wire()}
            elif call.warn:
                yield {"type": "warning", "text": call.warn(number)}
        if made == len(self._steps) and not error:
            yield {"type": "ready"}

    def _record(self, operation: Operation[Init], call: Call, outcome: Outcome) -> journal.Record:
        code = type(operation).calls.__code__
        return journal.Record(
            outcome.begun_ns,
            outcome.took_ns,
            0,
            self._name,
            call.name,
            journal.shown(call.shown),
            "" if outcome.result <= 0 else str(outcome.result),
            max(-outcome.result, 0),
            f"{journal.short(code.co_filename)}:{code.co_firstlineno}",
            operation.because or self._cause,
        )


def _refusal(operation: Operation[Init], number: int, stage: str) -> StepFailed:
    """Return the error with which ``operation.run`` would have ended."""
    error = OSError(number, os.strerror(number))
    return StepFailed.from_os_error(operation.describe(), error, stage=stage, step=type(operation).__name__)


def ahead(plan: Sequence[Operation[Init]], context: Init, name: str) -> Ahead | None:
    """Return a plan as calls; None where one of its operations takes more than that.

    ``context`` is what the process will have; what cannot be given is warned of through it already.

    Raises StepFailed: an operation finds that it would fail.
    """
    if not all(operation.is_calls for operation in plan):
        return None
    steps: list[tuple[Operation[Init], Call]] = []
    for operation in plan:
        try:
            steps += [(operation, call) for call in operation.calls(context)]
        except OSError as error:
            raise _refusal(operation, error.errno or 0, name) from error
    return Ahead(steps, plan[-1], context, name)
