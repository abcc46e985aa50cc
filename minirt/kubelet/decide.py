"""What to do next for a pod, from what there should be and what there is. Pure; done over again after every change.

    finished? ──▶ say so
    no live sandbox? ──▶ stop what is left of the old one, make a new one
    init containers: the first that has not succeeded ──▶ wait for it, or (re)start it
    containers: each that should run and does not ──▶ (re)start it, or wait out its back-off

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from msgspec import Struct

from minirt.crimessages import api_pb2 as cri
from minirt.kubelet import pods
from minirt.kubelet.backoff import Backoff
from minirt.kubelet.manifest import Container, Pod
from minirt.kubelet.pods import Actual


class Finish(Struct, frozen=True):
    """All is done; ``exit_code`` is 0, or that of the first container that failed."""

    exit_code: int


class StopSandbox(Struct, frozen=True):
    """Stop a sandbox that is dead, or has been replaced, and with it whatever still runs in it."""

    sandbox_id: str


class MakeSandbox(Struct, frozen=True):
    """Make the pod's sandbox; ``attempt`` counts those before."""

    attempt: int


class RemoveSandbox(Struct, frozen=True):
    """Remove a sandbox that has been replaced."""

    sandbox_id: str


class Start(Struct, frozen=True):
    """Make and start a container. ``failed_ns`` is when the one before ended (0: there was none); ``remove`` are the
    ids of those that nobody needs any more: of the ended ones only the last is kept, for its logs and its exit code.
    """

    container: Container
    attempt: int
    failed_ns: int = 0
    remove: tuple[str, ...] = ()


class Wait(Struct, frozen=True):
    """Leave a container alone until ``until_ns``: it failed."""

    container: Container
    until_ns: int


Action = Finish | StopSandbox | MakeSandbox | RemoveSandbox | Start | Wait


def decide(pod: Pod, actual: Actual, backoff: Backoff, failures: dict[str, int], now_ns: int) -> list[Action]:
    """Return what to do now; [] is to wait for a change.

    ``failures`` says, by container, when making or starting it last failed (Unix time in ns, as all times here).
    """
    code = exit_code(pod, actual)
    if code is not None:
        return [Finish(code)]
    if actual.sandbox is None:
        return [MakeSandbox(0)]
    if not actual.ready:
        return _replace_sandbox(actual.sandbox, actual)
    waiting = _init_to_start(pod, actual)
    if waiting is None:
        startable = [each for each in pod.spec.containers if _should_start(pod, each, actual)]
    else:
        startable = waiting
    return [_start_or_wait(each, actual, backoff, failures, now_ns) for each in startable] or _tidy(pod, actual)


def _replace_sandbox(dead: cri.PodSandboxStatus, actual: Actual) -> list[Action]:
    if any(pods.running(each) for each in actual.current):
        return [StopSandbox(dead.id)]
    return [StopSandbox(dead.id), MakeSandbox(dead.metadata.attempt + 1)]


def _init_to_start(pod: Pod, actual: Actual) -> list[Container] | None:
    """Return the init container to start, [] while one runs, or None when they have all succeeded in this sandbox.

    That a container exists is proof of it: it was not made before.
    """
    names = {each.name for each in pod.spec.containers}
    if any(each.metadata.name in names for each in actual.current):
        return None
    for container in pod.spec.init_containers:
        last = actual.last(container.name)
        if last is None or not actual.is_current(last) or last.state == pods.CREATED:
            return [container]
        if pods.running(last):
            return []
        if last.exit_code != 0:
            return [container]
    return None


def _should_start(pod: Pod, container: Container, actual: Actual) -> bool:
    last = actual.last(container.name)
    if last is None or last.state == pods.CREATED:
        return True
    return pods.exited(last) and should_restart(pod, last)


def should_restart(pod: Pod, ended: cri.ContainerStatus) -> bool:
    """Tell whether the restart policy wants an ended container to run again."""
    match pod.spec.restart_policy:
        case "Always":
            return True
        case "OnFailure":
            return ended.exit_code != 0
        case "Never":
            return False


def _start_or_wait(
    container: Container, actual: Actual, backoff: Backoff, failures: dict[str, int], now_ns: int
) -> Start | Wait:
    before = actual.of(container.name)
    ended = [each for each in before if pods.exited(each)]
    ended_ns = ended[0].finished_at if ended else 0
    failed_ns = max(ended_ns, failures.get(container.name, 0))
    ready_ns = backoff.ready_at_ns(container.name, failed_ns) if failed_ns else 0
    if ready_ns > now_ns:
        return Wait(container, ready_ns)
    attempt = before[0].metadata.attempt + 1 if before else 0
    useless = [each for each in before if each not in ended[:1]]
    return Start(container, attempt, failed_ns, tuple(each.id for each in useless))


def _tidy(pod: Pod, actual: Actual) -> list[Action]:
    """Remove the sandboxes before this one, once this one has every container that should run."""
    if all(actual.is_current(actual.last(each.name)) for each in pod.spec.containers):
        return [RemoveSandbox(each.id) for each in actual.sandboxes[1:]]
    return []


def exit_code(pod: Pod, actual: Actual) -> int | None:
    """Return 0 or the first failure's exit code when nothing is left to run, else None."""
    if pod.spec.restart_policy == "Never":
        failed = [last for each in pod.spec.init_containers if _failed(last := actual.last(each.name))]
        if failed and failed[0]:
            return failed[0].exit_code
    lasts = [actual.last(each.name) for each in pod.spec.containers]
    ended = [last for last in lasts if last is not None and pods.exited(last) and not should_restart(pod, last)]
    if len(ended) < len(lasts):
        return None
    failures = sorted((each for each in ended if each.exit_code), key=lambda each: each.finished_at)
    return failures[0].exit_code if failures else 0


def _failed(container: cri.ContainerStatus | None) -> bool:
    return container is not None and pods.exited(container) and container.exit_code != 0
