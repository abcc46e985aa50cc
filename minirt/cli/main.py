"""The command's first moments: what must happen before anything else is imported.

A command that makes containers forks its zygote at once, so that both import at the same time. No command lives long
enough to need the garbage collector, which would look through every module as it comes in; who does turns it on again.
"""

import gc
import os
import sys
from typing import NoReturn

from minirt import imports
from minirt.errors import MinirtError

MAKERS = (["run"], ["build"], ["image", "build"], ["pod", "run"], ["pod", "start"], ["serve"])
"""The commands that make containers."""


def main() -> NoReturn:
    """Run the command line and exit, without taking the interpreter down piece by piece."""
    gc.disable()
    words = sys.argv[1:]
    if os.geteuid() == 0 and any(words[: len(maker)] == maker for maker in MAKERS):
        imports.msgspec_alone()
        from minirt.shim import zygote

        zygote.begin()
    from minirt.cli import root

    code = root.run(words)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = 141
    os._exit(code)


def need_root(what: str) -> None:
    """Refuse early what only root can do.

    Raises:
        MinirtError: this is not root.
    """
    if os.geteuid() != 0:
        raise MinirtError(what, "it needs root", "run it with sudo")
