"""Operation: one small thing to do, that can be printed before it is done.

Compilers (pure functions) make lists of these; executors run them. What an operation needs at run time that cannot be
known when it is compiled (open descriptors, netlink sockets) it takes from the context ``C`` it is executed with.
"""

from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from minirt import journal
from minirt.errors import StepFailed

C = TypeVar("C", contravariant=True)


if TYPE_CHECKING:
    from minirt.linux.calls import Call

    class _Executable(Struct, Generic[C], frozen=True):
        """What is executed with a ``C``."""

else:

    class _Executable(Struct, frozen=True):
        """The same, when nobody checks types: Generic makes each of sixty classes take half as long again to define."""

        def __class_getitem__(cls, context: object) -> type:
            return cls


class Operation(_Executable[C], frozen=True):
    """One step of a plan. ``cause`` names the field of the user's YAML that asked for it, if one did."""

    def describe(self) -> str:
        """Return one line that says, in the kernel's words, what ``execute`` does: ``mount proc on /proc``."""
        raise NotImplementedError

    def execute(self, context: C, /) -> None:
        """Do it. Raises OSError as the kernel gave it."""
        raise NotImplementedError

    def calls(self, context: C, /) -> "list[Call]":
        """Return the system calls that ``execute`` makes, for a child that runs no Python.

        Only some operations offer it (``is_calls``): the others take more than that.
        """
        raise NotImplementedError

    @property
    def is_calls(self) -> bool:
        """Say whether the operation can be had as system calls."""
        return type(self).calls is not Operation.calls

    @property
    def because(self) -> str:
        """Return the field of the user's YAML that asked for this step ("" for none)."""
        return ""


def run(plan: list[Operation[C]], context: C) -> None:
    """Execute a plan in order.

    Raises:
        StepFailed: the first operation that the kernel refused; its ``what`` is the operation's own description.
    """
    cause = journal.cause
    try:
        for operation in plan:
            journal.cause = operation.because or cause
            try:
                operation.execute(context)
            except OSError as error:
                raise StepFailed.from_os_error(
                    operation.describe(), error, stage=journal.stage, step=type(operation).__name__
                ) from error
    finally:
        journal.cause = cause
