"""A daemon of the tests' own: started by hand in a directory of its own, awaited, and ended by its pid."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests import leaks

READY_S = 60.0
"""In the VM under emulation a daemon takes its time."""
END_S = 20.0


def await_true(condition: Callable[[], bool], what: str, timeout_s: float = READY_S) -> None:
    """Ask until ``condition`` holds. Raises TimeoutError, naming ``what`` was awaited."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.02)


class Daemon:
    """One running daemon; its output goes to ``<directory>/log``. It must not go into the background by itself."""

    def __init__(self, directory: Path, command: list[str | Path], ready: Callable[[], bool]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            await_true(lambda: self._alive() and ready(), str(command[0]))
        except BaseException:
            self.close()
            raise

    def _alive(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args[0]} ended:\n{self.log()[-4000:]}")  # type: ignore[index]
        return True

    def log(self) -> str:
        """Return what it has said so far."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End it, politely first, and unmount what it left below its directory."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        leaks.unmount_below(self.directory)


def remove_cgroups(name: str) -> None:
    """Remove a peer's empty cgroups of that name, in whatever hierarchies it made them."""
    for top in leaks.cgroup_mounts():
        for path in [*sorted((top / name).rglob("*/"), reverse=True), top / name]:
            with contextlib.suppress(OSError):
                path.rmdir()


def run(
    *command: str | Path, timeout_s: float = 120.0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is; return its exit code and what it printed."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, env=env, check=False
    )


def output(*command: str | Path, timeout_s: float = 120.0, env: dict[str, str] | None = None) -> str:
    """Run a program that must succeed; return its stdout, stripped."""
    done = run(*command, timeout_s=timeout_s, env=env)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()
