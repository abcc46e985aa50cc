"""Debian's static busybox as a root file system, and as an image archive that docker, podman and containerd read."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

NAME = "localhost/busybox:latest"
PAUSE = "localhost/pause:latest"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"


def root_file_system(target: Path) -> Path:
    """Make the tree of a tiny system below ``target``: /bin with every applet, /etc/passwd, /tmp, /root."""
    for name in ("bin", "etc", "root", "tmp", "dev", "proc", "sys", "var"):
        (target / name).mkdir(parents=True)
    (target / "tmp").chmod(0o1777)
    (target / "etc/passwd").write_text(PASSWD)
    (target / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    program = shutil.copy(str(shutil.which("busybox")), target / "bin/busybox")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in set(applets) - {"busybox"}:
        (target / "bin" / applet).symlink_to("busybox")
    return target


def archive(target: Path, root: Path, *, name: str = NAME, command: tuple[str, ...] = ("/bin/sh",)) -> Path:
    """Write the image ``name`` of one layer, the tree ``root``, as `docker save` would (readable by all peers)."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(root, arcname=".")
    diff_id = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "busybox-static"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", layer.getvalue())
    return target


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
