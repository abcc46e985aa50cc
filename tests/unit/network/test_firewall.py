"""Which rules are rendered, and which are missing from what iptables lists."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from minirt.network.firewall import Forward, accept_rules, ruleset, to_add, to_remove
from minirt.network.settings import BridgeSettings, PortMapping

SETTINGS = BridgeSettings("minirt0", IPv4Network("10.77.0.0/16"), prefix6=None)
DUAL = BridgeSettings("minirt0", IPv4Network("10.77.0.0/16"), prefix6=IPv6Network("fd00:1::/96"))
EMPTY = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n"
DROPPING = EMPTY.replace("FORWARD ACCEPT", "FORWARD DROP")
DOCKER = DROPPING + "-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n"


def listed(chain: str, bridge: str = "minirt0") -> str:
    """Return our rules as iptables -S lists them: with its quotes."""
    rules = [rule.replace(f"minirt:{bridge}", f'"minirt:{bridge}"') for rule in accept_rules(bridge)]
    return "".join(f"-A {chain} {rule}\n" for rule in rules)


def test_nothing_is_added_where_nothing_is_filtered() -> None:
    assert to_add(EMPTY, "minirt0") == []
    assert to_add("", "minirt0") == []


def test_rules_go_to_forward_where_it_drops() -> None:
    added = to_add(DROPPING, "minirt0")
    assert [line.split(" -m ")[0] for line in added] == ["-I FORWARD -o minirt0"] * 2 + ["-I FORWARD -i minirt0"]
    assert all("minirt:minirt0 -j ACCEPT" in line for line in added)


def test_rules_go_to_forward_where_it_has_other_rules() -> None:
    assert len(to_add(EMPTY + "-A FORWARD -i eth0 -j REJECT\n", "minirt0")) == 3


def test_dockers_chain_is_preferred_where_it_is_used() -> None:
    assert all(line.startswith("-I DOCKER-USER ") for line in to_add(DOCKER, "minirt0"))
    unused = DOCKER.replace("-A FORWARD -j DOCKER-USER\n", "")
    assert all(line.startswith("-I FORWARD ") for line in to_add(unused, "minirt0"))


def test_nothing_is_added_twice() -> None:
    assert to_add(DOCKER + listed("DOCKER-USER"), "minirt0") == []
    assert to_add(DROPPING + listed("FORWARD"), "minirt0") == []


def test_what_is_left_of_the_rules_is_replaced_whole() -> None:
    torn = listed("DOCKER-USER").splitlines()[1] + "\n"
    added = to_add(DOCKER + torn, "minirt0")
    assert [line.split()[0] for line in added] == ["-D", "-I", "-I", "-I"]


def test_rules_move_when_docker_comes() -> None:
    added = to_add(DOCKER + listed("FORWARD"), "minirt0")
    assert [line.split()[:2] for line in added] == [["-D", "FORWARD"]] * 3 + [["-I", "DOCKER-USER"]] * 3


def test_only_our_own_rules_do_not_make_forward_filtered() -> None:
    assert to_add(EMPTY + listed("FORWARD"), "minirt0") == []


def test_only_rules_of_this_bridge_are_removed() -> None:
    both = DROPPING + listed("FORWARD") + listed("FORWARD", "minirt01")
    assert to_remove(both, "minirt0") == [f"-D FORWARD {rule}" for rule in accept_rules("minirt0")]
    assert to_remove(DOCKER, "minirt0") == []


def test_without_ports_the_table_only_masquerades() -> None:
    text = ruleset(SETTINGS, [])
    assert "ip saddr 10.77.0.0/16 ip daddr != 10.77.0.0/16 masquerade" in text
    assert "dnat" not in text
    assert text.count("chain") == 1


def test_ports_lead_to_their_sandboxes() -> None:
    everywhere = Forward(PortMapping(8080, 80), IPv4Address("10.77.0.2"))
    local = Forward(PortMapping(53, 5353, "udp", "127.0.0.1"), IPv4Address("10.77.0.3"))
    text = ruleset(SETTINGS, [everywhere, local])
    assert text.count("fib daddr type local tcp dport 8080 dnat ip to 10.77.0.2:80") == 2
    assert text.count("ip daddr 127.0.0.1 udp dport 53 dnat ip to 10.77.0.3:5353") == 2
    assert 'iifname "minirt0" ip daddr 127.0.0.0/8 drop' in text


def test_ipv6_has_its_own_rules() -> None:
    to, to6 = IPv4Address("10.77.0.2"), IPv6Address("fd00:1::a4d:2")
    text = ruleset(DUAL, [Forward(PortMapping(80, 80, "tcp", "::"), to, to6), Forward(PortMapping(81, 81), to, to6)])
    assert "ip6 saddr fd00:1::a4d:0/112 ip6 daddr != fd00:1::a4d:0/112 masquerade" in text
    assert "tcp dport 80 dnat ip to" not in text
    assert text.count("tcp dport 80 dnat ip6 to [fd00:1::a4d:2]:80") == 2
    assert text.count("tcp dport 81 dnat ip to 10.77.0.2:81") == text.count("tcp dport 81 dnat ip6 to") == 2
