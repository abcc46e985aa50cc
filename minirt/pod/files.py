"""The files that the containers of a pod share: /etc/hosts, /etc/hostname, /etc/resolv.conf. Pure text."""

from collections.abc import Sequence

LOCAL_HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
"""As docker writes it."""


def hosts(addresses: Sequence[str], hostname: str, extra: tuple[tuple[str, str], ...]) -> str:
    """Return /etc/hosts: localhost, the pod's own name at its addresses, and (address, name) pairs."""
    own = "".join(f"{address}\t{hostname}\n" for address in addresses or ("127.0.1.1",)) if hostname else ""
    return (
        "# Kept by minirt: the same for every container of the pod.\n"
        + LOCAL_HOSTS
        + own
        + "".join(f"{at}\t{name}\n" for at, name in extra)
    )


def resolv_conf(
    host: str, servers: tuple[str, ...], searches: tuple[str, ...], options: tuple[str, ...], *, isolated: bool
) -> str:
    """Return /etc/resolv.conf: what was asked for, else the host's text.

    A resolver on the host's loopback (systemd-resolved, dnsmasq) cannot be reached from a pod's own network: such
    lines are left out where ``isolated``.
    """
    if servers or searches or options:
        lines = [f"nameserver {server}" for server in servers]
        lines += [f"search {' '.join(searches)}"] if searches else []
        lines += [f"options {' '.join(options)}"] if options else []
        return "\n".join(lines) + "\n"
    lines = [line for line in host.splitlines() if not (isolated and _is_loopback(line))]
    return "\n".join(lines) + "\n"


def _is_loopback(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == "nameserver" and (words[1].startswith("127.") or words[1] == "::1")
