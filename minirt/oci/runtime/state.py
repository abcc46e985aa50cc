"""What ``minirt-oci`` knows of a container between two calls: ROOT/ID/state.json and the gate beside it.

    ROOT/ID/state.json    written before anything is made, renamed into place at each change
    ROOT/ID/gate.sock     there until ``start``: init waits on it

The status is not stored: it follows from what is there.

    no pid yet ─▶ creating     pid alive, gate there ─▶ created     pid alive, no gate ─▶ running, or paused if frozen
    pid gone (its start time says whether it is the same) ─▶ stopped

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md, "State"
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from minirt.cgroups import lifecycle
from minirt.errors import Conflict, InvalidInput, NotFound
from minirt.linux import process
from minirt.oci.spec import VERSION

GRAMMAR = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class State(Struct, frozen=True):
    """One container. ``cgroup`` is its directory on the host ("" for none), ``created`` RFC 3339."""

    id: str
    bundle: str
    rootfs: str
    created: str
    cgroup: str = ""
    pid: int = 0
    start_time: int = 0
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Say whether its very init still runs."""
        return self.pid > 0 and process.is_alive(self.pid, self.start_time)


class Place(Struct, frozen=True):
    """A container's directory below ROOT."""

    root: Path
    id: str

    @property
    def directory(self) -> Path:
        """Return the directory."""
        return self.root / self.id

    @property
    def gate(self) -> Path:
        """Return the socket that init waits on."""
        return self.directory / "gate.sock"

    def load(self) -> State:
        """Return the state. Raises NotFound: there is no such container."""
        try:
            return msgspec.json.decode((self.directory / "state.json").read_bytes(), type=State)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"find container {self.id}", "container does not exist", f"see {self.root}") from None

    def save(self, state: State) -> None:
        """Replace the state file."""
        new = self.directory / ".state.json"
        new.write_bytes(msgspec.json.encode(state))
        new.rename(self.directory / "state.json")

    def make(self, state: State) -> None:
        """Make the directory with a first state in it. Raises Conflict: the id is taken."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.directory.mkdir(mode=0o700)
        except FileExistsError:
            do = f"choose another id, or minirt-oci delete {self.id}"
            raise Conflict(f"create {self.id}", "a container with this id exists", do) from None
        self.save(state)

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the container's lock: one call at a time changes it. Raises NotFound: it is gone."""
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"find container {self.id}", "container does not exist", f"see {self.root}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def status(self, state: State) -> str:
        """Return creating, created, running, paused or stopped."""
        if not state.pid:
            return "creating"
        if not state.is_alive:
            return "stopped"
        if self.gate.exists():
            return "created"
        return "paused" if state.cgroup and lifecycle.is_frozen(state.cgroup) else "running"


def place(root: str, container_id: str) -> Place:
    """Return a container's place. Raises InvalidInput: the id is empty or may not become a file's name."""
    if not container_id or container_id in {".", ".."} or not GRAMMAR.issuperset(container_id):
        why = "an id is letters, digits and _ + - ."
        raise InvalidInput(f"use {container_id!r} as an id", why, "choose another id")
    return Place(Path(root), container_id)


def places(root: str) -> list[Place]:
    """Return the places of all containers, by id."""
    try:
        return [Place(Path(root), entry.name) for entry in sorted(Path(root).iterdir()) if entry.is_dir()]
    except FileNotFoundError:
        return []


def document(state: State, status: str) -> dict[str, Any]:
    """Return a state as the specification writes it: what ``state`` prints and hooks read."""
    return {
        "ociVersion": VERSION,
        "id": state.id,
        "pid": 0 if status == "stopped" else state.pid,
        "status": status,
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
        "owner": "",
        "annotations": state.annotations,
    }
