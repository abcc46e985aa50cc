"""What a pod's objects are called: /etc/hosts and resolv.conf as text and message, the hostname.

Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
"""

from collections.abc import Iterable

from minirt.crimessages import api_pb2 as cri
from minirt.kubelet.manifest import DnsConfig, Pod
from minirt.kubelet.node import Node, Resolver

MAX_SERVERS = 3
"""The C library reads no more. Source: resolv.conf(5), MAXNS."""

_LOOPBACK = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hostname(pod: Pod) -> str:
    """Return the pod's host name: its own or the pod's, cut to what the kernel takes (64 with the zero)."""
    return pod.spec.hostname or pod.metadata.name[:63].rstrip("-.")


def hosts_file(pod: Pod, pod_ips: tuple[str, ...], node: Node) -> str:
    """Return the pod's /etc/hosts, word for word as Kubernetes writes it: programs look for its first line."""
    if pod.spec.host_network:
        text = f"# Kubernetes-managed hosts file (host network).\n{node.hosts.rstrip()}\n"
    else:
        own = "".join(f"{address}\t{hostname(pod)}\n" for address in pod_ips)
        text = f"# Kubernetes-managed hosts file.\n{_LOOPBACK}{own}"
    aliases = "".join("\t".join((alias.ip, *alias.hostnames)) + "\n" for alias in pod.spec.host_aliases)
    return f"{text}\n# Entries added by HostAliases.\n{aliases}" if aliases else text


def dns(pod: Pod, node: Node) -> cri.DNSConfig:
    """Return the pod's resolv.conf: the host's, for there is no cluster's, then the pod's own words."""
    base = Resolver() if pod.spec.dns_policy == "None" else node.resolver
    own = pod.spec.dns_config
    return cri.DNSConfig(
        servers=_once((*base.servers, *own.nameservers))[:MAX_SERVERS],
        searches=_once((*base.searches, *own.searches)),
        options=_options(base.options, own),
    )


def _once(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _options(base: tuple[str, ...], own: DnsConfig) -> list[str]:
    """Return the options, where the pod's win over the host's of the same name."""
    merged = {name: value for name, _, value in (option.partition(":") for option in base)}
    merged |= {option.name: option.value for option in own.options}
    return [f"{name}:{value}" if value else name for name, value in merged.items()]
