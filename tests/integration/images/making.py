"""Layers and images made by hand, entry by entry, so that a test can say exactly what is in them."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

TIME = 1_700_000_000


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return a tar entry: a regular file, unless ``type`` says otherwise; any other TarInfo field can be given."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), TIME, 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, mode: int = 0o755, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777, **fields)


def hardlink(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target, **fields)


def layer(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an uncompressed layer of these entries, in this order."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def compressed(plain: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(plain, 1, mtime=0)
    return zstandard.compress(plain) if how == "zstd" else plain


@dataclass
class Layout:
    """An OCI image layout directory under construction; every blob can be spoilt by hand."""

    top: Path
    manifests: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes) -> dict[str, Any]:
        path = self.top / "blobs/sha256" / digest(data)[7:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"digest": digest(data), "size": len(data)}

    def document(self, value: dict[str, Any]) -> dict[str, Any]:
        return {"mediaType": value.get("mediaType", ""), **self.blob(json.dumps(value).encode())}

    def image(
        self,
        layers: Iterable[bytes],
        *,
        how: str = "gzip",
        arch: str = "amd64",
        variant: str = "",
        diff_ids: list[str] | None = None,
        **config: Any,
    ) -> dict[str, Any]:
        """Add an image of these (plain) layers; return its manifest's descriptor, with its platform."""
        layers = list(layers)
        ids = diff_ids or [digest(one) for one in layers]
        blobs = (compressed(one, how) for one in layers)
        return self.image_of(blobs, ids, how=how, arch=arch, variant=variant, **config)

    def image_of(
        self,
        blobs: Iterable[bytes],
        diff_ids: list[str],
        *,
        how: str,
        arch: str = "amd64",
        variant: str = "",
        **config: Any,
    ) -> dict[str, Any]:
        """Add an image of layers that are compressed already; return its manifest's descriptor, with its platform."""
        suffix = "" if how == "plain" else f"+{how}"
        kind = f"application/vnd.oci.image.layer.v1.tar{suffix}"
        made = {
            "architecture": arch,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        } | ({"variant": variant} if variant else {})
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                **self.blob(json.dumps(made).encode()),
            },
            "layers": [{"mediaType": kind, **self.blob(one)} for one in blobs],
        }
        platform = {"architecture": arch, "os": "linux"} | ({"variant": variant} if variant else {})
        return {**self.document(manifest), "platform": platform}

    def image_with_history(self, layers: list[bytes], steps: list[dict[str, Any]]) -> dict[str, Any]:
        """Add an image whose config tells how it was made; return its manifest's descriptor."""
        plain = self.image(layers)
        manifest = json.loads((self.top / "blobs/sha256" / plain["digest"][7:]).read_text())
        config = json.loads((self.top / "blobs/sha256" / manifest["config"]["digest"][7:]).read_text())
        manifest["config"] |= self.blob(json.dumps(config | {"history": steps}).encode())
        return plain | self.document(manifest)

    def index(self, *manifests: dict[str, Any]) -> dict[str, Any]:
        kind = "application/vnd.oci.image.index.v1+json"
        return self.document({"schemaVersion": 2, "mediaType": kind, "manifests": list(manifests)})

    def tag(self, descriptor: dict[str, Any], name: str) -> "Layout":
        """Give a manifest or an index a name, and write the layout's own index."""
        annotations = {"org.opencontainers.image.ref.name": name}
        self.manifests.append(descriptor | {"annotations": annotations})
        (self.top / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self.top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))
        return self
