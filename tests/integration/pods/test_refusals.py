"""Manifests that are refused: by path and line, with the reason, before anything is touched."""

from typing import Any

import pytest

from tests import leaks
from tests.integration.lifecycle.watching import contents
from tests.integration.pods.manifests import Pods, container, manifest

pytestmark = [pytest.mark.root, pytest.mark.needs("busybox", "cgroup2_tree")]

TEXT = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
    - name: main
      image: localhost/busybox
"""


def refused(pods: Pods, pod: dict[str, Any] | str) -> str:
    """Run a pod that must be refused; return what is said. Nothing is touched."""
    before = contents(pods.minirt), leaks.look(leaks.KINDS)
    done = pods.run(pod)
    assert (done.returncode, done.stdout) == (125, "")
    assert "Traceback" not in done.stderr
    assert contents(pods.minirt) == before[0]
    assert leaks.leaks_since(before[1], leaks.KINDS) == []
    return done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("a: [", "must be valid YAML"),
        ("\tx: 1", "must be valid YAML"),
        ("- 1\n- 2\n", "it is not a mapping"),
        (TEXT + "---\n" + TEXT, "it holds 2 documents (at lines 1, 10)"),
        (TEXT + "      image: twice\n", "spec.containers[0].image is there twice, in lines 8 and 9"),
        (TEXT.replace("kind: Pod", "kind: Deployment"), "Deployment"),
        (TEXT.replace("v1", "v2"), "v2"),
        (TEXT + "      comand: [sh]\n", "spec.containers[0].comand (line 9): unknown field (did you mean command?)"),
        (TEXT + "  restartPolicy: Sometimes\n", "spec.restartPolicy (line 9): 'Sometimes' is none of"),
        (TEXT + "      command: sh\n", "spec.containers[0].command (line 9) should be a list, and is text"),
        (TEXT + "      env: [{name: A, value: 1}]\n", "should be text, and is a number (put it into quotes)"),
        (TEXT + "      resources: {limits: {memory: 64m}}\n", "did you mean 64Mi?"),
        (TEXT.replace("name: main", "name: Main"), "spec.containers[0].name (line 7): 'Main'"),
        (TEXT.replace("    - name: main\n      image", "    - image"), "spec.containers[0].name"),
        (TEXT.replace("  name: web", "  name: We_b"), "metadata.name (line 4): 'We_b'"),
        (TEXT + "      volumeMounts: [{name: away, mountPath: /x}]\n", "there is no volume 'away'"),
        (TEXT + "      ports: [{containerPort: 70000}]\n", "70000 is not a port"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(pods: Pods, text: str, said: str) -> None:
    assert said in refused(pods, text)


OF_CONTAINER = {
    "livenessProbe": {"exec": {"command": ["true"]}},
    "readinessProbe": {"tcpSocket": {"port": 1}},
    "startupProbe": {},
    "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
    "envFrom": [{"configMapRef": {"name": "x"}}],
    "securityContext": {"seLinuxOptions": {"level": "s0"}},
    "volumeMounts": [{"name": "work", "mountPath": "/work", "subPath": "x"}],
    "terminationMessagePath": "/x",
    "restartPolicy": "Always",
}


@pytest.mark.parametrize("field", OF_CONTAINER)
def test_what_a_container_cannot_have_yet_is_refused_by_name(pods: Pods, field: str) -> None:
    path = {"securityContext": "securityContext.seLinuxOptions", "volumeMounts": "volumeMounts[0].subPath"}.get(field)
    main = container("main", "true", **{field: OF_CONTAINER[field]})
    said = refused(pods, manifest(main, volumes=[{"name": "work", "emptyDir": {}}]))
    assert f"spec.containers[0].{path or field} (line " in said
    assert "is not supported yet by minirt (remove it)" in said


OF_POD = {
    "activeDeadlineSeconds": 5,
    "securityContext": {"fsGroupChangePolicy": "Always"},
    "volumes": [{"name": "x", "configMap": {"name": "x"}}],
    "nodeSelector": {"disk": "ssd"},
    "ephemeralContainers": [],
}


@pytest.mark.parametrize("field", OF_POD)
def test_what_a_pod_cannot_have_yet_is_refused_by_name(pods: Pods, field: str) -> None:
    path = {"securityContext": "securityContext.fsGroupChangePolicy", "volumes": "volumes[0].configMap"}.get(field)
    said = refused(pods, manifest(container("main", "true"), **{field: OF_POD[field]}))
    assert f"spec.{path or field} (line " in said
    assert "is not supported yet by minirt (remove it)" in said


def test_what_means_nothing_outside_of_a_cluster_is_told_and_passed_over(pods: Pods) -> None:
    done = pods.run(manifest(container("main", "echo ran"), serviceAccountName="x", priorityClassName="y"))
    assert (done.returncode, done.stdout) == (0, "main | ran\n")
    for field in ("serviceAccountName", "priorityClassName"):
        assert f"spec.{field} (line " in done.stderr
    assert "passed over" in done.stderr


def test_everything_that_is_wrong_is_said_at_once(pods: Pods) -> None:
    said = refused(pods, TEXT + "      comand: [sh]\n      livenessProbe: {}\n  restartPolicy: Once\n")
    for word in ("comand", "livenessProbe", "restartPolicy"):
        assert word in said


def test_a_manifest_that_is_not_there_and_one_from_stdin(pods: Pods) -> None:
    done = pods.minirt("pod", "run", "/no/such/pod.yaml")
    assert (done.returncode, "/no/such/pod.yaml" in done.stderr) == (125, True)
    assert "Traceback" not in done.stderr
    path = pods.write(manifest(container("main", "echo from stdin")))
    done = pods.minirt("pod", "run", "-", stdin=path.read_text())
    assert (done.returncode, done.stdout) == (0, "main | from stdin\n")


def test_a_name_that_is_taken_is_refused(pods: Pods) -> None:
    pods.detached(manifest(container("main", "sleep 1000")))
    done = pods.run(manifest(container("main", "true")))
    assert done.returncode == 125
    assert "cannot run the pod web: a pod of this name exists (minirt pod stop web)" in done.stderr
    assert pods.row()["STATUS"] == "Running"
    pods.minirt.output("pod", "rm", "-f", "web")
