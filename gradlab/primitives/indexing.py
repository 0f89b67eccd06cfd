"""Gather, scatter and dynamic slices.

Where the index array is written into the program, entries are followed one by one along the
indexed axes and symbolically along the others. Where it is not, the indexed axes are dense.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.patterns import Pattern, maps
from gradlab.patterns.size import has_number, same, small
from gradlab.patterns.zone import Bound
from gradlab.primitives import facts
from gradlab.primitives.equation import Equation, Shape
from gradlab.primitives.known import Known
from gradlab.primitives.record import Primitive, Site, complement, each, zero_if
from gradlab.primitives.rounding import EXACT, ONCE, SumOf

_FOLLOWED = 1 << 24
_POSSIBLE = 16  # index arrays that are tried one by one


def _gather(site: Site, k: int) -> Pattern:
    """The output's batch axes choose a window of the operand, its offset axes an entry of it."""
    numbers = site.params["dimension_numbers"]
    if k == 1:
        batch = [axis for axis in range(len(site.shape)) if axis not in numbers.offset_dims]
        pairs = tuple((axis, n) for n, axis in enumerate(batch))
        return maps.contraction(site.shape, site.in_shapes[1], pairs)
    if several := _possible(site):
        return Pattern.union([_gather(each, 0) for each in several])
    return _windows(
        site,
        operand=site.in_shapes[0],
        gathered=site.shape,
        offset=numbers.offset_dims,
        collapsed=numbers.collapsed_slice_dims,
        indexed=numbers.start_index_map,
        operand_batch=numbers.operand_batching_dims,
        index_batch=numbers.start_indices_batching_dims,
        sizes=site.params["slice_sizes"],
    )


def _scatter(site: Site, k: int) -> Pattern:
    """The operand stays where it is; updates go where a gather with the same numbers reads."""
    operand, _, updates = site.in_shapes
    if k == 1:
        return site.dense(1)[0]
    if k == 0 and not _overwrites(site):
        return Pattern.identity(operand)
    if several := _possible(site):
        stays = Pattern.identity(operand)
        return Pattern.union([_scatter(each, 2) for each in several]) if k == 2 else stays
    numbers = site.params["dimension_numbers"]
    window = set(numbers.update_window_dims)
    single = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(operand)) if axis not in single]
    spans = dict(zip(kept, (updates[axis] for axis in sorted(window))))
    indexed = numbers.scatter_dims_to_operand_dims
    sizes = tuple(spans.get(axis, 1) for axis in range(len(operand)))
    read = _windows(
        site,
        operand=operand,
        gathered=updates,
        offset=numbers.update_window_dims,
        collapsed=numbers.inserted_window_dims,
        indexed=indexed,
        operand_batch=numbers.operand_batching_dims,
        index_batch=numbers.scatter_indices_batching_dims,
        sizes=sizes,
    )
    if k == 2:
        return read.T
    stays = Pattern.identity(operand)
    certain = None not in _beyond(site, operand, indexed, sizes).values()
    if certain and not site.notes and not read.widened:
        return stays.where(complement(read.columns()))  # the others are overwritten for certain
    return stays


def _dynamic_slice(site: Site, k: int) -> Pattern:
    """A window whose place is an operand."""
    if k > 0:
        return site.dense(k)[0]
    starts = _starts(site, 1, site.in_shapes[0], site.shape)
    moved = [(a, ~a, -high, -low) for a, (low, high) in enumerate(starts)]
    return Pattern.from_axes(site.shape, site.in_shapes[0], moved)


def _dynamic_update_slice(site: Site, k: int) -> Pattern:
    """The update lies over the operand at a place that is an operand."""
    whole, part = site.in_shapes[:2]
    if k > 1:
        return site.dense(k)[0]
    starts = _starts(site, 2, whole, part)
    if k == 1:
        placed = [(a, ~a, low, high) for a, (low, high) in enumerate(starts)]
        return Pattern.from_axes(whole, part, placed)
    stays = Pattern.identity(whole)
    if any(high is not low and high >= low + m for (low, high), m in zip(starts, part)):
        return stays
    over = [(a, None, high, low + part[a] - 1) for a, (low, high) in enumerate(starts)]
    return stays.where(complement(Pattern.from_axes(whole, (), over)))  # the rest is overwritten


def _starts(site: Site, first: int, whole: Shape, part: Shape) -> list[tuple[Any, Any]]:
    """Return the first and the last place where a window may start, as XLA clamps it."""
    starts, loose = [], []
    for axis, (n, m) in enumerate(zip(whole, part)):
        known, value = site.known[first + axis], site.number(first + axis)
        low, high = 0, n - m
        if same(n, m):
            high = 0
        elif value is not None:
            low = high = min(max(value, 0), n - m)
        else:
            loose.append(axis)
            if known is not None and known.between and not site.depends[first + axis]:
                low, high = (min(max(int(end), 0), n - m) for end in known.between)
        starts.append((low, high))
    _say_unknown(site, loose, "a window may move")
    return starts


def _windows(
    site: Site,
    operand: Shape,
    gathered: Shape,
    offset: Any,
    collapsed: Any,
    indexed: Any,
    operand_batch: Any,
    index_batch: Any,
    sizes: Any,
) -> Pattern:
    """Return gathered <- operand for XLA's gather semantics, in the order of their axes."""
    moved = {*indexed, *operand_batch}
    first = tuple(n if axis in moved else sizes[axis] for axis, n in enumerate(operand))
    if not all(map(same, first, operand)):  # on other axes, a window is at the start
        part = maps.slice(operand, (0,) * len(operand), first, None)
        return (
            _windows(
                site, first, gathered, offset, collapsed, indexed, operand_batch, index_batch, sizes
            )
            @ part
        )
    batch_axes = [axis for axis in range(len(gathered)) if axis not in set(offset)]
    shared = [axis for axis in range(len(operand)) if axis not in {*collapsed, *operand_batch}]
    window_of = dict(zip(shared, sorted(offset)))
    equal = [
        (batch_axes[position], axis)  # the index vector is last, so batch axes keep their order
        for axis, position in zip(operand_batch, index_batch)
    ]
    beyond = _beyond(site, operand, indexed, sizes)
    partial = [n for n in indexed if beyond.get(n) or not same(sizes[n], operand[n])]
    equal += [(window_of[axis], axis) for axis in shared if axis not in partial]
    partial = [axis for axis in range(len(operand)) if axis in set(partial)]
    if not partial:
        return maps.contraction(gathered, operand, tuple(equal))
    if not operand_batch:
        even = _even(site, operand, gathered, indexed, sizes, equal, partial, batch_axes, window_of)
        if even is not None:
            return even
    starts, guessed = _coordinates(site, indexed)
    if starts is not None and guessed and not operand_batch:
        _say_unknown(site, [axis for axis in partial if axis in guessed])
        partial = [axis for axis in partial if axis not in guessed]
        if not partial:
            return maps.contraction(gathered, operand, tuple(equal))
    elif guessed:
        starts = None
    widths = [gathered[window_of[axis]] if axis in window_of else 1 for axis in partial]
    loose = [axis for axis in partial if axis in window_of]
    free = [
        axis for axis in batch_axes if axis not in {out for out, source in equal}
    ]  # axes that choose windows
    entries = math.prod(gathered[axis] for axis in batch_axes) * math.prod(widths)
    listed = small(entries, _FOLLOWED) and all(has_number(operand[axis]) for axis in partial)
    if starts is None or not listed:
        _say_unknown(site, partial)
        return maps.contraction(gathered, operand, tuple(equal))
    if operand_batch:  # follow the batch axes one by one as well
        partial = sorted({*partial, *operand_batch})
        equal = [pair for pair in equal if pair[1] not in set(operand_batch)]
        free = batch_axes
    output_axes = free + [window_of[axis] for axis in loose]
    reads = _followed(
        site, starts, operand, partial, indexed, sizes, operand_batch, index_batch, loose, gathered,
        window_of,
    )  # fmt: skip
    return maps.gather(gathered, operand, tuple(output_axes), tuple(partial), reads, tuple(equal))


def _even(
    site: Site,
    operand: Shape,
    gathered: Shape,
    indexed: Any,
    sizes: Any,
    equal: Sequence[tuple[int, int]],
    partial: Sequence[int],
    batch_axes: Sequence[int],
    window_of: Mapping[int, int],
) -> Pattern | None:
    """Return gathered <- operand where a window stands at a place, or entries at even steps."""
    known = site.known[1]
    if known is None or site.depends[1] or not (known.columns or known.affine or not batch_axes):
        return None
    pairs = [(k, a, Pattern.identity((gathered[k],))) for k, a in equal]
    free = set(range(len(gathered))) - {k for k, _ in equal}
    for axis in partial:
        column = list(indexed).index(axis)
        form = known.columns[column] if known.columns else known
        if form is None or (form.affine is None and batch_axes):
            return None
        start = form.entry(0 if known.columns else column)
        steps = form.affine.steps[:-1] if form.affine and batch_axes else ()
        moving = [k for k, step in enumerate(steps) if step]
        if (
            start is None
            or len(moving) > 1
            or (batch_axes and len(indexed) > 1 and not known.columns)
        ):
            return None
        n, place = operand[axis], window_of.get(axis, -1)
        last = n - sizes[axis]
        if not moving:
            start = min(max(start, 0), last) if _clips(site) else start
            if not 0 <= start <= last:
                return Pattern.zero(gathered, operand)
            made = (gathered[place],) if place >= 0 else ()
            bound: Bound = (0, ~0, -start, -start) if made else (~0, None, start, start)
            pairs.append((place, axis, Pattern.from_axes(made, (n,), [bound])))
        else:
            [k] = moving
            step, length, place = steps[k], gathered[batch_axes[k]], batch_axes[k]
            first = start + min(step * (length - 1), 0)
            if place not in free or first < 0 or first + abs(step) * (length - 1) > last:
                return None
            if not same(sizes[axis], 1):
                return None
            read = maps.affine(n, length, abs(step), first).T
            turned = maps.reverse((length,), (0,)) @ read if step < 0 else read
            pairs.append((place, axis, turned))
        free.discard(place)
    pairs += [(k, -1, Pattern.dense((gathered[k],), ())) for k in free]
    whole = maps.product(*(pattern for _, _, pattern in pairs))
    order = [k for k, _, _ in pairs if k >= 0]
    back = maps.transpose(whole.output_shape, tuple(int(k) for k in np.argsort(order)))
    return back @ whole @ maps.transpose(operand, tuple(a for _, a, _ in pairs if a >= 0))


def _beyond(site: Site, operand: Shape, indexed: Any, sizes: Any) -> dict[int, bool | None]:
    """Say of axes that a window fills whether it may stand beyond them, and so be dropped."""
    known, found = site.known[1], dict[int, bool | None]()
    for column, axis in enumerate(() if _clips(site) else indexed):
        if same(sizes[axis], operand[axis]):
            form = known.columns[column] if known and known.columns else known
            value = None if form is None or site.depends[1] else form.value()
            if value is not None:
                found[axis] = bool(value[..., 0 if known and known.columns else column].any())
            elif form is not None and form.affine and not site.depends[1]:
                entry = form.entry(0 if known and known.columns else column)
                found[axis] = any(form.affine.steps[:-1]) or not same(entry, 0)
            else:
                found[axis] = None
    return found


def _clips(site: Site) -> bool:
    """Whether a window beyond the edge is moved inside."""
    mode = str(site.params["mode"])
    return "CLIP" in mode or (site.name == "gather" and "PROMISE" in mode)


def _coordinates(site: Site, indexed: Any) -> tuple[np.ndarray[Any, Any] | None, set[int]]:
    """Return the index array, and the axes of the operand whose coordinates it does not know."""
    value, known = site.value(1), site.known[1]
    if value is not None or known is None or not known.columns or site.depends[1]:
        return value, set()
    shape = site.in_shapes[1]
    if math.prod(shape) > _FOLLOWED:
        return None, set()
    starts = np.zeros(shape, np.int64)
    guessed = set()
    for n, (axis, column) in enumerate(zip(indexed, known.columns)):
        found = None if column is None else column.value()
        if found is None:
            guessed.add(axis)
        else:
            starts[..., n] = found[..., 0]
    return starts, guessed


def _followed(
    site: Site,
    starts: np.ndarray[Any, Any],
    operand: Shape,
    axes: list[int],
    indexed: Any,
    sizes: Any,
    operand_batch: Any,
    index_batch: Any,
    loose: list[int],
    gathered: Shape,
    window_of: dict[int, int],
) -> np.ndarray[Any, Any]:
    """Return the flat index among `axes` that is read, over (batch, window) axes; -1: none."""
    batch = starts.shape[:-1]
    full = batch + tuple(gathered[window_of[axis]] for axis in loose)
    component = {axis: n for n, axis in enumerate(indexed)}
    clipped = _clips(site)
    flat = np.zeros(full, dtype=np.int64)
    inside = np.ones(batch, dtype=bool)
    for axis in axes:
        if axis in operand_batch:
            position = index_batch[list(operand_batch).index(axis)]
            coordinate = np.arange(operand[axis]).reshape(
                tuple(-1 if a == position else 1 for a in range(len(batch)))
            )
        else:
            coordinate = starts[..., component[axis]].astype(np.int64)
            last = operand[axis] - sizes[axis]
            if clipped:
                coordinate = np.clip(coordinate, 0, last)
            else:
                inside &= (coordinate >= 0) & (coordinate <= last)
        coordinate = np.broadcast_to(coordinate, batch).reshape(batch + (1,) * len(loose))
        if axis in loose:
            ruler = np.arange(gathered[window_of[axis]])
            place = [1] * (len(batch) + len(loose))
            place[len(batch) + loose.index(axis)] = len(ruler)
            coordinate = coordinate + ruler.reshape(place)
        flat = flat * operand[axis] + coordinate
    return np.where(inside.reshape(batch + (1,) * len(loose)), flat, -1)


def _say_unknown(site: Site, axes: list[int], so: str = "dense") -> None:
    if axes:
        listed = ", ".join(map(str, axes))
        site.notes.append(f"indices are not known before the run: {so} along axis {listed}")


def _possible(site: Site) -> list[Site]:
    """Return the equation with each index array that the bounds of its indices allow."""
    known = site.known[1]
    if known is None or known.between is None or site.depends[1]:
        return []
    low, high = known.between
    spread = (high - low).reshape(-1, high.shape[-1]).max(0, initial=0)
    if math.prod(spread + 1) > _POSSIBLE or low.size > _FOLLOWED:
        return []
    _say_unknown(site, list(range(len(site.in_shapes[0]))), "a window may move")
    arrays = (np.minimum(low + step, high) for step in np.ndindex(*(spread + 1)))
    return [
        replace(site, known=(site.known[0], Known(array=array), *site.known[2:]), notes=[])
        for array in arrays
    ]


def _overwrites(site: Site) -> bool:
    """Whether a scatter writes its updates; another applies a function to what it finds."""
    return site.name == "scatter" and site.params.get("update_jaxpr") is None


def _written_is_zero(site: Site, output: int) -> bool:
    return _overwrites(site) and site.vanishes[0] and site.vanishes[2]


def _filled_with_zero(site: Site, output: int) -> bool:
    """Whatever is asked for outside the array is a number of its own, NaN by default."""
    fill = site.params.get("fill_value")
    exact = site.in_dtypes[0].kind in "biu"
    harmless = not exact if fill is None else fill == 0 or fill != fill
    return site.vanishes[0] and (harmless or "FILL" not in str(site.params["mode"]))


def _hits(equation: Equation) -> int:
    """How many updates may meet at one entry."""
    return max(2, math.prod(equation.in_shapes[1][:-1]))


_READ = Primitive(name="", rounds=EXACT, underflows="never")
_ADDED = replace(_READ, reads=_scatter, zero=zero_if(0, 2), rounds=SumOf(_hits))
_CHOSEN = replace(_ADDED, rounds=EXACT)

RECORDS = (
    replace(
        _READ,
        name="gather",
        reads=_gather,
        zero=_filled_with_zero,
        moves=slice(0, 1),
        known=facts.of_gather,
    ),
    replace(_READ, name="dynamic_slice", reads=_dynamic_slice, zero=zero_if(0), moves=slice(0, 1)),
    replace(
        _READ,
        name="dynamic_update_slice",
        reads=_dynamic_update_slice,
        zero=zero_if(0, 1),
        moves=slice(0, 2),
    ),
    replace(_CHOSEN, name="scatter", zero=_written_is_zero, moves=slice(0, 3, 2)),
    *each(_ADDED, "scatter-add scatter-sub"),
    replace(_ADDED, name="scatter-mul", zero=zero_if(0), rounds=ONCE, underflows="possible"),
    *each(_CHOSEN, "scatter-min scatter-max"),
)
