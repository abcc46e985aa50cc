import resource

import pytest

from minirt.errors import InvalidInput
from minirt.security.capabilities import DEFAULT, NAMES, numbers
from minirt.security.operations import DropBounding, NoNewPrivileges, SetCredentials, SetOomScoreAdj, SetRlimit

INFINITY = 2**64 - 1


class Listener:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str, /) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        (NoNewPrivileges(), "prctl PR_SET_NO_NEW_PRIVS"),
        (SetRlimit("RLIMIT_NOFILE", 1024, INFINITY), "prlimit64 RLIMIT_NOFILE soft 1024 hard unlimited"),
        (SetOomScoreAdj(-997), "write -997 to /proc/self/oom_score_adj"),
        (DropBounding(frozenset(), 40), "prctl PR_CAPBSET_DROP all but none"),
        (DropBounding(numbers(["CAP_KILL", "CAP_CHOWN"]), 40), "prctl PR_CAPBSET_DROP all but CHOWN KILL"),
        (DropBounding(numbers(NAMES), 40), "prctl PR_CAPBSET_DROP all but all"),
        (SetCredentials(1000, 100), "setresuid 1000, setresgid 100; capset none"),
        (
            SetCredentials(1000, 100, until_execve=numbers(["CAP_SYS_ADMIN"])),
            "setresuid 1000, setresgid 100; capset none, SYS_ADMIN until execve",
        ),
        (
            SetCredentials(0, 0, (4, 20), permitted=numbers(["CAP_KILL"]), ambient=numbers(["CAP_KILL"])),
            "setresuid 0, setresgid 0 groups 4,20; capset KILL, ambient KILL",
        ),
    ],
)
def test_described_in_the_kernels_words(operation, line: str) -> None:
    assert operation.describe() == line


def test_the_default_line_names_all_fourteen() -> None:
    assert len(DropBounding(numbers(DEFAULT), 40).describe().split()) == 4 + 14


@pytest.mark.parametrize(
    ("kind", "soft", "hard"),
    [("RLIMIT_FILES", 1, 1), ("NOFILE", 1, 1), ("RLIMIT_NOFILE", 2, 1), ("RLIM_INFINITY", 1, 1)],
)
def test_rlimits_that_make_no_sense(kind: str, soft: int, hard: int) -> None:
    with pytest.raises(InvalidInput):
        SetRlimit(kind, soft, hard)


@pytest.mark.parametrize("value", [-1001, 1001])
def test_oom_score_adj_out_of_range(value: int) -> None:
    with pytest.raises(InvalidInput):
        SetOomScoreAdj(value)


def test_an_rlimit_is_set_as_it_was() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    SetRlimit("RLIMIT_CORE", soft % 2**64, hard % 2**64).execute(Listener())
    assert resource.getrlimit(resource.RLIMIT_CORE) == (soft, hard)
