import os
import socket
from pathlib import Path

import pytest

from minirt import paths
from minirt.crimessages import api_pb2 as cri
from minirt.errors import InvalidInput, StepFailed
from minirt.kubelet import volumes
from minirt.kubelet.images import pull_policy
from minirt.kubelet.manifest import Pod
from tests.unit.kubelet.pods import UID, container, pod


@pytest.fixture(autouse=True)
def own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIRT_ROOT", str(tmp_path / "root"))
    return tmp_path


def with_host_path(path: Path, kind: str = "") -> Pod:
    return pod(volumes=[{"name": "data", "hostPath": {"path": str(path), "type": kind}}])


def test_an_empty_dir_is_open_to_the_pod_and_closed_to_the_host() -> None:
    made = pod(volumes=[{"name": "work", "emptyDir": {}}])
    volumes.prepare(made)
    place = volumes.host_directory(made, "work")
    assert place == paths.volumes_dir(UID) / "work"
    assert place.stat().st_mode & 0o7777 == 0o777
    assert place.parent.stat().st_mode & 0o007 == 0


def test_with_an_fs_group_files_belong_to_it() -> None:
    made = pod(volumes=[{"name": "work", "emptyDir": {}}], securityContext={"fsGroup": os.getgid()})
    volumes.prepare(made)
    found = volumes.host_directory(made, "work").stat()
    assert (found.st_mode & 0o7777, found.st_gid) == (0o2777, os.getgid())


def test_preparing_again_changes_nothing() -> None:
    made = pod(volumes=[{"name": "work", "emptyDir": {}}])
    volumes.prepare(made)
    (volumes.host_directory(made, "work") / "file").write_text("kept")
    volumes.prepare(made)
    assert (volumes.host_directory(made, "work") / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("volume_limit", "memory_limits", "size"),
    [("1Mi", ["64Mi"], 1 << 20), ("", ["64Mi", "64Mi"], 128 << 20), ("1Gi", ["64Mi"], 64 << 20), ("", [""], 0)],
)
def test_a_tmpfs_grows_to_the_least_of_its_limits(volume_limit: str, memory_limits: list[str], size: int) -> None:
    containers = [
        container(f"c{number}", resources={"limits": {"memory": limit}} if limit else {})
        for number, limit in enumerate(memory_limits)
    ]
    volume = {"medium": "Memory"} | ({"sizeLimit": volume_limit} if volume_limit else {})
    made = pod(*containers, volumes=[{"name": "work", "emptyDir": volume}])
    assert made.spec.volumes[0].empty_dir
    assert volumes._tmpfs_bytes(made, made.spec.volumes[0].empty_dir) == size


def test_removing_takes_all_and_may_be_repeated() -> None:
    made = pod(volumes=[{"name": "work", "emptyDir": {}}])
    volumes.prepare(made)
    (volumes.host_directory(made, "work") / "link").symlink_to("/")
    volumes.write_hosts(made, "x")
    volumes.remove(UID)
    volumes.remove(UID)
    assert not paths.volumes_dir(UID).exists()


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("Directory", "file", "is not a directory"),
        ("DirectoryOrCreate", "file", "is not a directory"),
        ("File", "directory", "is not a file"),
        ("FileOrCreate", "directory", "is not a file"),
        ("Socket", "file", "is not a unix socket"),
        ("CharDevice", "file", "is not a character device"),
        ("BlockDevice", "file", "is not a block device"),
        ("Directory", "absent", "does not exist"),
        ("File", "absent", "does not exist"),
        ("Socket", "absent", "does not exist"),
        ("CharDevice", "absent", "does not exist"),
        ("BlockDevice", "absent", "does not exist"),
        ("Directory", "dangling", "does not exist"),
    ],
)
def test_a_host_path_of_another_kind_is_refused(own_root: Path, kind: str, name: str, said: str) -> None:
    (own_root / "directory").mkdir()
    (own_root / "file").touch()
    (own_root / "dangling").symlink_to("nowhere")
    with pytest.raises(InvalidInput, match=said):
        volumes.prepare(with_host_path(own_root / name, kind))


def test_a_host_path_of_its_kind_is_taken(own_root: Path) -> None:
    (own_root / "directory").mkdir()
    (own_root / "link").symlink_to("directory")
    (own_root / "file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own_root / "socket"))
    kinds = {"directory": "Directory", "link": "Directory", "file": "File", "socket": "Socket", "absent": ""}
    for name, kind in kinds.items():
        volumes.prepare(with_host_path(own_root / name, kind))
    volumes.prepare(with_host_path(Path("/dev/null"), "CharDevice"))
    assert not (own_root / "absent").exists()


def test_what_may_be_made_is_made(own_root: Path) -> None:
    volumes.prepare(with_host_path(own_root / "a/b", "DirectoryOrCreate"))
    volumes.prepare(with_host_path(own_root / "a/file", "FileOrCreate"))
    assert (own_root / "a/b").is_dir()
    assert (own_root / "a/file").is_file()


def test_a_file_without_a_directory_above_it_cannot_be_made(own_root: Path) -> None:
    with pytest.raises(StepFailed, match="cannot prepare volume data: No such file"):
        volumes.prepare(with_host_path(own_root / "a/file", "FileOrCreate"))


def test_mounts_are_as_the_container_asked() -> None:
    mounts = [
        {"name": "work", "mountPath": "/work", "readOnly": True},
        {"name": "data", "mountPath": "/data", "mountPropagation": "HostToContainer"},
    ]
    sources = [{"name": "work", "emptyDir": {}}, {"name": "data", "hostPath": {"path": "/srv"}}]
    made = pod(container(volumeMounts=mounts), volumes=sources)
    top = paths.volumes_dir(UID)
    assert volumes.mounts(made, made.spec.containers[0]) == [
        cri.Mount(container_path="/work", host_path=f"{top}/work", readonly=True),
        cri.Mount(
            container_path="/data",
            host_path="/srv",
            propagation=cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
        ),
        cri.Mount(container_path="/etc/hosts", host_path=f"{top}/.etc-hosts"),
    ]


def test_an_image_is_mounted_by_its_id() -> None:
    mounts = [{"name": "model", "mountPath": "/model", "subPath": "a/b"}]
    made = pod(container(volumeMounts=mounts), volumes=[{"name": "model", "image": {"reference": "models:1"}}])
    assert volumes.mounts(made, made.spec.containers[0], {"": "sha256:0", "model": "sha256:1"})[0] == cri.Mount(
        container_path="/model",
        readonly=True,
        image=cri.ImageSpec(image="sha256:1", user_specified_image="models:1"),
        image_sub_path="a/b",
    )


def test_a_containers_own_etc_hosts_stays_its_own() -> None:
    mounts = [{"name": "data", "mountPath": "/etc/hosts"}]
    made = pod(container(volumeMounts=mounts), volumes=[{"name": "data", "hostPath": {"path": "/etc/hosts"}}])
    assert len(volumes.mounts(made, made.spec.containers[0])) == 1


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1", "IfNotPresent"),
        ("localhost:5000/busybox", "Always"),
        ("localhost:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:00", "IfNotPresent"),
        ("busybox:latest@sha256:00", "IfNotPresent"),
    ],
)
def test_the_default_pull_policy_depends_on_the_tag(image: str, policy: str) -> None:
    assert pull_policy(pod(container(image=image)).spec.containers[0]) == policy
    asked = pod(container(image=image, imagePullPolicy="Never")).spec.containers[0]
    assert pull_policy(asked) == "Never"
