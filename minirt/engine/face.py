"""The engine's pod face: the CRI's RPCs in this process (podface.py), on the lower floor's sandboxes and containers."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import structs

from minirt.cgroups import missing
from minirt.cgroups import tree as cgroup_tree
from minirt.cgroups.resources import Resources
from minirt.crimessages import api_pb2 as cri
from minirt.engine import capture, containers, handlers, inspection, messages, sandboxes, store, updating
from minirt.engine.events import EventStream
from minirt.engine.filters import chosen
from minirt.engine.imageface import ImageFace
from minirt.engine.nodeface import NodeFace
from minirt.engine.podevents import ContainerEvents
from minirt.engine.records import CRI, ContainerRecord, SandboxRecord
from minirt.engine.statsface import StatsFace
from minirt.errors import AlreadyExists, Conflict, InvalidInput, MinirtError, NotFound, TimedOut
from minirt.images.store import ImageStore
from minirt.network.directories import Directories
from minirt.shim import protocol
from minirt.shim import status as statuses
from minirt.shim.client import ShimClient
from minirt.shim.zygote import Zygote


class EngineFace(NodeFace, ImageFace, StatsFace):
    """A runtime for one owner. ``zygote`` makes sandboxes (None: it makes none), and is older than any thread here.

    Where the directories of ``cni`` hold a configuration, its plugins attach pods to a network, else our bridge does.
    ``maps_ids`` is told to who asks: sandboxes may have user namespaces.
    """

    def __init__(
        self,
        zygote: Zygote | None,
        owner: str = "cli",
        *,
        trace: bool = False,
        best_effort: bool = False,
        cni: Directories | None = None,
        maps_ids: bool = False,
    ) -> None:
        super().__init__()
        self._zygote = zygote
        self._owner = owner
        self._trace = trace
        self._best_effort = best_effort
        self._cni = cni
        self._maps_ids = maps_ids
        self._streams: list[EventStream] = []

    # --- sandboxes

    def RunPodSandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
        """Make a sandbox.

        Raises:
            NotFound: the runtime handler is unknown, or not installed.
            ControllerMissing: a limit that this machine cannot keep.
        """
        if self._zygote is None:
            raise MinirtError("make a sandbox", "this face has no zygote", "it only looks after what exists")
        config = messages.sandbox_config(request.config, self._owner, trace=self._trace)
        config = structs.replace(config, handler=request.runtime_handler)
        handlers.check_sandbox(config)
        if self._owner == CRI and _is_callers(config.cgroup):
            config = structs.replace(config, resources=Resources(), own_limits=False)
        if not self._best_effort:
            missing.check(config.resources, config.name)
        kept, _ = missing.without_missing(config.resources, config.name)
        if config.network == "bridge" and self._cni and _has_network(self._cni):
            config = structs.replace(config, network="cni", cni=self._cni)
        sandbox_id = sandboxes.new_id()
        config = structs.replace(config, resources=kept, cgroup=self._cgroup(config.cgroup, sandbox_id))
        record = sandboxes.run(config, self._zygote, sandbox_id)
        for stream in self._streams:
            stream.follow(record.id)
        return cri.RunPodSandboxResponse(pod_sandbox_id=record.id)

    def StopPodSandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        """Stop a sandbox; an unknown one is fine."""
        with contextlib.suppress(NotFound):
            sandboxes.stop(store.sandbox_of(self._owner, request.pod_sandbox_id).id)
        return cri.StopPodSandboxResponse()

    def RemovePodSandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        """Remove a sandbox; an unknown one is fine."""
        with contextlib.suppress(NotFound):
            sandbox = store.sandbox_of(self._owner, request.pod_sandbox_id)
            found = store.containers(sandbox.id) if self._streams else []
            sandboxes.remove(sandbox.id)
            for record in found:
                self._tell(record, "deleted")
        return cri.RemovePodSandboxResponse()

    def PodSandboxStatus(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        """Return a sandbox's status; with ``verbose`` all that is known of it, as JSON. Raises NotFound."""
        record = store.sandbox_of(self._owner, request.pod_sandbox_id)
        status = messages.sandbox_status(record, sandboxes.is_ready(record))
        info = _told(inspection.of_pod, record, request.verbose)
        if info and record.config.network == "cni" and record.state == "ready":
            info["cni"] = _network_checked(record)
        return cri.PodSandboxStatusResponse(status=status, info=info)

    def ListPodSandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        """List this owner's sandboxes; a half-made one is none yet."""
        found = [messages.sandbox_item(record, sandboxes.is_ready(record)) for record in self._sandboxes()]
        return cri.ListPodSandboxResponse(items=chosen(found, request.filter))

    def _cgroup(self, parent: str, sandbox_id: str) -> str:
        """Return a sandbox's cgroup. Other callers than our own kubelet may give several sandboxes one parent."""
        if self._owner != CRI:
            return _in_our_tree(parent)
        parent = _as_path(parent)
        return f"{_in_our_tree(parent)}/{sandbox_id}" if parent else f"pod-{sandbox_id}"

    def _sandboxes(self) -> list[SandboxRecord]:
        return [one for one in store.sandboxes(self._owner) if one.state != "creating" and not one.config.single]

    # --- containers

    def CreateContainer(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        """Make a container.

        Raises:
            Conflict: the sandbox is stopped.
        AlreadyExists: it has a container of this name and attempt.
            NotFound: the image is not here.
            ControllerMissing: a limit that this machine cannot keep.
        """
        sandbox = store.sandbox_of(self._owner, request.pod_sandbox_id)
        directory = sandbox.config.log_directory or request.sandbox_config.log_directory
        config = messages.container_config(request.config, directory)
        if config.security.privileged and not sandbox.config.privileged and self._owner == CRI:
            why = "its sandbox was not made for privileged containers"
            raise InvalidInput(f"create {config.name} privileged", why, "make it with a privileged security context")
        handlers.check_container(sandbox.config.handler, config)
        if config.pid_of:
            config = structs.replace(config, pid_of=self._target(sandbox, config.pid_of))
        subject = f"{sandbox.config.name}/{config.name}"
        if not self._best_effort:
            missing.check(config.resources, subject)
        kept, _ = missing.without_missing(config.resources, subject)
        image = ImageStore().get(request.config.image.image)
        with store.locked(sandbox.id):
            for other in store.containers(sandbox.id):
                if (other.config.name, other.config.attempt) == (config.name, config.attempt):
                    raise AlreadyExists(f"create {subject}", f"attempt {config.attempt} exists", "remove it first")
            record = containers.create(
                store.sandbox(sandbox.id), structs.replace(config, resources=kept), image, sandboxes.new_id()
            )
        self._tell(record, "made")
        return cri.CreateContainerResponse(container_id=record.id)

    def _target(self, sandbox: SandboxRecord, key: str) -> str:
        """Return the whole id of the container whose PID namespace another one joins.

        Raises:
            InvalidInput: it is not this pod's.
        """
        with contextlib.suppress(NotFound):
            found = store.container_of(self._owner, key)
            if found.sandbox_id == sandbox.id:
                return found.id
        raise InvalidInput(f"join the PID namespace of {key}", "the pod has no such container", "name one of its own")

    def StartContainer(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
        """Start a container; on return its execve has succeeded.

        Raises:
            Conflict: it has been started before, or its sandbox is stopped.
        """
        record = store.container_of(self._owner, request.container_id)
        sandbox = store.sandbox(record.sandbox_id)
        if sandbox.state != "ready":
            raise Conflict(f"start {record.config.name}", f"its sandbox is {sandbox.state}", "make a new sandbox")
        containers.start(record)
        return cri.StartContainerResponse()

    def StopContainer(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        """Stop a container; an unknown one is fine."""
        record = self._container_or_none(request.container_id)
        if record:
            containers.stop(record, request.timeout)
        return cri.StopContainerResponse()

    def RemoveContainer(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        """Remove a container, killing it if it runs; an unknown one is fine."""
        record = self._container_or_none(request.container_id)
        if record:
            containers.remove(record, force=True)
            self._tell(record, "deleted")
        return cri.RemoveContainerResponse()

    def ListContainers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        """List this owner's containers."""
        found = [
            messages.container_item(record, containers.status(record))
            for record in store.containers(request.filter.pod_sandbox_id or None, self._owner)
            if record.id != record.sandbox_id and record.id.startswith(request.filter.id)
        ]
        return cri.ListContainersResponse(containers=chosen(found, request.filter))

    def ContainerStatus(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        """Return a container's status; with ``verbose`` all that is known of it, as JSON. Raises NotFound."""
        record = store.container_of(self._owner, request.container_id)
        status = messages.container_status(record, containers.status(record))
        return cri.ContainerStatusResponse(status=status, info=_told(inspection.of_container, record, request.verbose))

    def ExecSync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        """Run a command in a container.

        Raises:
            TimedOut: it was killed, with all that it had started.
        """
        record = store.container_of(self._owner, request.container_id)
        found = capture.run(record, tuple(request.cmd), request.timeout)
        if found.exit_code is None:
            raise TimedOut(f"exec in {record.config.name}", f"it took longer than {request.timeout} s, and was killed")
        return cri.ExecSyncResponse(stdout=found.stdout, stderr=found.stderr, exit_code=found.exit_code)

    def UpdateContainerResources(
        self, request: cri.UpdateContainerResourcesRequest
    ) -> cri.UpdateContainerResourcesResponse:
        """Change the limits of a created or running container in place, all or none.

        Raises:
            Conflict: it has ended, or uses more memory than it may from now on.
            ControllerMissing: a limit that this machine cannot keep.
        """
        record = store.container_of(self._owner, request.container_id)
        with store.locked(record.sandbox_id):
            record = store.container(record.id)
            state = containers.status(record).state
            if state not in {"created", "running"}:
                raise Conflict(f"update {record.config.name}", f"it is {state}", "limits are of what runs, or will")
            wanted = updating.laid_over(messages.resources(request.linux), record.config.resources)
            if not self._best_effort:
                missing.check(wanted, record.config.name)
            kept, _ = missing.without_missing(wanted, record.config.name)
            updating.update(record, kept, running=statuses.read(record.id) is not None)
        return cri.UpdateContainerResourcesResponse()

    def UpdatePodSandboxResources(
        self, request: cri.UpdatePodSandboxResourcesRequest
    ) -> cri.UpdatePodSandboxResourcesResponse:
        """Change the limits of a pod whose cgroup is ours to limit. Where it is the caller's, that has been done.

        Raises:
            ControllerMissing: a limit that this machine cannot keep.
        """
        record = store.sandbox_of(self._owner, request.pod_sandbox_id)
        with store.locked(record.id):
            record = store.sandbox(record.id)
            if record.state == "ready" and record.config.own_limits:
                asked = messages.pod_resources(request.resources, request.overhead)
                wanted = updating.laid_over(asked, record.config.resources)
                if not self._best_effort:
                    missing.check(wanted, record.config.name)
                updating.update_sandbox(record, missing.without_missing(wanted, record.config.name)[0])
        return cri.UpdatePodSandboxResourcesResponse()

    def ReopenContainerLog(self, request: cri.ReopenContainerLogRequest) -> cri.ReopenContainerLogResponse:
        """Open a running container's log anew: its file has been renamed.

        Raises:
            Conflict: it does not run; then no file is made.
        """
        record = store.container_of(self._owner, request.container_id)
        if (state := containers.status(record).state) != "running":
            raise Conflict(f"reopen the log of {record.config.name}", f"it is {state}")
        with ShimClient(record.sandbox_id) as shim:
            shim.call(protocol.ReopenLog(container=record.id))
        return cri.ReopenContainerLogResponse()

    def _container_or_none(self, key: str) -> ContainerRecord | None:
        try:
            return store.container_of(self._owner, key)
        except NotFound:
            return None

    def GetContainerEvents(self, request: cri.GetEventsRequest) -> ContainerEvents:
        """Return what happens to this owner's containers from now on, until it is cancelled."""
        stream = EventStream(self._owner)
        self._streams.append(stream)
        return ContainerEvents(stream, self._streams.remove)

    def _tell(self, record: ContainerRecord, state: str) -> None:
        for stream in list(self._streams):
            stream.tell(record.id, record.sandbox_id, state)


def _told(
    tell: Callable[[Any], dict[str, Any]], record: SandboxRecord | ContainerRecord, wanted: bool
) -> dict[str, str]:
    return {"info": msgspec.json.encode(tell(record)).decode()} if wanted else {}


def _network_checked(record: SandboxRecord) -> str:
    """Return what CNI's plugins say of a sandbox's network: "ok", or what is wrong."""
    from minirt import paths
    from minirt.network import cni

    try:
        cni.check(paths.sandbox_dir(record.id))
    except MinirtError as error:
        return str(error)
    return "ok"


def _has_network(directories: Directories) -> bool:
    """Say whether there is a CNI configuration. Raises InvalidInput: it cannot be used."""
    from minirt.network import cni

    return cni.find(directories) is not None


def _as_path(parent: str) -> str:
    """Return a cgroup parent as a path: systemd's slices are named by their last."""
    if parent.endswith(".slice") and "/" not in parent:
        from minirt.cgroups.systemd import slices

        parent = "/".join(["", *slices(parent)])
    return parent.rstrip("/")


def _is_callers(parent: str) -> bool:
    """Say whether a sandbox's cgroup parent is there, and not ours: a kubelet has made it, and limits it.

    What such a caller tells of the pod's resources is for runtimes of virtual machines: it is the sum of the limits
    that there are, also where another container has none.
    """
    path = _in_our_tree(_as_path(parent))
    return path.startswith("/") and os.path.isdir(cgroup_tree.find().at(path))


def _in_our_tree(cgroup: str) -> str:
    """Return a CRI cgroup parent as our tree takes it: below our own root relative to that, else from the mount."""
    if not cgroup:
        return ""
    ours = os.path.basename(cgroup_tree.find().root)
    inner = cgroup.strip("/").removeprefix(ours + "/")
    return inner if inner != cgroup.strip("/") else "/" + inner
