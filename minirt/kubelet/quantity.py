"""Quantities: Kubernetes' numbers with a unit (``250m``, ``64Mi``, ``1.5``, ``1e3``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import math
import re
from fractions import Fraction

_GRAMMAR = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,2})|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei))?")
_FACTORS = {unit: Fraction(10) ** power for unit, power in zip("num", (-9, -6, -3), strict=True)}
_FACTORS |= {unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", start=1)}
_FACTORS |= {f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}
_LARGEST = 2**63 - 1


class Quantity:
    """An exact number, and the text it was written as. Two are equal when their numbers are."""

    __slots__ = ("exact", "text")

    def __init__(self, text: str, exact: Fraction) -> None:
        self.text = text
        self.exact = exact

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.exact == other.exact

    def __hash__(self) -> int:
        return hash(self.exact)

    def __repr__(self) -> str:
        return f"Quantity({self.text!r})"

    @classmethod
    def parse(cls, written: object) -> "Quantity":
        """Return the quantity that a manifest holds: a string, or a plain YAML number.

        Raises:
            ValueError: it is none; the message says what one looks like.
        """
        if isinstance(written, bool) or not isinstance(written, str | int | float):
            raise ValueError(f"{written!r} is not a quantity (write 250m, 1.5, 64Mi)")
        text = str(written)
        match = _GRAMMAR.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not a quantity ({_hint(text)})")
        number, exponent, unit = match.groups()
        exact = Fraction(number) * (Fraction(10) ** int(exponent) if exponent else _FACTORS.get(unit, 1))
        if abs(exact) > _LARGEST:
            raise ValueError(f"{text!r} is larger than any quantity may be (2**63 - 1)")
        return cls(text, exact)

    @property
    def whole(self) -> int:
        """Return it rounded up to a whole number (bytes, for memory)."""
        return math.ceil(self.exact)

    @property
    def milli(self) -> int:
        """Return it in thousandths, rounded up (millicpu, for cpu)."""
        return math.ceil(self.exact * 1000)


def _hint(text: str) -> str:
    """Return what the author of ``text`` may have meant."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text[len(number) :].strip()
    for meant in (unit.removesuffix("B").removesuffix("b"), unit.capitalize(), unit.lower(), unit[:1].upper() + "i"):
        if number and meant in _FACTORS and unit[:1].lower() == meant[:1].lower():
            return f"did you mean {number.strip()}{meant}?"
    return "write 250m, 1.5, 64Mi"
