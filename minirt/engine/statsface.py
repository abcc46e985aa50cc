"""The pod face's statistics: what cgroups, the pods' network interfaces and the writable layers tell.

What this kernel's cgroups do not count (no memory controller, no PSI) is left out, not zero. A container that has not
been started, or has ended, has used nothing.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from minirt import paths
from minirt.cgroups import stats
from minirt.cgroups import tree as cgroup_tree
from minirt.cgroups.stats import Pressure, Usage
from minirt.crimessages import api_pb2 as cri
from minirt.engine import imageface, messages, store
from minirt.engine.filters import has
from minirt.engine.records import ContainerRecord, SandboxRecord
from minirt.images.snapshots import Snapshots
from minirt.shim import status as statuses

INTERFACE = "eth0"


class StatsFace:
    """Statistics of one owner's containers and sandboxes."""

    _owner: str

    def __init__(self) -> None:
        self._rates = Rates()

    def ContainerStats(self, request: cri.ContainerStatsRequest) -> cri.ContainerStatsResponse:
        """Return what a container uses. Raises NotFound."""
        record = store.container_of(self._owner, request.container_id)
        return cri.ContainerStatsResponse(stats=self._of_container(record))

    def ListContainerStats(self, request: cri.ListContainerStatsRequest) -> cri.ListContainerStatsResponse:
        """Return what containers use, all or those that a filter finds."""
        wanted = request.filter
        found = [
            self._of_container(record)
            for record in store.containers(owner=self._owner)
            if record.id != record.sandbox_id
            and record.id.startswith(wanted.id)
            and record.sandbox_id.startswith(wanted.pod_sandbox_id)
            and has(record.config.labels, wanted.label_selector)
        ]
        return cri.ListContainerStatsResponse(stats=found)

    def PodSandboxStats(self, request: cri.PodSandboxStatsRequest) -> cri.PodSandboxStatsResponse:
        """Return what a sandbox and its containers use. Raises NotFound."""
        record = store.sandbox_of(self._owner, request.pod_sandbox_id)
        return cri.PodSandboxStatsResponse(stats=self._of_sandbox(record))

    def ListPodSandboxStats(self, request: cri.ListPodSandboxStatsRequest) -> cri.ListPodSandboxStatsResponse:
        """Return what ready sandboxes use, all or those that a filter finds."""
        wanted = request.filter
        found = [
            self._of_sandbox(record)
            for record in self._ready()
            if record.id.startswith(wanted.id) and has(record.config.labels, wanted.label_selector)
        ]
        return cri.ListPodSandboxStatsResponse(stats=found)

    def ListMetricDescriptors(self, request: cri.ListMetricDescriptorsRequest) -> cri.ListMetricDescriptorsResponse:
        """Name the metrics that ListPodSandboxMetrics gives."""
        return cri.ListMetricDescriptorsResponse(
            descriptors=[
                cri.MetricDescriptor(name=name, help=text, label_keys=LABELS) for name, (text, _) in METRICS.items()
            ]
        )

    def ListPodSandboxMetrics(self, request: cri.ListPodSandboxMetricsRequest) -> cri.ListPodSandboxMetricsResponse:
        """Return the metrics of ready sandboxes and their containers."""
        return cri.ListPodSandboxMetricsResponse(pod_metrics=[self._metrics(record) for record in self._ready()])

    def _ready(self) -> list[SandboxRecord]:
        return [one for one in store.sandboxes(self._owner) if one.state == "ready" and not one.config.single]

    def _of_container(self, record: ContainerRecord) -> cri.ContainerStats:
        used, now = stats.usage(cgroup_tree.find().at(record.cgroup)), time.time_ns()
        config = record.config
        return cri.ContainerStats(
            attributes=cri.ContainerAttributes(
                id=record.id,
                metadata=cri.ContainerMetadata(name=config.name, attempt=config.attempt),
                labels=config.labels,
                annotations=config.annotations,
            ),
            cpu=self._cpu(record.id, used, now),
            memory=_memory(used, now),
            swap=_swap(used, now),
            io=_io(used, now),
            writable_layer=_writable_layer(record),
        )

    def _of_sandbox(self, record: SandboxRecord) -> cri.PodSandboxStats:
        used, now = stats.usage(cgroup_tree.find().at(record.config.cgroup)), time.time_ns()
        containers = [one for one in store.containers(record.id) if one.id != record.id]
        return cri.PodSandboxStats(
            attributes=cri.PodSandboxAttributes(
                id=record.id,
                metadata=messages.sandbox_metadata(record),
                labels=record.config.labels,
                annotations=record.config.annotations,
            ),
            linux=cri.LinuxPodSandboxStats(
                cpu=self._cpu(record.id, used, now),
                memory=_memory(used, now),
                network=_network(record, now),
                process=cri.ProcessUsage(timestamp=now, process_count=_value(used.pids or 0)),
                io=_io(used, now),
                containers=[self._of_container(one) for one in containers],
            ),
        )

    def _cpu(self, key: str, used: Usage, now: int) -> cri.CpuUsage:
        total_ns = (used.cpu_usec or 0) * 1000
        return cri.CpuUsage(
            timestamp=now,
            usage_core_nano_seconds=_value(total_ns),
            usage_nano_cores=_value(self._rates.of(key, total_ns, now)),
            psi=_pressure(used.cpu_pressure),
        )

    def _metrics(self, record: SandboxRecord) -> cri.PodSandboxMetrics:
        tree, config = cgroup_tree.find(), record.config
        pod = [record.id, "", "", config.name, config.namespace, ""]
        containers = [one for one in store.containers(record.id) if one.id != record.id]
        return cri.PodSandboxMetrics(
            pod_sandbox_id=record.id,
            metrics=list(_metrics(stats.usage(tree.at(config.cgroup)), pod)),
            container_metrics=[
                cri.ContainerMetrics(
                    container_id=one.id,
                    metrics=list(
                        _metrics(
                            stats.usage(tree.at(one.cgroup)),
                            [one.id, one.config.name, one.config.image, config.name, config.namespace, one.config.name],
                        )
                    ),
                )
                for one in containers
            ],
        )


LABELS = ("id", "name", "image", "pod", "namespace", "container")
"""cAdvisor's, so that dashboards find what they look for."""
COUNTER, GAUGE = cri.MetricType.COUNTER, cri.MetricType.GAUGE
METRICS = {
    "container_cpu_usage_nanoseconds_total": ("CPU time used, in nanoseconds", COUNTER),
    "container_cpu_user_nanoseconds_total": ("CPU time used in user mode, in nanoseconds", COUNTER),
    "container_cpu_system_nanoseconds_total": ("CPU time used in the kernel, in nanoseconds", COUNTER),
    "container_memory_usage_bytes": ("Memory used, page cache included", GAUGE),
    "container_memory_working_set_bytes": ("Memory used that cannot be reclaimed at once", GAUGE),
    "container_memory_rss": ("Anonymous memory, in bytes", GAUGE),
    "container_memory_swap": ("Swap used, in bytes", GAUGE),
    "container_fs_reads_bytes_total": ("Bytes read from block devices", COUNTER),
    "container_fs_writes_bytes_total": ("Bytes written to block devices", COUNTER),
    "container_processes": ("Processes and threads", GAUGE),
}
"""Each metric's name, with its help and its kind. Values are whole numbers, so times are nanoseconds."""


def _metrics(used: Usage, labels: list[str]) -> Iterator[cri.Metric]:
    """Yield the metrics that this kernel's cgroups tell."""
    now = time.time_ns()
    values = (
        _nanoseconds(used.cpu_usec),
        _nanoseconds(used.cpu_user_usec),
        _nanoseconds(used.cpu_system_usec),
        used.memory_bytes,
        used.working_set_bytes,
        used.rss_bytes,
        used.swap_bytes,
        used.read_bytes,
        used.write_bytes,
        used.pids,
    )
    for (name, (_, kind)), value in zip(METRICS.items(), values, strict=True):
        if value is not None:
            yield cri.Metric(name=name, timestamp=now, metric_type=kind, label_values=labels, value=_value(value))


def _nanoseconds(usec: int | None) -> int | None:
    return None if usec is None else usec * 1000


class Rates:
    """How much CPU was used between two looks. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[int, int, int]] = {}

    def of(self, key: str, total_ns: int, now_ns: int) -> int:
        """Return nanoseconds of CPU a second since the last look at ``key``; 0 at the first one."""
        with self._lock:
            before, total, rate = self._last.get(key, (now_ns, total_ns, 0))
            if now_ns - before >= MOMENT_NS:
                rate = max(0, (total_ns - total) * 10**9 // (now_ns - before))
            if key not in self._last or now_ns - before >= MOMENT_NS:
                self._last[key] = now_ns, total_ns, rate
            if len(self._last) > MOST_RATES:
                self._last.pop(next(iter(self._last)))
            return rate


MOMENT_NS = 10**8
"""Looks closer together than this tell no rate."""
MOST_RATES = 4096


def _value(number: int) -> cri.UInt64Value:
    return cri.UInt64Value(value=number)


def _memory(used: Usage, now: int) -> cri.MemoryUsage | None:
    if used.memory_bytes is None or used.working_set_bytes is None:
        return None
    limit = used.memory_limit_bytes
    return cri.MemoryUsage(
        timestamp=now,
        working_set_bytes=_value(used.working_set_bytes),
        available_bytes=None if limit is None else _value(max(0, limit - used.working_set_bytes)),
        usage_bytes=_value(used.memory_bytes),
        rss_bytes=_value(used.rss_bytes or 0),
        page_faults=_value(used.page_faults or 0),
        major_page_faults=_value(used.major_page_faults or 0),
        psi=_pressure(used.memory_pressure),
    )


def _swap(used: Usage, now: int) -> cri.SwapUsage | None:
    return None if used.swap_bytes is None else cri.SwapUsage(timestamp=now, swap_usage_bytes=_value(used.swap_bytes))


def _io(used: Usage, now: int) -> cri.IoUsage | None:
    return cri.IoUsage(timestamp=now, psi=_pressure(used.io_pressure)) if used.io_pressure else None


def _pressure(found: Mapping[str, Pressure] | None) -> cri.PsiStats | None:
    """Return PSI as the CRI has it: times in nanoseconds."""
    if not found:
        return None
    parts = {
        name.capitalize(): cri.PsiData(Total=one.total_usec * 1000, Avg10=one.avg10, Avg60=one.avg60, Avg300=one.avg300)
        for name, one in found.items()
    }
    return cri.PsiStats(**parts)


def _writable_layer(record: ContainerRecord) -> cri.FilesystemUsage:
    upper = Snapshots(paths.data_root()).upper(record.id)
    return imageface.filesystem(upper, imageface.usage(upper))


def _network(record: SandboxRecord, now: int) -> cri.NetworkUsage | None:
    """Return what went over a pod's interface: the host's end of the pair counts the same, the other way round."""
    if not record.address:
        return None
    if record.config.network == "cni":
        return _network_inside(record, now)
    from minirt.network.plan import veth_name

    counters = _interfaces("self").get(veth_name(record.id), [0] * 16)
    return _network_usage([*counters[8:], *counters[:8]], now)


def _network_inside(record: SandboxRecord, now: int) -> cri.NetworkUsage | None:
    """Return what a process in the pod sees of its interface, which a plugin has made; None where nothing runs."""
    for container in store.containers(record.id):
        status = statuses.read(container.id)
        if status and status.state == "running" and status.is_alive():
            return _network_usage(_interfaces(str(status.pid)).get(INTERFACE, [0] * 16), now)
    return None


def _network_usage(counters: list[int], now: int) -> cri.NetworkUsage:
    """Return the columns of an interface: bytes, packets, errs … received, then the same sent."""
    interface = cri.NetworkInterfaceUsage(
        name=INTERFACE,
        rx_bytes=_value(counters[0]),
        rx_errors=_value(counters[2]),
        tx_bytes=_value(counters[8]),
        tx_errors=_value(counters[10]),
    )
    return cri.NetworkUsage(timestamp=now, default_interface=interface, interfaces=[interface])


def _interfaces(process: str) -> dict[str, list[int]]:
    """Return the counters of the interfaces that a process sees. Source: proc_net(5), /proc/PID/net/dev."""
    try:
        lines = Path("/proc", process, "net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}  # it has just ended
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): list(map(int, numbers.split())) for name, _, numbers in pairs}
