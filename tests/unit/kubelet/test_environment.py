import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.kubelet.environment import expand, variables
from tests.unit.kubelet.pods import NODE, UID, container, pod


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "12"),
        ("$(NO)", "$(NO)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$A ${A}", "$A ${A}"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$(A B)", "$(A B)"),
        ("$", "$"),
        ("a$", "a$"),
        ("$(date)", "$(date)"),
        ("$((1 + 1))", "$((1 + 1))"),
        ("cost: 5$", "cost: 5$"),
        ("$x$(A)", "$x1"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_a_dollar_stays(text: str) -> None:
    assert expand(text, {"A": "1"}) == text


@given(st.text())
def test_escaping_every_dollar_undoes_expansion(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


def found(*env: dict[str, object], ips: tuple[str, ...] = ("10.0.0.2",), **spec: object) -> dict[str, str]:
    meta = {"labels": {"app.example/name": "web"}, "annotations": {"note": "n"}}
    limits = {"resources": {"requests": {"memory": "32Mi"}, "limits": {"cpu": "1500m", "memory": "64Mi"}}}
    made = pod(container(env=list(env), **limits), container("other"), metadata=meta, **spec)
    return variables(made, made.spec.containers[0], ips, NODE)


def field(path: str) -> dict[str, object]:
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def amount(resource: str, **more: str) -> dict[str, object]:
    return {"name": "X", "valueFrom": {"resourceFieldRef": {"resource": resource} | more}}


def test_a_value_refers_to_those_before_it() -> None:
    env = [
        {"name": "LATE", "value": "$(EARLY)"},
        {"name": "EARLY", "value": "e"},
        {"name": "TWO", "value": "$(EARLY)!"},
    ]
    assert found(*env) == {"LATE": "$(EARLY)", "EARLY": "e", "TWO": "e!"}


def test_a_name_given_twice_has_its_last_value() -> None:
    assert found({"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}) == {"A": "12"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "hello"),
        ("metadata.namespace", "default"),
        ("metadata.uid", UID),
        ("metadata.labels['app.example/name']", "web"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['note']", "n"),
        ("spec.nodeName", "machine"),
        ("status.hostIP", "192.0.2.1"),
        ("status.podIP", "10.0.0.2"),
        ("status.podIPs", "10.0.0.2"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert found(field(path)) == {"X": value}


def test_addresses_of_a_pod_with_two_or_none_or_the_hosts() -> None:
    assert found(field("status.podIPs"), ips=("10.0.0.2", "fd00::2")) == {"X": "10.0.0.2,fd00::2"}
    assert found(field("status.podIP"), ips=()) == {"X": ""}
    assert found(field("status.podIP"), ips=(), hostNetwork=True) == {"X": "192.0.2.1"}


@pytest.mark.parametrize(
    ("env", "value"),
    [
        (amount("limits.cpu"), "2"),
        (amount("limits.cpu", divisor="1m"), "1500"),
        (amount("limits.memory"), str(64 << 20)),
        (amount("limits.memory", divisor="1Mi"), "64"),
        (amount("requests.memory", divisor="1Mi"), "32"),
        (amount("requests.cpu"), "2"),
        (amount("limits.cpu", containerName="other"), "4"),
        (amount("limits.memory", containerName="other", divisor="1Gi"), "4"),
        (amount("requests.memory", containerName="other"), "0"),
        (amount("limits.memory", divisor="0"), str(64 << 20)),
    ],
)
def test_amounts_are_counted_in_divisors_and_rounded_up(env: dict[str, object], value: str) -> None:
    assert found(env) == {"X": value}
