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
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from minirt.errors import Conflict, InvalidInput, NotFound
from minirt.linux import process
from minirt.oci import VERSION

GRAMMAR = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class State(NamedTuple):
    """One container. ``cgroup`` is its directory on the host ("" for none), ``scope`` the unit that systemd made for it
    ("" for none), ``created`` RFC 3339.

    Engines ask for it often, and to import msgspec takes longer than all that ``state`` does: it is a tuple.
    """

    id: str
    bundle: str
    rootfs: str
    created: str
    cgroup: str = ""
    pid: int = 0
    start_time: int = 0
    annotations: dict[str, str] = {}  # noqa: RUF012  nobody changes it
    has_poststop: bool = True
    scope: str = ""

    @property
    def is_alive(self) -> bool:
        """Say whether its very init still runs."""
        return self.pid > 0 and process.is_alive(self.pid, self.start_time)


class Place(NamedTuple):
    """A container's directory below ROOT."""

    root: str
    id: str

    @property
    def directory(self) -> str:
        """Return the directory."""
        return f"{self.root}/{self.id}"

    @property
    def gate(self) -> str:
        """Return the socket that init waits on."""
        return f"{self.directory}/gate.sock"

    @property
    def file(self) -> str:
        """Return the state file."""
        return f"{self.directory}/state.json"

    def load(self) -> State:
        """Return the state. Raises NotFound: there is no such container."""
        try:
            with open(self.file, "rb") as stored:
                return State(**_decoded(stored.read()))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"find container {self.id}", "container does not exist", f"see {self.root}") from None

    def save(self, state: State) -> None:
        """Replace the state file."""
        new = f"{self.directory}/.state.json"
        with open(new, "wb") as stored:
            stored.write(encoded(state._asdict()).encode())
        os.rename(new, self.file)

    def make(self, state: State) -> None:
        """Make the directory with a first state in it. Raises Conflict: the id is taken."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        try:
            os.mkdir(self.directory, mode=0o700)
        except FileExistsError:
            do = f"choose another id, or minirt-oci delete {self.id}"
            raise Conflict(f"create {self.id}", "a container with this id exists", do) from None
        self.save(state)

    def remove(self) -> None:
        """Remove the directory, and what is in it: files only. One that is gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                os.unlink(f"{self.directory}/{name}")
            os.rmdir(self.directory)

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
        if os.path.exists(self.gate):
            return "created"
        return "paused" if state.cgroup and _is_frozen(state.cgroup) else "running"


def _is_frozen(cgroup: str) -> bool:
    from minirt.cgroups import lifecycle

    return lifecycle.is_frozen(cgroup)


def _decoded(text: bytes) -> dict[str, Any]:
    """Return plain data from JSON: by msgspec where a spec has been read, else by json. To import either costs most."""
    if "msgspec" in sys.modules:
        import msgspec

        return dict(msgspec.json.decode(text))
    import json

    return dict(json.loads(text))


def encoded(plain: dict[str, Any]) -> str:
    """Return plain data as JSON, by whichever codec is there."""
    if "msgspec" in sys.modules:
        import msgspec

        return msgspec.json.encode(plain).decode()
    import json

    return json.dumps(plain)


def place(root: str, container_id: str) -> Place:
    """Return a container's place. Raises InvalidInput: the id is empty or may not become a file's name."""
    if not container_id or container_id in {".", ".."} or not GRAMMAR.issuperset(container_id):
        why = "an id is letters, digits and _ + - ."
        raise InvalidInput(f"use {container_id!r} as an id", why, "choose another id")
    return Place(root, container_id)


def places(root: str) -> list[Place]:
    """Return the places of all containers, by id."""
    try:
        return [Place(root, name) for name in sorted(os.listdir(root)) if os.path.isdir(f"{root}/{name}")]
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
