"""rtnetlink: requests to the kernel's network configuration, over a socket of this or of another network namespace.

pyroute2 knows the messages; the conversation is here. Its own sockets run an event loop each, which cannot be entered
from inside another, and importing them costs 70 ms more than the messages do (30 ms, at the first message). For the
same reason its package's ``__init__``, which imports all of it, is not run.

    request: sendmsg(RTM_…, NLM_F_REQUEST|NLM_F_ACK) ─▶ kernel ─▶ RTM_NEW…* NLMSG_ERROR(0) or NLMSG_ERROR(-errno, text)
    dump:    sendmsg(RTM_GET…, NLM_F_REQUEST|NLM_F_DUMP)    ─▶ RTM_NEW…* NLMSG_DONE

A socket belongs to the network namespace that it was opened in, whoever holds it: a stage opens one in the sandbox's
and passes it out. Source: netlink(7), rtnetlink(7).
"""

import errno
import fcntl
import functools
import importlib.util
import os
import socket
import struct
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from msgspec import Struct, field

from minirt import journal

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLMSG_DONE = 3
SOL_NETLINK = 270
NETLINK_EXT_ACK = 11
SIOCGIFINDEX = 0x8933
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFF_UP = 1
RT_TABLE_MAIN = 254


class Codec(NamedTuple):
    """pyroute2's part: the class and the number of each message, and what reads an answer."""

    classes: dict[str, type]
    numbers: dict[str, int]
    marshal: Any


@functools.cache
def codec() -> Codec:
    """Import pyroute2's message classes, and only those."""
    if "pyroute2" not in sys.modules and (found := importlib.util.find_spec("pyroute2")):
        package = ModuleType("pyroute2")
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules["pyroute2"] = package
    from pyroute2.netlink import rtnl
    from pyroute2.netlink.marshal import Marshal
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    kinds = {"LINK": ifinfmsg, "ADDR": ifaddrmsg, "ROUTE": rtmsg}
    classes = {f"RTM_{verb}{noun}": kinds[noun] for noun in kinds for verb in ("NEW", "DEL", "GET", "SET")}
    numbers = {name: getattr(rtnl, name) for name in classes if hasattr(rtnl, name)}
    marshal = Marshal()
    marshal.msg_map = {number: classes[name] for name, number in numbers.items()}
    return Codec(classes, numbers, marshal)


class Message(Struct, frozen=True):
    """One request, before it is encoded: the header's fields and the attributes, nested ones as mappings.

    The names are the kernel's (and pyroute2's): ``Message("RTM_SETLINK", {"flags": IFF_UP}, {"IFLA_IFNAME": "eth0"})``.
    """

    kind: str
    fields: Mapping[str, int] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    flags: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {_shown({**self.fields, **self.attributes})}"

    def encode(self, sequence: int) -> bytes:
        """Return the message as bytes for the kernel."""
        message = codec().classes[self.kind]()
        for name, value in self.fields.items():
            message[name] = value
        message["attrs"] = _nested(self.attributes)
        flags = NLM_F_REQUEST | self.flags | (0 if self.flags & NLM_F_DUMP == NLM_F_DUMP else NLM_F_ACK)
        kind = codec().numbers[self.kind]
        message["header"] = {"type": kind, "flags": flags, "sequence_number": sequence, "pid": 0}
        message.encode()
        return bytes(message.data)


def _nested(attributes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, {"attrs": _nested(value)} if isinstance(value, Mapping) else value) for name, value in attributes.items()
    ]


def _shown(values: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name}=({_shown(value)})" if isinstance(value, Mapping) else f"{name}={value}"
        for name, value in values.items()
    )


class Link(Struct, frozen=True):
    """An interface, as far as anybody here asks."""

    index: int
    name: str
    kind: str
    mac: str
    master: int
    operational: bool


class Rtnetlink:
    """A conversation over one NETLINK_ROUTE socket. The socket stays its opener's, who closes it."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(True)
        channel.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._channel = channel
        self._sequence = 0

    def change(self, message: Message) -> None:
        """Have the kernel change something.

        Raises:
            OSError: the kernel's errno, with its own words (extended ACK) where it gives any.
        """
        journal.step("netlink", self._converse, message)

    def ask(self, message: Message) -> list[Any]:
        """Return what the kernel answers to a RTM_GET message. Raises OSError as ``change`` does."""
        return self._converse(message)

    def link(self, name: str) -> Link | None:
        """Return the interface of that name, or None."""
        query = {"IFLA_IFNAME": name, "IFLA_EXT_MASK": RTEXT_FILTER_SKIP_STATS}
        try:
            return _link(self.ask(Message("RTM_GETLINK", attributes=query))[0])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def index(self, name: str) -> int:
        """Return the index of an interface. Raises OSError: ENODEV.

        An ioctl answers in the socket's namespace, too, and in a tenth of the time. Source: netdevice(7), SIOCGIFINDEX.
        """
        try:
            answer = fcntl.ioctl(self._channel, SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from error
        return int(struct.unpack_from("=i", answer, 16)[0])

    def ports_of(self, bridge: Link) -> list[Link]:
        """Return the interfaces that are ports of a bridge."""
        query = {"IFLA_MASTER": bridge.index, "IFLA_EXT_MASK": RTEXT_FILTER_SKIP_STATS}
        found = self.ask(Message("RTM_GETLINK", attributes=query, flags=NLM_F_DUMP))
        return [link for link in map(_link, found) if link.master == bridge.index]

    def _converse(self, message: Message) -> list[Any]:
        self._sequence += 1
        self._channel.send(message.encode(self._sequence))
        answers: list[Any] = []
        while not self._receive(answers):
            pass
        return answers

    def _receive(self, answers: list[Any]) -> bool:
        """Add one datagram's messages to ``answers``; say whether the kernel has answered in full."""
        for answer in codec().marshal.parse(self._channel.recv(1 << 16)):
            header = answer["header"]
            if header["sequence_number"] != self._sequence:
                continue
            if header["error"]:
                raise _os_error(header["error"])
            if header["type"] in (NLMSG_ERROR, NLMSG_DONE):
                return True
            answers.append(answer)
        return False


def _link(answer: Any) -> Link:
    kind = answer.get(("linkinfo", "kind")) or ""
    mac, master = answer.get_attr("IFLA_ADDRESS") or "", answer.get_attr("IFLA_MASTER") or 0
    up = answer.get_attr("IFLA_OPERSTATE") == "UP"
    return Link(answer["index"], answer.get_attr("IFLA_IFNAME"), kind, mac, master, up)


def _os_error(error: Any) -> OSError:
    """Return pyroute2's error as an OSError: the errno's words, and the kernel's own where it gave any."""
    number, text = error.args[:2]
    words = os.strerror(number)
    return OSError(number, words if text == words else f"{words} ({text})")
