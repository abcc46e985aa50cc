"""The pod face's ImageService: the image store in the CRI's words."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from minirt import paths
from minirt.crimessages import api_pb2 as cri
from minirt.engine import messages
from minirt.errors import NotFound, TimedOut
from minirt.images.progress import Progress
from minirt.images.store import ImageStore


class ImageFace:
    """Images. They have no owner: all see the same ones."""

    def PullImage(
        self, request: cri.PullImageRequest, is_cancelled: Callable[[], bool] = lambda: False
    ) -> cri.PullImageResponse:
        """Fetch an image; ``image_ref`` is its id. Who waits for it may be gone: then nothing of it stays.

        Raises:
            TimedOut: ``is_cancelled`` says so.
            NotFound: the registry has no such image.
            ImageError: it refused, or its answer is no image.
        """
        name = request.image.image

        def check(_: Progress) -> None:
            if is_cancelled():
                raise TimedOut(f"pull {name}", "its caller has gone, or its time is up", "ask again")

        found = ImageStore().pull(name, credentials=messages.credentials(request.auth), progress=check)
        return cri.PullImageResponse(image_ref=found.id)

    def ImageStatus(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        """Return an image, or nothing."""
        try:
            return cri.ImageStatusResponse(image=messages.image(ImageStore().get(request.image.image)))
        except NotFound:
            return cri.ImageStatusResponse()

    def ListImages(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        """List images."""
        wanted = request.filter.image.image
        if wanted:
            return cri.ListImagesResponse(images=[found for found in [self._image(wanted)] if found])
        return cri.ListImagesResponse(images=[messages.image(one) for one in ImageStore().list()])

    def _image(self, name: str) -> cri.Image | None:
        found = self.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name)))
        return found.image if found.HasField("image") else None

    def RemoveImage(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        """Remove an image with all its names; an unknown one is fine."""
        images = ImageStore()
        try:
            images.remove(images.get(request.image.image).id, force=True)
        except NotFound:
            return cri.RemoveImageResponse()
        return cri.RemoveImageResponse()

    def ImageFsInfo(self, request: cri.ImageFsInfoRequest) -> cri.ImageFsInfoResponse:
        """Say what images, and containers' writable layers, take on disk."""
        root = paths.data_root()
        images, containers = root / "snapshots", root / "snapshots" / "containers"
        return cri.ImageFsInfoResponse(
            image_filesystems=[filesystem(images, usage(images, containers), usage(root / "blobs"))],
            container_filesystems=[filesystem(containers, usage(containers))],
        )


Usage = tuple[int, int]
"""Bytes and inodes."""

_layers: dict[str, Usage] = {}
_counting = threading.Lock()


def usage(directory: Path, without: Path | None = None) -> Usage:
    """Return what is below a directory; what goes meanwhile is not counted. Layers, which never change, count once."""
    size = count = 0
    for entry in _entries(directory):
        if without is not None and entry.path == str(without):
            continue
        found = _of_layer(entry) if without is not None else _of_tree(entry)
        size, count = size + found[0], count + found[1]
    return size, count


def _of_layer(entry: "os.DirEntry[str]") -> Usage:
    with _counting:
        if entry.path not in _layers:
            _layers[entry.path] = _of_tree(entry)
        return _layers[entry.path]


def _of_tree(entry: "os.DirEntry[str]") -> Usage:
    try:
        size, count = entry.stat(follow_symlinks=False).st_blocks * 512, 1
        if entry.is_dir(follow_symlinks=False):
            for inner in _entries(entry.path):
                found = _of_tree(inner)
                size, count = size + found[0], count + found[1]
    except FileNotFoundError:
        return 0, 0
    return size, count


def _entries(directory: str | Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(directory) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def filesystem(mountpoint: Path, *parts: Usage) -> cri.FilesystemUsage:
    """Return the sum of some usages, as of now."""
    return cri.FilesystemUsage(
        timestamp=time.time_ns(),
        fs_id=cri.FilesystemIdentifier(mountpoint=str(mountpoint)),
        used_bytes=cri.UInt64Value(value=sum(size for size, _ in parts)),
        inodes_used=cri.UInt64Value(value=sum(count for _, count in parts)),
    )
