"""How gradlab writes sizes, counts, shapes and names for people; one spelling everywhere."""

import math
import re
from collections.abc import Sequence
from numbers import Real

# What steers a terminal, turns the reading direction, or cannot stand in XML or in a file.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MB", 10**6), ("kB", 10**3))


def size_text(size: int) -> str:
    """Return a number of bytes as people read it."""
    number: object = size  # of sizes without numbers it is a formula
    for unit, scale in _UNITS if isinstance(number, Real) else ():
        if size >= scale:
            return f"{size / scale:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as `100x4096`; a scalar's is `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def number_text(number: object) -> str:
    """Return a number with commas between thousands; a formula of sizes as it is."""
    return f"{number:,}" if isinstance(number, Real) else str(number)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 entry`, `409,600 entries`."""
    return f"{number_text(number)} {noun if number == 1 else plural or noun + 's'}"


def scientific(number: float, decimals: int = 0) -> str:
    """Return a number with its power of ten as short as it can be."""
    mantissa, power, exponent = f"{number:.{decimals}e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if power else mantissa


def at_most(bound: float, digits: int = 3) -> str:
    """Return a bound in few digits, rounded down: below what is written, the bound holds."""
    written = f"{bound:.{digits}g}"
    if float(written) > bound:
        written = f"{bound - 10.0 ** (math.floor(math.log10(abs(bound))) + 1 - digits):.{digits}g}"
    return written


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: at most five, of more the first four and a count."""
    if len(names) > 5:
        return f"{', '.join(names[:4])} and {len(names) - 4:,} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def legible(text: str) -> str:
    r"""Return text whose control characters, which a user's names may hold, are written out.

    Lines and tabs stay.
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)
