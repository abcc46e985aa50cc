"""A pod's volumes on the host, and how its containers see them.

    <data root>/volumes/<pod uid>/
        <volume>/        an emptyDir: a directory, or a tmpfs with medium Memory
        .etc-hosts       the pod's /etc/hosts (no volume's name begins with a dot)
        .ids             the ids of its user namespace (engine/idranges.py), with hostUsers: false

Everything here may be done again: a worker that takes over a pod prepares its volumes and changes nothing.

Source: https://kubernetes.io/docs/concepts/storage/volumes/
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from minirt import journal, paths
from minirt.crimessages import api_pb2 as cri
from minirt.errors import InvalidInput, StepFailed, raised_as_step
from minirt.kubelet import resources
from minirt.kubelet.manifest import Container, EmptyDir, HostPath, Pod, Volume, VolumeMount
from minirt.linux import mount

ETC_HOSTS = ".etc-hosts"
_POD_MODE = 0o750
"""Of the directory above the volumes: those are writable to everybody, and meant for the pod only."""
_MODE = 0o777
_SETGID_MODE = 0o2777

_PROPAGATION = {
    "None": cri.MountPropagation.PROPAGATION_PRIVATE,
    "HostToContainer": cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.MountPropagation.PROPAGATION_BIDIRECTIONAL,
}


def prepare(pod: Pod) -> None:
    """Make what the pod's volumes need, and check the host's paths.

    Raises:
        InvalidInput: a hostPath is not what its ``type`` says.
        StepFailed: a directory or a tmpfs cannot be made.
    """
    with raised_as_step(f"prepare the volumes of pod {pod.metadata.name}"):
        paths.volumes_dir(pod.uid).mkdir(mode=_POD_MODE, parents=True, exist_ok=True)
    for index, volume in enumerate(pod.spec.volumes):
        with journal.because(f"spec.volumes[{index}]"):
            try:
                _prepare_one(pod, volume)
            except OSError as error:
                raise StepFailed.from_os_error(f"prepare volume {volume.name}", error) from error


def _prepare_one(pod: Pod, volume: Volume) -> None:
    if volume.host_path:
        _check_host_path(volume.name, volume.host_path)
    elif volume.empty_dir:
        _make_empty_dir(pod, host_directory(pod, volume.name), volume.empty_dir)


def host_directory(pod: Pod, volume: str) -> Path:
    """Return where an emptyDir is on the host."""
    return paths.volumes_dir(pod.uid) / volume


def _make_empty_dir(pod: Pod, place: Path, volume: EmptyDir) -> None:
    """Make a directory that anybody may write to; with an fsGroup its files belong to that group."""
    group = pod.spec.security_context.fs_group
    if place.exists() and (volume.medium != "Memory" or place.is_mount()):
        return
    if not place.exists():
        journal.step("mkdir", os.mkdir, str(place))
    if volume.medium == "Memory":
        _mount_tmpfs(place, _tmpfs_bytes(pod, volume))
    if group is not None:
        journal.step("chown", os.chown, str(place), -1, group)
    journal.step("chmod", os.chmod, str(place), _MODE if group is None else _SETGID_MODE)


def _tmpfs_bytes(pod: Pod, volume: EmptyDir) -> int:
    """Return how large a tmpfs may grow: its limit or the pod's memory, what is less; 0 for the kernel's default."""
    limits = (volume.size_limit.whole if volume.size_limit else 0, resources.pod_memory_limit(pod))
    return min(filter(None, limits), default=0)


def _mount_tmpfs(place: Path, size_bytes: int) -> None:
    size = f"size={size_bytes}" if size_bytes else None
    mount.mount("tmpfs", str(place), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, size)


_KINDS: dict[str, tuple[str, Callable[[int], bool]]] = {
    "Directory": ("a directory", stat.S_ISDIR),
    "DirectoryOrCreate": ("a directory", stat.S_ISDIR),
    "File": ("a file", stat.S_ISREG),
    "FileOrCreate": ("a file", stat.S_ISREG),
    "Socket": ("a unix socket", stat.S_ISSOCK),
    "CharDevice": ("a character device", stat.S_ISCHR),
    "BlockDevice": ("a block device", stat.S_ISBLK),
}


def _check_host_path(name: str, volume: HostPath) -> None:
    """Check, and with …OrCreate make, a path of the host. Symbolic links are followed, as the mount will."""
    place = Path(volume.path)
    if not place.exists():
        _create(place, volume.type)
    what, is_kind = _KINDS.get(volume.type, ("", bool))
    wrong = "does not exist" if not place.exists() else f"is not {what}"
    if what and not (place.exists() and is_kind(place.stat().st_mode)):
        raise InvalidInput(f"mount volume {name}", f"{place} {wrong}", f"its hostPath has type {volume.type}")


def _create(place: Path, kind: str) -> None:
    if kind == "DirectoryOrCreate":
        journal.step("mkdir", os.makedirs, str(place), 0o755, exist_ok=True)
    elif kind == "FileOrCreate":
        journal.step("creat", place.touch, 0o644)


def write_hosts(pod: Pod, text: str) -> None:
    """Write the pod's /etc/hosts in place: containers hold a mount of this very file.

    Raises:
        StepFailed: the disk is full.
    """
    with raised_as_step(f"write /etc/hosts of pod {pod.metadata.name}"):
        (paths.volumes_dir(pod.uid) / ETC_HOSTS).write_text(text)


def mounts(pod: Pod, container: Container, images: Mapping[str, str] = MappingProxyType({})) -> list[cri.Mount]:
    """Return a container's mounts, and /etc/hosts unless it mounts its own.

    ``images`` are the ids of the images that it mounts, by their volumes' names.
    """
    volumes = {volume.name: volume for volume in pod.spec.volumes}
    found = [_mount(pod, each, volumes[each.name], images) for each in container.volume_mounts]
    if all(each.container_path != "/etc/hosts" for each in found):
        hosts = paths.volumes_dir(pod.uid) / ETC_HOSTS
        found.append(cri.Mount(container_path="/etc/hosts", host_path=str(hosts)))
    return found


def _mount(pod: Pod, mount: VolumeMount, volume: Volume, images: Mapping[str, str]) -> cri.Mount:
    if volume.image:
        image = cri.ImageSpec(image=images[volume.name], user_specified_image=volume.image.reference)
        return cri.Mount(container_path=mount.mount_path, readonly=True, image=image, image_sub_path=mount.sub_path)
    return cri.Mount(
        container_path=mount.mount_path,
        host_path=_source(pod, volume),
        readonly=mount.read_only,
        propagation=_PROPAGATION[mount.mount_propagation],
    )


def _source(pod: Pod, volume: Volume) -> str:
    return volume.host_path.path if volume.host_path else str(host_directory(pod, volume.name))


def remove(pod_uid: str) -> None:
    """Unmount and remove all of a pod's volumes; nothing to remove is no error.

    A tmpfs is detached lazily: what a process of the pod holds open must not keep the pod from going.

    Raises:
        StepFailed: a file cannot be removed.
    """
    import shutil  # for removals only: 2 ms

    top = paths.volumes_dir(pod_uid)
    try:
        for point in _mounts_below(top):
            mount.umount2(point, mount.MNT_DETACH)
        if top.exists():
            journal.step("rmtree", shutil.rmtree, str(top))
    except OSError as error:
        raise StepFailed.from_os_error(f"remove the volumes of pod {pod_uid}", error) from error


def _mounts_below(top: Path) -> list[str]:
    """Return the mount points below a directory, the deepest first: a pod with mountPropagation may have made some,
    and nothing may be removed through them. Source: proc_pid_mountinfo(5).
    """
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points = (line.split()[4].decode("unicode_escape") for line in lines)
    return sorted((point for point in points if Path(point).is_relative_to(top)), reverse=True)
