"""A minirt whose processes die at a chosen step, and the question what is left of it when a user has tidied up."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests import leaks
from tests.command import Minirt
from tests.integration.crash.crashing import Fuse

REPOSITORY = Path(__file__).parents[3]
SETTLED_S = 8.0
KINDS = tuple(kind for kind in leaks.KINDS if kind.name not in {"descriptor", "state file"})
LOCKS = {".lock", "lock", "images.lock", "bridge.lock"}


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
        self.fuse.arm("")
        scenario.before(self)
        self.fuse.arm(stage, files=files)
        scenario.act(self)
        names = self.fuse.names
        self.fuse.arm("")
        self.tidy_up()
        return names

    def die_everywhere(
        self, scenario: "Scenario", stage: str, *, after: bool = False, files: bool = False, only: Any = None
    ) -> list[str]:
        """Have a stage die at each of its steps in turn; return a line for each thing that was left, by what death.

        The last turn is one step further than there are: nobody dies.
        """
        self.steps(scenario, stage, files=files)  # directories that stay, like the one of the leases, are made now
        seen, there = leaks.look(KINDS), self._files()
        names = self.steps(scenario, stage, files=files)
        found = []
        points = (only or sample)(names)
        for point in (*points, len(names) + len(names) // 4):
            self.fuse.arm("")
            scenario.before(self)
            self.fuse.arm(stage, point, after=after, files=files)
            done = scenario.act(self)
            died, self.tried = bool(self.fuse.blown), self.tried + self.fuse.blown
            name = names[point] if point < len(names) else "end"
            self.fuse.arm("")
            told = self.tidy_up()
            left = self.remains(seen, there)
            if left or told:
                where = f"{stage} died {'after' if after else 'before'} step {point} ({name})"
                found.append(f"{where if died else f'nobody died at {name}'}; it said {done}:")
                found += [f"    {line}" for line in (*told, *left)]
        assert not died, f"{stage} takes more and more steps"
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
        while (files := self._files() - there) and time.monotonic() < deadline:
            time.sleep(0.01)
        left = leaks.leaks_since(seen, KINDS)
        for name in sorted(files, reverse=True):
            shutil.rmtree(name, ignore_errors=True) if os.path.isdir(name) else Path(name).unlink(missing_ok=True)
        return [*left, *(f"file: {name}" for name in sorted(files))]

    def _files(self) -> set[str]:
        """Return every file and directory of this minirt but for lock files, which may stay."""
        walks = (os.walk(place) for place in self._places)
        return {
            os.path.join(where, name)
            for walk in walks
            for where, directories, files in walk
            for name in (*directories, *files)
            if name not in LOCKS
        }


class Scenario:
    """Something to do with minirt: what nobody dies in, and what somebody does."""

    def __init__(self, *words: str | Path, first: Iterable[str | Path] = ()) -> None:
        self._words = words
        self._first = tuple(first)

    def before(self, lab: Lab) -> None:
        """Do what must be there first."""
        if self._first:
            lab.output(*self._first)

    def act(self, lab: Lab) -> Done:
        """Do what somebody dies in."""
        return lab(*self._words)


def sample(names: list[str]) -> list[int]:
    """Return the numbers of the steps to die at: all, but of a row of the same call only the first, a middle, the last.

    Such rows are the capabilities that are dropped one by one, and the files of a directory that is removed.
    """
    chosen: list[int] = []
    for _, row in groupby(enumerate(names), key=lambda step: step[1].split(" ")[0]):
        numbers = [number for number, _ in row]
        chosen += sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}) if len(numbers) > 4 else numbers
    return chosen
