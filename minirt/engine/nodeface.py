"""The pod face's RPCs about the runtime itself: its version, whether it is ready, what it can do."""

import json

from msgspec import structs

import minirt
from minirt import paths
from minirt.cgroups import tree as cgroup_tree
from minirt.crimessages import api_pb2 as cri
from minirt.engine import handlers
from minirt.errors import ControllerMissing
from minirt.network.directories import Directories
from minirt.shim.zygote import Zygote


class NodeFace:
    """What needs no sandbox."""

    _zygote: Zygote | None
    _owner: str
    _cni: Directories | None
    _maps_ids: bool

    def Version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        """Name the runtime."""
        return cri.VersionResponse(
            version="0.1.0",
            runtime_name="minirt",
            runtime_version=minirt.__version__,
            runtime_api_version="v1",
        )

    def Status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        """Say whether sandboxes and their network can be made, and what else is offered; with ``verbose`` where."""
        from minirt.engine import podnetwork

        conditions = [
            _condition("RuntimeReady", self._trouble()),
            _condition("NetworkReady", podnetwork.trouble(self._cni)),
        ]
        return cri.StatusResponse(
            status=cri.RuntimeStatus(conditions=conditions),
            runtime_handlers=self._handlers(),
            features=cri.RuntimeFeatures(supplemental_groups_policy=True),
            info={"config": json.dumps(self._places())} if request.verbose else {},
        )

    def _handlers(self) -> list[cri.RuntimeHandler]:
        """Return who can be asked for by name, the default first, and what each can do."""
        names = (*handlers.OWN, *handlers.installed())
        found = {name: handlers.features(name, maps_ids=self._maps_ids) for name in names}
        return [
            cri.RuntimeHandler(name=name, features=cri.RuntimeHandlerFeatures(**structs.asdict(can)))
            for name, can in found.items()
        ]

    def _trouble(self) -> str:
        """Return why no sandbox can be made, "" if one can."""
        if self._zygote is None or not self._zygote.is_alive:
            return "the process that forks shims has ended; start minirt serve again"
        try:
            cgroup_tree.find()
        except ControllerMissing as error:
            return str(error)
        return ""

    def _places(self) -> dict[str, str]:
        return {
            "owner": self._owner,
            "root": str(paths.data_root()),
            "state": str(paths.state_root()),
            "cgroupRoot": cgroup_tree.find().root,
        }

    def begin(self) -> None:
        """Do what comes before the first call: nobody may make a sandbox yet."""
        from minirt.engine import podnetwork

        podnetwork.begin(self._cni)

    def RuntimeConfig(self, request: cri.RuntimeConfigRequest) -> cri.RuntimeConfigResponse:
        """Name the cgroup driver: minirt writes cgroup files itself, also where systemd is PID 1."""
        return cri.RuntimeConfigResponse(
            linux=cri.LinuxRuntimeConfiguration(cgroup_driver=cri.CgroupDriver.CGROUPFS),
        )

    def UpdateRuntimeConfig(self, request: cri.UpdateRuntimeConfigRequest) -> cri.UpdateRuntimeConfigResponse:
        """Take the pods' address range for our bridge, unless it is set or in use; see ``podnetwork.take_range``."""
        from minirt.engine import podnetwork

        podnetwork.take_range(request.runtime_config.network_config.pod_cidr)
        return cri.UpdateRuntimeConfigResponse()


def _condition(name: str, trouble: str) -> cri.RuntimeCondition:
    reason = f"{name.removesuffix('Ready')}NotReady" if trouble else ""
    return cri.RuntimeCondition(type=name, status=not trouble, reason=reason, message=trouble)
