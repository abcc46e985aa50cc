"""The SPDY framer: what one end makes the other end reads, however it is cut; what makes no sense is an SpdyError."""

import contextlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.cri.streaming import spdy
from minirt.cri.streaming.dictionary import DICTIONARY

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
headers = st.dictionaries(names, st.text(st.characters(max_codepoint=255), max_size=50), max_size=8)
streams = st.integers(1, 0x7FFFFFFF)
frames = st.one_of(
    st.builds(spdy.Opened, streams, headers, st.booleans()),
    st.builds(spdy.Replied, streams, headers),
    st.builds(spdy.Data, streams, st.binary(max_size=200), st.booleans()),
    st.builds(spdy.Ping, st.integers(0, 0xFFFFFFFF)),
)


def encoded(encoder: spdy.Encoder, frame: spdy.Frame) -> bytes:
    match frame:
        case spdy.Opened(stream, found, fin):
            return encoder.opened(stream, found, fin=fin)
        case spdy.Replied(stream, found):
            return encoder.replied(stream, found)
        case spdy.Data(stream, content, fin):
            return spdy.data(stream, content, fin=fin)
        case spdy.Ping(number):
            return spdy.ping(number)
    return spdy.goaway(0)


def test_the_dictionary_is_spdys() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(st.lists(frames, max_size=12), st.integers(1, 64))
def test_what_is_made_is_read_however_it_is_cut(made: list[spdy.Frame], piece: int) -> None:
    encoder, decoder = spdy.Encoder(), spdy.Decoder()
    sent = b"".join(encoded(encoder, frame) for frame in made)
    pieces = [sent[at : at + piece] for at in range(0, len(sent), piece)]
    assert [frame for part in pieces for frame in decoder.feed(part)] == made


@given(st.lists(frames, max_size=6), st.data())
def test_what_was_spoilt_on_the_way_is_read_or_refused(made: list[spdy.Frame], choice: st.DataObject) -> None:
    encoder = spdy.Encoder()
    sent = bytearray(b"".join(encoded(encoder, frame) for frame in made))
    for _ in range(choice.draw(st.integers(1, 4))):
        if sent:
            sent[choice.draw(st.integers(0, len(sent) - 1))] = choice.draw(st.integers(0, 255))
    with contextlib.suppress(spdy.SpdyError):
        list(spdy.Decoder().feed(bytes(sent)))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(sent: bytes) -> None:
    with contextlib.suppress(spdy.SpdyError):
        list(spdy.Decoder().feed(sent))


@given(st.integers(1, 8), st.binary(max_size=60))
def test_any_control_frame_is_read_or_refused(kind: int, body: bytes) -> None:
    head = (1 << 31 | 3 << 16 | kind).to_bytes(4, "big") + b"\0" + len(body).to_bytes(3, "big")
    with contextlib.suppress(spdy.SpdyError):
        list(spdy.Decoder().feed(head + body))


def test_a_frame_that_is_too_large_is_refused_before_it_has_come() -> None:
    with pytest.raises(spdy.SpdyError, match="is more than"):
        list(spdy.Decoder().feed(b"\0\0\0\1\0\xff\xff\xff"))


def test_headers_that_grow_beyond_all_bounds_are_refused() -> None:
    bomb = spdy.Encoder().opened(1, {"a": "x" * (1 << 20)})
    assert len(bomb) < 10_000
    with pytest.raises(spdy.SpdyError, match="headers are more than"):
        list(spdy.Decoder().feed(bomb))


def test_another_version_is_refused() -> None:
    with pytest.raises(spdy.SpdyError, match="version 2"):
        list(spdy.Decoder().feed(b"\x80\x02\0\1\0\0\0\0"))
