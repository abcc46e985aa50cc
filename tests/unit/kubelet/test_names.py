from minirt.kubelet import names
from minirt.kubelet.node import Resolver, here, parse_resolv_conf
from tests.unit.kubelet.pods import NODE, machine, pod


def test_the_host_name_is_the_pods_cut_to_what_fits() -> None:
    assert names.hostname(pod()) == "hello"
    assert names.hostname(pod(hostname="own")) == "own"
    assert names.hostname(pod(metadata={"name": "a" * 62 + "-b"})) == "a" * 62


def test_etc_hosts_has_loopback_the_pod_and_its_aliases() -> None:
    aliases = [{"ip": "192.0.2.9", "hostnames": ["a", "b.example"]}, {"ip": "fd00::9", "hostnames": ["c"]}]
    text = names.hosts_file(pod(hostAliases=aliases), ("10.0.0.2", "fd00::2"), NODE)
    assert text.splitlines() == [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        "10.0.0.2\thello",
        "fd00::2\thello",
        "",
        "# Entries added by HostAliases.",
        "192.0.2.9\ta\tb.example",
        "fd00::9\tc",
    ]


def test_etc_hosts_is_the_hosts_with_its_network() -> None:
    text = names.hosts_file(pod(hostNetwork=True), ("192.0.2.1",), NODE)
    assert text == "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost machine\n"


def test_dns_is_the_hosts_then_the_pods() -> None:
    config = {
        "nameservers": ["192.0.2.99", "192.0.2.53"],
        "searches": ["a.example", "example.org"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    found = names.dns(pod(dnsConfig=config), NODE)
    assert list(found.servers) == ["192.0.2.53", "192.0.2.99"]
    assert list(found.searches) == ["example.org", "a.example"]
    assert list(found.options) == ["edns0", "ndots:2"]


def test_dns_of_policy_none_is_the_pods_alone() -> None:
    found = names.dns(pod(dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.99"]}), NODE)
    assert (list(found.servers), list(found.searches), list(found.options)) == (["192.0.2.99"], [], [])


def test_the_pods_option_wins_over_the_hosts() -> None:
    node = machine(resolver=Resolver(options=("ndots:1", "rotate")))
    config = {"options": [{"name": "ndots", "value": "5"}]}
    assert list(names.dns(pod(dnsConfig=config), node).options) == ["ndots:5", "rotate"]


def test_no_more_than_three_servers_are_named() -> None:
    config = {"nameservers": [f"192.0.2.{number}" for number in range(100, 105)]}
    assert len(names.dns(pod(dnsConfig=config), NODE).servers) == 3


def test_resolv_conf_is_read_as_the_c_library_does() -> None:
    text = (
        "# x\nnameserver 192.0.2.1\nsearch a b\nnameserver fe80::1%eth0 # y\nsearch c\noptions ndots:2 edns0\n\nnoise\n"
    )
    assert parse_resolv_conf(text) == Resolver(("192.0.2.1", "fe80::1%eth0"), ("c",), ("ndots:2", "edns0"))
    assert parse_resolv_conf("domain example\n") == Resolver(searches=("example",))
    assert parse_resolv_conf("nameserver\nsearch\noptions") == Resolver()


def test_this_machine_can_be_read() -> None:
    node = here()
    assert node.cpus >= 1
    assert node.memory_bytes > 1 << 20
    assert node.address.count(".") == 3
