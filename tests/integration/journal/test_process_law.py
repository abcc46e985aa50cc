"""The process law, as strace sees it: who has threads never forks; who forks has no threads; and who will be in a
container imports nothing between its birth and the container's program.
"""

import shlex
from pathlib import Path

import pytest

from tests.command import COMMAND, Minirt
from tests.integration.journal import strace
from tests.integration.journal.strace import CLONE_THREAD, FORKS, Process

pytestmark = [pytest.mark.root, pytest.mark.needs("strace", "busybox", "cgroup2_tree")]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: shared}
spec:
  shareProcessNamespace: true
  restartPolicy: Never
  containers:
  - {name: one, image: localhost/busybox, imagePullPolicy: Never, command: ["true"]}
  - {name: two, image: localhost/busybox, imagePullPolicy: Never, command: ["true"]}
"""

SCRIPTS = {
    "run": "minirt run --rm -v /usr:/v:ro localhost/busybox true",
    "detached": "minirt run -d --name one localhost/busybox sleep 1000; minirt exec one true; minirt rm -f one",
    "pod": "minirt pod run {pod}",
    "detached pod": "minirt pod run -d {pod}; minirt pod exec shared -c one -- true; minirt pod rm -f shared",
}


def is_minirt(process: Process) -> bool:
    """Say whether this is minirt's own Python, or was forked by it and has not executed another program."""
    executed = [call.strings[0] for call in process.calls if call.name == "execve" and not call.errno]
    if executed and executed[0] == COMMAND:
        return True
    return not executed and process.parent is not None and is_minirt(process.parent)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_the_process_law(script: str, minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(POD)
    script = script.format(pod=shlex.quote(str(tmp_path / "pod.yaml")))
    script = f'minirt() {{ {shlex.quote(COMMAND)} "$@"; }}\n{script}'
    processes = strace.trace(tmp_path / "strace", minirt.env, "sh", "-c", script)
    who_forks_has_no_threads(processes)
    who_will_be_in_a_container_imports_nothing(processes)


def who_forks_has_no_threads(processes: dict[int, Process]) -> None:
    forks = [
        (process, call)
        for process in processes.values()
        if is_minirt(process)
        for call in process.calls
        if call.name in FORKS and not call.clone_flags & CLONE_THREAD and not processes[call.result].is_spawned
    ]
    assert len(forks) >= 3, "a zygote, a shim, and an init at least"
    for process, call in forks:
        assert process.threads_at(call.at) == 1, f"{process.pid} forks {call.result} with threads"


def who_will_be_in_a_container_imports_nothing(processes: dict[int, Process]) -> None:
    inits = [one for one in processes.values() if one.birth and one.birth.name == "clone3" and not one.is_spawned]
    assert len(inits) >= 2, "a keeper and an init at least"
    for process in inits:
        opened = [call.strings[0] for call in process.until_execve if call.name in ("open", "openat")]
        assert not [path for path in opened if path.endswith((".py", ".pyc", ".so"))]
