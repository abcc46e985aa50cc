"""The records on disk: found by id, by name, or by the beginning of an id.

A reader may come at any moment of a writer's life, or after its death: a directory without a record is one that is
being made or unmade, and is passed over; a record of another boot is as good as none.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from minirt import decoding, paths
from minirt.engine.records import ContainerRecord, SandboxRecord
from minirt.errors import Conflict, InvalidInput, NotFound
from minirt.linux import process
from minirt.shim.status import replace_file

Record = TypeVar("Record", SandboxRecord, ContainerRecord)
WHOLE_ID = 64


@contextlib.contextmanager
def locked(sandbox_id: str) -> Iterator[None]:
    """Hold a sandbox's lock: what changes it or its containers happens one at a time. Not re-entrant.

    It is on the sandbox's directory: no file has to be made, so that one can be removed on a full disk.

    Raises:
        NotFound: the sandbox is gone.
    """
    try:
        fd = os.open(paths.sandbox_dir(sandbox_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"find sandbox {sandbox_id}", "it has been removed") from None
    with _holding(fd):
        yield


@contextlib.contextmanager
def flocked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory that is there."""
    with _holding(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)):
        yield


@contextlib.contextmanager
def _holding(fd: int) -> Iterator[None]:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def create(record: SandboxRecord | ContainerRecord) -> None:
    """Make a record's directory with the record in it, both at once: a directory without a record is never seen.

    Raises:
        Conflict: there is one of this id.
    """
    directory = _file(type(record), record.id).parent
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = directory.with_name(f".{record.id}.{os.getpid()}")
    staging.mkdir(mode=0o711)
    try:
        (staging / _file(type(record), record.id).name).write_bytes(msgspec.json.encode(record))
        staging.rename(directory)
    except OSError as error:
        _rmtree(staging)
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        raise Conflict(f"make {record.id}", "it exists already", "choose another id") from None


def me() -> tuple[int, int]:
    """Return this process as records name one for good: pid and start time."""
    return os.getpid(), process.start_time(os.getpid())


def is_dead(creator: tuple[int, int]) -> bool:
    """Say whether the process that ``me`` named has ended."""
    return not process.is_alive(*creator)


def save(record: SandboxRecord | ContainerRecord) -> None:
    """Write a record in its directory."""
    replace_file(_file(type(record), record.id), msgspec.json.encode(record))


def sandbox(sandbox_id: str) -> SandboxRecord:
    """Return a sandbox's record. Raises NotFound."""
    return _load(SandboxRecord, sandbox_id)


def container(container_id: str) -> ContainerRecord:
    """Return a container's record. Raises NotFound."""
    return _load(ContainerRecord, container_id)


def sandboxes(owner: str | None = None) -> list[SandboxRecord]:
    """Return every sandbox of this boot, the oldest first; of one owner if it is named."""
    found = _all(SandboxRecord, "sandboxes")
    return [record for record in found if owner is None or record.config.owner == owner]


def containers(
    sandbox_id: str | None = None, owner: str | None = None, *, half_made: bool = False
) -> list[ContainerRecord]:
    """Return every container of this boot, the oldest first; of one sandbox or owner if it is named.

    With ``half_made`` also those that are being made, or whose maker died.
    """
    return [
        record
        for record in _all(ContainerRecord, "containers")
        if (sandbox_id is None or record.sandbox_id == sandbox_id)
        and (owner is None or record.owner == owner)
        and (half_made or is_made(record))
    ]


def is_made(record: ContainerRecord) -> bool:
    """Say whether a container is complete."""
    return os.path.exists(f"{paths.container_dir(record.id)}/config.json")


def exists(record: ContainerRecord) -> bool:
    """Say whether a container has not been removed."""
    return paths.container_dir(record.id).exists()


def sandbox_of(owner: str, key: str) -> SandboxRecord:
    """Return an owner's sandbox by its id, or by a beginning that only one id has. Raises NotFound."""
    record = sandbox(_completed(key, "sandboxes"))
    if record.config.owner != owner or record.state == "creating":
        raise NotFound(f"find sandbox {key}", "there is no sandbox of this id")
    return record


def container_of(owner: str, key: str) -> ContainerRecord:
    """Return an owner's container by its id, or by a beginning that only one id has. Raises NotFound."""
    record = container(_completed(key, "containers"))
    if record.owner != owner or not is_made(record):
        raise NotFound(f"find container {key}", "there is no container of this id")
    return record


def _completed(key: str, directory: str) -> str:
    """Return the one id that begins with ``key``; ``key`` itself where it is whole, or none or several begin so."""
    if not key or len(key) >= WHOLE_ID:
        return key
    begun = [found for found in ids_in(paths.state_root() / directory) if found.startswith(key)]
    return begun[0] if len(begun) == 1 else key


def find_container(name: str) -> ContainerRecord:
    """Return the container that the user of the command line means: a name, an id, or its beginning."""
    return _find(name, "container", [(one.id, one.config.name, one) for one in containers() if _is_single(one)])


def find_pod(name: str) -> SandboxRecord:
    """Return the pod that the user of the command line means: a name, an id, its beginning, or a uid."""
    pods = [one for one in sandboxes() if not one.config.single]
    by_uid = [one for one in pods if one.config.uid == name]
    return by_uid[0] if by_uid else _find(name, "pod", [(one.id, one.config.name, one) for one in pods])


def _is_single(record: ContainerRecord) -> bool:
    return record.id == record.sandbox_id


def _find(name: str, kind: str, candidates: list[tuple[str, str, Record]]) -> Record:
    exact = [record for key, label, record in candidates if name in {key, label}]
    begun = [record for key, _, record in candidates if len(name) >= 2 and key.startswith(name)]
    found = exact or begun
    listing = "minirt pod ps" if kind == "pod" else "minirt ps -a"
    if not found:
        raise NotFound(f"find {kind} {name!r}", f"there is no {kind} of this name or id", f"see {listing}")
    if len(found) > 1:
        raise InvalidInput(f"use {name!r}", f"{len(found)} {kind}s match", f"give more of the id; see {listing}")
    return found[0]


def _file(kind: type[SandboxRecord] | type[ContainerRecord], key: str) -> Path:
    directory, name = _place(kind, key)
    return directory / name


def _place(kind: type[SandboxRecord] | type[ContainerRecord], key: str) -> tuple[Path, str]:
    if kind is SandboxRecord:
        return paths.sandbox_dir(key), "sandbox.json"
    return paths.container_dir(key), "container.json"


def _load(kind: type[Record], key: str) -> Record:
    label = "sandbox" if kind is SandboxRecord else "container"
    try:
        directory, name = _place(kind, key)
        record = _decoded(kind, f"{directory}/{name}")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise NotFound(f"find {label} {key}", f"there is no {label} of this id") from None
    if record.boot_id != paths.boot_id():
        raise NotFound(f"find {label} {key}", "it was of another boot", "minirt system prune removes what is left")
    return record


_decoded_before: dict[str, tuple[tuple[int, int, int], SandboxRecord | ContainerRecord]] = {}
"""Records as they were read last, by their file, with what tells that it is still the same one."""
MOST_DECODED = 4096


def _decoded(kind: type[Record], file: str) -> Record:
    """Return a record, decoded anew only if its file is another one: each change is a new file, renamed into place.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        ValueError: it is damaged.
    """
    found = os.stat(file)
    identity = found.st_ino, found.st_mtime_ns, found.st_size
    before, record = _decoded_before.get(file, (None, None))
    if before == identity and isinstance(record, kind):
        return record
    with open(file, "rb") as opened:
        decoded = decoding.from_json(opened.read(), kind)
    if len(_decoded_before) >= MOST_DECODED:
        _decoded_before.clear()
    _decoded_before[file] = identity, decoded
    return decoded


def _all(kind: type[Record], directory: str) -> list[Record]:
    found = []
    for key in ids_in(paths.state_root() / directory):
        with contextlib.suppress(NotFound):
            found.append(_load(kind, key))
    return sorted(found, key=lambda record: record.created_at)


def ids_in(directory: Path) -> list[str]:
    """Return the ids in a directory, but for what is being made or removed; none where there is no such directory."""
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return []


def remove_directory(directory: Path) -> None:
    """Remove a record's directory: first out of its name, so that no reader sees a half."""
    gone = directory.with_name(f".{directory.name}.{os.urandom(4).hex()}.{os.getpid()}")
    try:
        directory.rename(gone)
    except FileNotFoundError:
        return
    _rmtree(gone)


def _rmtree(directory: Path) -> None:
    import shutil  # for removals only: 2 ms

    shutil.rmtree(directory)
