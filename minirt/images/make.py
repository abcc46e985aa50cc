"""An image of what is here: config and manifest written around layers that are already blobs."""

import datetime
from collections.abc import Iterator
from itertools import chain

import msgspec

from minirt.images.blobs import Blobs
from minirt.images.image import ImageConfig, Platform
from minirt.images.manifest import OCI_CONFIG, OCI_LAYER, ConfigFile, Descriptor, Manifest, RootFs, RunConfig
from minirt.images.stream import ZSTD_MAGIC, is_compressed
from minirt.images.workspace import Workspace


def store_layer(pieces: Iterator[bytes], job: Workspace) -> Descriptor:
    """Store a layer as it streams in; return its descriptor, with the compression its first bytes show."""
    first = next(pieces, b"")
    compression = "+zstd" if first.startswith(ZSTD_MAGIC) else "+gzip" if is_compressed(first) else ""
    digest, size = Blobs(job.root).write(chain([first], pieces), job)
    return Descriptor(OCI_LAYER + compression, digest, size)


def make_manifest(config: bytes, layers: list[Descriptor], job: Workspace) -> bytes:
    """Store a config; return a manifest of it and its layers."""
    digest = Blobs(job.root).add(config, job)
    return msgspec.json.encode(Manifest(Descriptor(OCI_CONFIG, digest, len(config)), layers))


def make_config(run: ImageConfig, platform: Platform, diff_ids: list[str], how: str) -> bytes:
    """Return the config of an image that is made now; ``how`` goes into its history."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    config = ConfigFile(
        rootfs=RootFs(diff_ids),
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=now,
        config=RunConfig(
            entrypoint=list(run.entrypoint) or None,
            cmd=list(run.cmd) or None,
            env=list(run.env) or None,
            user=run.user,
            working_dir=run.working_dir,
            stop_signal=run.stop_signal,
            exposed_ports={port: {} for port in run.exposed_ports} or None,
            volumes={volume: {} for volume in run.volumes} or None,
            labels=run.labels or None,
        ),
        history=[{"created": now, "created_by": how}],
    )
    return msgspec.json.encode(config)
