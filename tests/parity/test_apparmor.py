"""AppArmor's profiles as docker gives them, where the kernel has AppArmor: the VM has."""

from pathlib import Path

import pytest

from minirt.security.labels import has_apparmor
from tests.command import Minirt
from tests.parity.both import IMAGE, Both

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.peer,
    pytest.mark.skipif(not has_apparmor(), reason="apparmor: not there"),
]
CURRENT = ("cat", "/proc/self/attr/apparmor/current")
OURS, THEIRS = "minirt-default (enforce)", "docker-default (enforce)"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), (THEIRS, OURS)),
        (("--privileged",), ("unconfined",) * 2),
        (("--security-opt", "apparmor=unconfined"), ("unconfined",) * 2),
    ],
)
def test_whose_profile_a_container_has(both: Both, flags: tuple[str, ...], expected: tuple[str, str]) -> None:
    theirs, ours = both.lines("--network", "none", *flags, IMAGE, *CURRENT)
    assert (theirs, ours) == ([expected[0]], [expected[1]])


def test_an_executed_command_has_its_containers(both: Both) -> None:
    for call, expected in ((both.docker, THEIRS), (both.minirt, OURS)):
        assert call("run", "-d", "--name", "one", "--network", "none", IMAGE, "sleep", "1000").returncode == 0
        assert call("exec", "one", *CURRENT).stdout.strip() == expected
    both.minirt("rm", "-f", "one")


def test_a_pod_says_which(minirt: Minirt, busybox: str, tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(f"""
apiVersion: v1
kind: Pod
metadata: {{name: which}}
spec:
  restartPolicy: Never
  hostNetwork: true
  securityContext: {{appArmorProfile: {{type: Unconfined}}}}
  containers:
    - &c {{name: pods, image: {busybox}, imagePullPolicy: Never, command: [cat, {CURRENT[1]}]}}
    - {{<<: *c, name: own, securityContext: {{appArmorProfile: {{type: RuntimeDefault}}}}}}
    - <<: *c
      name: named
      securityContext: {{appArmorProfile: {{type: Localhost, localhostProfile: minirt-default}}}}
""")
    lines = minirt.output("pod", "run", "--best-effort-limits", manifest).splitlines()
    words = {line.split()[0]: line.rpartition("| ")[2].strip() for line in lines if "|" in line}
    assert words == {"pods": "unconfined", "own": OURS, "named": OURS}
