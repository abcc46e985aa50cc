from fractions import Fraction

import pytest

from minirt.kubelet import resources
from tests.unit.kubelet.pods import GIB, NODE, container, machine, pod

BARE = machine(controllers=frozenset())


def needs(cpu: str = "", memory: str = "", cpu_limit: str = "", memory_limit: str = "") -> dict[str, object]:
    requests = {name: amount for name, amount in (("cpu", cpu), ("memory", memory)) if amount}
    limits = {name: amount for name, amount in (("cpu", cpu_limit), ("memory", memory_limit)) if amount}
    return {"resources": {"requests": requests, "limits": limits}}


FIXED = needs("1", "1Gi", "1", "1Gi")
LIMITS_ONLY = needs(cpu_limit="1", memory_limit="1Gi")


@pytest.mark.parametrize(
    ("milli", "shares"),
    [(0, 2), (1, 2), (2, 2), (10, 10), (100, 102), (250, 256), (1000, 1024), (4000, 4096), (300_000, 262_144)],
)
def test_shares(milli: int, shares: int) -> None:
    assert resources.shares(Fraction(milli, 1000)) == shares


@pytest.mark.parametrize(
    ("milli", "quota"), [(0, 0), (1, 1000), (10, 1000), (11, 1100), (250, 25_000), (1500, 150_000)]
)
def test_quota(milli: int, quota: int) -> None:
    assert resources.quota_us(Fraction(milli, 1000)) == quota


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([container()], "BestEffort"),
        ([container(**FIXED)], "Guaranteed"),
        ([container(**LIMITS_ONLY)], "Guaranteed"),
        ([container(**needs("1", "1Gi", "2", "1Gi"))], "Burstable"),
        ([container(**needs(memory="1Mi"))], "Burstable"),
        ([container(**needs(cpu_limit="1"))], "Burstable"),
        ([container("a", **FIXED), container("b")], "Burstable"),
        ([container("a", **FIXED), container("b", **LIMITS_ONLY)], "Guaranteed"),
    ],
)
def test_quality_of_service(containers: list[dict[str, object]], expected: str) -> None:
    assert resources.qos(pod(*containers)) == expected


def test_an_init_container_counts_for_the_class() -> None:
    assert resources.qos(pod(container(**FIXED), initContainers=[container("i")])) == "Burstable"


@pytest.mark.parametrize(
    ("asked", "score"),
    [
        (needs(memory="1Gi"), 750),
        (needs(cpu="1"), 999),
        (needs(memory="1"), 999),
        (needs(memory="4Gi"), 3),
        (needs(memory="9Gi"), 3),
        (FIXED, -997),
        ({}, 1000),
    ],
)
def test_oom_score(asked: dict[str, object], score: int) -> None:
    found = pod(container(**asked))
    assert resources.oom_score_adj(found, found.spec.containers[0], NODE) == score


def test_a_containers_limits() -> None:
    found = pod(container(**needs("100m", "", "250m", "64Mi")))
    limits = resources.of_container(found, found.spec.containers[0], NODE)
    assert (limits.cpu_shares, limits.cpu_quota, limits.cpu_period) == (102, 25_000, 100_000)
    assert limits.memory_limit_in_bytes == 64 << 20
    assert dict(limits.unified) == {"memory.oom.group": "1", "memory.swap.max": "0"}


def test_what_nobody_asked_for_is_sent_only_where_the_kernel_has_it() -> None:
    found = pod()
    there = resources.of_container(found, found.spec.containers[0], NODE)
    assert (there.cpu_shares, dict(there.unified)) == (2, {"memory.oom.group": "1", "memory.swap.max": "0"})
    bare = resources.of_container(found, found.spec.containers[0], BARE)
    assert (bare.cpu_shares, dict(bare.unified)) == (0, {})


def test_what_is_asked_for_is_sent_whatever_the_kernel_has() -> None:
    found = pod(container(**needs(cpu="1", memory_limit="1Gi")))
    bare = resources.of_container(found, found.spec.containers[0], BARE)
    assert (bare.cpu_shares, bare.memory_limit_in_bytes) == (1024, GIB)


def test_the_pods_limits_are_the_sums() -> None:
    found = resources.of_pod(pod(container("a", **FIXED), container("b", **needs("1", "", "2", "1Gi"))), NODE)
    assert (found.cpu_shares, found.cpu_quota) == (2048, 300_000)
    assert found.memory_limit_in_bytes == 2 * GIB


def test_a_pod_has_a_limit_only_if_every_container_has_one() -> None:
    found = resources.of_pod(pod(container("a", **FIXED), container("b", **needs(cpu_limit="1"))), NODE)
    assert (found.cpu_quota, found.memory_limit_in_bytes) == (200_000, 0)


def test_a_hungry_init_container_sets_the_pods_limit() -> None:
    init = [container("i", **needs("3", "", "3", "4Gi")), container("j", **FIXED)]
    found = resources.of_pod(pod(container(**FIXED), initContainers=init), NODE)
    assert (found.cpu_shares, found.cpu_quota, found.memory_limit_in_bytes) == (3072, 300_000, 4 * GIB)
