"""What is computed otherwise than by the function of the same name in JAX.

Making arrays, writing in place, asking for places, the methods of ufuncs, and functions that call
the user's own. Each entry says what its namesake cannot do.
"""

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.reading import masks
from gradlab.reading.indexing import address, taken
from gradlab.reading.standins import Chosen, Stand, is_stand, shadow_of

if TYPE_CHECKING:
    from gradlab.reading.session import Recorder


Args = tuple[Any, ...]
Kwargs = dict[str, Any]
RULES: dict[Any, Callable[..., Any]] = {}


def _rule(*keys: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(keys, rule))
        return rule

    return register


# Making arrays


@_rule(np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray, np.copy)
def _array(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    """An array of numbers, arrays and lists of them; JAX's knows no stand-ins in lists."""
    if function is np.copy and type(args[0]) is Chosen:
        return args[0]
    value = reading.plain(args[0]) if args and type(args[0]) is Chosen else (*args, None)[0]
    result = function(*shadow_of((value, *args[1:])), **shadow_of(kwargs))
    if not reading.traced(value) or reading.is_view(result):
        return reading.wrap(result)
    symbol = jnp.asarray(reading.symbol(value), result.dtype)
    whole = symbol.shape == np.shape(result)
    return reading.pair(result, symbol if whole else jnp.reshape(symbol, result.shape))


@_rule(np.empty, np.empty_like, np.zeros_like, np.ones_like)
def _constant(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    """An array that no value enters; what is empty is zero, so that it is the same each time."""
    result = function(*shadow_of(reading.settled(args)), **shadow_of(reading.settled(kwargs)))
    if function in (np.empty, np.empty_like) and isinstance(result, np.ndarray):
        result[...] = np.zeros((), result.dtype)
    return reading.wrap(result)


@_rule(np.where)
def _where(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    """A choice between two; with one argument, the places where it is true."""
    if len(args) == 1:
        return _places(reading, function, args, kwargs)
    return reading.plainly(function, args, kwargs)


@_rule(np.nonzero, np.flatnonzero, np.argwhere)
def _places(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Where something is true: the values decide how many places there are."""
    (value,) = args
    if reading.traced(value):
        value = reading.decide(
            reading.ufunc(np.not_equal, "__call__", (value, 0), {}, None), "places"
        )
    return reading.wrap(function(shadow_of(value), **kwargs))


@_rule(np.unique, np.histogram, np.extract, np.compress)
def _decided(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Something whose shape depends on the values of its first argument."""
    first = reading.decide(args[0], "places") if is_stand(args[0]) else args[0]
    if function in (np.extract, np.compress):
        axis = kwargs.get("axis", args[2] if len(args) > 2 else None)
        return reading.call(np.take, (args[1], np.flatnonzero(first), axis), {})
    return reading.plainly(function, (first, *args[1:]), kwargs)


@_rule(np.bincount)
def _bincount(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    """Sums of weights by whole numbers: the largest of these decides how many sums there are."""
    given: Any = {**dict(zip(("x", "weights", "minlength"), args)), **kwargs}
    x, weights, least = map(given.get, ("x", "weights", "minlength"))
    result = function(shadow_of(x), shadow_of(weights), int(least or 0))
    if reading.traced(x):  # the number of sums is a decision: the program is for this one alone
        int(np.maximum(np.max(x, initial=-1) + 1, least or 0))
    found = reading.wrap(np.zeros_like(result))
    np.add.at(found, x, 1 if weights is None else weights)
    return found


@_rule(np.linalg.lstsq)
def _lstsq(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    """JAX gives residuals where NumPy gives none."""
    rest = function(*shadow_of(args), **shadow_of(kwargs))[1]

    def twin(*operands: Any, **options: Any) -> Any:
        found = list(jnp.linalg.lstsq(*operands, **options))
        found[1] = jnp.reshape(found[1], rest.shape) if rest.size else jnp.zeros_like(rest)
        return tuple(found)

    return reading.plainly(function, args, kwargs, twin)


# Writing in place


def _in_place(
    reading: "Recorder", stand: Any, write: Callable[[], Any], rest: Any, symbol: Any
) -> None:
    """Write into an array: `write` does so to the shadow, `symbol` says what it becomes."""
    if not is_stand(stand):
        if reading.traced(rest):
            raise reading.refuse(
                "a traced value is written into an array that gradlab does not trace"
            )
        write()
    elif reading.traced((stand, rest)):
        whole = reading.cast(symbol(jnp.asarray(reading.symbol(stand))), stand.shadow.dtype)
        reading.written(stand, whole, write)
    else:
        stand.buffer.changing()
        write()


@_rule(np.copyto)
def _copyto(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> None:
    place, value = args[:2]
    mask = kwargs.get("where", args[3] if len(args) > 3 else True)
    reading.assign(
        place, value if mask is True else reading.call(np.where, (mask, value, place), {})
    )


@_rule(np.putmask)
def _putmask(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> None:
    place, mask, values = args
    many = np.size(shadow_of(values)) > 1
    values = reading.call(np.resize, (values, np.shape(place.shadow)), {}) if many else values
    reading.assign(place, reading.call(np.where, (mask, values, place), {}))


@_rule(np.place)
def _place(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> None:
    place, mask, values = args
    mask = reading.call(np.asarray, (mask,), {"dtype": bool})
    if np.size(shadow_of(values)) > 1:
        mask = reading.decide(mask, "mask")
        values = reading.call(np.resize, (values, (int(mask.sum()),)), {})
    place[mask] = values


@_rule(np.put)
def _put(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> None:
    place, indices, values = args[:3]
    place.flat[indices] = values


@_rule(np.put_along_axis, np.fill_diagonal)
def _write_along(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> None:
    twin = getattr(jnp, function.__name__)

    def symbol(whole: Any) -> Any:
        return twin(whole, *reading.symbol(args[1:]), **reading.symbol(kwargs), inplace=False)

    def write() -> None:
        function(*shadow_of(args), **shadow_of(kwargs))

    _in_place(reading, args[0], write, (args[1:], kwargs), symbol)


@_rule(".sort", ".partition")
def _sort(reading: "Recorder", stand: Stand, args: Args, kwargs: Kwargs) -> None:
    axis = kwargs.get("axis", args[0] if args else -1)
    _in_place(reading, stand, lambda: stand.shadow.sort(axis), (), lambda x: jnp.sort(x, axis))


@_rule(".fill")
def _fill(reading: "Recorder", stand: Stand, args: Args, kwargs: Kwargs) -> None:
    reading.assign(stand, args[0])


# Methods of arrays that no function of NumPy has, or that take other arguments


@_rule(".astype")
def _astype(reading: "Recorder", stand: Any, args: Args, kwargs: Kwargs) -> Any:
    """The same numbers in another dtype: a copy, unless told otherwise."""
    result = stand.shadow.astype(*args, **kwargs)
    if type(stand) is Chosen:
        whole = lax.convert_element_type(masks.filled(reading, stand), result.dtype)
        return Chosen(reading, result, whole, stand.mask, stand.where)
    if not stand.traced or (isinstance(result, np.ndarray) and reading.is_view(result)):
        return reading.wrap(result)
    return reading.pair(result, reading.cast(stand, result.dtype))


@_rule(".item")
def _item(reading: "Recorder", stand: Stand, args: Args, kwargs: Kwargs) -> Any:
    """A number of Python: it leaves the dtype of what it meets alone."""
    result = stand.shadow.item(*args)
    if not stand.traced:
        return result
    symbol = reading.symbol(stand)
    if np.size(symbol) > 1:
        place = np.arange(symbol.size).reshape(symbol.shape).item(*args)
        symbol = taken(jnp.ravel(symbol), place)
    return reading.pair(result, symbol)


@_rule(".tolist")
def _tolist(reading: "Recorder", stand: Stand, args: Args, kwargs: Kwargs) -> Any:
    if not stand.traced:
        return stand.shadow.tolist()
    if not np.ndim(stand.shadow):
        return stand.item()
    return [row.tolist() if hasattr(row, "tolist") else row for row in stand]


@_rule(".view")
def _view(reading: "Recorder", stand: Stand, args: Args, kwargs: Kwargs) -> Any:
    result = stand.shadow.view(*args, **kwargs)
    if stand.traced and not (isinstance(result, np.ndarray) and reading.is_view(result)):
        raise reading.refuse("the bits of an array are read as another dtype")
    return reading.wrap(result)


# The methods of ufuncs


def _twin(reading: "Recorder", ufunc: Any) -> Any:
    """Return JAX's ufunc of the same name, which has the same methods."""
    found = getattr(jnp, ufunc.__name__, None)
    if found is None:
        raise reading.refuse(f"{ufunc.__name__} has no counterpart in JAX")
    return found if isinstance(found, jnp.ufunc) else jnp.frompyfunc(found, 2, 1)


@_rule("reduce", "accumulate")
def _folded(reading: "Recorder", ufunc: Any, inputs: Args, kwargs: Kwargs, method: str) -> Any:
    """A fold along an axis."""
    names = ("axis", "dtype", "out", "keepdims", "initial", "where")
    options = {"axis": 0, **dict(zip(names, inputs[1:])), **kwargs}
    options = {n: v for n, v in options.items() if v is not np._NoValue}
    twin = getattr(_twin(reading, ufunc), method)
    if method == "accumulate" and ufunc in (np.maximum, np.minimum):
        twin = lax.cummax if ufunc is np.maximum else lax.cummin
    return reading.plainly(getattr(ufunc, method), inputs[:1], options, twin)


@_rule("outer")
def _outer(reading: "Recorder", ufunc: Any, inputs: Args, kwargs: Kwargs, method: str) -> Any:
    left, right = (reading.call(np.asarray, (each,), {}) for each in inputs)
    return ufunc(left.reshape(left.shape + (1,) * right.ndim), right, **kwargs)


@_rule("at")
def _at(reading: "Recorder", ufunc: Any, inputs: Args, kwargs: Kwargs, method: str) -> None:
    """An update in place in which an entry may be met more than once."""
    place, index, *values = inputs

    def symbol(whole: Any) -> Any:
        if not values:
            raise reading.refuse(f"{ufunc.__name__}.at has no counterpart in JAX")
        shape = np.shape(place.shadow[shadow_of(index)])
        value = reading.spread(values[0], place.dtype, shape)
        there = address(reading, index, whole.shape)
        return _twin(reading, ufunc).at(whole, there, value, inplace=False)

    def write() -> None:
        ufunc.at(*shadow_of(inputs))

    _in_place(reading, place, write, inputs[1:], symbol)


@_rule("reduceat")
def _reduceat(reading: "Recorder", ufunc: Any, inputs: Args, kwargs: Kwargs, method: str) -> Any:
    array, indices = inputs[:2]
    axis: Any = kwargs.get("axis", inputs[2] if len(inputs) > 2 else 0)
    starts = [int(i) for i in indices]
    rows = np.moveaxis(array, axis, 0)
    parts = [
        ufunc.reduce(rows[a : b if b > a else a + 1], axis=0)
        for a, b in zip(starts, [*starts[1:], len(rows)])
    ]
    return np.moveaxis(reading.call(np.array, (parts,), {}), 0, axis)


# Functions that call the user's own


@_rule(np.apply_along_axis)
def _apply_along_axis(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    user, axis, array, *rest = args
    array = np.moveaxis(reading.call(np.asarray, (array,), {}), axis, -1)
    outer = array.shape[:-1]
    rows = [user(array[place], *rest, **kwargs) for place in np.ndindex(*outer)]
    result = reading.call(np.array, (rows,), {})
    result = result.reshape(outer + result.shape[1:])
    return np.moveaxis(result, -1, axis) if result.ndim > len(outer) else result


@_rule(np.piecewise)
def _piecewise(reading: "Recorder", function: Any, args: Args, kwargs: Kwargs) -> Any:
    x, conditions, values, *rest = args
    x = reading.call(np.asarray, (x,), {})
    conditions = list(conditions) if isinstance(conditions, list | tuple) else [conditions]
    if len(values) == len(conditions) + 1:
        conditions = [*conditions, ~functools.reduce(np.logical_or, conditions)]
    result = reading.call(np.zeros_like, (x,), {})
    for condition, value in zip(conditions, values):
        result[condition] = value(x[condition], *rest, **kwargs) if callable(value) else value
    return result


def vectorized(reading: "Recorder", function: Callable[..., Any], arrays: Args, dtype: Any) -> Any:
    """Return what `np.vectorize` makes of a function of numbers and its arguments."""
    several = np.broadcast_arrays(*(reading.call(np.asarray, (a,), {}) for a in arrays))
    shape = np.shape(shadow_of(several[0]))
    rows = [function(*(each[place] for each in several)) for place in np.ndindex(*shape)]
    return reading.call(np.array, (rows,), {"dtype": dtype}).reshape(shape)


def each_entry(array: Any) -> Iterable[tuple[tuple[int, ...], Any]]:
    """Yield what `np.ndenumerate` does."""
    return ((place, array[place]) for place in np.ndindex(*np.shape(array)))
