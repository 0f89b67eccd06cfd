"""Whether an equation of a linear program is linear in its seeds, or at least keeps zero at zero.

JAX does not hold a custom rule to linearity: a backward pass may clip, or add one. A pattern says
where a result is zero when a single seed is not; that is what dependence means only as long as
every equation maps zero seeds to zero.
"""

import numpy as np

from gradlab.structure.sites import Site

__all__ = ["respects_zero"]

_ADDS = frozenset({
    "add", "add_any", "atan2", "clamp", "concatenate", "dynamic_update_slice", "max", "min",
    "pad", "polynomial", "scatter", "scatter-add", "scatter-max", "scatter-min", "scatter-mul",
    "scatter-sub", "select_n", "stack", "sub",
})  # fmt: skip
_MOVES_ZERO = frozenset({
    "acos", "acosh", "bessel_i0e", "bessel_i1e", "cos", "cosh", "digamma", "eq", "erfc", "exp",
    "exp2", "ge", "igamma", "igamma_grad_a", "igammac", "integer_pow", "is_finite", "le",
    "lgamma", "log", "log2", "logistic", "nextafter", "not", "one_minus_square", "polygamma",
    "pow", "random_gamma_grad", "regularized_incomplete_beta", "rsqrt", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "zeta",
})  # fmt: skip
_ROLES = {"dynamic_update_slice": slice(2, None), "dynamic_slice": slice(1, None)}


def respects_zero(site: Site) -> str:
    """Return an empty string, or what is wrong with an equation that carries seeds."""
    if site.name in _MOVES_ZERO:
        if site.name == "integer_pow" and site.params["y"] > 0:
            return ""
        return "not linear in the derivative"
    if site.name in ("gather", "scatter", "scatter-add") and site.depends[1]:
        return "indices depend on the derivative"
    if site.name in _ROLES and any(site.depends[_ROLES[site.name]]):
        return "indices depend on the derivative"
    if site.name in ("div", "rem") and site.depends[1]:
        return "divides by the derivative"
    if site.name == "polynomial" and site.depends[0]:
        return "not linear in the derivative"
    if site.name in _ADDS:
        for k, carries in enumerate(site.depends):
            harmless = carries or _is_zero(site, k) or _role(site, k) or _clips(site, k)
            if not harmless:
                return "adds to the derivative what does not depend on it"
    return ""


def _role(site: Site, k: int) -> bool:
    """Return whether an operand says which or where, not how much."""
    if site.name in ("select_n", "polynomial"):
        return k == 0
    if site.name in ("scatter-mul", "scatter-min", "scatter-max"):
        return k > 0
    if site.name in ("scatter", "scatter-add", "scatter-sub"):
        return k == 1
    return site.name == "dynamic_update_slice" and k > 1


def _clips(site: Site, k: int) -> bool:
    """Return whether an operand is a known limit that zero lies within, as in `clip(g, -1, 1)`."""
    below = site.name == "max" or (site.name == "clamp" and k == 0)
    above = site.name == "min" or (site.name == "clamp" and k == 2)
    value = site.value(k) if below or above else None
    return value is not None and bool(np.all(value <= 0) if below else np.all(value >= 0))


def _is_zero(site: Site, k: int) -> bool:
    region = site.nonzero(k)
    return 0 in site.in_shapes[k] or (region is not None and region.is_zero)
