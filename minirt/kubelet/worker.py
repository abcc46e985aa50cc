"""The pod worker: makes what is into what should be, again and again, until the pod is done or is to go.

    ┌─▶ look at the runtime ──▶ decide (pure) ──▶ act ──▶ anything done? look again at once
    └────────── sleep until an event, a back-off's end, or a second has passed ◀──┘ nothing to do

It keeps nothing that matters: killed and started again, it finds its sandbox and containers by the pod's uid and goes
on. What it does forget is how long a container has been backing off.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

import time

from minirt.crimessages import api_pb2 as cri
from minirt.engine.podface import PodFace
from minirt.kubelet import decide, ending, events, pods, status, watch
from minirt.kubelet import node as nodes
from minirt.kubelet.backoff import Backoff
from minirt.kubelet.decide import Action, Finish, MakeSandbox, RemoveSandbox, Start, StopSandbox, Wait
from minirt.kubelet.events import Event, Observer
from minirt.kubelet.making import Maker
from minirt.kubelet.manifest import Pod
from minirt.kubelet.node import Node
from minirt.kubelet.pods import Actual

POLL_S = 1.0
STOPPED_EXIT_CODE = 130
_NS = 1_000_000_000


class PodWorker:
    """Runs one pod on one runtime.

    With ``fail_fast`` the run ends with an error when an image, a volume, the sandbox or a container cannot be made;
    without, it is tried again with a growing pause, as in a cluster. A container that ends is the restart policy's
    business in both cases.
    """

    def __init__(
        self,
        face: PodFace,
        pod: Pod,
        *,
        observer: Observer = events.ignore,
        node: Node | None = None,
        backoff: Backoff | None = None,
        fail_fast: bool = False,
        poll_s: float = POLL_S,
    ) -> None:
        self._face = face
        self._pod = pod
        self._observer = observer
        self._backoff = backoff or Backoff()
        self._poll_s = poll_s
        self._alarm = watch.Alarm()
        self._maker = Maker(
            face,
            pod,
            node or nodes.here(),
            self._backoff,
            observer,
            changed=self._alarm.ring,
            fail_fast=fail_fast,
        )
        self._told: set[str] = set()
        self._stopped: set[str] = set()
        self._begun_ns = time.time_ns()
        self._stopping = False

    def stop(self) -> None:
        """Ask ``run`` to stop the pod and return. May be called from a signal handler or another thread."""
        self._stopping = True
        self._alarm.ring()

    def keep_trying(self) -> None:
        """From now on, try again what cannot be made, as in a cluster."""
        self._maker.fail_fast = False

    def run(self) -> int:
        """Run the pod until nothing is left to run, or until ``stop``; in the end its sandbox is stopped, not removed.

        Return 0 when every container succeeded, else the exit code of the first that failed; after ``stop`` 130, as
        after Ctrl-C, unless the pod had ended by then.

        Raises:
            MinirtError: with ``fail_fast``, what could not be made; or the runtime can no longer be reached.
        """
        with watch.ringing(self._face, self._alarm):
            if pods.look(self._face, self._pod.uid).ready:
                self._maker.take_over()
            while not self._stopping:
                code = self._turn()
                if code is not None:
                    return code
            return self._end()

    def _turn(self) -> int | None:
        """Go round the loop once; return the exit code when the pod is done."""
        actual = self._look()
        actions = decide.decide(self._pod, actual, self._backoff, self._maker.failed_ns, time.time_ns())
        for action in actions:
            if isinstance(action, Finish):
                self._stop_sandboxes(actual)
                return action.exit_code
        if not self._act(actions, actual):
            self._alarm.sleep(self._pause_s(actions))
        return None

    def remove(self) -> None:
        """Remove the pod from the runtime, and its volumes: nothing but its logs is left. May be called again."""
        ending.remove(self._face, self._pod.uid)

    def status(self) -> status.PodStatus:
        """Return the pod's status as Kubernetes would show it now."""
        return status.of(self._pod, pods.look(self._face, self._pod.uid), self._maker.waiting)

    def _end(self) -> int:
        """Stop the pod gracefully."""
        actual = self._look()
        for container in filter(pods.running, actual.current):
            self._observer(Event("Killing", container=container.metadata.name))
        ending.stop(self._face, actual, self._pod.spec.termination_grace_period_seconds)
        self._look()
        code = decide.exit_code(self._pod, actual)
        return STOPPED_EXIT_CODE if code is None else code

    def _stop_sandboxes(self, actual: Actual) -> None:
        for sandbox in actual.sandboxes:
            ending.stop_sandbox(self._face, sandbox.id)

    def _look(self) -> Actual:
        """Look at the runtime, and tell of each container that has ended since the last look."""
        actual = pods.look(self._face, self._pod.uid)
        for container in reversed(actual.current):
            if pods.exited(container) and container.id not in self._told:
                self._told.add(container.id)
                self._tell_exit(container)
        return actual

    def _tell_exit(self, container: cri.ContainerStatus) -> None:
        if container.finished_at >= self._begun_ns:
            name, code = container.metadata.name, container.exit_code
            said = container.reason or ("Error" if code else "Completed")
            self._observer(Event("Exited", said, name, warning=code != 0, exit_code=code))

    def _pause_s(self, actions: list[Action]) -> float:
        """Return how long there is nothing to do, in seconds."""
        ends = [action.until_ns for action in actions if isinstance(action, Wait)]
        return min([self._poll_s, *((end - time.time_ns()) / _NS for end in ends)])

    def _act(self, actions: list[Action], actual: Actual) -> bool:
        """Do what was decided, until ``stop`` is called; tell whether anything has changed."""
        changed = False
        for action in actions:
            if not self._stopping:
                changed |= self._act_once(action, actual)
        return changed

    def _act_once(self, action: Action, actual: Actual) -> bool:
        match action:
            case MakeSandbox():
                return self._maker.make_sandbox(action.attempt)
            case Start():
                return self._maker.start(action, actual)
            case Wait():
                self._maker.note_back_off(action)
                return False
            case StopSandbox():
                return self._stop_dead_sandbox(action.sandbox_id)
            case RemoveSandbox():
                self._face.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=action.sandbox_id))
        return True

    def _stop_dead_sandbox(self, sandbox_id: str) -> bool:
        """Stop it once; its successor may take several turns to be made."""
        if sandbox_id in self._stopped:
            return False
        self._stopped.add(sandbox_id)
        self._observer(Event("SandboxChanged", "the sandbox died", warning=True))
        ending.stop_sandbox(self._face, sandbox_id)
        return True
