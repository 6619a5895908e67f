"""Numbers as the report shows them."""

from __future__ import annotations

import math

MINUS = "−"
_FARTHEST = 1e300


def fixed(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """Return fixed decimals with a real minus sign; – for nothing, ∞ for worst."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{abs(value):.{digits}f}"
    negative = value < 0 and float(text) != 0
    return (MINUS if negative else "+" if signed and float(text) != 0 else "") + text


def interval(low: float, high: float, digits: int = 2, *, signed: bool = False) -> str:
    """Return ``[low, high]``, or – if there is none."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    return f"[{fixed(low, digits, signed=signed)}, {fixed(high, digits, signed=signed)}]"


def band(value: float | None) -> str:
    """Return a band with two decimals, or more where it has more: 0.50, 0.005; an empty text for none."""
    if value is None:
        return ""
    short = f"{value:.2f}"
    return short if float(short) == value else f"{value:.12g}"


def p_value(value: float) -> str:
    """Return a p-value with three decimals and no leading zero."""
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"


def sortable(value: float) -> float:
    """Return the value, or a finite one that sorts like it if it is infinite, which the page cannot read."""
    return math.copysign(_FARTHEST, value) if math.isinf(value) else float(value)
