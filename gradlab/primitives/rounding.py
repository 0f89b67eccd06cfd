"""How much a primitive rounds, in units roundoff of its result where nothing else is said.

The bounds are those of Higham, "Accuracy and stability of numerical algorithms" (2002), with the
root of the number of terms for the number of terms (Higham and Mary 2019).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from gradlab.primitives.equation import Equation


@dataclass(frozen=True)
class Exact:
    """The result needs no rounding, once the operands are rounded."""


@dataclass(frozen=True)
class Units:
    """Off by so many units of the result, or by as many as an equation says."""

    units: float | Callable[[Equation], float]

    def of(self, equation: Equation) -> float:
        """Return the units for one equation."""
        return self.units if isinstance(self.units, float) else self.units(equation)


@dataclass(frozen=True)
class Near:
    """Off by so many units of 1 + |result|: a special function near its zeros."""

    units: float


@dataclass(frozen=True)
class Steep:
    """Computed through exp: rounding the argument x costs |x| units of the result."""


@dataclass(frozen=True)
class SumOf:
    """A sum of K terms: off by the root of K units of their magnitudes."""

    terms: Callable[[Equation], int]  # K, at most
    # whether the terms are products, of factors that a device may cut short
    of_products: bool = False


@dataclass(frozen=True)
class BackwardStable:
    """Exact for a matrix nearby."""

    # how near, for each entry of the matrix, in units times the root of its size; an array that
    # broadcasts to it
    size: Callable[[Any], Any]


@dataclass(frozen=True)
class Spectrum:
    """A transform of n entries: off by log2(n) units of their root mean square."""


@dataclass(frozen=True)
class Unknown:
    """Nothing is known: off as a sum along the longest axis of the operands may be."""


Rounding: TypeAlias = Exact | Units | Near | Steep | SumOf | BackwardStable | Spectrum | Unknown
Underflow: TypeAlias = Literal["never", "possible", "everyday"]
"""Whether a result may be smaller than the smallest number, whatever the operands: only in a dtype
of few exponents ("possible"), or on everyday operands in every dtype ("everyday")."""

UNKNOWN = Unknown()
EXACT = Exact()
ONCE = Units(1.0)
TWICE = Units(2.0)
"""Transcendental functions, as libraries compute them."""


def last_axis(equation: Equation) -> int:
    """Return the size of the first operand's last axis, for sums that run along it."""
    shape = equation.in_shapes[0]
    return shape[-1] if shape else 1


def root_of(terms: Callable[[Equation], int]) -> Units:
    """Return the rounding of a product of so many factors."""
    return Units(lambda equation: math.sqrt(terms(equation)))
