"""Death before and after every step: of the command line, the zygote, the shim and its helpers, and init.

After each death the user removes what is listed and prunes; then no process, mount, link, cgroup, rule or file is left
that was not there before. What is tried is every step of the stage, but where the lab says otherwise (``lab.Sample``).
"""

from pathlib import Path

import pytest

from tests.integration.crash.lab import POD, Lab, Scenario, one_of_each

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("cgroup2_tree", "nft", "busybox")]
START = ("run -d --name web --network none localhost/busybox sh -c 'trap exit TERM; sleep 60 & wait'",)


def check(lab: Lab, found: list[str]) -> None:
    """Say how many deaths there were, and that nothing is left of any."""
    print(f"{lab.tried} deaths")
    assert not found, "\n".join(found)
    assert lab.tried


@pytest.mark.parametrize("stage", ["cli", "zygote", "shim", "keeper", "init"])
def test_a_run_without_a_network(lab: Lab, stage: str) -> None:
    run = Scenario("run --rm --network none localhost/busybox true")
    check(lab, lab.die_everywhere(run, stage))


@pytest.mark.parametrize("stage", ["cli", "shim", "keeper"])
def test_a_run_on_the_bridge(lab: Lab, stage: str) -> None:
    """Init and the zygote do on the bridge what they do without a network."""
    check(lab, lab.die_everywhere(Scenario("run --rm -p 8080:80 localhost/busybox true"), stage))


@pytest.mark.parametrize("stage", ["cli", "shim"])
def test_between_any_two_changes_of_files(lab: Lab, stage: str) -> None:
    """No step of the journal, and yet a moment to die at: each change of a state file, a name or a layer."""
    run = Scenario("run --rm --name web --network none localhost/busybox true")
    check(lab, lab.die_everywhere(run, stage, files=True))


@pytest.mark.parametrize(
    ("stage", "commands"),
    [
        ("shim", ["stop -t0 web"]),
        ("shim", ["stop -t5 web"]),
        ("shim", ["kill web", "wait web"]),
        ("cli", ["rm -f web"]),
        ("shim", ["rm -f web"]),
        ("shim", ["exec web true"]),
        ("init", ["exec web true"]),
    ],
)
def test_what_is_done_to_a_container(lab: Lab, commands: list[str], stage: str) -> None:
    check(lab, lab.die_everywhere(Scenario(*commands, first=START), stage))


def test_a_command_in_a_user_namespace(lab: Lab) -> None:
    """A stage joins that one; elsewhere the shim clones the process itself."""
    start = START[0].replace("run -d", "run -d --userns auto")
    check(lab, lab.die_everywhere(Scenario("exec web true", first=(start,)), "stage"))


@pytest.mark.parametrize("stage", ["zygote", "shim", "keeper", "pause", "stage", "init"])
def test_a_pod_in_the_hosts_network(lab: Lab, tmp_path: Path, stage: str) -> None:
    """Two containers that share a PID namespace, a volume on disk and one in memory."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(POD % "true")
    sampled = one_of_each if stage == "init" else None
    check(lab, lab.die_everywhere(Scenario(f"pod run --backoff-cap 0.1 {manifest}"), stage, sampled=sampled))


@pytest.mark.parametrize("files", [False, True], ids=["steps", "files"])
def test_the_command_line_of_a_pod_on_the_bridge(lab: Lab, tmp_path: Path, files: bool) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(POD % "false")
    check(lab, lab.die_everywhere(Scenario(f"pod run --backoff-cap 0.1 {manifest}"), "cli", files=files))


@pytest.mark.parametrize("stage", ["cli", "shim"])
@pytest.mark.parametrize("command", ["pod stop web", "pod rm -f web"])
def test_what_is_done_to_a_pod(lab: Lab, tmp_path: Path, command: str, stage: str) -> None:
    """In the stage "cli" die both the command line and the pod's worker: whoever of them comes first to the step."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text((POD % "true").replace('["true"]', '["sleep", "60"]'))
    first = [f"pod run -d {manifest}", "pod exec web true"]
    check(lab, lab.die_everywhere(Scenario(command, first=first), stage))
