"""What the worker decides, for every state a pod can be found in."""

import pytest

from minirt.kubelet.backoff import Backoff
from minirt.kubelet.decide import (
    Action,
    Finish,
    MakeSandbox,
    RemoveSandbox,
    Start,
    StopSandbox,
    Wait,
    decide,
    exit_code,
)
from minirt.kubelet.manifest import Pod
from minirt.kubelet.pods import Actual
from tests.unit.kubelet.pods import CREATED, DEAD, EXITED, RUNNING, actual, container, pod, sandbox, status

S = 1_000_000_000
NOW = 1000 * S


def decided(
    of: Pod, found: Actual, backoff: Backoff | None = None, failures: dict[str, int] | None = None
) -> list[Action]:
    return decide(of, found, backoff or Backoff(), failures or {}, NOW)


def starts(actions: list[Action]) -> list[tuple[str, int]]:
    assert all(isinstance(action, Start) for action in actions)
    return [(action.container.name, action.attempt) for action in actions if isinstance(action, Start)]


TWO = pod(container("a"), container("b"))
NEVER = pod(container("a"), container("b"), restartPolicy="Never")
ON_FAILURE = pod(container("a"), restartPolicy="OnFailure")
INIT = pod(container("a"), initContainers=[container("i"), container("j")])
INIT_NEVER = pod(container("a"), initContainers=[container("i"), container("j")], restartPolicy="Never")


def test_first_a_sandbox() -> None:
    assert decided(TWO, Actual()) == [MakeSandbox(0)]


def test_then_all_containers_at_once() -> None:
    assert starts(decided(TWO, actual())) == [("a", 0), ("b", 0)]


def test_what_runs_is_left_alone() -> None:
    assert starts(decided(TWO, actual(status("a", RUNNING)))) == [("b", 0)]
    assert decided(TWO, actual(status("a", RUNNING), status("b", RUNNING))) == []


def test_init_containers_one_by_one() -> None:
    assert starts(decided(INIT, actual())) == [("i", 0)]
    assert decided(INIT, actual(status("i", RUNNING))) == []
    assert starts(decided(INIT, actual(status("i", EXITED)))) == [("j", 0)]
    assert starts(decided(INIT, actual(status("i", EXITED), status("j", EXITED)))) == [("a", 0)]


def test_init_containers_are_over_once_a_container_was_made() -> None:
    assert decided(INIT, actual(status("a", RUNNING))) == []


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
def test_a_failed_init_container_is_run_again(policy: str) -> None:
    of = pod(container("a"), initContainers=[container("i")], restartPolicy=policy)
    assert starts(decided(of, actual(status("i", EXITED, 1, ended_s=1)))) == [("i", 1)]


def test_a_failed_init_container_ends_a_pod_that_never_restarts() -> None:
    assert decided(INIT_NEVER, actual(status("i", EXITED), status("j", EXITED, 3))) == [Finish(3)]


@pytest.mark.parametrize(("policy", "code", "again"), [
    ("Always", 0, True),
    ("Always", 1, True),
    ("OnFailure", 0, False),
    ("OnFailure", 1, True),
    ("Never", 0, False),
    ("Never", 1, False),
])  # fmt: skip
def test_restart_policies(policy: str, code: int, again: bool) -> None:
    of = pod(container("a"), restartPolicy=policy)
    found = decided(of, actual(status("a", EXITED, code, ended_s=1)))
    assert found == [Finish(code)] if not again else starts(found) == [("a", 1)]


def test_a_pod_goes_on_while_one_container_does() -> None:
    assert decided(NEVER, actual(status("a", EXITED, 1), status("b", RUNNING))) == []


def test_the_first_failure_gives_the_exit_code() -> None:
    found = actual(status("a", EXITED, 5, ended_s=9), status("b", EXITED, 6, ended_s=8))
    assert decided(NEVER, found) == [Finish(6)]
    found = actual(status("a", EXITED, 5, ended_s=9), status("b", EXITED, 0, ended_s=8))
    assert decided(NEVER, found) == [Finish(5)]


def test_a_container_made_and_never_started_is_made_anew() -> None:
    (start, _) = decided(TWO, actual(status("a", CREATED)))
    assert isinstance(start, Start)
    assert (start.attempt, start.remove) == (1, ("a-0",))


def test_only_the_last_of_the_ended_is_kept() -> None:
    history = [status("a", EXITED, 1, attempt=number, ended_s=number + 1) for number in (2, 1, 0)]
    (start,) = decided(pod(container("a")), actual(*history))
    assert isinstance(start, Start)
    assert (start.attempt, start.remove) == (3, ("a-1", "a-0"))


def test_a_restart_waits_out_its_back_off() -> None:
    of, backoff = pod(container("a")), Backoff(10, 300)
    backoff.tried("a", NOW - 6 * S, NOW - 5 * S)
    found = actual(status("a", EXITED, 1, attempt=1, ended_s=996))
    assert decided(of, found, backoff) == [Wait(of.spec.containers[0], 1006 * S)]
    assert starts(decide(of, found, backoff, {}, 1006 * S)) == [("a", 2)]


def test_one_container_that_waits_does_not_keep_another_from_starting() -> None:
    backoff = Backoff(10, 300)
    backoff.tried("a", NOW - 6 * S, NOW - 5 * S)
    found = decided(TWO, actual(status("a", EXITED, 1, ended_s=999)), backoff)
    assert [type(action) for action in found] == [Wait, Start]


def test_a_container_that_could_not_be_made_waits_too() -> None:
    of, backoff = pod(container("a")), Backoff(10, 300)
    backoff.tried("a", NOW, NOW)
    assert decided(of, actual(), backoff, {"a": NOW}) == [Wait(of.spec.containers[0], NOW + 10 * S)]


def test_a_dead_sandbox_is_stopped_then_replaced() -> None:
    found = actual(status("a", RUNNING), state=DEAD)
    assert decided(TWO, found) == [StopSandbox("sandbox0")]
    found = actual(status("a", EXITED, 137, ended_s=1), state=DEAD)
    assert decided(TWO, found) == [StopSandbox("sandbox0"), MakeSandbox(1)]


def test_a_created_container_does_not_hold_a_dead_sandbox() -> None:
    assert decided(TWO, actual(status("a", CREATED), state=DEAD)) == [StopSandbox("sandbox0"), MakeSandbox(1)]


def test_a_dead_sandbox_of_a_finished_pod_stays_dead() -> None:
    found = actual(status("a", EXITED, 137, ended_s=1), status("b", EXITED, 0, ended_s=1), state=DEAD)
    assert decided(NEVER, found) == [Finish(137)]


def test_in_a_new_sandbox_init_containers_run_again_and_counts_go_on() -> None:
    old = (status("a", EXITED, 137, ended_s=1), status("j", EXITED), status("i", EXITED))
    found = Actual((sandbox(1), sandbox(0, DEAD)), ((), old))
    assert starts(decided(INIT, found)) == [("i", 1)]


def test_in_a_new_sandbox_what_had_succeeded_is_done() -> None:
    of = pod(container("a"), container("b"), restartPolicy="OnFailure")
    old = (status("a", EXITED, 0, ended_s=1), status("b", EXITED, 137, ended_s=1))
    found = Actual((sandbox(1), sandbox(0, DEAD)), ((), old))
    assert starts(decided(of, found)) == [("b", 1)]


def test_an_old_sandbox_goes_once_the_new_one_is_complete() -> None:
    old = (status("a", EXITED, 137, ended_s=1), status("b", EXITED, 137, ended_s=1))
    new = (status("a", RUNNING, attempt=1), status("b", RUNNING, attempt=1))
    found = Actual((sandbox(1), sandbox(0, DEAD)), (new, old))
    assert decided(TWO, found) == [RemoveSandbox("sandbox0")]
    half = Actual((sandbox(1), sandbox(0, DEAD)), (new[:1], old))
    assert starts(decided(TWO, half)) == [("b", 1)]


def test_no_exit_code_before_all_is_done() -> None:
    assert exit_code(NEVER, Actual()) is None
    assert exit_code(NEVER, actual(status("a", EXITED))) is None
    assert exit_code(TWO, actual(status("a", EXITED), status("b", EXITED))) is None
    assert exit_code(ON_FAILURE, actual(status("a", EXITED, 1))) is None
    assert exit_code(ON_FAILURE, actual(status("a", EXITED))) == 0


class TestBackoff:
    def test_the_first_try_is_free_and_then_it_doubles_up_to_the_cap(self) -> None:
        backoff, failed, waits = Backoff(10, 300), 0, []
        for _ in range(8):
            ready = backoff.ready_at_ns("a", failed)
            waits.append((ready - failed) // S)
            backoff.tried("a", failed, ready)
            failed = ready + S
        assert waits == [0, 10, 20, 40, 80, 160, 300, 300]

    def test_ten_good_minutes_make_it_forget(self) -> None:
        backoff = Backoff(10, 300)
        backoff.tried("a", 0, 0)
        backoff.tried("a", 1 * S, 1 * S)
        assert backoff.ready_at_ns("a", 600 * S) == 620 * S
        assert backoff.ready_at_ns("a", 602 * S) == 602 * S
        backoff.tried("a", 602 * S, 602 * S)
        assert backoff.ready_at_ns("a", 603 * S) == 613 * S

    def test_keys_are_apart_and_a_cap_below_the_start_holds(self) -> None:
        backoff = Backoff(10, 5)
        backoff.tried("a", 0, 0)
        assert backoff.ready_at_ns("a", S) == 6 * S
        assert backoff.ready_at_ns("b", S) == S
