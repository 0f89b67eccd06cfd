"""Arrays whose entries are functions of their position: iotas, shifted and compared, at any size.

`i - j < 16` over 4096 x 4096 positions is one bound, not sixteen million booleans.
"""

import functools
from itertools import pairwise
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradlab.patterns import Pattern, maps
from gradlab.patterns.size import has_number, small
from gradlab.patterns.size import same as equal
from gradlab.primitives.known import MATERIALISED, Affine, Known, told
from gradlab.primitives.record import Site

_COMPARISONS = {
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
    return Known(affine=form) if small(site.shape[axis], whole) else None


def dimension(site: Site) -> Known | None:
    """The size of an axis, as a number of the program."""
    return Known(affine=Affine((), (), site.params["dim"]))


def found(site: Site) -> Known | None:
    """The place of an entry along an axis, as `argmax` finds it."""
    [axis] = site.params["axes"]
    return _between(site, 0, 0, site.in_shapes[0][axis] - 1)


def limited(site: Site) -> Known | None:
    """An integer that is held between known limits."""
    limits = [None if known is None else known.fill for known in (site.known[0], site.known[2])]
    return None if None in limits or not _integer(site) else _between(site, 1, *limits)


def _between(site: Site, k: int, low: Any, high: Any) -> Known | None:
    """Return bounds of the result, unless operand `k` tells more."""
    if site.known[k] or not (has_number(high) and small(prod(site.shape), MATERIALISED)):
        return None
    if high > np.iinfo(site.out_dtypes[0]).max:
        return None
    return Known(between=(np.full(site.shape, low), np.full(site.shape, high)))


def same(site: Site) -> Known | None:
    """The positions as they are."""
    form = _form(site, 0)
    return None if form is None else Known(affine=form)


def cast(site: Site) -> Known | None:
    """Positions in another dtype of integers."""
    form = _form(site, 0)
    return None if form is None or not _integer(site) else _within(form, site.out_dtypes[0])


def broadcast(site: Site) -> Known | None:
    """Axes of the positions among axes that repeat them."""
    form = _form(site, 0)
    if form is None:
        return None
    steps = [0] * len(site.shape)
    for axis, target in enumerate(site.params["broadcast_dimensions"]):
        steps[target] = form.steps[axis] if form.shape[axis] != 1 else 0
    return Known(affine=Affine(site.shape, tuple(steps), form.offset))


def reshape(site: Site) -> Known | None:
    """Positions whose axes are split, or joined where they step on evenly."""
    form = _form(site, 0)
    if form is None or (site.params.get("dimensions") is not None and site.name == "reshape"):
        return None
    if 0 in site.shape:
        return None
    steps: list[int] = []
    old = [(n, step) for n, step in zip(form.shape, form.steps) if n != 1]
    for size in reversed(site.shape):  # from the last axis on, as entries follow each other
        if size == 1:
            steps.append(0)
            continue
        if not old:
            return None
        n, step = old.pop()
        while n < size and old and old[-1][1] == n * step:
            n *= old.pop()[0]
        if n % size:
            return None
        steps.append(step)
        if n > size:
            old.append((n // size, step * size))
    return Known(affine=Affine(site.shape, tuple(reversed(steps)), form.offset))


def transpose(site: Site) -> Known | None:
    """Axes in another order."""
    form, order = _form(site, 0), site.params["permutation"]
    if form is None:
        return None
    return Known(affine=Affine(site.shape, tuple(form.steps[k] for k in order), form.offset))


def reverse(site: Site) -> Known | None:
    """Axes counted from their ends."""
    form = _form(site, 0)
    if form is None:
        return None
    steps, offset = list(form.steps), form.offset
    for axis in site.params["dimensions"]:
        offset += steps[axis] * (form.shape[axis] - 1)
        steps[axis] = -steps[axis]
    return Known(affine=Affine(site.shape, tuple(steps), offset))


def part(site: Site) -> Known | None:
    """A static slice."""
    form, params = _form(site, 0), site.params
    if form is None:
        return None
    strides = params["strides"] or (1,) * len(form.shape)
    offset = form.offset + sum(n * s for n, s in zip(params["start_indices"], form.steps))
    steps = tuple(n * s for n, s in zip(strides, form.steps))
    return Known(affine=Affine(site.shape, steps, offset))


def negative(site: Site) -> Known | None:
    """Positions counted down."""
    form = _form(site, 0)
    if form is None or site.out_dtypes[0].kind != "i":
        return None
    return Known(affine=Affine(site.shape, tuple(-s for s in form.steps), -form.offset))


def _sum(site: Site, sign: int) -> Known | None:
    """The sum of positions, or their difference."""
    forms = _pair(site)
    if forms is None or site.out_dtypes[0].kind != "i":
        return None
    a, b = forms
    steps = [x + sign * y for x, y in zip(a.steps, b.steps)]
    form = Affine(site.shape, tuple(steps), a.offset + sign * b.offset)
    return _within(form, site.out_dtypes[0])


plus, minus = functools.partial(_sum, sign=1), functools.partial(_sum, sign=-1)


def times(site: Site) -> Known | None:
    """Positions times a number."""
    forms = _pair(site)
    if forms is None or site.out_dtypes[0].kind != "i" or all(any(f.steps) for f in forms):
        return None
    a, b = forms
    scaled, factor = (a, b.offset) if any(a.steps) else (b, a.offset)
    form = Affine(site.shape, tuple(factor * s for s in scaled.steps), factor * scaled.offset)
    return _within(form, site.out_dtypes[0])


def compared(site: Site) -> Known | None:
    """Where positions compare true: a region."""
    forms = _pair(site)
    return None if forms is None else _comparison(site.name, *forms)


def _form(site: Site, k: int) -> Affine | None:
    known = site.known[k]
    return None if known is None else known.affine


def _pair(site: Site) -> tuple[Affine, Affine] | None:
    a, b = _form(site, 0), _form(site, 1)
    if a is None or b is None:
        return None
    return _aligned(a, site.shape), _aligned(b, site.shape)


def _integer(site: Site) -> bool:
    return site.out_dtypes[0].kind in "iu"


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
    low, high = _COMPARISONS[name]
    if not steps:
        holds = (low is None or offset >= low) and (high is None or offset <= high)
        value = holds != (name == "ne")
        return Known(array=np.full(a.shape, value)) if small(prod(a.shape), MATERIALISED) else None
    up, down = (
        sorted((k for k in steps if sign * steps[k] > 0), key=lambda k: -abs(steps[k]))
        for sign in (1, -1)
    )
    if not up:  # axes that count down
        up, down, offset = down, up, -offset
        low, high = None if high is None else -high, None if low is None else -low
    step = abs(steps[up[-1]])
    if down and abs(steps[down[-1]]) != step:
        return None
    for k, inner in (*pairwise(up), *pairwise(down)):  # a block's number, then the place in it
        if not equal(abs(steps[k]), abs(steps[inner]) * a.shape[inner]):
            return None
    least = None if low is None else -((offset - low) // step)
    most = None if high is None else (high - offset) // step
    everywhere = Pattern.region(a.shape)
    true = _between_places(a.shape, up, down, least, most)
    if least is not None and most is not None and least > most:
        true = Pattern.zero(a.shape, ())
    false = everywhere - true
    if true.widened or false.widened:
        return None
    return told(support=false, false=true) if name == "ne" else told(support=true, false=false)


def _between_places(
    shape: tuple[int, ...], up: list[int], down: list[int], least: Any, most: Any
) -> Pattern:
    """Return where places less other places lie between bounds; axes of a place are its digits."""
    if len(up) == 1 and len(down) <= 1:
        return Pattern.region(shape, ((up[0], down[0] if down else None, least, most),))
    order = [*up, *down, *(k for k in range(len(shape)) if k not in {*up, *down})]
    apart = tuple(shape[k] for k in order)
    joined = [prod(shape[k] for k in axes) for axes in (up, down) if axes]
    whole = (*joined, *apart[len(up) + len(down) :])
    region = Pattern.region(whole, ((0, 1 if down else None, least, most),))
    back = maps.transpose(apart, tuple(int(k) for k in np.argsort(order)))
    return back @ (maps.reshape(whole, apart) @ region)
