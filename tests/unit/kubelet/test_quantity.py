from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.kubelet.quantity import Quantity


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ("250m", Fraction(1, 4)),
        (2, 2),
        (0.5, Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("1.", 1),
        ("64Mi", 64 << 20),
        ("1Ki", 1024),
        ("1k", 1000),
        ("1M", 10**6),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12E-1", Fraction(12, 10)),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        ("100n", Fraction(1, 10**7)),
        ("5u", Fraction(5, 10**6)),
        ("-1", -1),
        ("+1", 1),
        ("0", 0),
    ],
)
def test_it_is_exact(written: object, exact: Fraction) -> None:
    assert Quantity.parse(written).exact == exact


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("64MB", "did you mean 64M?"),
        ("64mi", "did you mean 64Mi?"),
        ("64MiB", "did you mean 64Mi?"),
        ("64 Mi", "did you mean 64Mi?"),
        ("1K", "did you mean 1k?"),
        ("2g", "did you mean 2G?"),
        ("lots", "write 250m"),
        ("", "write 250m"),
        ("1.2.3", "write 250m"),
        ("Mi", "write 250m"),
        ("0x10", "write 250m"),
        ("1e99", "larger than any"),
        ("9Ei", "larger than any"),
        (True, "is not a quantity"),
        (None, "is not a quantity"),
        ([1], "is not a quantity"),
    ],
)
def test_what_is_none_is_refused_with_advice(written: object, said: str) -> None:
    with pytest.raises(ValueError) as error:
        Quantity.parse(written)
    assert said in str(error.value)


def test_rounding_is_up() -> None:
    assert Quantity.parse("1.0001").milli == 1001
    assert Quantity.parse("100m").whole == 1
    assert Quantity.parse("0.1").milli == 100


def test_equal_numbers_are_equal_however_they_are_written() -> None:
    assert Quantity.parse("1") == Quantity.parse("1000m")
    assert hash(Quantity.parse("1Ki")) == hash(Quantity.parse(1024))
    assert Quantity.parse("1") != Quantity.parse("2")
    assert Quantity.parse("1") != 1


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "Ki", "M", "Mi", "G", "Gi"]))
def test_whole_and_milli_bound_the_exact_number(number: int, unit: str) -> None:
    quantity = Quantity.parse(f"{number}{unit}")
    assert 0 <= quantity.whole - quantity.exact < 1
    assert 0 <= quantity.milli - quantity.exact * 1000 < 1


@given(st.text())
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    try:
        Quantity.parse(text)
    except ValueError as error:
        assert "quantity" in str(error)
