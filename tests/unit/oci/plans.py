"""A specification with a bit of everything, compiled: what the tests of the compiler begin with."""

from typing import Any

import msgspec

from minirt.cgroups.tree import Tree
from minirt.namespaces.rootfs import MountOverlay
from minirt.oci.compile import compile_spec
from minirt.oci.plan import Plan
from minirt.oci.spec import Spec

TREE = Tree("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys/fs/cgroup/minirt")
OWN = [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup")]
FULL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "hostname": "box",
    "process": {
        "args": ["sh", "-c", "true"],
        "cwd": "/work",
        "env": ["PATH=/a:/b", "X=y"],
        "user": {"uid": 1000, "gid": 100, "additionalGids": [4], "umask": 0o027},
        "capabilities": {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
        "noNewPrivileges": True,
        "oomScoreAdj": 500,
    },
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]},
    ],
    "linux": {
        "namespaces": OWN,
        "cgroupsPath": "pod/one",
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
}


def compiled(overlay: MountOverlay | None = None, *, linux: dict[str, Any] | None = None, **top: Any) -> Plan:
    content = FULL | top
    content["linux"] = FULL["linux"] | (linux or {})
    return compile_spec(msgspec.convert(content, Spec), "/bundle", overlay, TREE, 40)


def process(**changes: Any) -> dict[str, Any]:
    return FULL["process"] | changes


def kinds(plan: Plan) -> list[type]:
    """Return the classes of the operations inside, each run of the same one once."""
    found = [type(operation) for operation in plan.inside]
    return [kind for index, kind in enumerate(found) if index == 0 or found[index - 1] is not kind]


def place(plan: Plan, kind: type) -> int:
    return kinds(plan).index(kind)
