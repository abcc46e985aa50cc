"""seccomp: may a filter be loaded at all. Loading one is part of the last step before execve (rt_exec).

Source: seccomp(2), SECCOMP_GET_ACTION_AVAIL.
"""

from minirt.linux._native import lib
from minirt.linux.mount import checked


def require_filters() -> None:
    """Return if the kernel can filter system calls. Raises OSError: ENOSYS or EINVAL (built without), EOPNOTSUPP."""
    checked(lib.rt_seccomp_available())
