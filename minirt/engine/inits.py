"""``--init``: a program that is PID 1 for another one, reaps what it leaves behind, and hands signals on to it.

The host's own: a statically linked one, for it is shown in whatever image there is.
"""

import shutil

from minirt.errors import InvalidInput

PROGRAMS = ("tini-static", "catatonit")
"""Each takes ``-- COMMAND ARGUMENT…``. Debian's packages are called tini and catatonit."""
PLACE = "/sbin/docker-init"
"""Where it is in the container: docker's place."""


def find() -> str:
    """Return the host's program. Raises InvalidInput: it has none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not found:
        why = f"this machine has neither {' nor '.join(PROGRAMS)}, which would be PID 1"
        raise InvalidInput("use --init", why, "install Debian's package tini, or leave --init out")
    return found
