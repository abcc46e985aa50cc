"""New limits laid over old ones."""

from minirt.cgroups.resources import Cpu, HugepageLimit, Memory, Resources
from minirt.engine.updating import laid_over

BEFORE = Resources(cpu=Cpu(shares=512, quota=50_000, period=100_000, cpus="0-1"), memory=Memory(limit=1 << 26))


def test_what_is_not_given_stays() -> None:
    assert laid_over(Resources(), BEFORE) == BEFORE


def test_what_is_given_takes_its_place() -> None:
    asked = Resources(cpu=Cpu(shares=1024), memory=Memory(limit=1 << 27))
    found = laid_over(asked, BEFORE)
    assert found.cpu == Cpu(shares=1024, quota=50_000, period=100_000, cpus="0-1")
    assert found.memory == Memory(limit=1 << 27)


def test_a_first_limit_is_a_limit() -> None:
    assert laid_over(BEFORE, Resources()) == BEFORE


def test_unified_files_and_huge_pages_are_laid_over_by_their_names() -> None:
    one, two = HugepageLimit("2MB", 1), HugepageLimit("2MB", 2)
    found = laid_over(
        Resources(unified={"b": "2"}, hugepage_limits=(two,)), Resources(unified={"a": "1"}, hugepage_limits=(one,))
    )
    assert found.unified == {"a": "1", "b": "2"}
    assert found.hugepage_limits == (two,)
