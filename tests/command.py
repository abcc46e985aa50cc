"""minirt as its users run it: the installed command, in a process of its own, with directories of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("minirt"))
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Minirt:
    """One installation of minirt, as MINIRT_ROOT and MINIRT_STATE make it."""

    root: Path
    state: Path

    @property
    def env(self) -> dict[str, str]:
        """Return the environment in which a process is this minirt."""
        return dict(os.environ) | {"MINIRT_ROOT": str(self.root), "MINIRT_STATE": str(self.state)}

    def __call__(
        self, *words: str | Path, stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run ``minirt words…`` to its end; return its exit code and what it printed.

        Raises:
            subprocess.TimeoutExpired: it did not end in ``timeout_s`` (it has been killed).
        """
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            [COMMAND, *map(str, words)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **given,
        )

    def output(self, *words: str | Path, stdin: str | None = None, timeout_s: float = TIMEOUT_S) -> str:
        """Run ``minirt words…``, which must succeed; return what it printed on stdout, stripped."""
        done = self(*words, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"minirt {' '.join(map(str, words))}: exit {done.returncode}\n{done.stderr}"
        return done.stdout.strip()

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start ``minirt words…`` and return it running, with pipes; use it as a context manager."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([COMMAND, *map(str, words)], env=self.env, text=True, **pipes | options)
