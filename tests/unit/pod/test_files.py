import pytest

from minirt.pod.files import hosts, resolv_conf

HOST = "nameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\nsearch example.org\n"


def test_localhost_and_the_pods_own_name() -> None:
    lines = hosts(("10.0.0.2", "fd00::2"), "web", (("192.0.2.7", "db"),)).splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    assert lines[-2:] == ["fd00::2\tweb", "192.0.2.7\tdb"]


@pytest.mark.parametrize(("name", "last"), [("web", "127.0.1.1\tweb"), ("", "ff02::2\tip6-allrouters")])
def test_without_an_address(name: str, last: str) -> None:
    assert hosts((), name, ()).splitlines()[-1] == last


def test_what_was_asked_for_replaces_the_hosts() -> None:
    text = resolv_conf(HOST, ("192.0.2.9",), ("a.test", "b.test"), ("ndots:5",), isolated=True)
    assert text == "nameserver 192.0.2.9\nsearch a.test b.test\noptions ndots:5\n"


def test_a_resolver_of_the_hosts_loopback_is_out_of_reach() -> None:
    assert resolv_conf(HOST, (), (), (), isolated=True) == "nameserver 192.0.2.1\nsearch example.org\n"
    assert resolv_conf(HOST, (), (), (), isolated=False) == HOST
