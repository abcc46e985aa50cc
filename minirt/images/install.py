"""From a manifest to an image: fetch what is missing, a few blobs at a time, and unpack the layers in order.

    source ── config ──┐
      │                ▼
      ├── layer 1 ──▶ blob, verified ──▶ unpack 1 ──▶ unpack 2 ──▶ … ──▶ Record
      ├── layer 2 ──▶ blob, verified ─────────────────┘
      └── …           (the next ones are fetched while those below are unpacked)

It may be cut off anywhere: there is no new image before the end, and what was complete is found again by the next try.
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol

from minirt.errors import ImageError, Unsupported
from minirt.images import manifest
from minirt.images.blobs import LARGEST_DOCUMENT, Blobs, digest_of
from minirt.images.catalog import Record
from minirt.images.image import Platform, chain_ids
from minirt.images.manifest import ConfigFile, Descriptor, Manifest
from minirt.images.progress import Progress, Report, State
from minirt.images.snapshots import Snapshots
from minirt.images.workspace import Workspace

AT_A_TIME = 3
MOST_LAYERS = 500
"""As many as overlayfs stacks. Source: the kernel's fs/overlayfs/params.h, OVL_MAX_STACK."""


class Source(Protocol):
    """Where blobs come from: a registry, an archive. Called by several threads."""

    def blob(self, digest: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open a blob; the block gets its bytes in pieces, unverified."""
        ...

    def abort(self) -> None:
        """End what is under way: whoever reads gets an error."""
        ...


class NoSource:
    """For an image whose blobs are all in the store already."""

    def blob(self, digest: str) -> AbstractContextManager[Iterator[bytes]]:
        """Refuse: nothing should be missing."""
        raise ImageError(f"find blob {digest}", "it is not in the store", "try again")

    def abort(self) -> None:
        """Do nothing."""


class Installation:
    """One image on its way into the store. ``report`` is called from several threads, one at a time."""

    def __init__(self, job: Workspace, source: Source, report: Report | None = None) -> None:
        self._job = job
        self._source = source
        self._report = report
        self._reporting = threading.Lock()
        self._stopped = threading.Event()
        self._blobs = Blobs(job.root)
        self._snapshots = Snapshots(job.root)

    def run(self, data: bytes, what: str, platform: Platform | None = None) -> Record:
        """Install the image of the manifest in ``data``; return its record, without names.

        Raises:
            Unsupported: it is not an image. ImageError: it is not for ``platform``, or damaged.
            DigestMismatch, HostileLayer, and what the source raises.
        """
        found = manifest.read(data, what)
        if not isinstance(found, Manifest):
            raise ImageError(f"read {what}", "it is an index where a manifest should be")
        if len(found.layers) > MOST_LAYERS:
            why = f"it has {len(found.layers)} layers, and overlayfs stacks no more than {MOST_LAYERS}"
            raise Unsupported(f"use {what}", why, "have it made anew with fewer")
        blobs = [digest_of(data), found.config.digest, *(layer.digest for layer in found.layers)]
        self._job.lease(blobs)
        self._blobs.add(data, self._job)
        config = self._config(found, what)
        if platform and not platform.runs(config.platform):
            raise ImageError(f"use {what}", f"it is for {config.platform}, not {platform}", "name another platform")
        self._job.lease(chain_ids(config.rootfs.diff_ids))
        self._fetch_and_unpack(found.layers, config.rootfs.diff_ids)
        size_bytes = found.config.size + sum(layer.size for layer in found.layers)
        return Record(found.config.digest, blobs[0], blobs, config.rootfs.diff_ids, size_bytes)

    def _config(self, found: Manifest, what: str) -> ConfigFile:
        if found.config.size > LARGEST_DOCUMENT:
            raise ImageError(f"read {what}", f"its config has {found.config.size} bytes", "have the image made anew")
        if not self._blobs.has(found.config.digest):
            with self._source.blob(found.config.digest) as pieces:
                self._blobs.write(pieces, self._job, found.config.digest, found.config.size)
        config = manifest.read_config(self._blobs.read(found.config.digest), what)
        if len(config.rootfs.diff_ids) != len(found.layers):
            why = f"its config speaks of {len(config.rootfs.diff_ids)} layers, its manifest of {len(found.layers)}"
            raise ImageError(f"read {what}", why, "have the image made anew")
        return config

    def _fetch_and_unpack(self, layers: list[Descriptor], diff_ids: list[str]) -> None:
        chain = chain_ids(diff_ids)
        for layer in layers:
            self._tell(layer, "waiting", 0)
        with self._fetching(layers) as fetched:
            for count, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True), 1):
                fetched[layer.digest].result()
                self._tell(layer, "unpacking", layer.size)
                self._snapshots.unpack(self._blobs.path(layer.digest), diff_id, chain[:count], self._job)
                self._tell(layer, "done", layer.size)

    @contextlib.contextmanager
    def _fetching(self, layers: list[Descriptor]) -> Iterator[dict[str, Future[None]]]:
        """Fetch layers in threads while the block runs; when it fails, stop them."""
        pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="fetch")
        try:
            distinct = {layer.digest: layer for layer in layers}
            yield {digest: pool.submit(self._fetch_layer, layer) for digest, layer in distinct.items()}
        except BaseException:
            self._stopped.set()
            self._source.abort()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch_layer(self, layer: Descriptor) -> None:
        if self._blobs.has(layer.digest):
            self._tell(layer, "present", layer.size)
        else:
            with self._source.blob(layer.digest) as pieces:
                self._blobs.write(self._counted(layer, pieces), self._job, layer.digest, layer.size)
            self._tell(layer, "downloaded", layer.size)

    def _counted(self, layer: Descriptor, pieces: Iterator[bytes]) -> Iterator[bytes]:
        done = 0
        self._tell(layer, "downloading", done)
        for piece in pieces:
            if self._stopped.is_set():
                raise ImageError(f"fetch layer {layer.digest[:19]}", "it was stopped")
            done += len(piece)
            self._tell(layer, "downloading", done)
            yield piece

    def _tell(self, what: Descriptor, state: State, done: int) -> None:
        if self._report:
            with self._reporting:
                self._report(Progress(what.digest, state, done, what.size))
