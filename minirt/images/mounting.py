"""An image mounted where its user wants to look at it: read only, its layers kept for as long as it is.

    snapshots/containers/mount-<…>/     what keeps the layers, as a container's own does
        target                          where it is mounted

Mounts end with a reboot, or by umount(8); what kept the layers is then removed by ``minirt system prune``.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from minirt.errors import Conflict, InvalidInput, NotFound, raised_as_step
from minirt.images.image import Image
from minirt.images.snapshots import Snapshots
from minirt.images.view import detached
from minirt.linux import fds, mount

PREFIX = "mount-"
"""How the keys of such snapshots begin; containers' ids are hexadecimal."""


def mount_image(root: Path, image: Image, target: Path) -> None:
    """Mount an image on the directory ``target``.

    Raises:
        InvalidInput: it is no directory. Conflict: an image is mounted there. NotFound: a layer is not unpacked.
        StepFailed: the kernel refused.
    """
    if not target.is_dir():
        raise InvalidInput(f"mount an image on {target}", "it is no directory", "make it first")
    key = _key(target)
    snapshots = Snapshots(root)
    if snapshots.has(key):
        if is_mounted(root, key):
            raise Conflict(f"mount an image on {target}", "one is mounted there", f"minirt image unmount {target}")
        snapshots.remove(key)
    with contextlib.ExitStack() as undo, raised_as_step(f"mount an image on {target}"):
        overlay = snapshots.prepare(key, image)
        undo.callback(snapshots.remove, key)
        (overlay.upper.parent / "target").write_text(str(target.resolve()))
        with fds.closing(detached(overlay.lowers)) as fd:
            with fds.closing(os.open(target, os.O_PATH | os.O_DIRECTORY)) as target_fd:
                mount.move_mount(fd, target_fd)
        undo.pop_all()


def unmount_image(root: Path, target: Path) -> None:
    """Unmount what ``mount_image`` mounted. Raises NotFound: nothing. StepFailed: somebody is in it."""
    key = _key(target)
    if not Snapshots(root).has(key):
        raise NotFound(f"unmount {target}", "no image is mounted there", "see mount(8)")
    if is_mounted(root, key):
        with raised_as_step(f"unmount {target}"):
            mount.umount2(str(target.resolve()))
    Snapshots(root).remove(key)


def is_mounted(root: Path, key: str) -> bool:
    """Say whether a snapshot of such a key is of an image that is still mounted."""
    try:
        target = (root / "snapshots" / "containers" / key / "target").read_text()
    except FileNotFoundError:
        return False
    escaped = target.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(line.split(" ")[4] == escaped for line in mounts)


def _key(target: Path) -> str:
    return f"{PREFIX}{hashlib.sha256(os.fsencode(target.resolve())).hexdigest()[:16]}"
