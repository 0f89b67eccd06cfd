"""Prime fields in towers: arithmetic that knows exp, log, roots and angles exactly.

A *lane* is one prime field. Lanes form towers of primes `p[i] = 2 p[i+1] + 1`: the squares of lane
`i` are the powers of one fixed square `g`, and their exponents count modulo `p[i+1]`. So
`exp(v)` in lane `i` is `g` raised to the value of `v` in lane `i + 1`; `log` goes the other way.
Then exp(a + b) = exp(a) exp(b) and log(exp(x)) = x hold exactly (Gonnet 1986; Monagan and Gonnet
1994, "Signature functions for algebraic numbers"). All primes are below 2^21, so that products of
residues are exact in float64; NaN marks what is undefined, such as a division by zero, and spreads.

-1 is no square in these fields. With `j * j = -1`, `a + j b` holds roots of non-squares and turns:
`exp(j v) = turn ** v` for a second square `turn`, so sin^2 + cos^2 = 1 holds too. NumPy's complex
numbers are such pairs already; an array is complex only where some `b` is not zero.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Pair = NDArray[Any]  # of float64 or complex128

TOWERS = (  # chains of primes p[i] = 2 p[i+1] + 1
    (2029439, 1014719, 507359, 253679, 126839, 63419),
    (2034239, 1017119, 508559, 254279, 127139),
    (858239, 429119, 214559, 107279, 53639),
)
_HALF = 1 << 11  # exponents below 2^22 are split in two digits


@dataclass(frozen=True, eq=False)
class Lanes:
    """The fields in which one program is evaluated at once; arrays of residues lead with them."""

    primes: F64
    lower: NDArray[np.intp]  # the lane whose values are this lane's exponents, -1 at the end
    upper: NDArray[np.intp]  # the lane whose exponents are this lane's values, -1 at the top
    base: F64  # the square that exp raises
    turn: F64  # the square that angles raise
    seeds: tuple[int, ...]  # of the lanes' uninterpreted functions
    points: NDArray[np.intp]  # lanes of one point share their inputs
    strict: bool = (
        False  # whether the log of what is no square is undefined, not that of its negative
    )

    def column(self, ndim: int, of: F64 | None = None) -> F64:
        """Return the primes, or other numbers of each lane, to broadcast against an array."""
        numbers = self.primes if of is None else of
        return numbers.reshape(-1, *(1,) * ndim)

    def __len__(self) -> int:
        return len(self.primes)


@dataclass(frozen=True, eq=False)
class Element:
    """An array of field elements in every lane.

    `exact`: the lanes in which no function stood for exp, log or an angle that had no lane to go
    to. In the others, equal formulas may differ; different ones still do.
    `flips`: for the log of what is no square, how often exp turns its sign; modulo 2.
    """

    lanes: Lanes
    a: Pair
    exact: NDArray[np.bool_] | bool = True
    flips: F64 | None = None

    @property
    def prime(self) -> F64:
        """The primes, to broadcast against this array."""
        return self.lanes.column(self.a.ndim - 1)

    def made(self, a: Pair, *others: "Element") -> "Element":
        """Return residues of whole numbers, as exact as this element and others."""
        exact = self.exact
        for other in others:
            exact = exact & other.exact
        return Element(self.lanes, residue(a, self.lanes.column(np.ndim(a) - 1)), exact)

    def flipped(self, flips: F64 | None) -> "Element":
        """Return this element with other flips."""
        flips = None if flips is None or not np.any(flips) else np.fmod(flips, 2.0)
        return replace(self, flips=flips)

    def arranged(self, function: Callable[[Pair], Pair]) -> "Element":
        """Return the same numbers in another arrangement."""
        flips = None if self.flips is None else function(self.flips)
        return Element(self.lanes, function(self.a), self.exact, flips)

    def __add__(self, other: "Element") -> "Element":
        found = self.made(self.a + other.a, other)
        if self.flips is None or other.flips is None:
            return found.flipped(other.flips if self.flips is None else self.flips)
        return found.flipped(self.flips + other.flips)

    def __neg__(self) -> "Element":
        return self.made(-self.a).flipped(self.flips)

    def __sub__(self, other: "Element") -> "Element":
        return self + -other

    def __mul__(self, other: "Element") -> "Element":
        return self.made(self.a * other.a, other)

    def whole(self, number: int) -> "Element":
        """Return a whole number that broadcasts against this element."""
        return constant(self.lanes, number, self.a.ndim - 1)

    def times(self, number: int) -> "Element":
        """Return this element times a whole number."""
        return self * self.whole(number)

    def over(self, number: int) -> "Element":
        """Return this element divided by a whole number."""
        return self * self.whole(number).inverse()

    def inverse(self) -> "Element":
        """Return 1 / element; undefined at zero."""
        turned = np.iscomplexobj(self.a)
        norm = residue((self.a * self.a.conj()).real, self.prime) if turned else self.a
        under = inverses(np.where(norm == 0, np.nan, norm), self.lanes.primes)
        return self.made(self.a.conj() * under if turned else under)

    def __pow__(self, exponent: int) -> "Element":
        if exponent < 0:
            return self.inverse() ** -exponent
        result, square = self.made(0 * self.a + 1), self
        while exponent:
            if exponent & 1:
                result = result * square
            exponent >>= 1
            square = square * square if exponent else square
        return result

    @functools.cached_property
    def _rooted(self) -> tuple[NDArray[np.bool_], F64]:
        """Where the element is a square of the prime field, and the root of its magnitude.

        `a ** ((p + 1) / 4)` is a root of `a` or of `-a`. With the sign below it is a square itself.
        """
        root = power(self.a.real, (self.prime + 1) / 4, self.prime)
        square = (residue(root * root, self.prime) == self.a.real) & self._plain()
        sign = np.where(square | ((self.prime + 1) / 4 % 2 == 0), 1.0, -1.0)
        return square, np.where(self._plain(), residue(sign * root, self.prime), np.nan)

    def is_square(self) -> NDArray[np.bool_]:
        """Return where the element is a square of the prime field, or zero."""
        return self._rooted[0]

    def magnitude(self) -> "Element":
        """Return the element or its negative, whichever is a square."""
        flipped = np.where(self.is_square(), self.a.real, -self.a.real)
        return self.made(np.where(self._plain(), flipped, np.nan))

    def sqrt(self) -> "Element":
        """Return the root that is a square itself; `j` times such a root of a non-square."""
        squares, root = self._rooted
        if self.lanes.strict:
            return self.made(np.where(squares, root, np.nan))
        return self.made(np.where(squares, root, 1j * root))

    def raised(self, numerator: int, denominator: int) -> "Element":
        """Return the element to the power of a fraction; the root is the square among the roots."""
        if denominator == 1:
            return self**numerator
        if denominator % 2 == 0:
            return self.sqrt().raised(numerator, denominator // 2)
        orders = [int(p) - 1 for p in self.lanes.primes]
        coprime = [math.gcd(denominator, order) == 1 for order in orders]
        exponents = [
            pow(denominator, -1, order) if fits else 0 for order, fits in zip(orders, coprime)
        ]
        column = self.lanes.column(self.a.ndim - 1, np.array(exponents, np.float64))
        root = power(self.a.real, column, self.prime)
        root = np.where(self._plain() & (column > 0), root, np.nan)
        return self.made(root) ** numerator

    def exp(self) -> "Element":
        """Return exp: powers of the lane's base, whose exponents are one lane down."""
        grown = self._raised("exp", self.lanes.base, self.a.real)
        if self.flips is not None:
            turned = np.nan_to_num(_below(self.lanes, self.flips))
            grown = grown.made(np.where(turned > 0, -grown.a, grown.a))
        if not np.iscomplexobj(self.a):
            return grown
        return grown * self._raised("turn", self.lanes.turn, self.a.imag)

    def log(self) -> "Element":
        """Return log: the exponents of the element's magnitude, one lane up."""
        magnitude, flips = self.magnitude(), np.where(self.is_square(), 0.0, 1.0)
        found, exact = magnitude.hashed("log"), np.array(self.exact & (self.lanes.upper >= 0))
        for lane, up in enumerate(self.lanes.upper):
            if up >= 0:
                prime = int(self.lanes.primes[up])
                known = np.isfinite(magnitude.a[up, ...])
                at = magnitude.a[up, ...][known].astype(np.int64)
                table = _logarithms(prime, int(self.lanes.base[up]))
                found.a[lane, ...] = np.nan
                found.a[lane, ...][known] = table[np.minimum(at, prime - at)]
        exact &= np.broadcast_to(self.exact, len(self.lanes))[self.lanes.upper]
        top = (self.lanes.upper < 0).reshape(-1, *(1,) * (flips.ndim - 1))
        flips = np.where(top, 0.0, flips[self.lanes.upper])
        return Element(self.lanes, found.a, exact).flipped(flips)

    def raised_to(self, exponent: "Element") -> "Element":
        """Return `exp(exponent * log(self))`, without a logarithm of its own."""
        base, below = self.magnitude(), _below(self.lanes, exponent.a.real)
        powers = power(base.a, below, self.prime)
        lowest = self.lanes.lower < 0
        powers[lowest] = base.hashed("pow", exponent).a[lowest]
        powers = np.where(exponent._plain(), powers, np.nan)
        exact = self.exact & np.broadcast_to(exponent.exact, len(self.lanes))[self.lanes.lower]
        return Element(self.lanes, powers, exact & ~lowest)

    def angle(self) -> tuple["Element", "Element"]:
        """Return cos and sin."""
        forward = self._raised("turn", self.lanes.turn, self.a.real)
        if np.iscomplexobj(self.a):  # exp(j (a + j b)) = exp(j a) / exp(b)
            forward = forward * self._raised("exp", self.lanes.base, self.a.imag).inverse()
        back = forward.inverse()
        cos, sin = (forward + back).over(2), (forward - back).over(2)
        return cos, sin.made(-1j * sin.a)

    def _raised(self, label: str, bases: F64, exponents: F64) -> "Element":
        """Return each lane's base to exponents that are one lane down.

        Where there is no lane below, a function stands for it that only knows f(-x) = 1 / f(x).
        """
        out = _raise(self.lanes, bases, _below(self.lanes, exponents))
        lowest = self.lanes.lower < 0
        positive = exponents * 2 < self.prime
        folded = Element(self.lanes, np.where(positive, exponents, self.prime - exponents))
        hashed = folded.hashed(label)
        odd = np.where(positive, hashed.a, hashed.inverse().a)
        out[lowest] = np.where(exponents == 0, 1.0, odd)[lowest]
        exact = np.broadcast_to(self.exact, len(self.lanes))
        return Element(self.lanes, out, exact & exact[self.lanes.lower] & ~lowest)

    def hashed(self, label: str, *others: "Element") -> "Element":
        """Return an uninterpreted function: equal arguments, equal values, and no other law."""
        mixed = np.zeros(self.a.shape, np.uint64)
        defined = np.ones(self.a.shape, bool)
        seeds = np.array(self.lanes.seeds, np.uint64).reshape(-1, *(1,) * (self.a.ndim - 1))
        for k, element in enumerate((self, *others)):
            for part in (element.a.real, element.a.imag):
                defined &= np.isfinite(part)
                words = np.nan_to_num(part).astype(np.uint64)
                mixed = _mix(mixed ^ _mix(words + seeds + np.uint64(_key(f"{label} {k}"))))
        values = self.made((mixed >> np.uint64(12)).astype(np.float64), *others)
        return values.made(np.where(defined, values.a, np.nan))

    def odd(self, label: str) -> "Element":
        """Return an uninterpreted function with f(-x) = -f(x)."""
        first = np.where(self.a.real == 0, self.a.imag, self.a.real)
        positive = first * 2 < self.prime
        sign = np.where(first == 0, 0.0, np.where(positive, 1.0, -1.0))
        return self.made(sign * self.made(self.a * sign).hashed(label).a)

    def undefined(self) -> "Element":
        """Return an array of this shape of which nothing is known."""
        return Element(self.lanes, np.full(self.a.shape, np.nan))

    def _plain(self) -> NDArray[np.bool_]:
        plain: NDArray[np.bool_] = self.a.imag == 0
        return plain


def constant(lanes: Lanes, number: int, ndim: int = 0) -> Element:
    """Return a whole number in every lane."""
    residues = np.array([number % int(p) for p in lanes.primes], np.float64)
    return Element(lanes, residues.reshape(-1, *(1,) * ndim))


def power(base: F64, exponent: F64, prime: F64) -> F64:
    """Return `base ** exponent` mod prime, entry by entry; NaN spreads."""
    result = np.ones(np.broadcast_shapes(base.shape, exponent.shape))
    result = np.where(np.isfinite(base + 0 * exponent), result, np.nan)
    rest = np.nan_to_num(exponent).astype(np.int64) + np.zeros(result.shape, np.int64)
    square = base + 0.0 * exponent
    while rest.any():
        odd = (rest & 1).astype(bool)
        result = np.where(odd, residue(result * square, prime), result)
        rest >>= 1
        square = residue(square * square, prime)
    return result


def inverses(a: F64, primes: F64) -> F64:
    """Return 1 / a in every lane, with one inversion for all entries; NaN stays.

    Of two entries, the inverse of the product times one of them is the inverse of the other
    (Montgomery 1987, "Speeding the Pollard and elliptic curve methods of factorization").
    """
    known = np.isfinite(a)
    flat = np.where(known, a, 1.0).reshape(len(a), -1)
    column, count = primes.reshape(-1, 1), flat.shape[1]
    if count == 1:
        pairs = zip(flat[:, 0], primes)
        found = np.array([[pow(int(x), -1, int(p))] for x, p in pairs], np.float64)
    elif count:
        first, second = flat[:, : (count + 1) // 2], flat[:, count // 2 :]  # they may share one
        under = inverses(residue(first * second, column), primes)
        halves = residue(under * second, column), residue(under * first, column)
        found = np.concatenate([halves[0], halves[1][:, count % 2 :]], axis=1)
    else:
        found = flat
    return np.where(known, found.reshape(a.shape), np.nan)


@functools.lru_cache(maxsize=16)
def lanes(points: int, seed: int, strict: bool = False) -> Lanes:
    """Return the lanes of some points of every tower."""
    rng = np.random.default_rng([seed, 7])
    primes: list[int] = []
    lower: list[int] = []
    upper: list[int] = []
    owners: list[int] = []
    for tower, chain in enumerate(TOWERS):
        for point in range(points):
            for level, prime in enumerate(chain):
                here = len(primes)
                primes.append(prime)
                upper.append(here - 1 if level else -1)
                lower.append(here + 1 if level + 1 < len(chain) else -1)
                owners.append(tower * points + point)
    base, turn = zip(*map(_generators, primes))
    return Lanes(
        np.array(primes, np.float64),
        np.array(lower),
        np.array(upper),
        np.array(base, np.float64),
        np.array(turn, np.float64),
        tuple(int(s) for s in rng.integers(0, 1 << 60, len(primes))),
        np.array(owners),
        strict,
    )


@functools.cache
def _generators(prime: int) -> tuple[int, int]:
    """Return two squares; all but 1 generate all squares, whose number is a prime."""
    rng = np.random.default_rng(prime)
    first, second = (pow(int(rng.integers(2, prime - 1)), 2, prime) for _ in range(2))
    return first, second


def residue(a: Pair, prime: F64) -> Pair:
    """Return the residue of whole numbers below 2^53 - prime, ten times sooner than NumPy does.

    It is exact: a quotient that is not whole lies 1 / prime or more from the next whole number,
    which is more than rounding moves it.
    """
    if np.iscomplexobj(a):
        b = residue(a.imag, prime)
        return residue(a.real, prime) + (1j * b if b.any() else 0.0)
    rest: Pair = a - np.floor(a / prime) * prime
    return rest


def _below(lanes: Lanes, values: F64) -> F64:
    """Return each lane's exponents: what the values are one lane down, NaN at the end."""
    out = values[lanes.lower]
    out[lanes.lower < 0] = np.nan
    return out


def _raise(lanes: Lanes, bases: F64, exponents: F64) -> F64:
    """Return each lane's base to some exponents, from two tables of digits."""
    out = np.full(exponents.shape, np.nan)
    for lane, prime in enumerate(lanes.primes):
        if lanes.lower[lane] < 0:
            continue
        known = np.isfinite(exponents[lane, ...])
        digits = exponents[lane, ...][known].astype(np.int64)
        small, large = _powers(int(prime), int(bases[lane]))
        out[lane, ...][known] = residue(
            small[digits % _HALF] * large[digits // _HALF], np.asarray(prime)
        )
    return out


@functools.lru_cache(maxsize=256)
def _powers(prime: int, square: int) -> tuple[F64, F64]:
    """Return `square ** k` and `square ** (2^11 k)` for k below 2^11."""
    step = pow(square, _HALF, prime)
    small, large = (_geometric(each, _HALF, prime) for each in (square, step))
    return small.astype(np.float64), large.astype(np.float64)


def _geometric(ratio: int, count: int, prime: int) -> NDArray[np.int64]:
    found, known = np.ones(count, np.int64), 1
    while known < count:
        more = found[: min(known, count - known)] * pow(ratio, known, prime)
        found[known : known + len(more)] = more - more // prime * prime  # faster than % is
        known += len(more)
    return found


@functools.lru_cache(maxsize=32)
def _logarithms(prime: int, base: int) -> NDArray[np.float32]:
    """Return the exponent of the magnitude of `a` at `min(a, prime - a)`; NaN for zero."""
    order = (prime - 1) // 2
    squares = _geometric(base, order, prime)
    table = np.full(order + 1, np.nan, np.float32)  # exponents are below 2^24
    table[np.minimum(squares, prime - squares)] = np.arange(order, dtype=np.float32)
    return table


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words (the finaliser of splitmix64; Steele, Lea and Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed
