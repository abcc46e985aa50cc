"""One container of a test's own under whichever runtime: its config.json is Python data, its life is told in verbs.

Everything goes through the runtime's command line, as it does for conmon and for containerd's shim: no test knows
where a runtime keeps what it knows.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests import leaks
from tests.peers import oci
from tests.peers.daemon import await_true
from tests.peers.oci import Runtime

WAIT = "trap 'exit 3' TERM; while :; do sleep 0.05; done"
"""A script that ends with 3 when it is told to end."""
SLEEP = ("sleep", "1000")


class Container:
    """A bundle that may be changed until it is used, and the container that is made of it."""

    def __init__(self, runtime: Runtime, directory: Path, root: Path, name: str = "life") -> None:
        self.runtime, self.name = runtime, name
        self.bundle = oci.bundle(directory / "bundle", root, *SLEEP)
        self.pid_file = directory / "pid"
        self.output = directory / "output"
        self.config: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        self.config["linux"]["cgroupsPath"] = f"/{os.environ['MINIRT_CGROUP']}/{name}"
        self.process["env"].append("HOME=/root")  # as engines do
        self.config["mounts"] = [mount for mount in self.config["mounts"] if mount["type"] != "cgroup"]

    @property
    def process(self) -> dict[str, Any]:
        """The configuration of the process."""
        return self.config["process"]  # type: ignore[no-any-return]

    @property
    def linux(self) -> dict[str, Any]:
        """The configuration that is Linux's."""
        return self.config["linux"]  # type: ignore[no-any-return]

    def args(self, *words: str) -> "Container":
        """Let these be the program and its arguments."""
        self.process["args"] = list(words)
        return self

    def script(self, script: str) -> "Container":
        """Let a shell read this script."""
        return self.args("sh", "-c", script)

    def mount(self, destination: str, kind: str, source: str | Path, *options: str) -> None:
        """Add a mount, after those that there are."""
        new = {"destination": destination, "type": kind, "source": str(source), "options": list(options)}
        self.config["mounts"].append(new)

    def write(self) -> None:
        """Write config.json."""
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def run(self, *options: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Create and start, wait for the program's end, and delete."""
        self.write()
        command = self.runtime.command("run", *options, "--bundle", self.bundle, self.name)
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def says(self, script: str) -> str:
        """Run a script that must succeed; return what it prints, stripped."""
        done = self.script(script).run()
        assert done.returncode == 0, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def try_create(self, *options: str | Path, verb: str = "create") -> subprocess.CompletedProcess[str]:
        """Create, whatever comes of it. The program's stdout will be ``output``."""
        self.write()
        words = (verb, "--bundle", self.bundle, "--pid-file", self.pid_file, *options, self.name)
        return self.runtime.detached(*words, stdout=self.output)

    def create(self, *options: str | Path) -> "Container":
        """Create; the program is not started."""
        done = self.try_create(*options)
        assert done.returncode == 0, done.stderr
        return self

    def start(self) -> "Container":
        """Start the program of a created container."""
        done = self("start")
        assert done.returncode == 0, done.stderr
        return self

    def stop(self) -> "Container":
        """Kill the program and wait until the runtime knows."""
        done = self("kill", "KILL")
        assert done.returncode == 0, done.stderr
        return self.await_end()

    def await_end(self) -> "Container":
        """Wait until the runtime says that the container is stopped."""
        await_true(lambda: self.status() == "stopped", "the container's end", 20)
        return self

    def __call__(self, verb: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``runtime verb ID words…``."""
        return self.runtime(verb, self.name, *words)

    def state(self) -> dict[str, Any]:
        """Return what ``state`` says."""
        done = self("state")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def status(self) -> str:
        """Return created, running, paused or stopped."""
        return str(self.state()["status"])

    @property
    def exists(self) -> bool:
        """Whether the runtime knows of it."""
        return self("state").returncode == 0

    @property
    def pid(self) -> int:
        """What the pid file holds: the process, as the host numbers it."""
        return int(self.pid_file.read_text())

    def proc(self, name: str) -> Path:
        """Return a path below the process's directory in /proc."""
        return Path(f"/proc/{self.pid}/{name}")

    def is_executed(self) -> bool:
        """Say whether the program is what runs, and not the runtime's own init any more."""
        return self.proc("comm").read_text().strip() in (self.process["args"][0], "busybox")

    def await_trap(self) -> "Container":
        """Wait until the program has a handler for SIGTERM; the runtime's own init may have one too."""
        await_true(lambda: self.is_executed() and catches(self.pid, signal.SIGTERM), "the program's trap")
        return self

    def exec(self, *words: str, options: tuple[str | Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run one more program in it, and wait for that."""
        return self.runtime("exec", *options, self.name, *words)

    def exec_process(self, *words: str, options: tuple[str, ...] = (), **changes: Any) -> str:
        """Run a further process as a process.json describes it; it must succeed. Return what it prints, stripped."""
        done = self.try_exec_process(*words, options=options, **changes)
        assert done.returncode == 0, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def try_exec_process(
        self, *words: str, options: tuple[str, ...] = (), **changes: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a further process as a process.json describes it: the container's own with changes."""
        description = self.bundle / "process.json"
        description.write_text(json.dumps(self.process | {"args": list(words)} | changes))
        return self.runtime("exec", "--process", description, *options, self.name)

    def leave_nothing(self) -> None:
        """Delete it, if the runtime has kept anything at all."""
        if self.runtime.state.exists() and any(self.runtime.state.iterdir()):
            self._end_program()
            self.runtime("delete", "--force", self.name)
        if self.runtime.name == "crun":  # which leaves the cgroup of a run that failed
            for top in leaks.cgroup_tops():
                leaks.remove_cgroups(top)

    def _end_program(self) -> None:
        """Kill it, if it is still there: a runtime that has to do it when it deletes may wait for long."""
        with contextlib.suppress(OSError, ValueError):
            process = os.pidfd_open(self.pid)
            try:
                if os.environ["MINIRT_CGROUP"] in self.proc("cgroup").read_text():
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    select.select([process], [], [], 0.5)
            finally:
                os.close(process)


def fields(pid: int | str) -> dict[str, str]:
    """Return the fields of a process's status. Source: proc_pid_status(5)."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def catches(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal."""
    return bool(int(fields(pid)["SigCgt"], 16) >> (number - 1) & 1)
