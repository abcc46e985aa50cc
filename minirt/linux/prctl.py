"""prctl: what a process says about itself, through python-prctl; ambient capabilities, which it lacks, through cffi.

Source: prctl(2), PR_CAP_AMBIENT(2const), capabilities(7).
"""

import _prctl

from minirt import journal
from minirt.linux._native import lib
from minirt.linux.mount import checked

PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4


def set_no_new_privs() -> None:
    """Make execve grant no privileges from now on."""
    journal.step("prctl", _set, _prctl.PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    """Say whether other processes may look into this one (/proc/PID/{mem,root,exe,fd,environ})."""
    journal.step("prctl", _set, _prctl.PR_SET_DUMPABLE, int(dumpable))


def set_child_subreaper() -> None:
    """Become the one that orphaned descendants are given to."""
    journal.step("prctl", _set, _prctl.PR_SET_CHILD_SUBREAPER, 1)


def set_keepcaps() -> None:
    """Keep permitted capabilities over the next change of uid."""
    journal.step("prctl", _set, _prctl.PR_SET_KEEPCAPS, 1)


def set_name(name: str) -> None:
    """Set this thread's name (15 bytes are kept)."""
    journal.step("prctl", _set, _prctl.PR_SET_NAME, name)


def capbset_drop(capability: int) -> None:
    """Drop one capability, by number, from the bounding set. Raises OSError: EINVAL (no such capability)."""
    journal.step("prctl", _set, _prctl.PR_CAPBSET_DROP, capability)


def ambient_clear() -> None:
    """Empty the ambient set."""
    journal.step("prctl", _ambient, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0)


def ambient_raise(capability: int) -> None:
    """Add a capability to the ambient set. Raises OSError: EPERM (not both permitted and inheritable)."""
    journal.step("prctl", _ambient, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def set_title(title: str) -> None:
    """Replace this process's command line as ``ps`` and /proc/PID/cmdline show it."""
    _prctl.set_proctitle(title)


def _set(option: int, value: int | str) -> None:
    _prctl.prctl(option, value)


def _ambient(_: int, operation: int, capability: int) -> None:
    checked(lib.rt_ambient(operation, capability))
