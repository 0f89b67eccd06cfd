"""What each primitive computes, in NumPy: the table that evaluates programs without compiling them.

A rule gets an equation and its operands. Operands may have one more leading axis than the equation
says, the draws: either all of them (`lead` is 1), or none (0). Where a rule says so (`mixed`), each
operand has its own. A rule may return a view of an operand. What an update writes into is its
first operand: a copy of it, or itself where nobody else reads that.

What is not in the table is JAX's to evaluate.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gradlab.common.arrays import DTypeLike
from gradlab.common.arrays import NumPyArray as Array
from gradlab.tracing.jaxprs import Equation, shape_of

Function: TypeAlias = Callable[[Any, list[Any], int], Any]


_DOUBLE = np.dtype(np.float64)


class NumPyRule(NamedTuple):
    """How NumPy evaluates one primitive; see the module for the arguments."""

    function: Function
    mixed: bool = False


def is_native(dtype: DTypeLike) -> bool:
    """Return whether NumPy itself computes with a dtype: no half precision, no keys."""
    if dtype is _DOUBLE:
        return True
    kind = getattr(dtype, "kind", "")
    return kind in ("b", "i", "u", "c") or (kind == "f" and dtype.itemsize > 2)


def evaluate(
    equation: Equation, arrays: Sequence[Array], mine: bool = False, real: bool = False
) -> list[Any] | None:
    """Return an equation's results in NumPy, whatever their dtypes; None where it has no rule.

    `mine`: an update may write into its first operand. `real`: of magnitudes, so that what is
    subtracted adds up.
    """
    name = equation.primitive.name
    if real and name == "scatter-sub":
        name = "scatter-add"
    if name in UPDATES:
        same, lead = _same_lead(equation, arrays)
        if not (mine and same[0] is arrays[0]):
            same[0] = same[0].copy()
        return [UPDATES[name](equation, same, lead)]
    rule = NUMPY.get(name)
    if rule is None:
        return None
    if rule.mixed:
        leads = [a.ndim - len(shape_of(v)) for a, v in zip(arrays, equation.invars)]
        results = rule.function(equation, list(arrays), max(leads, default=0))
    else:
        results = rule.function(equation, *_same_lead(equation, arrays))
    return list(results) if equation.primitive.multiple_results else [results]


def _same_lead(equation: Equation, arrays: Sequence[Array]) -> tuple[list[Array], int]:
    """Return the operands with an axis of draws where any has one."""
    ranks = [len(shape_of(v)) for v in equation.invars]
    if ranks == [a.ndim for a in arrays]:
        return list(arrays), 0
    draws = next((a.shape[0] for a, r in zip(arrays, ranks) if a.ndim > r), None)
    if draws is None:
        return list(arrays), 0
    return [
        a if a.ndim > r else np.broadcast_to(a, (draws, *a.shape)) for a, r in zip(arrays, ranks)
    ], 1


def cast(array: Array, dtype: DTypeLike) -> Array:
    """Convert as XLA does: an integer from a number beyond its range is the nearest that it has."""
    if array.dtype == dtype:
        return array
    if array.dtype.kind == "c" and np.dtype(dtype).kind in "fiub":
        array = array.real
    kind = np.dtype(dtype).kind
    if kind in "iu" and array.dtype.kind not in "iub":
        info = np.iinfo(dtype)
        wide = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=info.max, neginf=info.min)
        inside = (wide > info.min) & (wide < info.max)
        bounds = np.where(wide > 0, np.array(info.max, dtype), np.array(info.min, dtype))
        return np.where(inside, np.where(inside, wide, 0).astype(dtype), bounds)
    return array.astype(dtype)


def _shape(equation: Equation, index: int = 0) -> tuple[int, ...]:
    shape: tuple[int, ...] = shape_of(equation.outvars[index])
    return shape


# entry by entry


def _entrywise(function: Callable[..., Any], *names: str) -> NumPyRule:
    """Return the rule of a function that broadcasts, of the operands and of parameters by name."""

    def rule(equation: Equation, arrays: list[Any], lead: int) -> Any:
        return function(*_aligned(equation, arrays, lead), *(equation.params[n] for n in names))

    return NumPyRule(rule, mixed=True)


def _aligned(equation: Equation, arrays: list[Any], lead: int) -> list[Any]:
    """Return operands that broadcast against each other: draws of a scalar stay in front."""
    rank = len(_shape(equation))
    if not lead:
        return arrays
    return [
        a.reshape(a.shape + (1,) * (rank + 1 - a.ndim))
        if a.ndim > len(shape_of(v)) and a.ndim <= rank
        else a
        for a, v in zip(arrays, equation.invars)
    ]


def _special(name: str) -> NumPyRule:
    def function(*arrays: Any) -> Any:
        import scipy.special  # a tenth of a second, for programs that need it

        return getattr(scipy.special, name)(*arrays)

    return _entrywise(function)


def _div(a: Any, b: Any) -> Any:
    if np.result_type(a, b).kind not in "iu":
        return np.divide(a, b)
    safe = np.where(b == 0, 1, b)
    quotient = (a - np.fmod(a, safe)) // safe
    return np.where(b == 0, np.array(-1, np.int64).astype(quotient.dtype), quotient)


def _rem(a: Any, b: Any) -> Any:
    if np.result_type(a, b).kind not in "iu":
        return np.fmod(a, b)
    return np.where(b == 0, a, np.fmod(a, np.where(b == 0, 1, b)))


def _integer_pow(x: Any, y: int) -> Any:
    if y == 2:
        return x * x
    if x.dtype.kind in "iu" and y < 0:
        return _div(np.ones_like(x), x**-y)
    if 0 <= y <= 4 or x.dtype.kind in "iu":
        return np.power(x, y)
    return np.power(x, np.array(y, x.dtype))


def _round(x: Any, method: Any) -> Any:
    if int(method) == 1:
        return np.rint(x)
    whole = np.trunc(x)
    away = np.where(np.abs(x - whole) >= 0.5, whole + np.sign(x), whole)
    return np.copysign(away, x)


def _sign(x: Any) -> Any:
    return np.where(np.isnan(x), x, np.sign(x)) if x.dtype.kind == "f" else np.sign(x)


def _shift(left: bool, logical: bool) -> Callable[[Any, Any], Any]:
    def function(x: Any, by: Any) -> Any:
        bits = x.dtype.itemsize * 8
        kind = x.dtype if not logical else np.dtype(f"u{x.dtype.itemsize}")
        y = x.view(kind) if logical else x
        inside = (by >= 0) & (by < bits)
        amount = np.where(inside, by, 0 if left or logical else bits - 1).astype(y.dtype)
        moved = np.left_shift(y, amount) if left else np.right_shift(y, amount)
        if left or logical:
            moved = np.where(inside, moved, np.zeros((), y.dtype))
        return moved.view(x.dtype) if logical else moved

    return function


def _select_n(equation: Equation, arrays: list[Any], lead: int) -> Any:
    which, *cases = _aligned(equation, arrays, lead)
    if which.dtype.kind == "b":
        return np.where(which, cases[1], cases[0]) if len(cases) == 2 else cases[0]
    return np.choose(which, cases, mode="clip")


# reductions


def _reduction(
    function: Callable[..., Any], empty: Callable[[Any], Any] | None = None
) -> NumPyRule:
    def rule(equation: Equation, arrays: list[Any], lead: int) -> Any:
        (array,) = arrays
        axes = tuple(axis + lead for axis in equation.params["axes"])
        if empty is not None and any(array.shape[axis] == 0 for axis in axes):
            return function(array, axis=axes, initial=empty(array.dtype))
        return function(array, axis=axes)

    return NumPyRule(rule)


def _sum(array: Any, axis: tuple[int, ...]) -> Any:
    return np.sum(array, axis=axis, dtype=array.dtype)


def _product(array: Any, axis: tuple[int, ...]) -> Any:
    return np.prod(array, axis=axis, dtype=array.dtype)


def _bitwise(ufunc: np.ufunc) -> Callable[..., Any]:
    def function(array: Any, axis: tuple[int, ...]) -> Any:
        for each in sorted(axis, reverse=True):
            array = ufunc.reduce(array, axis=each)
        return array

    return function


def _smallest(dtype: DTypeLike) -> Any:
    if dtype.kind == "b":
        return False
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _greatest(dtype: DTypeLike) -> Any:
    if dtype.kind == "b":
        return True
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _arg(function: Callable[..., Any]) -> NumPyRule:
    def rule(equation: Equation, arrays: list[Any], lead: int) -> Any:
        (axis,) = equation.params["axes"]
        return function(arrays[0], axis=axis + lead).astype(equation.params["index_dtype"])

    return NumPyRule(rule)


def _cumulative(ufunc: np.ufunc) -> NumPyRule:
    def rule(equation: Equation, arrays: list[Any], lead: int) -> Any:
        axis = equation.params["axis"] + lead
        if not equation.params["reverse"]:
            return ufunc.accumulate(arrays[0], axis=axis, dtype=arrays[0].dtype)
        flipped = np.flip(arrays[0], axis)
        return np.flip(ufunc.accumulate(flipped, axis=axis, dtype=flipped.dtype), axis)

    return NumPyRule(rule)


def _sort(equation: Equation, arrays: list[Any], lead: int) -> Any:
    axis = equation.params["dimension"] + lead
    keys = [a + 0.0 if a.dtype.kind == "f" else a for a in arrays[: equation.params["num_keys"]]]
    if len(keys) == 1:
        order = np.argsort(keys[0], axis=axis, kind="stable")
    else:
        order = np.lexsort(tuple(np.moveaxis(k, axis, -1) for k in keys[::-1]), axis=-1)
        order = np.moveaxis(order, -1, axis)
    return [np.take_along_axis(a, order, axis) for a in arrays]


def _top_k(equation: Equation, arrays: list[Any], lead: int) -> Any:
    array, axis = arrays[0], equation.params["axis"] + lead
    flipped = np.flip(array, axis)  # the last of equal numbers in a stable ascending order
    order = np.argsort(flipped, axis=axis, kind="stable")
    order = array.shape[axis] - 1 - np.flip(order, axis)
    order = np.take(order, range(equation.params["k"]), axis=axis)
    return [np.take_along_axis(array, order, axis), order.astype(np.int32)]


# movements


def _broadcast(equation: Equation, arrays: list[Any], lead: int) -> Any:
    array, shape = arrays[0], tuple(equation.params["shape"])
    thin = [1] * len(shape)
    for size, axis in zip(array.shape[lead:], equation.params["broadcast_dimensions"]):
        thin[axis] = size
    front = array.shape[:lead]
    return np.broadcast_to(array.reshape((*front, *thin)), (*front, *shape))


def _bitcast(equation: Equation, arrays: list[Any], lead: int) -> Any:
    front, array = arrays[0].shape[:lead], np.ascontiguousarray(arrays[0])
    bits = array.reshape(*front, -1).view(equation.params["new_dtype"])
    return bits.reshape((*front, *_shape(equation)))


def _reshape(equation: Equation, arrays: list[Any], lead: int) -> Any:
    array, order = arrays[0], equation.params.get("dimensions")
    if order is not None and equation.primitive.name == "reshape":
        array = array.transpose((*range(lead), *(axis + lead for axis in order)))
    return array.reshape((*array.shape[:lead], *_shape(equation)))


def _transpose(equation: Equation, arrays: list[Any], lead: int) -> Any:
    order = tuple(axis + lead for axis in equation.params["permutation"])
    return arrays[0].transpose((*range(lead), *order))


def _rev(equation: Equation, arrays: list[Any], lead: int) -> Any:
    return np.flip(arrays[0], tuple(axis + lead for axis in equation.params["dimensions"]))


def _concatenate(equation: Equation, arrays: list[Any], lead: int) -> Any:
    return np.concatenate(arrays, axis=equation.params["dimension"] + lead)


def _in_order(array: Any) -> Any:
    """Return whole numbers in the order of JAX's total order, in which -0 < 0 < inf < nan."""
    if array.dtype.kind != "f":
        return array
    bits = array.copy().view(f"i{array.dtype.itemsize}")
    return bits ^ ((bits >> (8 * bits.dtype.itemsize - 1)) & np.iinfo(bits.dtype).max)


def _slice(equation: Equation, arrays: list[Any], lead: int) -> Any:
    p = equation.params
    strides = p["strides"] or (1,) * len(p["start_indices"])
    cuts = map(slice, p["start_indices"], p["limit_indices"], strides)
    return arrays[0][(slice(None),) * lead + tuple(cuts)]


def _pad(equation: Equation, arrays: list[Any], lead: int) -> Any:
    array, value = arrays
    config = [(0, 0, 0)] * lead + [tuple(each) for each in equation.params["padding_config"]]
    return _padded(array, config, value.reshape(value.shape + (1,) * (array.ndim - value.ndim)))


def _split(equation: Equation, arrays: list[Any], lead: int) -> Any:
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return np.split(arrays[0], ends, axis=equation.params["axis"] + lead)


def _iota(equation: Equation, arrays: list[Any], lead: int) -> Any:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    thin = [1] * len(shape)
    thin[axis] = shape[axis]
    column = np.arange(shape[axis]).astype(equation.params["dtype"]).reshape(thin)
    return np.broadcast_to(column, shape)


def _counted(equation: Equation, arrays: list[Any], lead: int) -> Any:
    """Count entries, in two words of 32 bits."""
    shape = equation.params["shape"]
    counts = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    return [(counts >> np.uint64(32)).astype(np.uint32), counts.astype(np.uint32)]


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(equation: Equation, arrays: list[Any], lead: int) -> Any:
    """Threefry in 20 rounds (Salmon et al., Parallel random numbers, SC 2011, section 3)."""
    first, second, x, y = _aligned(equation, arrays, lead)
    words = (first, second, first ^ second ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x, y = x + first, y + second
        for turn in range(5):
            for by in _ROTATIONS[turn % 2]:
                x = x + y
                y = x ^ ((y << np.uint32(by)) | (y >> np.uint32(32 - by)))
            x, y = x + words[(turn + 1) % 3], y + words[(turn + 2) % 3] + np.uint32(turn + 1)
    return [x, y]


def _tile(equation: Equation, arrays: list[Any], lead: int) -> Any:
    return np.tile(arrays[0], (1,) * lead + tuple(equation.params["reps"]))


# products


def _dot(equation: Equation, arrays: list[Any], lead: int) -> Any:
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = (
        _as_matrices(array, shape_of(variable), batch, summed, last)
        for array, variable, batch, summed, last in zip(
            arrays, equation.invars, (left_batch, right_batch), (left_sum, right_sum), (True, False)
        )
    )
    product = np.matmul(left, right)
    return product.reshape((*product.shape[:lead], *_shape(equation)))


def _as_matrices(array: Any, shape: tuple[int, ...], batch: Any, summed: Any, last: bool) -> Any:
    """Return an operand as (draws, batch, free, summed), or with the last two exchanged."""
    lead = array.ndim - len(shape)
    free = [axis for axis in range(len(shape)) if axis not in (*batch, *summed)]
    order = (*batch, *free, *summed) if last else (*batch, *summed, *free)
    sizes = [math.prod(shape[axis] for axis in axes) for axes in (batch, free, summed)]
    rows = (sizes[1], sizes[2]) if last else (sizes[2], sizes[1])
    moved = array.transpose((*range(lead), *(axis + lead for axis in order)))
    return moved.reshape((*array.shape[:lead], sizes[0], *rows))


def _conv(equation: Equation, arrays: list[Any], lead: int) -> Any:
    p, numbers = equation.params, equation.params["dimension_numbers"]
    if lead:
        left, right = arrays
    else:
        left, right = (array[None] for array in arrays)
    left = left.transpose(0, *(axis + 1 for axis in numbers.lhs_spec))
    right = right.transpose(0, *(axis + 1 for axis in numbers.rhs_spec))
    draws, batch, channels = left.shape[:3]
    outputs, _, *kernel = right.shape[1:]
    rank, groups = len(kernel), p["feature_group_count"]
    many = p["batch_group_count"]
    ones = ((0, 0, 0),) * 3
    inner = [(low, high, size - 1) for (low, high), size in zip(p["padding"], p["lhs_dilation"])]
    padded = _padded(left, (*ones, *inner), 0)
    view = windows(padded, 3, kernel, p["window_strides"], p["rhs_dilation"])
    places = view.shape[3 : 3 + rank]
    if many > 1:
        view = view.reshape(draws, many, batch // many, channels, *view.shape[3:])
        view = np.moveaxis(view, 3, 3 + rank)  # draws, group, batch, places, channels, kernel
        count = many
    else:
        view = view.reshape(draws, batch, groups, channels // groups, *view.shape[3:])
        view = np.moveaxis(np.moveaxis(view, 2, 1), 3, 3 + rank)
        count = groups
    rows = view.shape[2]
    columns = math.prod(view.shape[3 + rank :])
    patches = view.reshape(draws, count, rows * math.prod(places), columns)
    weights = right.reshape(draws, count, outputs // count, columns).swapaxes(-1, -2)
    product = np.matmul(patches, weights).reshape(draws, count, rows, *places, outputs // count)
    product = np.moveaxis(product, 1, -2)  # draws, rows, places, group, outputs of a group
    product = np.moveaxis(product.reshape(draws, rows, *places, outputs), -1, 2)
    back = np.argsort(numbers.out_spec)
    result = product.transpose(0, *(axis + 1 for axis in back))
    return result if lead else result[0]


# windows


def windows(
    array: Any, first: int, sizes: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Any:
    """Return a view with one axis per axis of the windows' places, then one per axis inside."""
    front, steps = array.shape[:first], array.strides[first:]
    places = [
        max(0, (length - (size - 1) * wide - 1) // stride + 1)
        for length, size, stride, wide in zip(array.shape[first:], sizes, strides, dilation)
    ]
    shape = (*front, *places, *sizes)
    outer = [step * stride for step, stride in zip(steps, strides)]
    inside = [step * wide for step, wide in zip(steps, dilation)]
    return as_strided(array, shape, (*array.strides[:first], *outer, *inside), writeable=False)


def _padded(array: Array, config: Sequence[tuple[int, int, int]], value: Array | float) -> Any:
    """Return an array padded as XLA pads: low, high, and between the entries of each axis."""
    if all(each == (0, 0, 0) for each in config):
        return array
    shape = [
        low + high + size + max(0, size - 1) * inner
        for size, (low, high, inner) in zip(array.shape, config)
    ]
    grown = [size + max(0, size - 1) * inner for size, (_, _, inner) in zip(array.shape, config)]
    whole, result = (np.empty([max(0, n) for n in each], array.dtype) for each in (grown, shape))
    whole[...], result[...] = value, value
    whole[tuple(slice(None, None, inner + 1) for _, _, inner in config)] = array
    source, target = [], []
    for size, out, (low, _, _) in zip(grown, result.shape, config):
        start, end = max(0, -low), min(size, out - low)
        source.append(slice(start, max(start, end)))
        target.append(slice(start + low, max(start, end) + low))
    result[tuple(target)] = whole[tuple(source)]
    return result


def _windowed(equation: Equation, array: Array, lead: int, value: Array | float) -> tuple[Any, int]:
    """Return the windows of an array as (draws, places, entries of a window), and their rank."""
    p = equation.params
    rank = array.ndim - lead
    base = p.get("base_dilation") or (1,) * rank
    config = [(low, high, size - 1) for (low, high), size in zip(p["padding"], base)]
    padded = _padded(array, [(0, 0, 0)] * lead + config, value)
    dilation = p.get("window_dilation") or (1,) * rank
    view = windows(padded, lead, p["window_dimensions"], p["window_strides"], dilation)
    return view, rank


def _window(function: Callable[..., Any], initial: Callable[[Any], Any]) -> NumPyRule:
    def rule(equation: Equation, arrays: list[Any], lead: int) -> Any:
        view, rank = _windowed(equation, arrays[0], lead, initial(arrays[0].dtype))
        return function(view, axis=tuple(range(-rank, 0)))

    return NumPyRule(rule)


def _flat(view: Any, rank: int) -> Any:
    """Return windows with one axis of entries."""
    front = view.shape[: view.ndim - rank]
    return view.reshape((*front, math.prod(view.shape[view.ndim - rank :])))


def _winners(equation: Equation, array: Any, lead: int) -> tuple[Any, Any]:
    """Return the windows, flat, and which entry of each is selected: the first of equal ones."""
    largest = equation.params["select_prim"].name in ("ge", "gt")
    edge = (_smallest if largest else _greatest)(array.dtype)
    view, rank = _windowed(equation, array, lead, edge)
    flat = _flat(view, rank)
    return flat, (np.argmax if largest else np.argmin)(flat, axis=-1)


def _select_and_gather(equation: Equation, arrays: list[Any], lead: int) -> Any:
    given, array = arrays
    _, chosen = _winners(equation, array, lead)
    view, rank = _windowed(equation, given, lead, 0)
    flat = _flat(view, rank)
    return np.take_along_axis(flat, chosen[..., None], -1)[..., 0]


def _select_and_scatter(equation: Equation, arrays: list[Any], lead: int) -> Any:
    source, array = arrays
    _, chosen = _winners(equation, array, lead)
    shape = array.shape[lead:]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    view, rank = _windowed(equation, numbers, 0, -1)
    places = _flat(view, rank)
    if lead:
        places = np.broadcast_to(places, (array.shape[0], *places.shape))
    hit = np.take_along_axis(places, chosen[..., None], -1)[..., 0]
    rows = array.shape[0] if lead else 1
    hit, source = (each.reshape(rows, each.size // rows) for each in (hit, source))
    result = np.zeros((rows, math.prod(shape)), source.dtype)
    inside = hit >= 0
    np.add.at(result, (np.nonzero(inside)[0], hit[inside]), source[inside])
    return result.reshape(array.shape)


# indices


def _starts(
    indices: Any, lead: int, mapped: Sequence[int], sizes: Sequence[int], shape: Sequence[int]
) -> tuple[dict[int, Any], Any]:
    """Return the clipped start on each mapped axis, and where every window lies inside."""
    starts, inside = {}, np.ones(indices.shape[:-1], bool)
    for place, axis in enumerate(mapped):
        start, last = indices[..., place].astype(np.int64), shape[axis] - sizes[axis]
        inside &= (start >= 0) & (start <= last)
        starts[axis] = np.clip(start, 0, max(last, 0))
    return starts, inside


def _index(
    starts: dict[int, Any],
    rank: int,
    windows_: Sequence[int],
    sizes: Sequence[int],
    batching: Sequence[int],
    batching_places: Sequence[int],
    batch: tuple[int, ...],
) -> tuple[Any, ...]:
    """Return index arrays of shape (batch..., window...) for each axis of the operand."""
    front, inner = len(batch), len(windows_)
    found = []
    for axis in range(rank):
        index = np.zeros((1,) * (front + inner), np.int64)
        if axis in starts:
            index = index + starts[axis].reshape((*batch, *(1,) * inner))
        if axis in batching:
            place = batching_places[list(batching).index(axis)]
            column = [1] * (front + inner)
            column[place] = batch[place]
            index = index + np.arange(batch[place]).reshape(column)
        if axis in windows_:
            column = [1] * (front + inner)
            column[front + list(windows_).index(axis)] = sizes[axis]
            index = index + np.arange(sizes[axis]).reshape(column)
        found.append(index)
    return tuple(found)


def _mode(equation: Equation) -> str:
    return str(getattr(equation.params["mode"], "name", equation.params["mode"]))


def _fill(equation: Equation, dtype: DTypeLike) -> Any:
    value = equation.params["fill_value"]
    if value is not None:
        return value
    if dtype.kind in "fc":
        return np.nan
    return (
        True
        if dtype.kind == "b"
        else np.iinfo(dtype).min
        if dtype.kind == "i"
        else np.iinfo(dtype).max
    )


def _gather(equation: Equation, arrays: list[Any], lead: int) -> Any:
    p, numbers = equation.params, equation.params["dimension_numbers"]
    array, indices = arrays
    per_draw = indices.ndim > len(shape_of(equation.invars[1]))
    drawn = array.ndim > len(shape_of(equation.invars[0]))
    if per_draw:  # which entries are read differs from draw to draw
        rows = [
            _gather(equation, [array[i] if drawn else array, indices[i]], 0)
            for i in range(len(indices))
        ]
        return np.stack(rows)
    shape = array.shape[int(drawn) :]
    starts, inside = _starts(indices, 0, numbers.start_index_map, p["slice_sizes"], shape)
    batching = numbers.operand_batching_dims
    kept = [a for a in range(len(shape)) if a not in (*numbers.collapsed_slice_dims, *batching)]
    batch = indices.shape[:-1]
    places = numbers.start_indices_batching_dims
    index = _index(starts, len(shape), kept, p["slice_sizes"], batching, places, batch)
    found = array[(slice(None),) * drawn + index]
    full = (*batch, *(p["slice_sizes"][axis] for axis in kept))
    found = np.broadcast_to(found, (*array.shape[:drawn], *full))
    if "FILL" in _mode(equation) and not inside.all():
        seen = inside.reshape((*batch, *(1,) * len(kept)))
        found = np.where(seen, found, np.array(_fill(equation, array.dtype), array.dtype))
    order = np.empty(len(full), int)
    free = [axis for axis in range(len(full)) if axis not in numbers.offset_dims]
    order[free] = range(len(batch))
    order[list(numbers.offset_dims)] = range(len(batch), len(full))
    return found.transpose(*range(drawn), *(order + drawn))


def _dynamic_slice(equation: Equation, arrays: list[Any], lead: int) -> Any:
    array, *starts = arrays
    sizes = equation.params["slice_sizes"]
    drawn = array.ndim - len(sizes)
    if any(start.ndim for start in starts):
        count = max(start.shape[0] for start in starts if start.ndim)
        rows = [
            _dynamic_slice(
                equation,
                [array[i] if drawn else array, *(s[i] if s.ndim else s for s in starts)],
                0,
            )
            for i in range(count)
        ]
        return np.stack(rows)
    return array[(slice(None),) * drawn + _cuts(starts, sizes, array.shape[drawn:])]


def _cuts(starts: Sequence[Any], sizes: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    firsts = [min(max(int(s), 0), n - size) for s, size, n in zip(starts, sizes, shape)]
    return tuple(slice(first, first + size) for first, size in zip(firsts, sizes))


def _dynamic_update(equation: Equation, arrays: list[Any], lead: int) -> Any:
    array, update, *starts = arrays
    if lead and any(np.any(s != s.flat[0]) for s in starts if s.size):
        for i in range(len(array)):
            _dynamic_update(equation, [array[i], update[i], *(s[i] for s in starts)], 0)
        return array
    firsts = [s.flat[0] for s in starts]
    cuts = _cuts(firsts, update.shape[lead:], array.shape[lead:])
    array[(slice(None),) * lead + cuts] = update
    return array


def _scatter(combine: str) -> Function:
    def rule(equation: Equation, arrays: list[Any], lead: int) -> Any:
        array, indices, updates = arrays
        if not lead:
            _scattered(equation, array, indices, updates, combine)
            return array
        for i in range(len(array)):
            _scattered(equation, array[i], indices[i], updates[i], combine)
        return array

    return rule


def _scattered(equation: Equation, array: Any, indices: Any, updates: Any, combine: str) -> None:
    """Write into an array, of one draw, what a scatter adds or puts there."""
    numbers = equation.params["dimension_numbers"]
    batching = numbers.operand_batching_dims
    kept = [a for a in range(array.ndim) if a not in (*numbers.inserted_window_dims, *batching)]
    inner = numbers.update_window_dims
    free = [axis for axis in range(updates.ndim) if axis not in inner]
    updates = updates.transpose(*free, *inner)
    batch = indices.shape[:-1]
    sizes = [1] * array.ndim
    for axis, size in zip(kept, updates.shape[len(free) :]):
        sizes[axis] = size
    mapped = numbers.scatter_dims_to_operand_dims
    starts, inside = _starts(indices, 0, mapped, sizes, array.shape)
    places = numbers.scatter_indices_batching_dims
    index = _index(starts, array.ndim, kept, sizes, batching, places, batch)
    if not mapped:  # all updates go to one place
        index = tuple(np.broadcast_to(i, updates.shape) for i in index)
    if not inside.all() and "CLIP" not in _mode(equation):
        index = tuple(np.broadcast_to(i, updates.shape)[inside] for i in index)
        updates = updates[inside]
    if combine == "put":
        array[index] = updates
    elif combine == "add" and equation.params["unique_indices"] and updates.size:
        array[index] += updates.reshape(
            np.broadcast_shapes(updates.shape, *(i.shape for i in index))
        )
    else:
        _UFUNCS[combine].at(array, index, updates)


_UFUNCS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
}

UPDATES: dict[str, Function] = {
    "dynamic_update_slice": _dynamic_update,
    "scatter": _scatter("put"),
    **{f"scatter-{name}": _scatter(name) for name in _UFUNCS},
}
"""Primitives that change some entries of their first operand."""

_same = NumPyRule(lambda equation, arrays, lead: arrays[0])
_OF_NUMPY = (  # what NumPy has as a function of entries, under JAX's name and NumPy's
    "abs cbrt ceil conj cos cosh exp exp2 expm1 floor imag log log1p nextafter real sin",
    "sinh sqrt square tan tanh acos:arccos acosh:arccosh asin:arcsin asinh:arcsinh atan:arctan",
    "atan2:arctan2 atanh:arctanh pow:power add add_any:add sub:subtract mul:multiply",
    "neg:negative and:bitwise_and or:bitwise_or xor:bitwise_xor not:invert eq:equal",
    "eq_to:equal ne:not_equal is_finite:isfinite lt:less le:less_equal gt:greater",
    "ge:greater_equal max:maximum min:minimum",
)
_OF_SCIPY = (
    "bessel_i0e:i0e bessel_i1e:i1e digamma erf erf_inv:erfinv erfc igamma:gammainc",
    "igammac:gammaincc lgamma:gammaln",
)


def _names(rows: Sequence[str]) -> list[tuple[str, str]]:
    words = [word.partition(":") for row in rows for word in row.split()]
    return [(name, other or name) for name, _, other in words]


NUMPY: dict[str, NumPyRule] = {
    **dict.fromkeys(("copy", "copy_p", "stop_gradient", "optimization_barrier"), _same),
    **{name: _entrywise(getattr(np, other)) for name, other in _names(_OF_NUMPY)},
    **{name: _special(other) for name, other in _names(_OF_SCIPY)},
    "clamp": _entrywise(lambda low, x, high: np.minimum(np.maximum(x, low), high)),
    "complex": _entrywise(lambda real, imag: real + 1j * imag),
    "convert_element_type": NumPyRule(
        lambda e, arrays, lead: cast(arrays[0], e.params["new_dtype"])
    ),
    "div": _entrywise(_div),
    "integer_pow": _entrywise(_integer_pow, "y"),
    "logistic": _entrywise(lambda x: 1.0 / (1.0 + np.exp(-x))),
    "one_minus_square": _entrywise(lambda x: (1.0 + x) * (1.0 - x)),
    "rem": _entrywise(_rem),
    "round": _entrywise(_round, "rounding_method"),
    "rsqrt": _entrywise(lambda x: 1.0 / np.sqrt(x)),
    "select_n": NumPyRule(_select_n, mixed=True),
    "shift_left": _entrywise(_shift(left=True, logical=False)),
    "shift_right_arithmetic": _entrywise(_shift(left=False, logical=False)),
    "shift_right_logical": _entrywise(_shift(left=False, logical=True)),
    "sign": _entrywise(_sign),
    "reduce_sum": _reduction(_sum),
    "reduce_prod": _reduction(_product),
    "reduce_max": _reduction(np.max, _smallest),
    "reduce_min": _reduction(np.min, _greatest),
    "reduce_and": _reduction(_bitwise(np.bitwise_and)),
    "reduce_or": _reduction(_bitwise(np.bitwise_or)),
    "reduce_xor": _reduction(_bitwise(np.bitwise_xor)),
    "argmax": _arg(np.argmax),
    "argmin": _arg(np.argmin),
    "cumsum": _cumulative(np.add),
    "cumprod": _cumulative(np.multiply),
    "cummax": _cumulative(np.maximum),
    "cummin": _cumulative(np.minimum),
    "cumlogsumexp": _cumulative(np.logaddexp),
    "sort": NumPyRule(_sort),
    "top_k": NumPyRule(_top_k),
    "bitcast_convert_type": NumPyRule(_bitcast),
    "broadcast_in_dim": NumPyRule(_broadcast),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), NumPyRule(_reshape)),
    "transpose": NumPyRule(_transpose),
    "rev": NumPyRule(_rev),
    "concatenate": NumPyRule(_concatenate),
    "stack": NumPyRule(lambda eqn, of, lead: np.stack(of, eqn.params["axis"] + lead)),
    "unstack": NumPyRule(lambda eqn, of, lead: np.moveaxis(of[0], eqn.params["axis"] + lead, 0)),
    "slice": NumPyRule(_slice),
    "le_to": _entrywise(lambda x, y: _in_order(x) <= _in_order(y)),
    "lt_to": _entrywise(lambda x, y: _in_order(x) < _in_order(y)),
    "pad": NumPyRule(_pad),
    "split": NumPyRule(_split),
    "iota": NumPyRule(_iota),
    "iota_2x32_shape": NumPyRule(_counted),
    "threefry2x32": NumPyRule(_threefry, mixed=True),
    "tile": NumPyRule(_tile),
    "dynamic_slice": NumPyRule(_dynamic_slice, mixed=True),
    "gather": NumPyRule(_gather, mixed=True),
    "dot_general": NumPyRule(_dot, mixed=True),
    "conv_general_dilated": NumPyRule(_conv),
    "reduce_window_sum": _window(_sum, lambda dtype: 0),
    "reduce_window_max": _window(np.max, _smallest),
    "reduce_window_min": _window(np.min, _greatest),
    "select_and_gather_add": NumPyRule(_select_and_gather),
    "select_and_scatter_add": NumPyRule(_select_and_scatter),
}
"""Every other primitive that NumPy evaluates, by name."""
