import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.kubelet.logs import ContainerLog, LogLine, follow, read

T = "2026-01-02T03:04:0{}.000000000Z"


def record(second: int, text: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"{T.format(second)} {stream} {tag} {text}\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "web").mkdir()
    return tmp_path


@pytest.fixture
def log(logs: Path) -> Iterator[ContainerLog]:
    log = ContainerLog("web", logs / "web")
    yield log
    assert list(log.close()) == []


def write(logs: Path, text: str, name: str = "0.log") -> Path:
    path = logs / "web" / name
    with path.open("a") as file:
        file.write(text)
    return path


def texts(log: ContainerLog) -> list[str]:
    return [line.text for line in log.read()]


def test_a_line_has_its_time_and_stream(logs: Path, log: ContainerLog) -> None:
    write(logs, record(1, "an  error ", stream="stderr"))
    assert list(log.read()) == [LogLine(T.format(1), "web", "stderr", "an  error ")]


def test_nothing_there_is_nothing_read(tmp_path: Path) -> None:
    assert read(tmp_path, ["web"]) == []


def test_parts_are_joined_and_streams_do_not_mix(logs: Path, log: ContainerLog) -> None:
    write(logs, record(1, "one ", tag="P") + record(2, "err", stream="stderr") + record(3, "line", tag="F:x"))
    assert [(line.at, line.stream, line.text) for line in log.read()] == [
        (T.format(2), "stderr", "err"),
        (T.format(1), "stdout", "one line"),
    ]


def test_reading_goes_on_where_it_ended_even_inside_a_record(logs: Path, log: ContainerLog) -> None:
    whole = record(1, "first") + record(2, "second")
    write(logs, whole[:-4])
    assert texts(log) == ["first"]
    write(logs, whole[-4:])
    assert texts(log) == ["second"]
    assert texts(log) == []


def test_an_empty_line_is_a_line(logs: Path, log: ContainerLog) -> None:
    write(logs, record(1, "") + record(2, "x"))
    assert texts(log) == ["", "x"]


def test_what_is_no_record_is_passed_over(logs: Path, log: ContainerLog) -> None:
    write(logs, "noise\n\n" + record(1, "kept") + f"{T.format(1)} other F x\n")
    assert texts(log) == ["kept"]


def test_bytes_that_are_no_text_can_be_had_again(logs: Path, log: ContainerLog) -> None:
    (logs / "web/0.log").write_bytes(T.format(1).encode() + b" stdout F a\xffb\n")
    assert [text.encode(errors="surrogateescape") for text in texts(log)] == [b"a\xffb"]


def test_a_rotated_file_is_read_to_its_end_then_the_new_one(logs: Path, log: ContainerLog) -> None:
    path = write(logs, record(1, "old"))
    assert texts(log) == ["old"]
    write(logs, record(2, "last of the old"))
    path.rename(path.with_suffix(".log.20260102-030405"))
    assert texts(log) == ["last of the old"]
    write(logs, record(3, "new"))
    assert texts(log) == ["new"]


def test_a_restarted_container_goes_on_in_the_next_file(logs: Path, log: ContainerLog) -> None:
    write(logs, record(1, "zero"))
    write(logs, record(3, "ten"), "10.log")
    write(logs, record(2, "two"), "2.log")
    write(logs, "x", "2.log.gz")
    assert texts(log) == ["zero", "two", "ten"]


def test_a_line_cut_off_by_a_crash_does_not_begin_the_next_containers(logs: Path, log: ContainerLog) -> None:
    write(logs, record(1, "cut off", tag="P"))
    assert texts(log) == []
    write(logs, record(2, "anew"), "1.log")
    assert texts(log) == ["cut off", "anew"]


def test_several_containers_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    for name, seconds in (("a", (1, 4)), ("b", (2, 3))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.log").write_text("".join(record(each, f"{name}{each}") for each in seconds))
    assert [(line.container, line.text) for line in read(tmp_path, ["a", "b"])] == [
        ("a", "a1"),
        ("b", "b2"),
        ("b", "b3"),
        ("a", "a4"),
    ]


def test_following_sees_what_is_written_and_ends_with_all_read(logs: Path) -> None:
    over = threading.Event()
    lines = follow(logs, ["web"], over, poll_s=0.001)
    write(logs, record(1, "one"))
    assert next(lines).text == "one"
    write(logs, record(2, "two") + record(3, "cut", tag="P"))
    assert next(lines).text == "two"
    write(logs, record(4, " off"))
    over.set()
    assert [line.text for line in lines] == ["cut off"]


def test_a_follower_that_is_left_closes_its_files(logs: Path) -> None:
    write(logs, record(1, "one"))
    lines = follow(logs, ["web"], threading.Event(), poll_s=0.001)
    next(lines)
    lines.close()


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"])), max_size=8), st.data()
)
def test_however_it_is_cut_it_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("log")
    whole = "".join(record(1, line) for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    log, found = ContainerLog("web", directory), []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        with (directory / "0.log").open("ab") as file:
            file.write(whole[begin:end])
        found += [line.text for line in log.read()]
    assert list(log.close()) == []
    assert found == lines
