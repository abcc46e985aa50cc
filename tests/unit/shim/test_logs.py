import re
from pathlib import Path

import pytest

from minirt.shim.logs import MAX_LINE, LogWriter

LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) (P|F) (.*)")


def records(path: Path) -> list[tuple[str, str, bytes]]:
    """Return (stream, P or F, content) of every record; each must be as the CRI has it."""
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        match = LINE.fullmatch(line)
        assert match, line
        found.append((match[1].decode(), match[2].decode(), match[3]))
    return found


def written(path: Path, *pieces: bytes) -> list[tuple[str, bytes]]:
    log = LogWriter(path)
    for piece in pieces:
        log.write("stdout", piece)
    log.close()
    return [(kind, content) for _, kind, content in records(path)]


FULL = b"x" * MAX_LINE


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ((b"one\ntwo\n",), [("F", b"one"), ("F", b"two")]),
        ((b"o", b"ne", b"\n"), [("F", b"one")]),
        ((b"\n\n",), [("F", b""), ("F", b"")]),
        ((b"no end",), [("F", b"no end")]),
        ((b"a\nb",), [("F", b"a"), ("F", b"b")]),
        ((FULL + b"\n",), [("F", FULL)]),
        ((FULL, b"\n"), [("F", FULL)]),
        ((FULL,), [("F", FULL)]),
        ((FULL + b"y\n",), [("P", FULL), ("F", b"y")]),
        ((FULL, b"y", b"z\n"), [("P", FULL), ("F", b"yz")]),
        ((FULL + FULL + b"y",), [("P", FULL), ("P", FULL), ("F", b"y")]),
        ((b"\xff\x00\n",), [("F", b"\xff\x00")]),
        ((), []),
        ((b"",), []),
    ],
)
def test_lines_are_records(tmp_path: Path, pieces: tuple[bytes, ...], found: list[tuple[str, bytes]]) -> None:
    assert written(tmp_path / "log", *pieces) == found


def test_each_stream_has_its_own_unfinished_line(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "log")
    log.write("stdout", b"out")
    log.write("stderr", b"err\n")
    log.write("stdout", b"put\n")
    log.close()
    assert records(tmp_path / "log") == [("stderr", "F", b"err"), ("stdout", "F", b"output")]


def test_a_finished_line_is_there_at_once(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "log")
    log.write("stdout", b"seen\nnot yet")
    assert records(tmp_path / "log") == [("stdout", "F", b"seen")]
    log.close()


def test_a_log_is_appended_to_and_its_directory_made(tmp_path: Path) -> None:
    written(tmp_path / "new/dir/0.log", b"one\n")
    assert written(tmp_path / "new/dir/0.log", b"two\n") == [("F", b"one"), ("F", b"two")]


def test_after_a_rotation_it_goes_on_in_a_new_file(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "log")
    log.write("stdout", b"before\nhalf a ")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.reopen()
    log.write("stdout", b"line\n")
    log.close()
    assert records(tmp_path / "log.1") == [("stdout", "F", b"before")]
    assert records(tmp_path / "log") == [("stdout", "F", b"half a line")]


def test_a_full_disk_costs_records_and_is_counted() -> None:
    log = LogWriter(Path("/dev/full"))
    log.write("stdout", b"lost\n")
    log.close()
    assert log.lost_bytes == len("2026-11-23T08:36:23.564293837Z stdout F lost\n")


def test_a_log_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        LogWriter(tmp_path / "file/log")
