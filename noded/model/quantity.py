"""Kubernetes resource quantities ("10M", "1.5Gi", "2e6") as whole numbers. Pure.

Grammar: k8s.io/apimachinery/pkg/api/resource, `Quantity`: a signed decimal number with a binary
suffix (Ki...Ei), a decimal suffix (n, u, m, none, k...E) or a decimal exponent (e3, E-2).
"""

from __future__ import annotations

import re

from noded.errors import InvalidArgument

_QUANTITY = re.compile(
    r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?", re.ASCII
)
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LONGEST = 64  # characters; longer texts are no quantities anyone means


def parse_quantity(text: str) -> int:
    """Return the value rounded up to a whole number, as Kubernetes' `Quantity.Value()` does.

    Raises: InvalidArgument when `text` is not a quantity.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise InvalidArgument(f"{text[:_LONGEST]!r} is not a quantity: write a number such as 10M or 1.5Gi")
    from fractions import Fraction  # 200 kB, for what few pods have

    sign, number, suffix = match.group(1), match.group(2), match.group(3) or ""
    if suffix in _BINARY:
        scale = Fraction(1 << _BINARY[suffix])
    elif suffix in _DECIMAL:
        scale = Fraction(10) ** _DECIMAL[suffix]
    else:
        scale = Fraction(10) ** int(suffix[1:])
    value = Fraction(number.rstrip(".")) * scale
    # Rounded away from zero, so that 1m never becomes "nothing".
    magnitude = -(-value.numerator // value.denominator)
    return -magnitude if sign == "-" else magnitude
