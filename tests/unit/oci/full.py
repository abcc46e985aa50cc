"""A valid config.json that says something in every field the specification has for Linux, to be spoilt by tests."""

from typing import Any

SETS = ["CAP_CHOWN", "CAP_KILL"]
MAPS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
MOMENTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
HOOK = {"path": "/bin/true", "args": ["true", "one"], "env": ["A=b"], "timeout": 5}
THROTTLE = [{"major": 8, "minor": 0, "rate": 1048576}]

PROCESS: dict[str, Any] = {
    "args": ["sh", "-c", "true"],
    "cwd": "/tmp",
    "env": ["PATH=/bin", "A=b"],
    "user": {"uid": 1000, "gid": 100, "umask": 23, "additionalGids": [4, 5]},
    "terminal": True,
    "consoleSize": {"height": 24, "width": 80},
    "capabilities": dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), SETS),
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
    "noNewPrivileges": False,
    "oomScoreAdj": 5,
    "apparmorProfile": "web",
    "selinuxLabel": "u:r:t:s0",
    "scheduler": {
        "policy": "SCHED_DEADLINE",
        "nice": 1,
        "priority": 0,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
        "runtime": 1000000,
        "deadline": 2000000,
        "period": 3000000,
    },
    "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    "execCPUAffinity": {"initial": "0", "final": "0-1"},
}

SECCOMP: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86_64"],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "listenerPath": "/run/agent.sock",
    "listenerMetadata": "more",
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        {
            "names": ["kill"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{"index": 1, "value": 10, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
        },
    ],
}

RESOURCES: dict[str, Any] = {
    "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}],
    "memory": {"limit": 1 << 26, "reservation": 1 << 25, "swap": 1 << 27, "checkBeforeUpdate": True},
    "cpu": {
        "shares": 512,
        "quota": 50000,
        "period": 100000,
        "burst": 1000,
        "cpus": "0-1",
        "mems": "0",
        "idle": 0,
    },
    "pids": {"limit": 20},
    "blockIO": {
        "weight": 100,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
        "throttleReadBpsDevice": THROTTLE,
        "throttleWriteBpsDevice": THROTTLE,
        "throttleReadIOPSDevice": THROTTLE,
        "throttleWriteIOPSDevice": THROTTLE,
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 22}],
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 100}},
    "unified": {"memory.high": "60M"},
}

LINUX: dict[str, Any] = {
    "namespaces": [
        *({"type": kind} for kind in ("mount", "pid", "uts", "ipc", "cgroup", "time", "user")),
        {"type": "network", "path": "/run/netns/one"},
    ],
    "uidMappings": MAPS,
    "gidMappings": MAPS,
    "timeOffsets": {"monotonic": {"secs": 60, "nanosecs": 1}, "boottime": {"secs": -60}},
    "devices": [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0},
        {"path": "/dev/pipe", "type": "p"},
    ],
    "cgroupsPath": "/pods/one",
    "resources": RESOURCES,
    "rootfsPropagation": "rslave",
    "seccomp": SECCOMP,
    "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "5"},
    "maskedPaths": ["/proc/kcore"],
    "readonlyPaths": ["/proc/sys"],
    "mountLabel": "u:object_r:t:s0",
    "personality": {"domain": "LINUX32"},
}

CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": PROCESS,
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "example.org",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "size=65536k"]},
        {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rro", "rslave"]},
        {
            "destination": "/mapped",
            "type": "bind",
            "source": "data",
            "options": ["bind", "ridmap"],
            "uidMappings": MAPS,
            "gidMappings": MAPS,
        },
        {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
    ],
    "hooks": {moment: [HOOK] for moment in MOMENTS},
    "annotations": {"org.example": "yes"},
    "linux": LINUX,
}
