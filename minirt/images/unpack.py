"""A layer becomes a directory, in the form overlayfs reads, and nothing outside of that directory is ever touched.

    layer.tar                     directory
    .wh.name                      name: a character device 0:0 (hides what lies below)
    .wh..wh..opq in dir           dir: trusted.overlay.opaque=y (hides all that lies below in it)
    .wh..wh.…                     left out (aufs kept its own books there)
    dir/file, dir not in it       dir: with the attributes it has in the layers below, else 0755 root

Every parent is resolved by the kernel, beneath the directory (openat2, RESOLVE_BENEATH), and everything is made by
name in that parent's descriptor. So a symlink of the layer is followed where it stays inside, as in docker's chroot,
and an entry that would leave is refused. A hardlink must name something of the same layer. Nobody else may write the
tree meanwhile: it is a new directory that only root can enter.

Source: https://github.com/opencontainers/image-spec/blob/main/layer.md; the kernel's filesystems/overlayfs.rst
"""

import contextlib
import errno
import stat
from collections.abc import Sequence
from pathlib import Path

from minirt.errors import DigestMismatch, HostileLayer, ImageError
from minirt.images import disk, tar
from minirt.images.stream import Stream
from minirt.images.tar import Entry
from minirt.images.tree import Tree
from minirt.images.workspace import REMEDIES
from minirt.linux import fds

WHITEOUT = ".wh."
WHITEOUT_META = ".wh..wh."
OPAQUE = ".wh..wh..opq"


def unpack(blob: Path, target: Path, diff_id: str, lowers: Sequence[Path] = ()) -> None:
    """Unpack the layer in ``blob`` into the new directory ``target``, and check that it is ``diff_id``.

    ``lowers`` are the directories of the layers below, the top one first. On any error ``target`` is removed.

    Raises:
        HostileLayer: an entry reaches outside of the layer.
        DigestMismatch: the layer is not ``diff_id``.
        ImageError: it is damaged or cut short, or cannot be written (disk full).
    """
    what = f"layer {diff_id[:19]}"
    target.mkdir(mode=0o755)
    try:
        with blob.open("rb", buffering=0) as source, contextlib.closing(Tree(target, lowers)) as tree:
            stream = Stream(source, what)
            for entry in tar.entries(stream, what):
                _add(tree, entry, stream, what)
            tree.set_directory_times()
            _check(stream.finish(), diff_id)
            fds.syncfs(tree.root_fd)
    except BaseException as error:
        disk.remove_tree(target)
        if isinstance(error, OSError):
            raise _explained(error, what) from error
        raise


def _check(found: str, diff_id: str) -> None:
    if found != diff_id:
        why = f"unpacked it is {found}"
        raise DigestMismatch(f"unpack layer {diff_id}", why, "the image's config and its layers do not fit: rebuild it")


def _explained(error: OSError, what: str, entry: str = "") -> ImageError:
    where = f"entry {entry!r}: " if entry else ""
    return ImageError(f"unpack {what}", where + (error.strerror or str(error)), REMEDIES.get(error.errno or 0, ""))


def _add(tree: Tree, entry: Entry, stream: Stream, what: str) -> None:
    """Add one entry; say which one it was when it cannot be."""
    try:
        parent, name = split(entry.name)
        if not name and entry.kind != tar.DIRECTORY:
            raise ValueError("the root of a layer is a directory")
        if name.startswith(WHITEOUT):
            _hide(tree, parent, name)
        elif entry.kind == tar.HARDLINK:
            tree.link(parent, name, *split(entry.linkname))
        else:
            _make(tree, parent, name, entry, stream)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise _hostile(what, entry, "its path leads out of the layer") from error
        if error.errno == errno.ENOENT and entry.kind == tar.HARDLINK:
            raise _hostile(what, entry, f"it links to {entry.linkname!r}, which is not in the layer") from error
        raise _explained(error, what, entry.name) from error
    except ValueError as error:
        raise _hostile(what, entry, str(error)) from error


def _hostile(what: str, entry: Entry, why: str) -> HostileLayer:
    return HostileLayer(f"unpack {what}", f"entry {entry.name!r}: {why}", "do not trust where this image comes from")


def split(path: str) -> tuple[str, str]:
    """Return (parent, name) of an archive's path, both relative to its root; ("", "") for the root itself.

    Slashes at either end count for nothing: an absolute name is one below the root, as for docker.

    Raises:
        ValueError: the name is ``..``, which no parent is asked about.
    """
    parent, _, name = path.strip("/").rpartition("/")
    if name == ".":
        return split(parent)
    if name == "..":
        raise ValueError("its name is '..'")
    return parent.strip("/"), name


def _hide(tree: Tree, parent: str, name: str) -> None:
    if name == OPAQUE:
        tree.make_opaque(parent)
    elif not name.startswith(WHITEOUT_META):
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise ValueError("it hides no name")
        tree.whiteout(parent, hidden)


def _make(tree: Tree, parent: str, name: str, entry: Entry, stream: Stream) -> None:
    if entry.kind == tar.DIRECTORY:
        tree.directory(parent, name, entry)
    elif entry.kind == tar.REGULAR:
        tree.file(parent, name, entry, stream)
    elif entry.kind == tar.SYMLINK:
        tree.symlink(parent, name, entry)
    else:
        tree.node(parent, name, entry, _NODE_TYPES[entry.kind])


_NODE_TYPES = {tar.CHAR_DEVICE: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
