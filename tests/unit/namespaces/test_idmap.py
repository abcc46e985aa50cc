import pytest

from minirt.errors import InvalidInput
from minirt.namespaces import idmap
from minirt.namespaces.idmap import LAST_ID, MOST_LINES, Map

ONE_EACH = tuple((number, 1000 + number, 1) for number in range(MOST_LINES))


@pytest.mark.parametrize(
    "lines",
    [(), ((0, 100_000, 65_536),), ((10, 0, 5), (0, 5, 10)), ((0, 0, LAST_ID + 1),), ONE_EACH],
    ids=["none", "one", "side by side", "all there are", "as many lines as there may be"],
)
def test_maps_that_the_kernel_takes(lines: Map) -> None:
    idmap.check(lines, "--uidmap")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (((0, 1, 0),), "0:1:0 maps no id at all"),
        (((0, 1, -1),), "maps no id at all"),
        (((0, LAST_ID, 2),), f"leads out of the ids, 0 to {LAST_ID}"),
        (((-1, 0, 1),), "leads out of the ids"),
        (((0, 1000, 10), (9, 5000, 1)), "0:1000:10 and 9:5000:1 overlap inside"),
        (((20, 1009, 1), (0, 1000, 10)), "0:1000:10 and 20:1009:1 overlap outside"),
        ((*ONE_EACH, (999, 9999, 1)), "it has 341 lines, and a map has at most 340"),
    ],
)
def test_maps_that_make_no_sense_are_an_error(lines: Map, why: str) -> None:
    with pytest.raises(InvalidInput, match=f"^cannot use --uidmap: .*{why}"):
        idmap.check(lines, "--uidmap")


def test_a_map_without_root_is_an_error() -> None:
    idmap.check_root(((5, 1, 1), (0, 2, 1)), "x")
    with pytest.raises(InvalidInput, match="no line for id 0"):
        idmap.check_root(((5, 1, 1),), "x")
