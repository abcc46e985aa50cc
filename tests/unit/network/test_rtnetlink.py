"""Messages are encoded as the kernel reads them, and errors keep its words. The read-only part needs no root."""

import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from minirt.errors import StepFailed
from minirt.network.rtnetlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Message, Rtnetlink


@pytest.fixture
def route() -> Iterator[Rtnetlink]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        yield Rtnetlink(channel)


def header(message: Message) -> tuple[int, int, int, int]:
    length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", message.encode(7))
    assert length == len(message.encode(7))
    return kind, flags, sequence, length


def test_requests_ask_for_an_acknowledgement_and_dumps_do_not() -> None:
    assert header(Message("RTM_NEWLINK", flags=NLM_F_CREATE | NLM_F_EXCL))[:3] == (16, 0x605, 7)
    assert header(Message("RTM_GETROUTE", flags=NLM_F_DUMP))[:3] == (26, 0x301, 7)


def test_fields_and_attributes_arrive() -> None:
    data = Message("RTM_SETLINK", {"flags": 1, "change": 1}, {"IFLA_IFNAME": "eth0"}).encode(1)
    assert struct.unpack_from("=BBHiII", data, 16) == (0, 0, 0, 0, 1, 1)
    assert data.endswith(struct.pack("=HH", 9, 3) + b"eth0\0\0\0\0")


def test_a_message_is_shown_in_one_line() -> None:
    message = Message("RTM_NEWLINK", {"flags": 1}, {"IFLA_IFNAME": "a", "IFLA_LINKINFO": {"IFLA_INFO_KIND": "veth"}})
    assert str(message) == "RTM_NEWLINK flags=1 IFLA_IFNAME=a IFLA_LINKINFO=(IFLA_INFO_KIND=veth)"


def test_loopback_is_there(route: Rtnetlink) -> None:
    link = route.link("lo")
    assert link is not None
    assert (link.index, link.name, link.master) == (1, "lo", 0)
    assert route.index("lo") == 1


def test_an_interface_that_is_not_there(route: Rtnetlink) -> None:
    assert route.link("nobody0") is None
    with pytest.raises(OSError, match="nobody0") as caught:
        route.index("nobody0")
    assert caught.value.errno == errno.ENODEV


def test_a_dump_ends(route: Rtnetlink) -> None:
    assert "lo" in [link.get_attr("IFLA_IFNAME") for link in route.ask(Message("RTM_GETLINK", flags=NLM_F_DUMP))]


@pytest.mark.skipif(os.geteuid() == 0, reason="whoever is root may")
def test_the_kernel_refuses_who_may_not(route: Rtnetlink) -> None:
    with pytest.raises(PermissionError):
        route.change(Message("RTM_DELLINK", attributes={"IFLA_IFNAME": "lo"}))


@pytest.mark.root
def test_the_kernels_own_words_are_kept(route: Rtnetlink) -> None:
    """Two words for one error: the errno's, and what the kernel's extended acknowledgement adds."""
    address = {"IFA_LOCAL": "127.0.0.1", "IFA_ADDRESS": "127.0.0.1"}
    message = Message("RTM_NEWADDR", {"family": 2, "prefixlen": 8, "index": 1}, address, NLM_F_CREATE | NLM_F_EXCL)
    with pytest.raises(FileExistsError, match=r"File exists \(.*[Aa]ddress already assigned\)") as caught:
        route.change(message)
    assert "already assigned" in str(StepFailed.from_os_error("give lo an address", caught.value))


def test_only_the_messages_are_imported() -> None:
    code = "import sys; from minirt.network import rtnetlink; rtnetlink.codec(); print('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
