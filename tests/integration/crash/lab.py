"""A minirt whose processes die at a chosen step, and the question what is left of it when a user has tidied up."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests import leaks
from tests.command import Minirt
from tests.integration.crash.crashing import NEVER, Fuse

REPOSITORY = Path(__file__).parents[3]
SETTLED_S = 8.0
BEYOND = 50
KINDS = tuple(kind for kind in leaks.KINDS if kind.name not in {"descriptor", "state file"})
LOCKS = {".lock", "images.lock", "bridge.lock"}
CACHE = "seccomp"

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  hostNetwork: %s
  shareProcessNamespace: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
  containers:
    - &one {name: one, image: localhost/busybox, imagePullPolicy: Never, command: ["true"], volumeMounts: [
        {name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]}
    - {<<: *one, name: two}
"""
"""Two containers that share a PID namespace, a volume on disk and one in memory; %s is hostNetwork."""


class Done(NamedTuple):
    """A command's end."""

    code: int
    output: str


class Lab:
    """The launcher of ``crashing`` as a context manager."""

    def __init__(self, minirt: Minirt, fuse: Path) -> None:
        self._places = (minirt.state, minirt.root)
        self.fuse = Fuse.at(fuse)
        command = [sys.executable, "-m", "tests.integration.crash.crashing", str(fuse)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._launcher = subprocess.Popen(command, cwd=REPOSITORY, env=minirt.env, **pipes)
        self.tried = 0

    def __enter__(self) -> "Lab":
        self("system", "prune")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._launcher as launcher:
            assert launcher.stdin
            launcher.stdin.close()
            launcher.wait(10)
        del self.fuse  # and with it the mapping, which holds a descriptor

    def __call__(self, *words: str | Path) -> Done:
        """Run ``minirt words…`` in a fork of the launcher to its end."""
        assert self._launcher.stdin and self._launcher.stdout
        self._launcher.stdin.write(json.dumps({"words": [str(word) for word in words]}) + "\n")
        self._launcher.stdin.flush()
        return Done(**json.loads(self._launcher.stdout.readline()))

    def output(self, *words: str | Path) -> str:
        """Run what must succeed; return what it printed."""
        done = self(*words)
        assert done.code == 0, f"minirt {words}: exit {done.code}\n{done.output}"
        return done.output.strip()

    # --- deaths

    def steps(self, scenario: "Scenario", stage: str, *, files: bool = False) -> list[str]:
        """Return the steps that a stage takes where nobody dies."""
        self._play(scenario, stage, files=files)
        names = self.fuse.names
        assert self.tidy_up() == []
        return names

    def _play(self, scenario: "Scenario", stage: str, point: int = NEVER, **how: bool) -> list[Done]:
        self.fuse.arm("")
        scenario.prepare(self)
        self.fuse.arm(stage, point, **how)
        told = scenario.act(self)
        self.fuse.point = NEVER
        return told

    def die_after_rename(self, scenario: "Scenario", stage: str, below: str) -> list[Done]:
        """Have a stage die when it has put its first file or directory in a place with ``below`` in its path."""
        names = self.steps(scenario, stage, files=True)
        point = next(number for number, name in enumerate(names) if "rename" in name and below in name)
        return self._play(scenario, stage, point + 1, files=True)

    def die_everywhere(
        self, scenario: "Scenario", stage: str, *, files: bool = False, sampled: "Sample | None" = None
    ) -> list[str]:
        """Have a stage die before and after each of its steps; return what was left, by what death.

        The last turn is far beyond the last step: nobody dies. With ``files`` there is only "before": what comes after
        one change comes before the next.
        """
        self.steps(scenario, stage, files=files)  # directories that stay, like the one of the leases, are made now
        seen, there = leaks.look(KINDS), self.files()
        names = self.steps(scenario, stage, files=files)
        found = []
        for point in (*(sampled or but_few_of_a_row)(names), len(names) + BEYOND):
            for after in (False,) if files else (False, True):
                told = self._play(scenario, stage, point, after=after, files=files)
                self.tried += self.fuse.blown
                died = (
                    f"{stage} died {'after' if after else 'before'} step {point}" if self.fuse.blown else "nobody died"
                )
                if left := [*self.tidy_up(), *self.remains(seen, there)]:
                    step = names[point] if point < len(names) else "the end"
                    found += [f"{died} ({step}), and {told}; left are", *(f"    {line}" for line in left)]
        assert not self.fuse.blown, f"there is no end of the steps of {stage}: {self.fuse.names}"
        return found

    def tidy_up(self) -> list[str]:
        """Do what a user does after a crash: remove what is listed, then prune; return what went wrong with that."""
        wrong = []
        for listing, removal in ((("ps", "-aq"), ("rm", "-f")), (("pod", "ps", "-q"), ("pod", "rm", "-f"))):
            done = self(*listing)
            if done.code:
                wrong.append(f"{listing}: {done}")
            elif (ids := done.output.split()) and (gone := self(*removal, *ids)).code:
                wrong += [f"{removal}: {line}" for line in gone.output.splitlines() if "there is no " not in line]
        pruned = self("system", "prune")
        return [*wrong, *([f"prune: {pruned}"] if pruned.code else [])]

    def remains(self, seen: leaks.Look, there: set[str]) -> list[str]:
        """Return what is left and was not ``there`` before, once it had time to go; and then remove it."""
        deadline = time.monotonic() + SETTLED_S
        while (files := self.files() - there) and time.monotonic() < deadline:
            time.sleep(0.01)
        left = leaks.leaks_since(seen, KINDS)
        tops = sorted(name for name in files if os.path.dirname(name) not in files)
        for name in tops:
            shutil.rmtree(name, ignore_errors=True) if os.path.isdir(name) else Path(name).unlink(missing_ok=True)
        return [*left, *(f"file: {name}" for name in tops)]

    def files(self) -> set[str]:
        """Return every file and directory of this minirt but for lock files and compiled filters, which may stay."""
        walks = (os.walk(place) for place in self._places)
        return {
            os.path.join(where, name)
            for walk in walks
            for where, directories, files in walk
            for name in (*directories, *files)
            if name not in LOCKS and CACHE not in (name, os.path.basename(where))
        }


class Scenario:
    """Commands in which somebody dies, and those that come before."""

    def __init__(self, *commands: str, first: Sequence[str] = ()) -> None:
        self._first = first
        self._commands = commands

    def prepare(self, lab: Lab) -> None:
        """Do what must be there first."""
        for command in self._first:
            lab.output(*shlex.split(command))

    def act(self, lab: Lab) -> list[Done]:
        """Do what somebody dies in."""
        return [lab(*shlex.split(command)) for command in self._commands]


Sample = Callable[[list[str]], list[int]]


def but_few_of_a_row(names: list[str]) -> list[int]:
    """Choose every step, but of a row of more than four of the same call only the first, one in the middle, the last.

    Such rows are the capabilities that are dropped one by one, and the files of a directory that is removed.
    """
    chosen: list[int] = []
    for _, row in groupby(enumerate(names), key=lambda step: step[1].split(" ")[0]):
        numbers = [number for number, _ in row]
        chosen += sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}) if len(numbers) > 4 else numbers
    return chosen


def one_of_each(names: list[str]) -> list[int]:
    """Choose the last step of each kind of call: for what another scenario has tried step by step."""
    return sorted({name.split(" ")[0]: number for number, name in enumerate(names)}.values())
