"""Seccomp profiles, in types: the OCI spec's ``linux.seccomp``, which seccomp.py compiles to BPF.

docker's file format, whose rules have conditions, is resolved to it: conditional.py.
Source: runtime-spec 1.2 config-linux.md, "Seccomp"
"""

from typing import Literal

from msgspec import Struct

Action = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
]
NOTIFY: Literal["SCMP_ACT_NOTIFY"] = "SCMP_ACT_NOTIFY"
AnyAction = Literal[Action, "SCMP_ACT_NOTIFY"]
"""Those, and to ask another program: who listens at ``listenerPath``."""

Operator = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]
Flag = Literal[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]


class Argument(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """A condition on one argument. With SCMP_CMP_MASKED_EQ ``value`` is the mask, ``value_two`` what is left of it."""

    index: int
    value: int
    op: Operator
    value_two: int = 0


class Rule(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """What happens to some system calls, if their arguments are so."""

    names: tuple[str, ...]
    action: AnyAction
    errno_ret: int | None = None
    args: tuple[Argument, ...] = ()


class Seccomp(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """The OCI spec's ``linux.seccomp``. Without ``flags`` it is loaded with SPEC_ALLOW, as runc does.

    ``listener_path`` is the unix socket of who decides where an action is SCMP_ACT_NOTIFY; ``listener_metadata`` is
    passed on to it.
    """

    default_action: AnyAction
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[Flag, ...] | None = None
    syscalls: tuple[Rule, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""

    @property
    def notifies(self) -> bool:
        """Say whether a system call is left to somebody else to decide."""
        return NOTIFY in (self.default_action, *(rule.action for rule in self.syscalls))
