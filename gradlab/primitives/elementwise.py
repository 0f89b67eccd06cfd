"""Primitives that act entry by entry: each output entry is computed at its own index.

A product, a quotient and a choice read an operand only where the other operand lets them.
"""

import math
from dataclasses import replace

import numpy as np

from gradlab.patterns import Pattern
from gradlab.primitives import facts, positions
from gradlab.primitives.equation import Equation
from gradlab.primitives.record import Primitive, Site, Zero, each, stays_zero, zero_if
from gradlab.primitives.rounding import EXACT, ONCE, TWICE, Near, Steep, Units


def entry_by_entry(site: Site, k: int) -> Pattern:
    """Each output entry reads the entry of the same index; a scalar is read by all."""
    return Pattern.broadcast(site.in_shapes[k], site.shape)


def _product(site: Site, k: int) -> Pattern:
    """A factor is read only where the other may differ from zero."""
    local = entry_by_entry(site, k)
    region = site.nonzero(1 - k)
    if region is None or site.depends[1 - k]:
        return local
    return local.where(Pattern.broadcast(site.in_shapes[1 - k], site.shape) @ region)


def _quotient(site: Site, k: int) -> Pattern:
    """A divisor is read only where the dividend may differ from zero."""
    local = entry_by_entry(site, k)
    region = site.nonzero(0)
    if k == 0 or region is None or site.depends[0]:
        return local
    return local.where(Pattern.broadcast(site.in_shapes[0], site.shape) @ region)


def _choice(site: Site, k: int) -> Pattern:
    """A case is read only where it may be chosen."""
    local = entry_by_entry(site, k)
    which = site.known[0]
    if k == 0 or which is None:
        return local
    value = site.value(0)
    if value is not None and value.ndim == 0:
        return local if int(value) == k - 1 else Pattern.zero(site.shape, site.in_shapes[k])
    if value is not None and value.dtype != bool:
        mask = value == k - 1
        region = Pattern.explicit(mask.reshape(-1, 1), mask.shape, ())
    else:
        found = which.untrue if k == 1 else which.nonzero
        if found is None:
            return local
        region = found
    if site.in_shapes[0] != site.shape:
        region = Pattern.broadcast(site.in_shapes[0], site.shape) @ region
    return local.where(region)


def _each_its_own(site: Site, k: int) -> tuple[Pattern | None, ...]:
    """Output k is operand k."""
    return tuple(
        Pattern.identity(shape) if j == k else None for j, shape in enumerate(site.out_shapes)
    )


def _own_is_zero(site: Site, output: int) -> bool:
    return site.vanishes[output]


def _second(site: Site, k: int) -> Pattern:
    """The second operand; the first only has to be computed."""
    shape = site.in_shapes[k]
    return Pattern.identity(shape) if k == 1 else Pattern.zero(site.shape, shape)


def _zero_over(site: Site, output: int) -> bool:
    """A dividend of zero; 0 / 0 is NaN, and -1 for integers, so those have to be known."""
    divisor = site.value(1)
    known = divisor is not None and bool(np.all(divisor != 0))
    return site.vanishes[0] and (known or not (site.vanishes[1] or site.out_dtypes[0].kind in "iu"))


def _positive_power(site: Site, output: int) -> bool:
    return site.vanishes[0] and bool(site.params["y"] > 0)


def _within(at_most: tuple[int, ...] = (), at_least: tuple[int, ...] = ()) -> Zero:
    """Zero if the operands are, or are known limits beyond which zero is not: `clip(g, -1, 1)`.

    Operands in `at_most` may be anything up to zero, those in `at_least` anything from zero on.
    """

    def harmless(site: Site, k: int) -> bool:
        known = site.known[k]
        limit = None if known is None or site.depends[k] else known.few
        if limit is None:
            return False
        below = k in at_most and bool(np.all(limit <= 0))
        return below or (k in at_least and bool(np.all(limit >= 0)))

    def rule(site: Site, output: int) -> bool:
        operands = range(len(site.vanishes))
        none_left = all(site.vanishes[k] or harmless(site, k) for k in operands)
        return none_left and any(site.vanishes)

    return rule


def _doublings(equation: Equation) -> float:
    """How often repeated squaring multiplies."""
    return max(1.0, math.log2(max(abs(equation.params["y"]), 1)))


_PLAIN = Primitive(name="", reads=entry_by_entry, entrywise=True, rounds=TWICE, underflows="never")
_ODD = replace(_PLAIN, zero=stays_zero)  # f(0) = 0, as in odd functions
_SUM = replace(_PLAIN, zero=zero_if())
_SAME = replace(_ODD, moves=slice(0, 1), affine=positions.same, rounds=EXACT)
_EACH = replace(_SAME, reads=_each_its_own, zero=_own_is_zero, affine=None, moves=slice(None))
_FACTORS = replace(_ODD, reads=_product)

_ADDED = replace(_SUM, rounds=ONCE, extremes="sum")
_EXACT = replace(_PLAIN, rounds=EXACT)
_MONOTONE = replace(_EXACT, extremes="corners")
_COMPARED = replace(_EXACT, known=facts.of_comparison, affine=positions.compared)
_ORDERED = replace(_COMPARED, extremes="corners")
_EXPONENTIAL = replace(_PLAIN, known=facts.of_exponential, settles=True, underflows="everyday")
_MAY_UNDERFLOW = replace(_PLAIN, underflows="possible")

RECORDS = (
    # the value as it is
    *each(
        _SAME,
        "copy copy_p name layout_constraint sharding_constraint reshard pvary pcast mesh_cast "
        "with_sharding_constraint with_memory_space_constraint stage",
    ),
    replace(_SAME, name="stop_gradient", flat=True),
    *each(_EACH, "optimization_barrier device_put"),
    Primitive(name="tie", reads=_second, zero=zero_if(1), moves=slice(1, 2), rounds=EXACT),
    replace(
        _ODD,
        name="convert_element_type",
        known=facts.of_cast,
        affine=positions.cast,
        rounds=ONCE,
        underflows="possible",
        extremes="corners",
    ),
    replace(_ODD, name="reduce_precision", rounds=ONCE, underflows="possible"),
    replace(_ODD, name="square", rounds=ONCE, underflows="possible", extremes="corners"),
    # arithmetic
    replace(
        _ODD,
        name="neg",
        known=facts.of_minus,
        affine=positions.negative,
        rounds=EXACT,
        extremes="corners",
    ),
    replace(_ADDED, name="add", known=facts.of_sum, affine=positions.plus, commutes=True),
    replace(_ADDED, name="add_any", known=facts.of_sum, commutes=True),
    replace(_ADDED, name="sub", known=facts.of_difference, affine=positions.minus),
    replace(
        _FACTORS,
        name="mul",
        known=facts.of_product,
        affine=positions.times,
        rounds=ONCE,
        underflows="possible",
        commutes=True,
        extremes="corners",
    ),
    replace(
        _MAY_UNDERFLOW,
        name="div",
        known=facts.of_quotient,
        reads=_quotient,
        zero=_zero_over,
        rounds=ONCE,
        extremes="corners",
    ),
    replace(_EXACT, name="rem", zero=_zero_over),
    replace(_MAY_UNDERFLOW, name="pow"),
    replace(
        _MAY_UNDERFLOW,
        name="integer_pow",
        zero=_positive_power,
        rounds=Units(_doublings),
        extremes="corners",
    ),
    replace(_ODD, name="sqrt", rounds=ONCE),
    replace(_PLAIN, name="polynomial", zero=zero_if(start=1)),
    # size and order
    replace(_MONOTONE, name="max", known=facts.of_larger, zero=_within((0, 1)), commutes=True),
    replace(_MONOTONE, name="min", known=facts.of_smaller, zero=_within((), (0, 1)), commutes=True),
    replace(
        _MONOTONE,
        name="clamp",
        affine=positions.limited,
        zero=_within(at_most=(0,), at_least=(2,)),
    ),
    replace(
        _MONOTONE,
        name="select_n",
        known=facts.of_choice,
        reads=_choice,
        zero=zero_if(start=1),
        moves=slice(1, None),
    ),
    replace(_COMPARED, name="eq"),
    replace(_COMPARED, name="ne", zero=zero_if()),
    *each(_ORDERED, "ge le"),
    replace(_ORDERED, name="gt", zero=_within(at_most=(0,), at_least=(1,))),
    replace(_ORDERED, name="lt", zero=_within(at_most=(1,), at_least=(0,))),
    # bits; a zero may be -0.0, whose bits are not zero
    replace(_FACTORS, name="and", known=facts.of_conjunction, rounds=EXACT),
    replace(_SUM, name="or", known=facts.of_disjunction, rounds=EXACT),
    replace(_EXACT, name="not", known=facts.of_negation),
    *each(
        replace(_EXACT, zero=zero_if(0)), "shift_left shift_right_arithmetic shift_right_logical"
    ),
    # without rounding, complex numbers among them
    *each(replace(_SUM, rounds=EXACT), "xor complex"),
    *each(replace(_ODD, rounds=EXACT), "mulhi population_count real imag conj"),
    replace(_MONOTONE, name="abs", zero=stays_zero),
    *each(replace(_MONOTONE, zero=stays_zero, flat=True), "sign floor ceil round"),
    *each(_EXACT, "nextafter eq_to le_to lt_to is_finite clz"),
    # exponentials, circles and hyperbolas; atan2 of 0 and -0.0 is pi
    *each(_EXPONENTIAL, "exp logistic"),
    replace(_EXPONENTIAL, name="exp2", rounds=Steep()),
    replace(_PLAIN, name="log", known=facts.of_logarithm),
    *each(replace(_ODD, rounds=Units(64.0)), "log1p atanh"),
    replace(_ODD, name="sinh", rounds=Steep()),
    replace(_PLAIN, name="cosh", rounds=Steep()),
    replace(_ODD, name="tanh", bounded=(-1.0, 1.0)),
    *each(_ODD, "cbrt expm1 sin tan asin atan asinh"),
    *each(_PLAIN, "rsqrt one_minus_square log2 cos acos atan2 acosh"),
    # special functions
    *each(_ODD, "erf bessel_i1e"),
    replace(_PLAIN, name="bessel_i0e"),
    replace(_PLAIN, name="erfc", rounds=Units(4.0), underflows="everyday"),
    replace(_ODD, name="erf_inv", rounds=Near(16.0)),
    *each(
        replace(_PLAIN, rounds=Near(16.0)),
        "lgamma digamma polygamma zeta igamma igamma_grad_a igammac random_gamma_grad "
        "regularized_incomplete_beta",
    ),
)
