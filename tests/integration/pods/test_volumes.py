"""emptyDir on disk and in memory, hostPath of each type."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pods.manifests import HELD, MOUNTED, WORK, Pods, container, manifest

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]


def mounted(name: str = "data", **more: Any) -> dict[str, Any]:
    """Return a container's fields that mount a volume on /<name>."""
    return {"volumeMounts": [{"name": name, "mountPath": f"/{name}"} | more]}


def host_path(path: Path | str, kind: str = "") -> dict[str, Any]:
    """Return a pod's fields with a volume "data" of the host."""
    return {"volumes": [{"name": "data", "hostPath": {"path": str(path), "type": kind}}]}


def test_an_empty_directory_is_everybodys_and_gone_with_the_pod(pods: Pods) -> None:
    one = container("one", "stat -c %a /work; echo from one > /work/x; touch /work/go", **MOUNTED)
    two = container("two", f"{HELD}; cat /work/x", **MOUNTED, securityContext={"runAsUser": 1234})
    assert pods.said(manifest(one, two, **WORK)) == {"one": ["777"], "two": ["from one"]}
    assert list((pods.minirt.root / "volumes").iterdir()) == []


def test_in_memory_it_is_a_tmpfs_of_its_size_shared_by_all(pods: Pods) -> None:
    volumes = {"volumes": [{"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}
    fill = "dd if=/dev/zero of=/data/half bs=1k count=512 2> /dev/null"
    script = "grep ' /data ' /proc/mounts; stat -c %s /data/half; dd if=/dev/zero of=/data/more bs=1k count=2048 2>&1"
    init = [container("init", fill, **mounted())]
    lines = pods.said(manifest(container("main", f"{script} || true", **mounted()), initContainers=init, **volumes))
    mount, size, *rest = lines["main"]
    assert mount.split()[2] == "tmpfs"
    assert "size=1024k" in mount
    assert size == "524288"
    assert "No space left on device" in " ".join(rest)


def test_a_read_only_mount_of_what_another_may_write(pods: Pods) -> None:
    read = container(
        "read",
        f"{HELD}; cat /work/x; touch /work/y 2>&1 || true",
        volumeMounts=[{"name": "work", "mountPath": "/work", "readOnly": True}],
    )
    write = container("write", "echo written > /work/x; touch /work/go", **MOUNTED)
    found = pods.said(manifest(read, write, **WORK))
    assert found == {"read": ["written", "touch: /work/y: Read-only file system"]}


def test_a_path_of_the_host_is_mounted_and_may_be_made(pods: Pods, tmp_path: Path) -> None:
    pods.said(
        manifest(container("main", "echo x > /data/y", **mounted()), **host_path(tmp_path / "a/b", "DirectoryOrCreate"))
    )
    assert (tmp_path / "a/b/y").read_text() == "x\n"
    pods.said(
        manifest(container("main", "echo z > /data", **mounted()), **host_path(tmp_path / "file", "FileOrCreate"))
    )
    assert (tmp_path / "file").read_text() == "z\n"


@pytest.mark.parametrize("kind", ["", "Directory", "File", "Socket", "CharDevice"])
def test_a_path_of_the_right_kind_is_taken(pods: Pods, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        places = {"": tmp_path, "Directory": tmp_path, "File": tmp_path / "file", "Socket": tmp_path / "socket"}
        path = places.get(kind, Path("/dev/null"))
        test = {"File": "-f", "Socket": "-S", "CharDevice": "-c"}.get(kind, "-d")
        found = pods.said(
            manifest(container("main", f"[ {test} /data ] && echo yes", **mounted()), **host_path(path, kind))
        )
    assert found == {"main": ["yes"]}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Directory", "is not a directory"),
        ("File", "is not a file"),
        ("Socket", "is not a unix socket"),
        ("CharDevice", "is not a character device"),
        ("BlockDevice", "is not a block device"),
        ("FileOrCreate", "is not a file"),
    ],
)
def test_a_path_of_another_kind_is_refused_and_nothing_left(pods: Pods, tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "file" if kind == "Directory" else tmp_path
    (tmp_path / "file").touch()
    done = pods.run(manifest(container("main", "true", **mounted()), **host_path(path, kind)))
    assert done.returncode == 125
    assert f"cannot mount volume data: {path} {said} (its hostPath has type {kind})" in done.stderr
    assert pods.minirt.output("pod", "ps", "-q") == ""


def test_a_path_that_does_not_exist_is_refused(pods: Pods, tmp_path: Path) -> None:
    done = pods.run(manifest(container("main", "true", **mounted()), **host_path(tmp_path / "no", "Directory")))
    assert (done.returncode, "no does not exist (its hostPath has type Directory)" in done.stderr) == (125, True)


def test_volumes_belong_to_the_fs_group(pods: Pods) -> None:
    security = {"fsGroup": 2000, "runAsUser": 1000}
    script = "id -G; stat -c '%g %a' /work; touch /work/x; stat -c '%u:%g' /work/x"
    found = pods.said(manifest(container("main", script, **MOUNTED), securityContext=security, **WORK))
    assert found["main"] == ["0 2000", "2000 2777", "1000:2000"]


def test_other_users_of_the_host_cannot_reach_a_pods_volumes(pods: Pods) -> None:
    with pods.beside(manifest(container("main", f"echo ready; {HELD}", **MOUNTED), **WORK)) as client:
        assert client.stdout
        assert "ready" in client.stdout.readline()
        place = pods.volume(pods.inspected()["uid"])
        assert os.stat(place.parent).st_mode & 0o007 == 0
        (place / "go").touch()
        assert client.wait(20) == 0
