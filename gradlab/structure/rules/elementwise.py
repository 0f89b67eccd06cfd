"""Primitives that act entry by entry: an allow-list, never a default.

A product, a quotient and a choice read an operand only where the other operand lets them.
"""

from gradlab.patterns import Pattern
from gradlab.structure.sites import Site, rule

__all__ = ["ELEMENTWISE"]

ELEMENTWISE = frozenset({
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
    "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "complex", "conj",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "device_put", "digamma", "div", "eq",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma",
    "igamma_grad_a", "igammac", "imag", "integer_pow", "is_finite", "layout_constraint", "le",
    "lgamma", "log", "log1p", "log2", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg",
    "nextafter", "not", "one_minus_square", "optimization_barrier", "or", "polygamma", "polynomial",
    "population_count", "pow", "pvary", "random_gamma_grad", "real", "reduce_precision",
    "regularized_incomplete_beta", "rem", "round", "rsqrt", "sharding_constraint", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square",
    "stop_gradient", "sub", "tan", "tanh", "xor", "zeta", "mulhi", "reshard",
    "stage",
})  # fmt: skip


@rule(*sorted(ELEMENTWISE - {"mul", "div", "and", "optimization_barrier", "device_put"}))
def entry_by_entry(site: Site, k: int) -> Pattern:
    """Each output entry reads the entry of the same index; a scalar is read by all."""
    return Pattern.broadcast(site.in_shapes[k], site.shape)


@rule("mul", "and")
def product(site: Site, k: int) -> Pattern:
    """A factor is read only where the other may differ from zero."""
    local = entry_by_entry(site, k)
    region = site.nonzero(1 - k)
    if region is None or site.depends[1 - k]:
        return local
    return local.where(Pattern.broadcast(site.in_shapes[1 - k], site.shape) @ region)


@rule("div")
def quotient(site: Site, k: int) -> Pattern:
    """A divisor is read only where the dividend may differ from zero."""
    local = entry_by_entry(site, k)
    region = site.nonzero(0)
    if k == 0 or region is None or site.depends[0]:
        return local
    return local.where(Pattern.broadcast(site.in_shapes[0], site.shape) @ region)


@rule("select_n")
def choice(site: Site, k: int) -> Pattern:
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


@rule("optimization_barrier", "device_put")
def each_its_own(site: Site, k: int) -> tuple[Pattern | None, ...]:
    """Output k is operand k."""
    return tuple(
        Pattern.identity(shape) if j == k else None for j, shape in enumerate(site.out_shapes)
    )


@rule("tie")
def second(site: Site, k: int) -> Pattern:
    """The second operand; the first only has to be computed."""
    shape = site.in_shapes[k]
    return Pattern.identity(shape) if k == 1 else Pattern.zero(site.shape, shape)
