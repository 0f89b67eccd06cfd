"""Sizes with names: integers that are polynomials in B and T, compared without their numbers.

The algebra of patterns runs on them as it runs on integers. What it asks, such as `T - 1 < 64`, is
proved where that is possible. Else the answer is the one at large sizes, and it is written down:
the algebra takes the same path at all sizes at which the same answers hold, so what it finds there
is proved for all of them. They are the `Sizes.assumed` of the proof.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from math import ceil, gcd, lcm, prod
from typing import Any, TypeAlias

import numpy as np

from gradlab.errors import InputError

_LARGE = (10007, 20011, 40009, 80021, 160001, 320009, 640007)
"""Sizes at which questions are answered that cannot be proved: unlike each other, and no limit."""

_MOST = 2**31 - 1
"""The largest size of an axis that JAX can index in int32."""

Monomial: TypeAlias = tuple[str, ...]
Terms: TypeAlias = Mapping[Monomial, Fraction | int]


class Undecided(InputError):
    """A number is needed where only the name of a size is known."""


class Size:
    """A polynomial in the names of sizes; one that is constant is an `int` instead.

    Example:
        >>> T = Sizes({"T": 1}).named("T")
        >>> T * (T + 1) // 2, T - T, T >= 1
        (T*(T + 1)/2, 0, True)
    """

    __slots__ = ("sizes", "terms")

    def __init__(self, sizes: "Sizes", terms: Terms) -> None:
        self.sizes, self.terms = sizes, terms

    def __add__(self, other: Any) -> Any:
        return self.sizes.sum(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self.sizes.sum(self, other, -1)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __neg__(self) -> Any:
        return self * -1

    def __mul__(self, other: Any) -> Any:
        return self.sizes.product(self, other)

    __rmul__ = __mul__

    def __pow__(self, other: int) -> Any:
        return prod([self] * other)

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self.sizes.divided(self, other)

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return self.sizes.divided(other, self)

    def __floordiv__(self, other: Any) -> Any:
        return divmod(self, other)[0]

    def __rfloordiv__(self, other: Any) -> Any:
        return divmod(other, self)[0]

    def __mod__(self, other: Any) -> Any:
        return divmod(self, other)[1]

    def __rmod__(self, other: Any) -> Any:
        return divmod(other, self)[1]

    def __eq__(self, other: object) -> bool:
        if self is other or not _is_number(other, self.sizes):
            return self is other
        return self.sizes.is_zero(self - other)

    def __hash__(self) -> int:
        return id(self)  # one object for each polynomial

    def __ge__(self, other: Any) -> bool:
        return self.sizes.at_least(self - other)

    def __le__(self, other: Any) -> bool:
        return self.sizes.at_least(other - self)

    def __gt__(self, other: Any) -> bool:
        return self.sizes.at_least(self - other - 1)

    def __lt__(self, other: Any) -> bool:
        return self.sizes.at_least(other - self - 1)

    def __bool__(self) -> bool:
        return self != 0

    def __index__(self) -> int:
        raise Undecided(f"the number of {self} is not known; give sizes=")

    def __float__(self) -> float:
        return float(self.__index__())

    def __reduce__(self) -> Any:
        return _again, (self.sizes, dict(self.terms))

    def __repr__(self) -> str:
        return self.sizes.written(self.terms)

    def __format__(self, spec: str) -> str:
        return str(self)

    @property
    def names(self) -> set[str]:
        """The names in it."""
        return {name for monomial in self.terms for name in monomial}

    def at(self, numbers: Mapping[str, Any]) -> Any:
        """Return its value where names have these values, numbers or other sizes."""
        total: Any = 0
        shared = _denominator(self.terms)
        for monomial, factor in self.terms.items():
            total = total + int(factor * shared) * prod(numbers.get(n, n) for n in monomial)
        return total // shared


Number: TypeAlias = int | Size


class Sizes:
    """Names of sizes, what is known of them, and what a proof has assumed besides.

    Attributes:
        least: for each name, its smallest value.
        assumed: polynomials that are at least 0 wherever the proof holds.
        apart: polynomials that are not 0 there.

    Args:
        least: for each name, its smallest value.
        known: polynomials that are at least 0, in words.
        units: for each name, how many entries one is; what people read counts entries.
        fixed: numbers for some names.
    """

    def __init__(
        self,
        least: Mapping[str, int],
        known: Sequence[str] = (),
        units: Mapping[str, int] | None = None,
        fixed: Mapping[str, int] | None = None,
    ) -> None:
        self.fixed, self.units = dict(fixed or {}), dict(units or {})
        self.least = {name: n for name, n in least.items() if name not in self.fixed}
        self._witness = dict(zip(self.least, (p + k for p, k in zip(_LARGE, self.least.values()))))
        if len(self._witness) < len(self.least):
            raise InputError(f"sizes: {len(_LARGE)} names are the most; give numbers for others")
        self._made: dict[frozenset[tuple[Monomial, Fraction | int]], Size] = {}
        self._answers: dict[Size, bool] = {}
        self._zero: dict[Size, bool] = {}
        self._proved: dict[frozenset[tuple[Monomial, Fraction | int]], bool] = {}
        self._sums: dict[tuple[Any, Any, int], Any] = {}
        self._known: list[Terms] = [
            {(): _MOST // self.units.get(name, 1), (name,): -1} for name in self.least
        ]
        self._read_before: dict[str, Any] = {}
        self._known += [_terms(self.read(text)) for text in known]
        self.assumed: list[Size] = []
        self.apart: dict[Size, None] = {}

    def named(self, name: str) -> Any:
        """Return the size of a name."""
        return self.fixed[name] if name in self.fixed else self._of({(name,): 1})

    def read(self, text: str) -> Any:
        """Return a size from words, such as "4*K + 1" or "floordiv(T, 8)"."""
        if text not in self._read_before:
            tree = ast.parse(text.replace("^", "**"), mode="eval")
            self._read_before[text] = self._read(tree.body)
        return self._read_before[text]

    def _read(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.named(node.id)
        if isinstance(node, ast.UnaryOp):
            return -self._read(node.operand)
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](self._read(node.left), self._read(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return _FUNCTIONS[node.func.id](*map(self._read, node.args))
        raise Undecided(f"{ast.unparse(node)} is no size that can be compared; give sizes=")

    def _of(self, terms: Terms) -> Any:
        terms = {m: _whole(c) for m, c in terms.items() if c}
        if terms.keys() <= {()}:
            return terms.get((), 0)
        key = frozenset(terms.items())
        if key not in self._made:
            self._made[key] = Size(self, terms)
        return self._made[key]

    def sum(self, a: Any, b: Any, sign: int) -> Any:
        """Return a plus, or minus, b."""
        key = a, b, sign
        if key not in self._sums:
            self._sums[key] = self._of(_plus(_terms(a), _terms(b), sign))
        return self._sums[key]

    def product(self, a: Any, b: Any) -> Any:
        """Return a times b."""
        return self._of(_times(_terms(a), _terms(b)))

    def divided(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Return quotient and remainder, where they are polynomials."""
        if not isinstance(b, Size):
            b = int(b)
            quotient = self._of({m: Fraction(c) / b for m, c in _terms(a).items()})
            if not isinstance(quotient, Size):
                return int(a) // b, int(a) % b
            rest = quotient.terms.get((), 0) % 1
            whole = self._of(_plus(quotient.terms, {(): rest}, -1))
            if not _is_integral(whole.terms):
                raise Undecided(f"{a} // {b} is not known; say what divides, as in T%{b}==0")
            return whole, int(rest * b)
        even: dict[Monomial, Fraction] = {}
        left, lead = dict(_terms(a)), max(b.terms, key=_degree)
        while parts := [m for m in left if _without(m, lead) is not None]:
            monomial = max(parts, key=_degree)
            part = {_without(monomial, lead) or (): Fraction(left[monomial]) / b.terms[lead]}
            even |= part
            left = {m: c for m, c in _plus(left, _times(part, b.terms), -1).items() if c}
        quotient = self._of(even) if _is_integral(even) else 0
        rest = a - quotient * b
        for more in (0, -1, 1):
            if 0 <= rest - more * b < b:
                return quotient + more, rest - more * b
        raise Undecided(f"({a}) // ({b}) is not known; give sizes=")

    def large(self, size: Size) -> int:
        """Return the value at the sizes where questions are answered."""
        value: int = size.at(self._witness)
        return value

    def at_least(self, size: Number) -> bool:
        """Answer whether a size is at least 0; assume what cannot be proved."""
        if not isinstance(size, Size):
            return size >= 0
        if size not in self._answers:
            self._answers[size] = self._answer(size)
        return self._answers[size]

    def _answer(self, size: Size) -> bool:
        if self.proves(size.terms):
            return True
        opposite = -size - 1
        if self.proves(opposite.terms):
            return False
        holds = self.large(size) >= 0
        self._assume(size if holds else opposite)
        return holds

    def is_zero(self, size: Number) -> bool:
        """Answer whether a size is 0; assume what cannot be proved."""
        if not isinstance(size, Size):
            return size == 0
        if size not in self._zero:
            self._zero[size] = self._is_zero(size)
        return self._zero[size]

    def _is_zero(self, size: Size) -> bool:
        above, below = size - 1, -size - 1
        if (
            self.proves(above.terms)
            or self.proves(below.terms)
            or self.apart.keys() & {size, -size}
        ):
            return False
        if self.large(size) == 0:
            self._assume(size)
            self._assume(-size)
            return True
        self.apart[size] = None
        return False

    def _assume(self, size: Size) -> None:
        self.assumed.append(size)
        self._proved.clear()

    def proves(self, terms: Terms) -> bool:
        """Return whether a polynomial is proved to be at least 0."""
        key = frozenset(terms.items())
        if key not in self._proved:
            self._proved[key] = self._is_positive(terms) or any(
                self._follows(terms, known)
                for known in (*self._known, *(size.terms for size in self.assumed))
            )
        return self._proved[key]

    def _follows(self, terms: Terms, known: Terms) -> bool:
        """Return whether a polynomial is some positive multiple of a known one, and more."""
        shared = [Fraction(terms[m]) / known[m] for m in known if m and m in terms]
        tried = {c for c in (*shared, Fraction(1)) if c > 0}
        return any(self._is_positive(_plus(terms, known, -c)) for c in tried)

    def _is_positive(self, terms: Terms) -> bool:
        """Return whether it has no negative coefficient, once names count from their least."""
        shifted: Terms = {(): 0}
        for monomial, factor in terms.items():
            part: Terms = {(): factor}
            for name in monomial:
                part = _times(part, {(name,): 1, (): self.least[name]})
            shifted = _plus(shifted, part, 1)
        return all(factor >= 0 for factor in shifted.values())

    def bounds(self) -> dict[str, int]:
        """Return for each name the smallest value at which the proof holds, by itself."""
        least = dict(self.least)
        for size in self.assumed:
            [name, *others] = sorted(size.names)
            factor = size.terms.get((name,), 0)
            if not others and size.terms.keys() <= {(), (name,)} and factor > 0:
                least[name] = max(least[name], ceil(-Fraction(size.terms.get((), 0)) / factor))
        return least

    def others(self) -> list[str]:
        """Return what else holds of the sizes, in words."""
        inner = Sizes(self.bounds(), (), self.units)
        inner._known += [k for k in self._known if len(k) > 2 or () not in k]
        said = []
        for size in self.assumed:
            if not inner.proves(size.terms):
                positive = {m: c for m, c in size.terms.items() if c > 0}
                negative = {m: -c for m, c in size.terms.items() if c < 0}
                said.append(f"{self.written(positive)} >= {self.written(negative)}")
        for size in self.apart:
            above, below = size - 1, -size - 1
            if not inner.proves(above.terms) and not inner.proves(below.terms):
                constant = -size.terms.get((), 0)
                said.append(f"{size + constant} != {constant}")
        return said

    def written(self, terms: Terms) -> str:
        """Return a polynomial as people write it, products of names first taken apart."""
        if not terms:
            return "0"
        entries = {m: c / Fraction(prod(self.units.get(n, 1) for n in m)) for m, c in terms.items()}
        shared = _denominator(entries)
        whole = {m: int(c * shared) for m, c in entries.items()}
        common: Monomial = next(iter(whole))
        for monomial in whole:
            common = tuple(n for n in dict.fromkeys(common) for _ in range(
                min(common.count(n), monomial.count(n))))  # fmt: skip
        outer = gcd(*whole.values())
        inner = {_without(m, common) or (): c // outer for m, c in whole.items()}
        text = ""
        for monomial, factor in sorted(inner.items(), key=lambda x: (-len(x[0]), x[0])):
            number = [str(abs(factor))] if abs(factor) != 1 or not monomial else []
            size = "*".join([*number, *monomial])
            sign = "-" if factor < 0 else "+"
            text += f" {sign} {size}" if text else f"-{size}" if factor < 0 else size
        before = [*([str(outer)] if outer != 1 else []), *common]
        alone = len(inner) == 1
        if before:
            text = "*".join([*before, *([] if text == "1" else [text if alone else f"({text})"])])
        if shared == 1:
            return text
        return f"{text}/{shared}" if before or alone else f"({text})/{shared}"


def exact(value: Any) -> Any:
    """Return an entry of bounds as a Python integer, or as the size that it is."""
    return value if isinstance(value, Size) else int(value)


def has_number(value: Any) -> bool:
    """Return whether a size is a number."""
    return not isinstance(value, Size)


def names_in(values: Iterable[Any]) -> set[str]:
    """Return the names of sizes."""
    return {name for value in values if isinstance(value, Size) for name in value.names}


def small(number: Any, most: int) -> bool:
    """Return whether a number is known, and at most so large."""
    return has_number(number) and bool(number <= most)


def divides(low: Any, high: Any) -> bool:
    """Return whether one size is known to divide another."""
    try:
        return bool(high % low == 0)
    except Undecided:
        return False


def same(a: Any, b: Any) -> bool:
    """Return whether two sizes are known to be equal; that they are not is not asked."""
    apart = a - b
    return not isinstance(apart, Size) and bool(apart == 0)


def proved(values: Any) -> Any:
    """Return where an array is proved to be at least 0, without assuming it."""
    if values.dtype != object:
        return values >= 0
    return np.array([_is_proved(v) for v in values.flat], np.bool_).reshape(values.shape)


def least(a: Any, b: Any, out: Any = None) -> Any:
    """Return the smaller of two bounds, entry by entry, as `np.minimum` does.

    Both hold. So where they are of several names, one is taken and nothing is assumed.
    """
    if np.result_type(a, b).kind != "O":
        return np.minimum(a, b, out=out)
    found = _LEAST(a, b)
    if out is None:
        return found
    out[...] = found
    return out


def _least(a: Any, b: Any) -> Any:
    apart = b - a
    free = isinstance(apart, Size) and len(apart.names) > 1 and not _is_proved(apart)
    return a if (rank(apart) >= 0 if free else apart >= 0) else b


_LEAST = np.frompyfunc(_least, 2, 1)


def some_negative(values: Any) -> bool:
    """Return whether an array holds a number below 0; that none does is not assumed."""
    if values.dtype != object:
        return bool((values < 0).any())
    return any(rank(v) < 0 and v < 0 for v in values.flat)


def _is_proved(value: Any) -> bool:
    return value.sizes.proves(value.terms) if isinstance(value, Size) else bool(value >= 0)


def rank(value: Any) -> int:
    """Return what a size is where sizes are large, to choose between ways that are all right."""
    return int(value.sizes.large(value) if isinstance(value, Size) else value)


def valued(value: Any, numbers: Mapping[str, Any]) -> Any:
    """Return a size, or whatever else, where names have these values."""
    return value.at(numbers) if isinstance(value, Size) else value


def _again(sizes: Sizes, terms: Terms) -> Any:
    return sizes._of(terms)


def _is_number(value: object, sizes: Sizes) -> bool:
    return value.sizes is sizes if isinstance(value, Size) else hasattr(value, "__index__")


def _terms(value: Any) -> Terms:
    return value.terms if isinstance(value, Size) else {(): operator.index(value)}


def _whole(number: Fraction | int) -> Fraction | int:
    return number.numerator if number.denominator == 1 else number


def _plus(a: Terms, b: Terms, times: Fraction | int) -> Terms:
    total = dict(a)
    for monomial, factor in b.items():
        total[monomial] = total.get(monomial, 0) + times * factor
    return total


def _times(a: Terms, b: Terms) -> Terms:
    total: dict[Monomial, Fraction | int] = {}
    for (m, x), (n, y) in product(a.items(), b.items()):
        monomial = tuple(sorted((*m, *n)))
        total[monomial] = total.get(monomial, 0) + x * y
    return total


def _degree(monomial: Monomial) -> tuple[int, Monomial]:
    """Order monomials, such that a product of larger ones is larger."""
    return len(monomial), monomial


def _without(monomial: Monomial, names: Monomial) -> Monomial | None:
    """Return a monomial divided by another, if that divides it."""
    rest = list(monomial)
    for name in names:
        if name not in rest:
            return None
        rest.remove(name)
    return tuple(rest)


def _denominator(terms: Terms) -> int:
    return lcm(*(factor.denominator for factor in terms.values()))


def _is_integral(terms: Terms) -> bool:
    """Return whether a polynomial is an integer wherever its names are: it is on a small grid."""
    names = sorted({name for monomial in terms for name in monomial})
    degrees = [max(m.count(name) for m in terms) for name in names]
    for point in product(*(range(degree + 1) for degree in degrees)):
        at = dict(zip(names, point))
        if sum(c * prod(at[n] for n in m) for m, c in terms.items()) % 1:
            return False
    return True


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Pow: operator.pow, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "floordiv": operator.floordiv, "mod": operator.mod, "max": max, "min": min,
}  # fmt: skip
