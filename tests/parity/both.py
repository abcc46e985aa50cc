"""The same words, given to docker's command line and to minirt's."""

import subprocess
from collections.abc import Callable
from typing import NamedTuple

IMAGE = "localhost/busybox"
Call = Callable[..., "subprocess.CompletedProcess[str]"]


class Both(NamedTuple):
    """docker's and minirt's command line."""

    docker: Call
    minirt: Call

    def __call__(self, *words: str) -> "tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]":
        """Give both the same words."""
        return self.docker(*words), self.minirt(*words)

    def lines(self, *words: str) -> tuple[list[str], list[str]]:
        """Run the same container on both; return the lines that each printed."""
        peer, own = self("run", "--rm", *words)
        assert (peer.returncode, own.returncode) == (0, 0), (peer.stderr, own.stderr)
        return peer.stdout.splitlines(), own.stdout.splitlines()
