"""`x[key]` and `x[key] = value` on stand-ins.

Slices and numbers show a part of the memory. Index arrays gather and scatter, traced ones too. A
mask that is traced keeps the whole array beside it: see `masks`.
"""

import operator
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.reading import masks
from gradlab.reading.standins import Chosen, Stand, is_stand, shadow_of

if TYPE_CHECKING:
    from gradlab.reading.session import Recorder


def get(reading: "Recorder", stand: Stand, key: Any) -> Any:
    """Return `stand[key]`: a view, a number, or a new array."""
    given, key = key, _parsed(reading, key)
    if _is_mask(key):
        return masks.chosen(reading, stand, key)
    result = stand.shadow[shadow_of(key)]
    if reading.traced(key):
        symbol = jnp.asarray(reading.symbol(stand))[reading.symbol(key)]
        if isinstance(result, np.ndarray) and reading.is_view(result):
            return reading.elsewhere(stand, given, result, symbol)
        return reading.pair(result, symbol)
    if not stand.traced or (isinstance(result, np.ndarray) and reading.is_view(result)):
        return reading.wrap(result)
    view = _view(reading, stand, key)
    if view is not None:
        return reading.pair(result, reading.symbol(Stand(reading, view, stand.buffer)))
    return reading.pair(result, taken(reading.symbol(stand), key))


def put(reading: "Recorder", stand: Stand, key: Any, value: Any) -> None:
    """Write `stand[key] = value`."""
    if type(value) is Stand and _shows(value.buffer, stand, key):
        return  # `x[i] += v`, where values decide i, ends by writing what it has written
    key = _parsed(reading, key)
    if _is_mask(key):
        masks.choose(reading, stand, key, value)
        return
    dynamic = reading.traced(key)
    place, plain = shadow_of(key), shadow_of(value)
    view = None if dynamic else _view(reading, stand, key)
    if view is not None and is_stand(value) and _same(view, plain):
        return  # `x[key] += v` ends by writing the view onto itself
    assert stand.buffer is not None
    constant = not (dynamic or reading.traced(value))
    if constant and not stand.traced:
        stand.buffer.changing()
        stand.shadow[place] = plain
    else:
        new = reading.cast(value, stand.shadow.dtype)
        if view is not None:
            there = Stand(reading, view, stand.buffer)
            reading.written(there, new, lambda: view.__setitem__(..., plain), constant)
        else:
            whole = jnp.asarray(reading.symbol(stand))
            at = reading.symbol(key) if dynamic else _positive(place, whole.shape)
            if not dynamic and np.size(plain) > 1 and _twice(stand.shadow.shape, place):
                raise reading.refuse("an index names an entry twice, with different values")
            shape = np.shape(stand.shadow[place])
            symbol = whole.at[at].set(spread(new, shape))
            reading.written(stand, symbol, lambda: stand.shadow.__setitem__(place, plain))


def taken(symbol: Any, key: Any) -> Any:
    """Return `symbol[key]` for a constant index, which NumPy has found to be inside."""
    whole = jnp.asarray(symbol)
    return whole.at[_positive(key, whole.shape)].get(mode="promise_in_bounds")


def address(reading: "Recorder", key: Any, shape: tuple[int, ...]) -> Any:
    """Return an index as JAX takes it, traced or not."""
    key = _parsed(reading, key)
    return reading.symbol(key) if reading.traced(key) else _positive(key, shape)


def spread(symbol: Any, shape: tuple[int, ...]) -> Any:
    """Return a symbol broadcast as NumPy broadcasts what is assigned."""
    extra = np.ndim(symbol) - len(shape)
    if extra > 0:
        symbol = symbol.reshape(np.shape(symbol)[extra:])
    if np.shape(symbol) == shape:
        return symbol
    if isinstance(symbol, np.ndarray):  # a constant, which keeps its digits when it is lifted
        return np.array(np.broadcast_to(symbol, shape))
    return lax.broadcast_in_dim(symbol, shape, range(len(shape) - np.ndim(symbol), len(shape)))


def _parsed(reading: "Recorder", key: Any) -> Any:
    """Return an index whose parts are plain where nothing is traced, and whose slices are."""
    if type(key) is tuple:
        return tuple(_part(reading, part) for part in key)
    if _is_mask(key) and isinstance(key.shadow, np.ndarray):
        return key
    return _part(reading, key)


def _part(reading: "Recorder", part: Any) -> Any:
    if type(part) is Chosen:
        part = reading.plain(part)
    if type(part) is slice:
        ends = (part.start, part.stop, part.step)
        return slice(*(operator.index(end) if type(end) is Stand else end for end in ends))
    if type(part) in (list, tuple, range):
        part = list(part)
        part = reading.call(np.array, (part,), {}) if reading.traced(part) else shadow_of(part)
    if type(part) is Stand and not part.traced:
        return part.shadow
    return reading.decide(part, "mask") if _is_mask(part) else part


def _is_mask(key: Any) -> bool:
    return type(key) is Stand and key.traced and key.shadow.dtype.kind == "b"


def _view(reading: "Recorder", stand: Stand, key: Any) -> Any:
    """Return what a constant index shows of the memory, numbers as arrays of no axes; or None."""
    parts = key if type(key) is tuple else (key,)
    if not any(part is Ellipsis for part in parts):
        parts = (*parts, Ellipsis)
    view = stand.shadow[parts]
    return view if isinstance(view, np.ndarray) and reading.is_view(view) else None


def _shows(buffer: Any, stand: Stand, key: Any) -> bool:
    """Whether memory was taken from `stand[key]`, and both are the same still."""
    source = None if buffer is None else buffer.source
    if source is None or source.stand is not stand or source.key is not key:
        return False
    return bool(source.kept == buffer.version and not buffer.stale)


def _same(view: Any, other: Any) -> bool:
    """Whether two arrays show the same entries."""
    return (
        isinstance(other, np.ndarray)
        and view.__array_interface__["data"] == other.__array_interface__["data"]
        and (view.shape, view.strides, view.dtype) == (other.shape, other.strides, other.dtype)
    )


def _twice(shape: tuple[int, ...], key: Any) -> bool:
    places = np.arange(np.prod(shape, dtype=int)).reshape(shape)[key]
    return bool(np.unique(places).size < np.size(places))


def _positive(key: Any, shape: tuple[int, ...]) -> Any:
    """Return a constant index without negative numbers and masks, so that no equation mends it."""
    parts = list(key) if type(key) is tuple else [key]
    found: list[Any] = []
    for part in parts:
        array = np.asarray(part) if isinstance(part, list | np.ndarray) else None
        if array is not None and array.dtype == bool and array.ndim:
            found += [places.astype(np.int32) for places in np.nonzero(array)]
        else:
            found.append(part if array is None else array)
    counted = sum(part is not None and part is not Ellipsis for part in found)
    position = 0
    for k, part in enumerate(found):
        if part is Ellipsis:
            position = len(shape) - (counted - sum(p is not None for p in found[:k]))
        elif part is not None:
            if isinstance(part, int | np.integer | np.ndarray) and not isinstance(part, bool):
                wrapped = np.where(np.asarray(part) < 0, part + shape[position], part)
                found[k] = wrapped.astype(np.int32)
            position += 1
    return tuple(found)
