"""A place of its own for each job on the store, and a claim on what the job needs.

    tmp/<random>/           locked (flock) as long as its job lives
        lease.json          digests (of blobs, and chain ids of layers) that garbage collection must leave alone
        …                   files being written; they are renamed to where they belong when they are whole

A job that fails or dies leaves its lease behind, for a day: what was downloaded and verified is still there when the
pull is repeated. Everything else of it is swept by the next job.

Directories come and go under tmp/.lock. Every lease is written, and all are read by garbage collection, under the
store's lock.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from minirt import decoding
from minirt.errors import ImageError
from minirt.images import disk

RESUMABLE_S = 24 * 3600
LEASE = "lease.json"
REMEDIES = {
    errno.ENOSPC: "free space there, or move minirt's data with MINIRT_ROOT",
    errno.EDQUOT: "raise the quota, or move minirt's data with MINIRT_ROOT",
    errno.EACCES: "run it as root",
    errno.EPERM: "run it as root",
}
"""What to do about the store's directory, by errno."""


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the store's lock, alone. It is never held while something is downloaded or unpacked."""
    with _explained(root):
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        with disk.flocked(root / "images.lock"):
            yield


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Say of an OSError in the block that it was the store that could not be changed."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "")
        raise ImageError(f"change the image store {root}", error.strerror or str(error), remedy) from error


class Workspace:
    """The directory of one job."""

    def __init__(self, root: Path, path: Path) -> None:
        self.root = root
        self.path = path
        self.leased: frozenset[str] = frozenset()

    def lease(self, digests: Iterable[str]) -> None:
        """Keep garbage collection away from these, whether they are there already or not yet."""
        self.leased |= frozenset(digests)
        with locked(self.root):
            disk.replace(self.path / LEASE, msgspec.json.encode(sorted(self.leased)))


@contextlib.contextmanager
def workspace(root: Path, *, resumable: bool = True) -> Iterator[Workspace]:
    """Make a workspace for one job. When the job succeeds, older leases on no more than it needed are dropped.

    Not ``resumable``: trying again would need other blobs, and when the job fails its lease goes too.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(_explained(root))
        top = _top(root)
        with disk.flocked(top / ".lock"):
            _sweep(top)
            path = top / os.urandom(8).hex()
            path.mkdir(mode=0o700)
            held.enter_context(disk.flocked(path))
        job = Workspace(root, path)
        try:
            yield job
        except BaseException:
            with disk.flocked(top / ".lock"):
                _empty(path)
                if not (resumable and job.leased):
                    disk.remove_tree(path)
            raise
        with disk.flocked(top / ".lock"):
            disk.remove_tree(path)
            _sweep(top, fulfilled=job.leased)


def leases(root: Path) -> set[str]:
    """Return every digest that a job lays claim to, one at work or one to be repeated. Hold the store's lock."""
    found: set[str] = set()
    for path in (root / "tmp").glob(f"*/{LEASE}"):
        found |= _read(path)
    return found


def keep(root: Path, digests: Iterable[str]) -> None:
    """Leave a lease on these, as a job that failed does: for a day a pull finds them."""
    top = _top(root)
    with disk.flocked(top / ".lock"):
        path = top / os.urandom(8).hex()
        path.mkdir(mode=0o700)
        Workspace(root, path).lease(digests)


def left_over(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield what dead jobs have left and nobody needs, with the reason: files, leases that are damaged or too old."""
    top = _top(root)
    with disk.flocked(top / ".lock"):
        for path in top.iterdir():
            if not path.is_dir():
                if path.name != ".lock":
                    yield path, "it is no job's"
            elif not disk.is_flocked(path):
                yield from ((child, "its job has died") for child in path.iterdir() if child.name != LEASE)
                if why := _stale(path / LEASE):
                    yield path, why


def sweep(root: Path) -> None:
    """Remove what ``left_over`` tells of."""
    top = _top(root)
    with disk.flocked(top / ".lock"):
        _sweep(top)


def _stale(lease: Path) -> str:
    """Say why nobody heeds the lease of a dead job, "" where it holds."""
    try:
        _read(lease)
        age_s = time.time() - lease.stat().st_mtime
    except FileNotFoundError:
        return "its job has died before it needed anything"
    except ImageError as error:
        return error.why
    return f"its lease is {age_s / 3600:.0f} hours old" if age_s > RESUMABLE_S else ""


def _top(root: Path) -> Path:
    top = root / "tmp"
    top.mkdir(mode=0o700, parents=True, exist_ok=True)
    return top


def _sweep(top: Path, fulfilled: frozenset[str] = frozenset()) -> None:
    """Empty the workspaces of dead jobs; drop leases that are too old, or ask for no more than ``fulfilled``."""
    for path in top.iterdir():
        if not path.is_dir():
            if path.name != ".lock":
                path.unlink()
        elif not disk.is_flocked(path):
            _empty(path)
            if _stale(path / LEASE) or _read(path / LEASE) <= fulfilled:
                disk.remove_tree(path)


def _empty(path: Path) -> None:
    """Remove all but the lease."""
    for child in path.iterdir():
        if child.name == LEASE:
            continue
        if child.is_dir() and not child.is_symlink():
            disk.remove_tree(child)
        else:
            child.unlink()


def _read(path: Path) -> frozenset[str]:
    """Return what a lease lays claim to, nothing where there is none. Raises ImageError: it is damaged."""
    try:
        return frozenset(decoding.from_json(path.read_bytes(), list[str]))
    except FileNotFoundError:
        return frozenset()
    except msgspec.DecodeError as error:
        raise ImageError(f"read the lease {path}", str(error), "see minirt image fsck") from error
