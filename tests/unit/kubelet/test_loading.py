import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.errors import InvalidInput, Unsupported
from minirt.kubelet import loading
from tests.unit.kubelet.pods import UID, container, document, pod

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n"


def refusal(text: str, kind: type[InvalidInput] = InvalidInput) -> str:
    with pytest.raises(kind) as error:
        loading.loads(text, "pod.yaml")
    assert type(error.value) is kind
    return str(error.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads_without_a_word(path: Path) -> None:
    said: list[str] = []
    assert loading.load(path, said.append).spec.containers
    assert said == []


def test_defaults_are_those_of_kubernetes() -> None:
    found = loading.loads(HEAD + "spec: {containers: [{name: a, image: b}]}", "x")
    assert (found.metadata.namespace, found.spec.restart_policy) == ("default", "Always")
    assert found.spec.termination_grace_period_seconds == 30
    assert found.spec.dns_policy == "ClusterFirst"
    assert len(found.uid) == 36


def test_what_kubectl_writes_by_itself_is_no_error() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels: {run: x}
  name: x
spec:
  containers:
  - image: nginx
    name: x
    resources: {}
    command: null
  dnsPolicy: ClusterFirst
  restartPolicy: Always
status: {}
"""
    assert loading.loads(text, "x").metadata.labels == {"run": "x"}


def test_a_pod_is_the_same_after_a_round_trip() -> None:
    before = pod(
        container(
            resources={"limits": {"cpu": "250m", "memory": "64Mi"}},
            env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}}],
            ports=[{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}],
        ),
        hostPID=True,
        metadata={"labels": {"a/b": "c"}, "annotations": {"when": "2024-01-01"}},
    )
    assert loading.loads(loading.dumps(before), "x") == before


def test_an_unknown_field_is_named_with_its_line_and_its_neighbour() -> None:
    said = refusal(HEAD + "spec:\n  containers:\n  - name: a\n    image: b\n    imagePullpolicy: Never\n")
    assert said == (
        "cannot use pod.yaml: spec.containers[0].imagePullpolicy (line 8): unknown field "
        "(did you mean imagePullPolicy?)"
    )


def test_a_misspelt_unsupported_field_is_pointed_at_its_right_name() -> None:
    assert "(did you mean livenessProbe?)" in refusal(document(container(livenesProbe={})))


def test_a_name_like_no_other_gets_no_advice() -> None:
    assert refusal(document(container(zzz=1))).endswith("unknown field")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (document(container(livenessProbe={"exec": {}})), "spec.containers[0].livenessProbe"),
        (document(container(lifecycle={})), "spec.containers[0].lifecycle"),
        (document(container(envFrom=[])), "spec.containers[0].envFrom"),
        (document(initContainers=[container("i", restartPolicy="Always")]), "spec.initContainers[0].restartPolicy"),
        (document(affinity={}), "spec.affinity"),
        (document(nodeSelector={"a": "b"}), "spec.nodeSelector"),
        (document(overhead={"cpu": "1"}), "spec.overhead"),
        (document(volumes=[{"name": "c", "configMap": {"name": "c"}}]), "spec.volumes[0].configMap"),
        (document(volumes=[{"name": "c", "secret": {}}]), "spec.volumes[0].secret"),
        (
            document(container(securityContext={"procMount": "Unmasked"})),
            "spec.containers[0].securityContext.procMount",
        ),
        (document(securityContext={"seLinuxOptions": {}}), "spec.securityContext.seLinuxOptions"),
        (
            document(container(resources={"limits": {"ephemeral-storage": "1Gi"}})),
            "spec.containers[0].resources.limits.ephemeral-storage",
        ),
        (
            document(container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])),
            "spec.containers[0].env[0].valueFrom.secretKeyRef",
        ),
    ],
)
def test_what_is_not_offered_is_refused_by_name(text: str, path: str) -> None:
    said = refusal(text, Unsupported)
    assert f"{path} (line " in said
    assert said.endswith("is not supported yet by minirt (remove it)")


def test_a_null_is_no_request() -> None:
    assert pod(container(livenessProbe=None)).spec.containers[0].name == "main"


def test_an_unsafe_sysctl_is_not_supported() -> None:
    said = refusal(document(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), Unsupported)
    assert "kernel.msgmax is not among the safe sysctls" in said


def test_fields_for_a_scheduler_are_passed_over_aloud() -> None:
    said: list[str] = []
    text = HEAD + "spec:\n  tolerations: []\n  schedulerName: x\n  containers: [{name: a, image: b}]\n"
    loading.loads(text, "x", said.append)
    assert said == [
        "spec.tolerations (line 5) means nothing outside of a cluster: passed over",
        "spec.schedulerName (line 6) means nothing outside of a cluster: passed over",
    ]


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = refusal(document(container(livenessProbe={}, imag="x", imagePullPolicy="always")))
    assert "3 things in it are wrong" in said
    assert "imag (line 11): unknown field; did you mean image?" in said
    assert "'always' is none of Always, IfNotPresent, Never; did you mean Always?" in said
    assert "livenessProbe (line 10) is not supported yet by minirt; remove it" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (document(container(env=[{"name": "A", "value": 5}])), "should be text, and is a number (put it into quotes)"),
        (document(container(env=[{"name": "A", "value": True}])), "and is true or false (put it into quotes)"),
        (document(container(command="ls -l")), "command (line 10) should be a list, and is text"),
        (document(container(tty="yes")), "should be true or false, and is text"),
        (document(terminationGracePeriodSeconds="5"), "should be a whole number, and is text"),
        (document({"name": "a"}), "spec.containers[0].image (line 8) is missing"),
        (document(volumes={"name": "x"}), "spec.volumes (line 10) should be a list"),
        (document(container(resources={"limits": {"memory": "64MB"}})), "did you mean 64M?"),
        (HEAD, "spec is missing"),
        (HEAD.replace("name: x", "namespace: y") + "spec: {containers: []}", "metadata.name (line 3) is missing"),
    ],
)
def test_types_are_explained(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("---\n---\n", "it is empty"),
        ("just words", "is not a mapping"),
        ("- a\n- b", "is not a mapping"),
        ("kind: Pod", "apiVersion is missing"),
        ("apiVersion: v1", "kind is missing"),
        ("a: [", "line 2, column 1"),
        ("a: b\n\tc: d", "line 2"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        (HEAD + "spec: &s {containers: [*s]}", "contains itself"),
        (HEAD + "spec: {}\nspec: {}", "spec is there twice, in lines 4 and 5"),
        (HEAD + "spec:\n  hostPID: true\n  hostPID: false", "spec.hostPID is there twice, in lines 5 and 6"),
        (HEAD + "spec: {}\n---\n" + HEAD, "it holds 2 documents (at lines 1, 6)"),
        ("a: \x00", "must be valid YAML"),
    ],
)
def test_what_is_no_document_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


def test_billions_of_aliases_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 100000 values" in refusal("\n".join(lines))


def test_another_kind_is_not_supported() -> None:
    said = refusal("apiVersion: apps/v1\nkind: Deployment\nspec: {}", Unsupported)
    assert "kind (line 2) is Deployment of apps/v1" in said


def test_a_merge_key_is_yaml_and_works() -> None:
    text = (
        HEAD + "spec:\n  containers:\n  - &base {name: a, image: b, tty: true}\n  - {<<: *base, name: c, tty: false}\n"
    )
    first, second = loading.loads(text, "x").spec.containers
    assert (first.name, first.tty) == ("a", True)
    assert (second.name, second.tty, second.image) == ("c", False, "b")


def test_a_date_stays_text() -> None:
    assert pod(metadata={"labels": {"day": "2024-01-01"}}).metadata.labels == {"day": "2024-01-01"}
    text = (
        HEAD.replace("{name: x}", "{name: x, labels: {day: 2024-01-01}}") + "spec: {containers: [{name: a, image: b}]}"
    )
    assert loading.loads(text, "x").metadata.labels == {"day": "2024-01-01"}


def test_files_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(document())
    assert loading.load(path).uid == UID
    monkeypatch.setattr("sys.stdin", io.StringIO(document()))
    assert loading.load("-").uid == UID
    with pytest.raises(InvalidInput, match="No such file"):
        loading.load(tmp_path / "absent.yaml")
    path.write_bytes(b"kind: \xff")
    with pytest.raises(InvalidInput, match="not UTF-8 at byte 6"):
        loading.load(path)


@given(st.text(max_size=200))
def test_any_text_is_a_pod_or_invalid_input(text: str) -> None:
    with pytest.raises(InvalidInput):
        loading.loads(text, "x")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["containers", "volumes", "securityContext", "dnsConfig", "hostAliases", "initContainers"])


@given(st.dictionaries(FIELDS, PLAIN, max_size=3))
def test_any_spec_is_a_pod_or_invalid_input(spec: dict[str, object]) -> None:
    try:
        loading.loads(document(**spec), "x")
    except InvalidInput as error:
        assert str(error).startswith("cannot ")
