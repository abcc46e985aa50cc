"""What types cannot say of a manifest: names, references, ranges, and things that exclude each other.

Source: Kubernetes' own validation, https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath

from minirt import paths
from minirt.kubelet.document import Problem
from minirt.kubelet.manifest import (
    AppArmorProfile,
    Container,
    EnvVar,
    Pod,
    PodSecurityContext,
    ResourceRequirements,
    SeccompProfile,
    SecurityContext,
    Volume,
    VolumeMount,
)
from minirt.kubelet.quantity import Quantity

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VARIABLE = re.compile(r"[ -<>-~]+")
_CAPABILITY = re.compile(r"[A-Z][A-Z_]*")
_FIELDS = re.compile(
    r"metadata\.(name|namespace|uid)|metadata\.(labels|annotations)\['[^']+'\]"
    r"|spec\.nodeName|status\.(hostIP|hostIPs|podIP|podIPs)"
)
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_WORD = "lower-case letters, digits and '-', a letter or digit at both ends, at most 63 of them"
_MAX_ID = 2**31 - 1


def problems(pod: Pod) -> Iterator[Problem]:
    """Yield what is wrong with a pod whose types are right."""
    return chain(_metadata(pod), _spec(pod), _pod_security(pod), _volumes(pod), *_containers(pod))


def _metadata(pod: Pod) -> Iterator[Problem]:
    meta = pod.metadata
    if not _SUBDOMAIN.fullmatch(meta.name) or len(meta.name) > 253:
        yield Problem("metadata.name", f"{meta.name!r} is not a pod's name", "lower-case letters, digits, '-', '.'")
    if not _LABEL.fullmatch(meta.namespace):
        yield Problem("metadata.namespace", f"{meta.namespace!r} is not a namespace's name", _WORD)
    if meta.uid and not paths.is_id(meta.uid):
        yield Problem("metadata.uid", f"{meta.uid!r} is not a uid", "letters, digits, '_', '.', '-'; or leave it out")


def _spec(pod: Pod) -> Iterator[Problem]:
    spec = pod.spec
    if not spec.containers:
        yield Problem("spec.containers", "is empty", "a pod has at least one container")
    if spec.termination_grace_period_seconds < 0:
        yield Problem("spec.terminationGracePeriodSeconds", "is negative")
    if spec.hostname and not _LABEL.fullmatch(spec.hostname):
        yield Problem("spec.hostname", f"{spec.hostname!r} is not a host's name", _WORD)
    if spec.host_pid and spec.share_process_namespace:
        yield Problem("spec.shareProcessNamespace", "excludes hostPID", "keep one of them")
    if not spec.host_users:
        hosts = {"hostNetwork": spec.host_network, "hostPID": spec.host_pid, "hostIPC": spec.host_ipc}
        for name in (name for name, asked in hosts.items() if asked):
            yield Problem(f"spec.{name}", "excludes hostUsers: false", "keep one of them")
    if spec.dns_policy == "None" and not spec.dns_config.nameservers:
        yield Problem("spec.dnsConfig.nameservers", "is empty, and dnsPolicy is None", "name at least one server")
    for index, server in enumerate(spec.dns_config.nameservers):
        yield from _address(f"spec.dnsConfig.nameservers[{index}]", server)
    for index, alias in enumerate(spec.host_aliases):
        yield from _address(f"spec.hostAliases[{index}].ip", alias.ip)
    yield from _names(pod)


def _names(pod: Pod) -> Iterator[Problem]:
    for index, secret in enumerate(pod.spec.image_pull_secrets):
        if not _SUBDOMAIN.fullmatch(secret.name):
            yield Problem(f"spec.imagePullSecrets[{index}].name", f"{secret.name!r} is not a Secret's name")
    names = Counter(container.name for container in pod.all_containers)
    for container in pod.all_containers:
        if names[container.name] > 1:
            yield Problem(f"{pod.path_of(container)}.name", f"{container.name!r} is another container's name too")


def _address(path: str, text: str) -> Iterator[Problem]:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        yield Problem(path, f"{text!r} is not an IP address")


def _pod_security(pod: Pod) -> Iterator[Problem]:
    security = pod.spec.security_context
    yield from _ids("spec.securityContext", security)
    yield from _seccomp("spec.securityContext", security.seccomp_profile)
    yield from _apparmor("spec.securityContext", security.app_armor_profile)
    for name, number in [("fsGroup", security.fs_group), *_numbered("supplementalGroups", security)]:
        if number is not None and not 0 <= number <= _MAX_ID:
            yield Problem(f"spec.securityContext.{name}", f"{number} is not a group id")
    for index, sysctl in enumerate(security.sysctls):
        path = f"spec.securityContext.sysctls[{index}].name"
        if sysctl.name.replace("/", ".") not in _SAFE_SYSCTLS:
            yield Problem(path, f"{sysctl.name} is not among the safe sysctls", "remove it", unsupported=True)
        elif pod.spec.host_network and sysctl.name.startswith("net"):
            yield Problem(path, f"{sysctl.name} would be the host's, for hostNetwork is true", "remove one of them")


def _numbered(name: str, security: PodSecurityContext) -> Iterable[tuple[str, int]]:
    return ((f"{name}[{index}]", group) for index, group in enumerate(security.supplemental_groups))


def _ids(path: str, security: PodSecurityContext | SecurityContext) -> Iterator[Problem]:
    for name, number in (("runAsUser", security.run_as_user), ("runAsGroup", security.run_as_group)):
        if number is not None and not 0 <= number <= _MAX_ID:
            yield Problem(f"{path}.{name}", f"{number} is not an id: 0 to {_MAX_ID}")


def _seccomp(path: str, profile: SeccompProfile | None) -> Iterator[Problem]:
    """Yield what is wrong with a seccomp profile: a file is named for type Localhost, below the node's directory."""
    if profile is None:
        return
    where = f"{path}.seccompProfile.localhostProfile"
    if (profile.type == "Localhost") != bool(profile.localhost_profile):
        yield Problem(where, "it must be set for type Localhost, and for no other")
    elif profile.localhost_profile.startswith("/") or ".." in profile.localhost_profile.split("/"):
        yield Problem(where, "it must be a path below the directory of profiles, without '..'")


def _apparmor(path: str, profile: AppArmorProfile | None) -> Iterator[Problem]:
    """Yield what is wrong with an AppArmor profile: its name is given for type Localhost."""
    if profile and (profile.type == "Localhost") != bool(profile.localhost_profile.strip()):
        where = f"{path}.appArmorProfile.localhostProfile"
        yield Problem(where, "it must be set for type Localhost, and for no other")


def _volumes(pod: Pod) -> Iterator[Problem]:
    names = Counter(volume.name for volume in pod.spec.volumes)
    for index, volume in enumerate(pod.spec.volumes):
        path = f"spec.volumes[{index}]"
        if not _LABEL.fullmatch(volume.name):
            yield Problem(f"{path}.name", f"{volume.name!r} is not a volume's name", _WORD)
        if names[volume.name] > 1:
            yield Problem(f"{path}.name", f"{volume.name!r} is another volume's name too")
        yield from _volume_source(path, volume)


def _volume_source(path: str, volume: Volume) -> Iterator[Problem]:
    if [volume.empty_dir, volume.host_path, volume.image].count(None) != 2:
        yield Problem(path, "a volume has exactly one source", "give it emptyDir: {}, hostPath or image")
    if volume.image and (not volume.image.reference or volume.image.reference != volume.image.reference.strip()):
        yield Problem(f"{path}.image.reference", f"{volume.image.reference!r} is not an image's name", "write name:tag")
    if volume.host_path:
        host = PurePosixPath(volume.host_path.path)
        if not host.is_absolute() or ".." in host.parts:
            yield Problem(f"{path}.hostPath.path", f"{volume.host_path.path!r} is not an absolute path without '..'")
    if volume.empty_dir and volume.empty_dir.size_limit:
        yield from _size_limit(f"{path}.emptyDir.sizeLimit", volume.empty_dir.medium, volume.empty_dir.size_limit)


def _size_limit(path: str, medium: str, limit: Quantity) -> Iterator[Problem]:
    if limit.exact <= 0:
        yield Problem(path, f"{limit.text} is not above 0")
    elif medium != "Memory":
        do = "give it medium: Memory, or remove it"
        yield Problem(path, "is not supported yet by minirt for a directory on disk", do, unsupported=True)


def _containers(pod: Pod) -> Iterator[Iterator[Problem]]:
    volumes = {volume.name: volume for volume in pod.spec.volumes}
    for container in pod.all_containers:
        path = pod.path_of(container)
        yield _container(path, container, pod)
        yield _mounts(path, container.volume_mounts, volumes)
        yield _resources(f"{path}.resources", container.resources)
        yield _security(f"{path}.securityContext", container.security_context)
        yield chain.from_iterable(_env(f"{path}.env[{i}]", env, pod) for i, env in enumerate(container.env))
        yield chain.from_iterable(_propagation(path, container))


def _container(path: str, container: Container, pod: Pod) -> Iterator[Problem]:
    if not _LABEL.fullmatch(container.name):
        yield Problem(f"{path}.name", f"{container.name!r} is not a container's name", _WORD)
    if not container.image or container.image != container.image.strip():
        yield Problem(f"{path}.image", f"{container.image!r} is not an image's name", "write name:tag")
    if container.working_dir and not container.working_dir.startswith("/"):
        yield Problem(f"{path}.workingDir", f"{container.working_dir!r} is not an absolute path")
    for index, port in enumerate(container.ports):
        at = f"{path}.ports[{index}]"
        if not 0 < port.container_port < 65536:
            yield Problem(f"{at}.containerPort", f"{port.container_port} is not a port: 1 to 65535")
        if not 0 <= port.host_port < 65536:
            yield Problem(f"{at}.hostPort", f"{port.host_port} is not a port: 1 to 65535")
        if pod.spec.host_network and port.host_port not in (0, port.container_port):
            yield Problem(f"{at}.hostPort", "must be the containerPort, for hostNetwork is true")
        if port.host_ip:
            yield from _address(f"{at}.hostIP", port.host_ip)


def _mounts(path: str, mounts: tuple[VolumeMount, ...], volumes: dict[str, Volume]) -> Iterator[Problem]:
    places = Counter(PurePosixPath(mount.mount_path) for mount in mounts)
    for index, mount in enumerate(mounts):
        at = f"{path}.volumeMounts[{index}]"
        if mount.name not in volumes:
            there = ", ".join(sorted(volumes)) or "none"
            yield Problem(f"{at}.name", f"there is no volume {mount.name!r} (there is: {there})")
        place = PurePosixPath(mount.mount_path)
        if not place.is_absolute() or ".." in place.parts or place == PurePosixPath("/"):
            yield Problem(f"{at}.mountPath", f"{mount.mount_path!r} is not an absolute path below / without '..'")
        if places[place] > 1:
            yield Problem(f"{at}.mountPath", f"{mount.mount_path} is mounted on twice")
        yield from _image_mount(at, mount, volumes)


def _image_mount(at: str, mount: VolumeMount, volumes: dict[str, Volume]) -> Iterator[Problem]:
    """Yield what is wrong with a part of a volume, which only an image's can be shown of."""
    is_image = mount.name in volumes and volumes[mount.name].image is not None
    inner = PurePosixPath(mount.sub_path)
    if mount.sub_path and not is_image:
        why = "of another volume than an image's is not supported yet by minirt"
        yield Problem(f"{at}.subPath", why, "remove it", unsupported=True)
    elif mount.sub_path and (inner.is_absolute() or ".." in inner.parts):
        yield Problem(f"{at}.subPath", f"{mount.sub_path!r} is not a relative path without '..'")
    if is_image and mount.mount_propagation == "Bidirectional":
        yield Problem(f"{at}.mountPropagation", "an image's files are read-only, and nothing can be mounted there")


def _propagation(path: str, container: Container) -> Iterator[Iterator[Problem]]:
    for index, mount in enumerate(container.volume_mounts):
        if mount.mount_propagation == "Bidirectional" and not container.security_context.privileged:
            at = f"{path}.volumeMounts[{index}].mountPropagation"
            yield iter([Problem(at, "Bidirectional is for privileged containers only")])


def _resources(path: str, resources: ResourceRequirements) -> Iterator[Problem]:
    for kind, amounts in (("requests", resources.requests), ("limits", resources.limits)):
        for name, amount in (("cpu", amounts.cpu), ("memory", amounts.memory)):
            if amount and amount.exact < 0:
                yield Problem(f"{path}.{kind}.{name}", f"{amount.text} is negative")
        memory = amounts.memory
        if memory and memory.exact.denominator != 1:
            why = f"{memory.text} is a fraction of a byte" + (" (m is milli)" if memory.text.endswith("m") else "")
            do = f"did you mean {memory.text[:-1]}Mi?" if memory.text.endswith("m") else ""
            yield Problem(f"{path}.{kind}.memory", why, do)
    for name in ("cpu", "memory"):
        request, limit = getattr(resources.requests, name), getattr(resources.limits, name)
        if request and limit and request.exact > limit.exact:
            yield Problem(f"{path}.requests.{name}", f"{request.text} is more than the limit, {limit.text}")


def _security(path: str, security: SecurityContext) -> Iterator[Problem]:
    yield from _ids(path, security)
    yield from _seccomp(path, security.seccomp_profile)
    yield from _apparmor(path, security.app_armor_profile)
    for kind, names in (("add", security.capabilities.add), ("drop", security.capabilities.drop)):
        for index, name in enumerate(names):
            at = f"{path}.capabilities.{kind}[{index}]"
            if name.upper().startswith("CAP_"):
                yield Problem(at, f"{name} is written without CAP_ here", f"did you mean {name.upper()[4:]}?")
            elif not _CAPABILITY.fullmatch(name):
                yield Problem(at, f"{name!r} is not a capability's name", "write NET_ADMIN, or ALL")
    if security.allow_privilege_escalation is False and (
        security.privileged or "SYS_ADMIN" in security.capabilities.add
    ):
        why = "false has no meaning for a container that is privileged or has SYS_ADMIN"
        yield Problem(f"{path}.allowPrivilegeEscalation", why, "remove one of them")


def _env(path: str, env: EnvVar, pod: Pod) -> Iterator[Problem]:
    if not _VARIABLE.fullmatch(env.name):
        yield Problem(f"{path}.name", f"{env.name!r} is not a variable's name", "no '=', only printable ASCII")
    source = env.value_from
    if source is None:
        return
    if env.value:
        yield Problem(path, "has both value and valueFrom", "keep one of them")
    if (source.field_ref is None) == (source.resource_field_ref is None):
        yield Problem(f"{path}.valueFrom", "a variable has exactly one source", "give it fieldRef or resourceFieldRef")
    if source.field_ref and not _FIELDS.fullmatch(source.field_ref.field_path):
        why = f"{source.field_ref.field_path!r} is not a field that a variable can have"
        yield Problem(f"{path}.valueFrom.fieldRef.fieldPath", why, "metadata.name, status.podIP, …")
    name = source.resource_field_ref.container_name if source.resource_field_ref else ""
    if name and name not in {container.name for container in pod.all_containers}:
        yield Problem(f"{path}.valueFrom.resourceFieldRef.containerName", f"there is no container {name!r}")
