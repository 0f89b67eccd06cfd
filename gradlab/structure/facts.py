"""How facts about values pass through an equation: masks, zeros, -inf, positions, static indices.

Facts hold for every input at which the values are not NaN. `-inf` less anything is `-inf`, its
exponential is 0, and 0 times anything is 0: that is what makes causal attention provable.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlab.patterns import Pattern
from gradlab.structure.folding import fold
from gradlab.structure.known import Known, told
from gradlab.structure.positions import COMPARISONS, by_position, counted
from gradlab.structure.rules import rule_for
from gradlab.structure.sites import Site

__all__ = ["FINITE_MASK", "facts"]

FINITE_MASK = "a finite number; use -jnp.inf to have what it hides proved zero"
"""How the note of a mask that is nearly -inf ends; `why` repeats such notes as hints."""

_FOLDED = 1 << 18
_NEARLY = -1e3
_MOVES = frozenset({
    "broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "rev",
    "concatenate", "copy", "copy_p", "convert_element_type", "reduce_precision", "stop_gradient",
    "optimization_barrier", "device_put", "sharding_constraint", "split", "tile", "unstack",
    "stack",
})  # fmt: skip
_PLACES = {
    "scatter": (0, 2),
    "scatter-add": (0, 2),
    "dynamic_update_slice": (0, 1),
    "pad": (0, 1),
    "gather": (0,),
    "dynamic_slice": (0,),
}
_KEEP_ZERO = frozenset({
    "neg", "abs", "sign", "sin", "tan", "tanh", "sinh", "asin", "atan", "asinh", "atanh", "sqrt",
    "cbrt", "square", "expm1", "log1p", "erf", "round", "floor", "ceil", "real", "imag", "conj",
    "reduce_sum", "reduce_max", "reduce_min", "reduce_or", "cumsum", "integer_pow",
})  # fmt: skip


def facts(site: Site, dtypes: tuple[Any, ...]) -> tuple[Known | None, ...]:
    """Return what is known of each output of an equation.

    Args:
        site: the equation, with what is known of its operands.
        dtypes: the dtypes of its outputs.
    """
    if site.name == "iota":
        return (counted(site, dtypes[0]),)
    if not any(site.known) or not site.out_shapes:
        return (None,) * len(site.out_shapes)
    if len(site.out_shapes) == 1:
        known = by_position(site, dtypes[0]) or _folded(site, dtypes[0])
        if known is not None:
            return (known,)
    if site.name in _MOVES:
        return tuple(_moved(site, output) for output in range(len(site.out_shapes)))
    if len(site.out_shapes) > 1:
        return (None,) * len(site.out_shapes)
    if site.name in _KEEP_ZERO and not (site.name == "integer_pow" and site.params["y"] <= 0):
        return (told(support=_carried(site, 0, site.nonzero(0))),)
    if site.name in _PLACES:
        return (_placed(site, _PLACES[site.name]),)
    if site.name in ("not", "and", "or") and dtypes[0].kind != "b":
        return (None,)
    found = _RULES.get(site.name)
    return (found(site) if found else None,)


def _folded(site: Site, dtype: Any) -> Known | None:
    """Evaluate an equation whose operands are all known, where that is exact and cheap."""
    if math.prod(site.shape) > _FOLDED and not _repeats(site):
        return None
    values = []
    for known in site.known:
        value = None if known is None else known.value()
        if value is None:
            return None
        values.append(value)
    result = fold(site.name, site.params, values, site.shape, dtype)
    return None if result is None else Known(array=result)


def _repeats(site: Site) -> bool:
    """Return whether an equation only repeats one number, which takes no memory."""
    return site.name == "broadcast_in_dim" and math.prod(site.in_shapes[0]) == 1


def _carried(site: Site, k: int, region: Pattern | None, output: int = 0) -> Pattern | None:
    """Carry a region of an operand to the output along the equation's own rule."""
    if region is None:
        return None
    rule = rule_for(site.name)
    if rule is None:
        return None
    answer = rule(site, k)
    local = answer[output] if isinstance(answer, tuple) else answer
    return None if local is None else local @ region


def _moved(site: Site, output: int) -> Known | None:
    """Pass all facts through an equation that only moves entries."""
    count = len(site.in_shapes)

    def union(regions: list[Pattern | None]) -> Pattern | None:
        if all(region is None for region in regions):
            return None
        parts = []
        for k, region in enumerate(regions):
            whole = Pattern.region(site.in_shapes[k]) if region is None else region
            part = _carried(site, k, whole, output)
            if part is None:
                return None
            parts.append(part)
        return Pattern.union(parts)

    def over(read: Callable[[Known], Pattern | None]) -> Pattern | None:
        return union([None if k is None else read(k) for k in site.known[:count]])

    boolean = all(k is None or k.false is not None or k.untrue is not None for k in site.known)
    return told(
        over(lambda k: k.nonzero),
        over(lambda k: k.above),
        over(lambda k: k.untrue) if boolean else None,
    )


def _placed(site: Site, operands: tuple[int, ...]) -> Known | None:
    """Zero where every operand that is placed there is zero."""
    if all(site.nonzero(k) is None for k in operands):
        return None
    parts = []
    for k in operands:
        region = site.nonzero(k)
        part = _carried(site, k, Pattern.region(site.in_shapes[k]) if region is None else region)
        if part is None:
            return None
        parts.append(part)
    return told(support=Pattern.union(parts))


def _both(a: Pattern | None, b: Pattern | None) -> Pattern | None:
    return b if a is None else a if b is None else a & b


def _either(a: Pattern | None, b: Pattern | None) -> Pattern | None:
    return None if a is None or b is None else a | b


def _sides(site: Site, read: Callable[[Known], Pattern | None]) -> list[Pattern | None]:
    """Return a region of each operand, in the output's shape."""
    found: list[Pattern | None] = []
    for known, shape in zip(site.known, site.in_shapes):
        region = None if known is None else read(known)
        if region is not None and shape != site.shape:
            region = Pattern.broadcast(shape, site.shape) @ region
        found.append(region)
    return found


def _product(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    scaled = _both(low_a if _positive(site, 1) else None, low_b if _positive(site, 0) else None)
    return told(support=_both(a, b), finite=scaled)


def _quotient(site: Site) -> Known | None:
    low = _sides(site, lambda k: k.above)[0] if _positive(site, 1) else None
    return told(support=_sides(site, lambda k: k.nonzero)[0], finite=low)


def _positive(site: Site, k: int) -> bool:
    """Return whether an operand is one positive number, which leaves -inf what it is."""
    known = site.known[k]
    fill = None if known is None else known.fill
    return isinstance(fill, int | float) and fill > 0


def _sum(site: Site) -> Known | None:
    _say_finite(site, [k for k in site.known if k and k.few is not None and k.few.size > 1])
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_both(low_a, low_b))


def _difference(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    return told(support=_either(a, b), finite=_sides(site, lambda k: k.above)[0])


def _larger(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_either(low_a, low_b))


def _smaller(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    low_a, low_b = _sides(site, lambda k: k.above)
    return told(support=_either(a, b), finite=_both(low_a, low_b))


def _exponential(site: Site) -> Known | None:
    return told(support=_sides(site, lambda k: k.above)[0])


def _logarithm(site: Site) -> Known | None:
    return told(finite=_sides(site, lambda k: k.nonzero)[0])


def _negated(site: Site) -> Known | None:
    known = site.known[0]
    return None if known is None else told(support=known.untrue, false=known.nonzero)


def _conjunction(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    not_a, not_b = _sides(site, lambda k: k.untrue)
    return told(support=_both(a, b), false=_either(not_a, not_b))


def _disjunction(site: Site) -> Known | None:
    a, b = _sides(site, lambda k: k.nonzero)
    not_a, not_b = _sides(site, lambda k: k.untrue)
    return told(support=_either(a, b), false=_both(not_a, not_b))


def _chosen(site: Site) -> Known | None:
    """select_n: each case holds only where it may be chosen."""
    which = site.known[0]
    for k, region in enumerate((which.nonzero, which.untrue) if which else (), 1):
        if region is not None and region.is_zero and site.in_shapes[k] == site.shape:
            return site.known[k]  # the other case is never chosen
    rule = rule_for("select_n")
    assert rule is not None
    everywhere = Pattern.region(site.shape)
    if which is not None and (which.nonzero is not None or which.untrue is not None):
        _say_finite(site, site.known[1:])

    def over(read: Callable[[Known], Pattern | None]) -> Pattern | None:
        parts = []
        narrowed = False
        for k in range(1, len(site.known)):
            local = rule(site, k)
            assert isinstance(local, Pattern)
            known = site.known[k]
            region = None if known is None else read(known)
            narrowed |= region is not None
            parts.append(local @ (everywhere if region is None else region))
        return Pattern.union(parts) if narrowed else None

    return told(over(lambda k: k.nonzero), over(lambda k: k.above), over(lambda k: k.untrue))


def _say_finite(site: Site, masks: Sequence[Known | None]) -> None:
    """Note a mask of zeros and numbers that are nearly -inf: what it hides may not be 0."""
    for known in masks:
        mask = None if known is None else known.few
        if mask is None or mask.dtype.kind in "biucO" or not mask.size:
            continue
        fill = float(mask.min())
        if math.isfinite(fill) and fill <= _NEARLY and ((mask == 0) | (mask <= _NEARLY)).all():
            site.notes.append(f"the mask uses {fill:.3g}, {FINITE_MASK}")


def _compared_with_zero(site: Site) -> Known | None:
    """`x != 0` where x is zero outside a region, and the like."""
    support = site.nonzero(0)
    other = site.known[1]
    zero = other is not None and other.array is not None and not np.any(other.array)
    if support is None or not zero:
        return None
    if site.name in ("ne", "gt", "lt"):
        return told(support=support)
    return told(false=support)


def _contracted(site: Site) -> Known | None:
    """dot_general: a sum of products, zero where every product has a zero."""
    k = 0 if site.nonzero(0) is not None else 1
    return told(support=_carried(site, k, site.nonzero(k)))


_RULES: dict[str, Callable[[Site], Known | None]] = {
    "mul": _product,
    "and": _conjunction,
    "or": _disjunction,
    "not": _negated,
    "div": _quotient,
    "add": _sum,
    "add_any": _sum,
    "sub": _difference,
    "max": _larger,
    "min": _smaller,
    "exp": _exponential,
    "exp2": _exponential,
    "logistic": _exponential,
    "log": _logarithm,
    "select_n": _chosen,
    "dot_general": _contracted,
    **dict.fromkeys(COMPARISONS, _compared_with_zero),
}
