"""What number a constant of a program stands for, so that a field can hold it exactly.

A program holds sqrt(2/pi) as 0.7978845608028654. In a field it must be the same number as the root
of 2 over pi that another program computes. So a constant is read as a short decimal, a small
fraction, a root of one, either times a power of sqrt(pi), or times ln 2 or ln 10; failing that, as
the shortest decimal that rounds to it.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gradlab.proof.field import Element, Lanes, constant

_LOGARITHMS = {2: math.log(2), 10: math.log(10)}
_PI_HALVES = (1, -1, 2, -2, 3, -3, 4, -4)


@dataclass(frozen=True)
class Reading:
    """A number: `sign * sqrt(square) * pi ** (halves / 2) * ln(base) ** power`."""

    sign: int
    square: Fraction
    halves: int = 0
    base: int = 1
    power: int = 0
    text: str = ""  # what a report says was assumed; empty where nothing was

    @property
    def rational(self) -> Fraction | None:
        """The number itself, where it is a fraction."""
        root = _root(self.square)
        return None if self.halves or self.power or root is None else self.sign * root


@functools.lru_cache(maxsize=1 << 14)
def read(value: float, digits: int) -> Reading:
    """Return what a constant stands for.

    `digits`: the binary digits that it was rounded to: 53 for float64, 24 for float32.
    """
    if value == 0:
        return Reading(1, Fraction(0))
    sign, size = (1 if value > 0 else -1), abs(value)
    if not 1e-100 < size < 1e100:
        return Reading(sign, Fraction(_shortest(size, digits)) ** 2)
    unit = 2.0 ** (1 - digits)
    short = Fraction(f"{size:.{digits // 5 - 1}e}")  # someone wrote this decimal, or three times it
    if _close(float(short), size, unit):
        return Reading(sign, short**2)
    decimal = Fraction(_shortest(size, digits))
    largest = 1 << (digits // 5)
    fraction = Fraction(size).limit_denominator(largest)
    if _close(float(fraction), size, unit):
        return Reading(sign, fraction**2)
    for square, halves, base, power in _candidates(size, largest, unit):
        text = f"{value:.6g} is read as {_spelled(sign, square, halves, base, power)}"
        return Reading(sign, square, halves, base, power, text)
    return Reading(sign, decimal**2)


def element_of(lanes: Lanes, reading: Reading) -> Element:
    """Return the number in every lane; undefined where a lane has no logarithm."""
    rational = reading.rational
    if rational is not None:
        return _fraction(lanes, rational)
    found = _square_root(lanes, reading.square).times(reading.sign)
    if reading.halves:
        root = constant(lanes, 3).hashed("sqrt(pi)") ** 4
        found = found * root**reading.halves
    if reading.power:
        found = found * constant(lanes, reading.base).log() ** reading.power
    return found


def _fraction(lanes: Lanes, number: Fraction) -> Element:
    return constant(lanes, number.numerator) * constant(lanes, number.denominator).inverse()


def _square_root(lanes: Lanes, square: Fraction) -> Element:
    """Return a root as a product of roots of primes, so that sqrt(8) is 2 sqrt(2)."""
    whole, rest, outside = square.numerator * square.denominator, 1, 1
    found = constant(lanes, 1)
    for prime in range(2, whole + 1):
        if prime * prime > whole:
            break
        while whole % (prime * prime) == 0:
            whole, outside = whole // (prime * prime), outside * prime
        if whole % prime == 0:
            whole, found = whole // prime, found * constant(lanes, prime).sqrt()
    if (root := math.isqrt(whole)) * root == whole:
        outside *= root
    else:
        rest = whole
    found = found * constant(lanes, rest).sqrt() if rest > 1 else found
    return found * _fraction(lanes, Fraction(outside, square.denominator))


def _candidates(size: float, largest: int, unit: float) -> Iterator[tuple[Fraction, int, int, int]]:
    for halves in (0, *_PI_HALVES):
        square = size**2 * math.pi**-halves
        fraction = Fraction(square).limit_denominator(largest)
        if fraction and _close(float(fraction), square, 4 * unit) and fraction < largest:
            yield fraction, halves, 1, 0
    for base, logarithm in _LOGARITHMS.items():
        for power in (1, -1, 2):
            multiple = size / logarithm**power
            fraction = Fraction(multiple).limit_denominator(largest)
            if fraction and _close(float(fraction), multiple, 4 * unit):
                yield fraction**2, 0, base, power


def _shortest(size: float, digits: int) -> str:
    dtype = np.float64 if digits > 24 else np.float32
    return np.format_float_positional(dtype(size), unique=True, trim="-")


def _close(a: float, b: float, unit: float) -> bool:
    return abs(a - b) <= unit * abs(b)


def _root(square: Fraction) -> Fraction | None:
    top, under = math.isqrt(square.numerator), math.isqrt(square.denominator)
    exact = top * top == square.numerator and under * under == square.denominator
    return Fraction(top, under) if exact else None


def _spelled(sign: int, square: Fraction, halves: int, base: int, power: int) -> str:
    root = _root(square)
    minus = "-" if sign < 0 else ""
    if power:
        log = f"ln {base}" if power == 1 else f"(ln {base})^{power}"
        return f"{minus}{root} {log}"
    if not halves:
        return f"{minus}sqrt({square})"
    if halves % 2 == 0 and root is not None:
        return f"{minus}{root} pi^{halves // 2}"
    if square.denominator == 1 and halves == -1:
        return f"{minus}sqrt({square} / pi)"
    return f"{minus}sqrt({square} pi^{halves})"
