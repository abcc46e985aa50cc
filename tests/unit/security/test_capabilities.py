import pytest

from minirt.errors import InvalidInput, Unsupported
from minirt.security.capabilities import (
    DEFAULT,
    NAMES,
    NUMBERS,
    CapabilitySets,
    capability_sets,
    held_here,
    last_cap,
    mask,
    names_in,
    numbers,
    ordered,
    parse,
)

EVERY = frozenset(NAMES)
DOCKERS_MASK = 0x00000000A80425FB


def test_the_fourteen_are_dockers() -> None:
    assert len(DEFAULT) == 14
    assert mask(numbers(DEFAULT)) == DOCKERS_MASK
    assert set(names_in(DOCKERS_MASK)) == set(DEFAULT)


@pytest.mark.parametrize(
    ("name", "number"),
    [("CAP_CHOWN", 0), ("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39), ("CAP_CHECKPOINT_RESTORE", 40)],
)
def test_numbers(name: str, number: int) -> None:
    assert NUMBERS[name] == number


def test_the_kernel_knows_no_fewer_than_we() -> None:
    assert last_cap() >= 36
    assert held_here() <= EVERY


def test_a_bit_without_a_name_has_its_number() -> None:
    assert names_in(1 << 63 | 1) == ("CAP_CHOWN", "CAP_63")


@pytest.mark.parametrize("name", ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_net_admin"])
def test_names_are_read_with_and_without_cap(name: str) -> None:
    assert parse([name]) == {"CAP_NET_ADMIN"}


def test_all_is_read_in_any_case() -> None:
    assert parse(["all", "ALL", "CAP_ALL"]) == {"ALL"}


@pytest.mark.parametrize(
    ("name", "says"),
    [("NET_ADMN", "did you mean NET_ADMIN"), ("CAP_SYSADMIN", "did you mean SYS_ADMIN"), ("", "none of this name")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        capability_sets([name], [], held=EVERY)
    with pytest.raises(InvalidInput):
        capability_sets([], [name], held=EVERY)


def test_root_by_default() -> None:
    sets = capability_sets([], [], held=EVERY)
    assert sets == CapabilitySets(ordered(DEFAULT), ordered(DEFAULT), ordered(DEFAULT), (), ())


def test_another_user_by_default_has_only_a_bounding_set() -> None:
    assert capability_sets([], [], held=EVERY, uid=1000) == CapabilitySets(ordered(DEFAULT))


@pytest.mark.parametrize(
    ("add", "drop", "bounding"),
    [
        (["NET_ADMIN"], [], {*DEFAULT, "CAP_NET_ADMIN"}),
        ([], ["MKNOD", "KILL"], set(DEFAULT) - {"CAP_MKNOD", "CAP_KILL"}),
        ([], ["ALL"], set()),
        (["NET_BIND_SERVICE"], ["ALL"], {"CAP_NET_BIND_SERVICE"}),
        (["ALL"], [], set(NAMES)),
        (["ALL"], ["SYS_ADMIN"], set(NAMES) - {"CAP_SYS_ADMIN"}),
        (["ALL"], ["ALL"], set()),
        (["ALL", "NET_RAW"], ["ALL"], {"CAP_NET_RAW"}),
        (["NET_ADMIN"], ["NET_ADMIN"], set(DEFAULT)),
        ([], ["NET_ADMIN"], set(DEFAULT)),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], bounding: set[str]) -> None:
    assert capability_sets(add, drop, held=EVERY).bounding == ordered(bounding)


def test_privileged_is_all_whatever_is_dropped() -> None:
    assert capability_sets([], ["ALL"], held=EVERY, privileged=True).effective == NAMES


def test_ambient_ones_stay_with_another_user() -> None:
    sets = capability_sets([], ["ALL"], held=EVERY, uid=1000, ambient=["NET_BIND_SERVICE"])
    only = ("CAP_NET_BIND_SERVICE",)
    assert sets == CapabilitySets(only, only, only, only, only)


def test_all_is_what_can_be_given() -> None:
    held = EVERY - {"CAP_SYS_RESOURCE"}
    assert set(capability_sets(["ALL"], [], held=held).bounding) == held
    assert set(capability_sets([], [], held=held, privileged=True).bounding) == held


def test_what_we_lack_is_refused_by_name_unless_it_is_dropped() -> None:
    held = EVERY - {"CAP_SYS_RESOURCE"}
    with pytest.raises(Unsupported, match="give the capability CAP_SYS_RESOURCE"):
        capability_sets(["SYS_RESOURCE"], [], held=held)
    with pytest.raises(Unsupported):
        capability_sets([], [], held=held, ambient=["SYS_RESOURCE"])
    assert capability_sets(["SYS_RESOURCE"], ["SYS_RESOURCE"], held=held).bounding == ordered(DEFAULT)
