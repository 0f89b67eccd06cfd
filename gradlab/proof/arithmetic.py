"""What each primitive is in a field, entry by entry, and which of three mechanisms others take."""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlab.proof.degree import Degree
from gradlab.proof.field import Element

_MASK = 1e4  # exp of minus this is zero in every dtype, by far: a mask

Grow = Callable[[Sequence[Degree], Sequence[int]], Degree]
Function = Callable[
    [Mapping[str, Any], Sequence[Element], Sequence[NDArray[Any]], Any], "Element | None"
]


class Entry(NamedTuple):
    """A primitive that computes entry by entry.

    `function` gets the equation's parameters, the operands' elements and numbers, and the result's
    numbers. `degree` gets the operands' degrees, and a key for each.
    """

    function: Function
    degree: Grow

    @property
    def products(self) -> int:
        """About how many products of residues an entry takes: a power takes dozens."""
        return _PRODUCTS.get(self.degree, 1)


def masked(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where an exponent hides an entry: minus infinity, or as good as that."""
    hidden: NDArray[np.bool_] = numbers <= -_MASK
    return hidden


def _plain(function: Callable[..., Element], degree: Grow) -> Entry:
    return Entry(lambda params, elements, numbers, real: function(*elements), degree)


def _inside(degrees: Sequence[Degree], keys: Sequence[int]) -> Degree:
    first, *rest = degrees
    return first.plus(*rest).inside() if rest else first.inside()


def _same(degrees: Sequence[Degree], keys: Sequence[int]) -> Degree:
    return degrees[0]


def _sum(degrees: Sequence[Degree], keys: Sequence[int]) -> Degree:
    return degrees[0].plus(*degrees[1:])


def _product(degrees: Sequence[Degree], keys: Sequence[int]) -> Degree:
    return degrees[0].times(degrees[1])


def _quotient(degrees: Sequence[Degree], keys: Sequence[int]) -> Degree:
    return degrees[0].times(degrees[1].inverse(keys[1]))


def _root(degrees: Sequence[Degree], keys: Sequence[int]) -> Degree:
    return Degree(degrees[0].total)


def _inverse_root(degrees: Sequence[Degree], keys: Sequence[int]) -> Degree:
    return Degree(degrees[0].total).inverse(-keys[0])


def _power(params: Mapping[str, Any], elements: Sequence[Element], numbers: Any, real: Any) -> Any:
    return elements[0] ** int(params["y"])


def _exp(params: Mapping[str, Any], elements: Sequence[Element], numbers: Any, real: Any) -> Any:
    (x,), hidden = elements, masked(numbers[0])
    value = x.exp()
    if not hidden.any():
        return value
    return value.made(np.where(hidden, 0.0, value.a))


def _pow(params: Mapping[str, Any], elements: Sequence[Element], numbers: Any, real: Any) -> Any:
    """Return a power; a root where the exponent is a small fraction in every lane."""
    base, exponent = elements
    guess = Fraction(float(numbers[1].flat[0])).limit_denominator(64) if numbers[1].size else 0
    fraction = Fraction(guess)
    if (exponent.a == exponent.whole(fraction.numerator).over(fraction.denominator).a).all():
        plain = base if fraction.denominator <= 2 else base.magnitude()
        return plain.raised(fraction.numerator, fraction.denominator)
    return base.raised_to(exponent)


def _locally(whole: bool) -> Function:
    """Return the function of what is the same whole number nearby."""

    def function(params: Any, elements: Sequence[Element], numbers: Any, real: Any) -> Element:
        rounded = np.nan_to_num(real)
        return elements[0].made(
            np.where(np.isfinite(real), np.fmod(rounded, elements[0].prime), np.nan)
        )

    return function


def _abs(params: Any, elements: Sequence[Element], numbers: Any, real: Any) -> Element:
    (x,), sign = elements, np.where(numbers[0] < 0, -1.0, 1.0)
    found = x.made(x.a * sign)
    if x.lanes.strict:  # sqrt(x^2 y) = |x| sqrt(y) holds where |x| is a square
        return found.made(np.where(found.is_square(), found.a, np.nan))
    return found


def _rem(params: Any, elements: Sequence[Element], numbers: Any, real: Any) -> Element:
    x, y = elements
    quotient = np.trunc(numbers[0] / numbers[1])
    return x - y * y.made(np.fmod(np.nan_to_num(quotient), y.prime))


def _expm1(params: Any, elements: Sequence[Element], numbers: Any, real: Any) -> Any:
    value = _exp(params, elements, numbers, real)
    return value - value.whole(1)


def _tanh(x: Element) -> Element:
    square = x.times(2).exp()
    one = x.whole(1)
    return (square - one) * (square + one).inverse()


def _tan(x: Element) -> Element:
    cos, sin = x.angle()
    return sin * cos.inverse()


def _half_sum(x: Element, sign: int) -> Element:
    value = x.exp()
    return (value + value.inverse().times(sign)).over(2)


def _exp2(x: Element) -> Element:
    return (x * x.whole(2).log()).exp()


def _hashed(name: str) -> Entry:
    return _plain(lambda x, *others: x.hashed(name, *others), _inside)


def _odd(name: str) -> Entry:
    return _plain(lambda x: x.odd(name), _inside)


_INTEGER = Entry(_locally(True), lambda degrees, keys: Degree(0))
_IDENTITY = _plain(lambda x: x, _same)

_PRODUCTS: Mapping[Grow, int] = {_inside: 32, _quotient: 16, _root: 16, _inverse_root: 16}

ENTRIES: dict[str, Entry] = {
    "abs": Entry(_abs, _same),
    "add": _plain(lambda x, y: x + y, _sum),
    "add_any": _plain(lambda x, y: x + y, _sum),
    "cbrt": _plain(lambda x: x.raised(1, 3), _root),
    "ceil": _INTEGER,
    "convert_element_type": _IDENTITY,
    "cos": _plain(lambda x: x.angle()[0], _inside),
    "cosh": _plain(lambda x: _half_sum(x, 1), _inside),
    "div": _plain(lambda x, y: x * y.inverse(), _quotient),
    "erfc": _plain(lambda x: x.whole(1) - x.odd("erf"), _inside),
    "exp": Entry(_exp, _inside),
    "exp2": _plain(_exp2, _inside),
    "expm1": Entry(_expm1, _inside),
    "floor": _INTEGER,
    "integer_pow": Entry(_power, _same),
    "log": _plain(lambda x: x.log(), _inside),
    "log1p": _plain(lambda x: (x + x.whole(1)).log(), _inside),
    "logistic": _plain(lambda x: (x.whole(1) + (-x).exp()).inverse(), _inside),
    "mul": _plain(lambda x, y: x * y, _product),
    "neg": _plain(lambda x: -x, _same),
    "one_minus_square": _plain(
        lambda x: x.whole(1) - x * x,
        lambda degrees, keys: _sum([Degree(0), degrees[0].times(degrees[0])], keys),
    ),
    "pow": Entry(_pow, _inside),
    "reduce_precision": _IDENTITY,
    "rem": Entry(_rem, _sum),
    "round": _INTEGER,
    "rsqrt": _plain(lambda x: x.sqrt().inverse(), _inverse_root),
    "sign": _INTEGER,
    "sin": _plain(lambda x: x.angle()[1], _inside),
    "sinh": _plain(lambda x: _half_sum(x, -1), _inside),
    "sqrt": _plain(lambda x: x.sqrt(), _root),
    "square": _plain(lambda x: x * x, lambda degrees, keys: degrees[0].times(degrees[0])),
    "sub": _plain(lambda x, y: x - y, _sum),
    "tan": _plain(_tan, _inside),
    "tanh": _plain(_tanh, _inside),
    **{name: _odd(name) for name in ("asin", "asinh", "atan", "atanh", "erf", "erf_inv")},
    **{
        name: _hashed(name)
        for name in (
            *("acos", "acosh", "atan2", "bessel_i0e", "bessel_i1e", "digamma", "igamma"),
            *("igammac", "igamma_grad_a", "lgamma", "polygamma", "random_gamma_grad"),
            *("regularized_incomplete_beta", "zeta"),
        )
    },
}

_FIRST = slice(0, 1)
_PAIR = slice(0, 3, 2)  # an array, its indices, and updates

LINEAR: dict[str, slice] = {
    "cumsum": _FIRST,
    "reduce_sum": _FIRST,
    "reduce_window_sum": _FIRST,
    "scatter-add": _PAIR,
    "scatter-sub": _PAIR,
    "select_and_gather_add": _FIRST,
    "select_and_scatter_add": _FIRST,
}
CHOICES = frozenset(
    [
        *("clamp", "cummax", "cummin", "max", "min", "reduce_max", "reduce_min"),
        *("reduce_window_max", "reduce_window_min", "sort", "top_k"),
    ]
)


def _contracted(equation: Any) -> int:
    (axes, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.invars[0].aval.shape[axis] for axis in axes)


def _window(equation: Any) -> int:
    shape, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
    terms: int = math.prod(shape) // max(1, shape[numbers.rhs_spec[0]])
    return terms


BILINEAR: dict[str, Callable[[Any], int]] = {
    "conv_general_dilated": _window,
    "dot_general": _contracted,
}

Pair = tuple[Element, Element]


def _complex_times(x: Pair, y: Pair) -> Pair:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _complex_over(x: Pair, y: Pair) -> Pair:
    under = (y[0] * y[0] + y[1] * y[1]).inverse()
    real, imag = _complex_times(x, (y[0], -y[1]))
    return real * under, imag * under


def _complex_exp(x: Pair) -> Pair:
    size, (cos, sin) = x[0].exp(), x[1].angle()
    return size * cos, size * sin


COMPLEX: dict[str, Callable[..., tuple[Element, ...]]] = {
    "abs": lambda x: ((x[0] * x[0] + x[1] * x[1]).sqrt(),),
    "add": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "add_any": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "complex": lambda x, y: (x[0], y[0]),
    "conj": lambda x: (x[0], -x[1]),
    "convert_element_type": lambda x: x,
    "copy": lambda x: x,
    "div": _complex_over,
    "exp": _complex_exp,
    "imag": lambda x: (x[1],),
    "mul": _complex_times,
    "neg": lambda x: (-x[0], -x[1]),
    "real": lambda x: (x[0],),
    "square": lambda x: _complex_times(x, x),
    "sub": lambda x, y: (x[0] - y[0], x[1] - y[1]),
}
