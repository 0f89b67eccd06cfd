"""Arrays whose entries are functions of their position: iotas, shifted and compared, at any size.

`i - j < 16` over 4096 x 4096 positions is one bound, not sixteen million booleans.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from gradlab.patterns import Pattern
from gradlab.primitives import Site
from gradlab.primitives.known import MATERIALISED, Affine, Known, told

__all__ = ["COMPARISONS", "by_position", "counted"]

COMPARISONS = {
    "lt": (None, -1),
    "le": (None, 0),
    "gt": (1, None),
    "ge": (0, None),
    "eq": (0, 0),
    "ne": (0, 0),
}
"""For each comparison, the bounds of `a - b` for which it holds (ne: does not hold)."""


def counted(site: Site) -> Known | None:
    """Return what is known of an iota: everything, unless its dtype cannot count so far."""
    axis, dtype = site.params["dimension"], site.out_dtypes[0]
    steps = tuple(int(k == axis) for k in range(len(site.shape)))
    form = Affine(site.shape, steps, 0)
    if np.dtype(dtype).kind in "iu":
        return _within(form, dtype)
    whole = 2 ** (int(jnp.finfo(dtype).nmant) + 1)  # type: ignore[no-untyped-call]  # it has no types
    return Known(affine=form) if site.shape[axis] <= whole else None


def by_position(site: Site) -> Known | None:
    """Follow positions symbolically: shifts, sums and comparisons of iotas, at any size."""
    forms = [None if known is None else known.affine for known in site.known]
    if not forms or any(form is None for form in forms):
        return None
    dtype = site.out_dtypes[0]
    first, *rest = [form for form in forms if form is not None]
    shape = site.shape
    if site.name in ("copy", "stop_gradient"):
        return Known(affine=first)
    if site.name == "convert_element_type" and np.dtype(dtype).kind in "iu":
        return _within(first, dtype)
    if site.name == "broadcast_in_dim":
        steps = [0] * len(shape)
        for axis, target in enumerate(site.params["broadcast_dimensions"]):
            steps[target] = first.steps[axis] if first.shape[axis] != 1 else 0
        return Known(affine=Affine(shape, tuple(steps), first.offset))
    if site.name == "reshape" and site.params["dimensions"] is not None:
        return None
    if site.name in ("reshape", "squeeze", "expand_dims"):
        kept = [step for size, step in zip(first.shape, first.steps) if size != 1]
        if [s for s in first.shape if s != 1] != [s for s in shape if s != 1]:
            return None
        remaining = iter(kept)
        steps = [next(remaining) if size != 1 else 0 for size in shape]
        return Known(affine=Affine(shape, tuple(steps), first.offset))
    if site.name == "transpose":
        order = site.params["permutation"]
        return Known(affine=Affine(shape, tuple(first.steps[k] for k in order), first.offset))
    if site.name == "neg" and np.dtype(dtype).kind == "i":
        return Known(affine=Affine(shape, tuple(-s for s in first.steps), -first.offset))
    if len(rest) != 1:
        return None
    a, b = _aligned(first, shape), _aligned(rest[0], shape)
    if site.name in ("add", "sub") and np.dtype(dtype).kind == "i":
        sign = 1 if site.name == "add" else -1
        steps = [x + sign * y for x, y in zip(a.steps, b.steps)]
        return _within(Affine(shape, tuple(steps), a.offset + sign * b.offset), dtype)
    if site.name == "mul" and np.dtype(dtype).kind == "i" and not (any(a.steps) and any(b.steps)):
        scaled, factor = (a, b.offset) if any(a.steps) else (b, a.offset)
        steps = [factor * s for s in scaled.steps]
        return _within(Affine(shape, tuple(steps), factor * scaled.offset), dtype)
    if site.name in COMPARISONS:
        return _comparison(site.name, a, b)
    return None


def _aligned(form: Affine, shape: tuple[int, ...]) -> Affine:
    """Stretch a scalar, and axes of size 1, to the output's shape."""
    if not form.shape:
        return Affine(shape, (0,) * len(shape), form.offset)
    steps = tuple(step if size != 1 else 0 for step, size in zip(form.steps, form.shape))
    return Affine(shape, steps, form.offset)


def _within(form: Affine, dtype: Any) -> Known | None:
    """Return an affine array unless it overflows its dtype."""
    reach = [step * (size - 1) for step, size in zip(form.steps, form.shape)]
    low = form.offset + sum(min(r, 0) for r in reach)
    high = form.offset + sum(max(r, 0) for r in reach)
    limits = np.iinfo(dtype)
    return Known(affine=form) if limits.min <= low and high <= limits.max else None


def _comparison(name: str, a: Affine, b: Affine) -> Known | None:
    """Return the region in which two affine arrays compare true."""
    steps = {k: x - y for k, (x, y) in enumerate(zip(a.steps, b.steps)) if x != y}
    offset = a.offset - b.offset
    low, high = COMPARISONS[name]
    if not steps:
        holds = (low is None or offset >= low) and (high is None or offset <= high)
        value = holds != (name == "ne")
        return Known(array=np.full(a.shape, value)) if a.size <= MATERIALISED else None
    axes = sorted(steps, key=lambda k: -steps[k])
    if len(axes) > 2 or (len(axes) == 2 and steps[axes[0]] != -steps[axes[1]]):
        return None
    step = steps[axes[0]]
    if step < 0:  # one axis that counts down
        step, offset = -step, -offset
        low, high = None if high is None else -high, None if low is None else -low
    bounds = (
        axes[0],
        axes[1] if len(axes) == 2 else None,
        None if low is None else -((offset - low) // step),
        None if high is None else (high - offset) // step,
    )
    everywhere = Pattern.region(a.shape)
    true = Pattern.region(a.shape, (bounds,))
    if bounds[2] is not None and bounds[3] is not None and bounds[2] > bounds[3]:
        true = Pattern.zero(a.shape, ())
    false = everywhere - true
    return told(support=false, false=true) if name == "ne" else told(support=true, false=false)
