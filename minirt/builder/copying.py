"""COPY and ADD: what is to be copied, and where it goes.

    COPY a b /dir/          files into a directory; the slash makes it one
    COPY dir /dir           what is in dir
    COPY file /name         file, by another name
    ADD some.tar.gz /dir/   what is in the archive

Source: https://docs.docker.com/reference/dockerfile/#copy and #add
"""

import bz2
import os
import posixpath
import shutil
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from minirt.builder.dockerfile import Instruction
from minirt.builder.files import Found, Owner, Source, Target
from minirt.builder.settings import Settings
from minirt.engine import users
from minirt.errors import ImageError, Unsupported
from minirt.images.stream import Stream
from minirt.images.unpack import unpack
from minirt.images.workspace import Workspace
from minirt.linux import fds

REMOTE = ("http://", "https://", "git@", "git://", "ssh://")
BZIP2_MAGIC = b"BZh"


class Asked(Struct, frozen=True):
    """What an instruction asks for. ``source`` "" is the build's directory; ``owner`` as --chown has it."""

    patterns: tuple[str, ...]
    target: str
    is_directory: bool
    source: str
    owner: str
    mode: int | None


def read(one: Instruction, settings: Settings) -> Asked:
    """Return what an instruction asks for. Raises InvalidInput: it makes no sense; Unsupported: a URL."""
    named = settings.words(one)
    if len(named) < 2:
        raise one.fault("it needs what to copy, and where to", f"{one.keyword} SOURCE TARGET")
    *patterns, target = named
    if remote := next((name for name in patterns if one.keyword == "ADD" and name.startswith(REMOTE)), None):
        raise Unsupported(f"build line {one.line} (ADD)", f"{remote} is not on this machine", "fetch it in a RUN")
    if "$" in one.flags.get("from", ""):
        raise one.fault("--from takes no variables", "name the stage in a FROM with them: FROM $IMAGE AS name")
    mode = settings.expand(one.flags.get("chmod", ""))
    if mode and (not mode.isdigit() or set(mode) & set("89") or int(mode, 8) > 0o7777):
        raise one.fault(f"--chmod={mode} is no mode", "four octal digits, for example 0755")
    whole = posixpath.join(settings.working_dir, target)
    is_directory = target.endswith(("/", "/.")) or target in (".", "..") or len(patterns) > 1
    if len(patterns) > 1 and not target.endswith(("/", ".")):
        raise one.fault(f"several sources go to {target!r}", f"a directory ends with a slash: {target}/")
    return Asked(
        tuple(patterns),
        posixpath.normpath(whole).lstrip("/"),
        is_directory,
        one.flags.get("from", ""),
        settings.expand(one.flags.get("chown", "")),
        int(mode, 8) if mode else None,
    )


def find(asked: Asked, source: Source, one: Instruction) -> list[str]:
    """Return the paths to copy. Raises InvalidInput: a word names nothing."""
    found: list[str] = []
    for pattern in asked.patterns:
        paths = source.named(pattern)
        if not paths:
            where = f"in {asked.source}" if asked.source else "in the build's directory, or .dockerignore hides it"
            raise one.fault(f"there is no {pattern} {where}", "paths are relative to that")
        found += paths
    if len(found) > 1 and not asked.is_directory:
        raise one.fault(f"several files go to {asked.target!r}", f"a directory ends with a slash: /{asked.target}/")
    return found


def carry_out(
    asked: Asked,
    found: list[str],
    source: Source,
    target_fd: int,
    lowers: tuple[Path, ...],
    job: Workspace,
    one: Instruction,
) -> None:
    """Copy into the merged tree of ``target_fd``. Raises InvalidInput: something is in the way; ImageError."""
    owner = None
    if asked.owner:
        known = users.resolve(asked.owner, lowers)
        uid_alone = asked.owner.isdigit()
        owner = Owner(known.uid, known.uid if uid_alone else known.gid)
    target = Target(target_fd)
    try:
        for path in found:
            if one.keyword == "ADD" and _is_archive(source, path):
                _extract(source, path, target, asked, owner, job)
            else:
                target.copy(source, path, _place(asked, source, path, target), owner, asked.mode)
    except OSError as error:
        raise one.fault(f"{path} cannot be copied to /{asked.target}: {error.strerror}") from error


def _place(asked: Asked, source: Source, path: str, target: Target) -> str:
    """Return where a path goes: a file into a directory, or to the name itself."""
    top = next(source.walk(path), None)
    if top is None or top.inner or stat.S_ISDIR(top.info.st_mode):
        return asked.target or "."
    if asked.is_directory or target.is_directory(asked.target or "."):
        return posixpath.join(asked.target, posixpath.basename(path))
    return asked.target


def _is_archive(source: Source, path: str) -> bool:
    """Say whether a file is a tar archive, compressed or not, by its content."""
    top = next(source.walk(path), None)
    if top is None or not stat.S_ISREG(top.info.st_mode):
        return False
    try:
        with os.fdopen(source.read(top), "rb") as file:
            tarfile.TarInfo.frombuf(_first_block(file, path), "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ImageError, OSError, EOFError):
        return False
    return True


def _first_block(file: BinaryIO, path: str) -> bytes:
    """Return a file's first 512 bytes, decompressed. Raises ImageError, OSError, EOFError: there are not as many."""
    first = file.read(3)
    file.seek(0)
    return bz2.BZ2File(file).read(512) if first == BZIP2_MAGIC else Stream(file, path).exactly(512)


def _extract(source: Source, path: str, target: Target, asked: Asked, owner: Owner | None, job: Workspace) -> None:
    """Unpack an archive beside, by the rules of layers, and copy what was in it with its owners."""

    archive, tree = job.path / "added.tar", job.path / "added"
    top: Found = next(iter(source.walk(path)))
    try:
        with os.fdopen(source.read(top), "rb") as file, archive.open("wb") as out:
            first = file.read(3)
            file.seek(0)
            shutil.copyfileobj(bz2.BZ2File(file) if first == BZIP2_MAGIC else file, out, 1 << 20)
        with archive.open("rb") as blob:
            diff_id = Stream(blob, path).finish()
        unpack(archive, tree, diff_id)
        with fds.closing(os.open(tree, os.O_RDONLY | os.O_DIRECTORY)) as fd:
            target.make(asked.target, owner or Owner(0, 0))
            target.copy(Source(fd, keeps_owners=True), ".", asked.target or ".", owner, asked.mode)
    finally:
        archive.unlink(missing_ok=True)
        if tree.exists():
            shutil.rmtree(tree)


def is_directory(target_fd: int, path: str) -> bool:
    """Say whether there is a directory at a path of a merged tree."""
    return Target(target_fd).is_directory(path)


def make_directory(target_fd: int, path: str, one: Instruction) -> None:
    """Make a directory in a merged tree. Raises InvalidInput: something is in the way."""
    try:
        Target(target_fd).make(path, Owner(0, 0))
    except OSError as error:
        raise one.fault(f"{path} cannot be made: {error.strerror}") from error
