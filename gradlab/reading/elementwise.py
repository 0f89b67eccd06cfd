"""Ufuncs: NumPy on the shadows, lax on the symbols, at the dtypes that NumPy resolves."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.reading import masks
from gradlab.reading.standins import Chosen, is_stand, shadow_of
from gradlab.reading.twins import twin_of

if TYPE_CHECKING:
    from gradlab.reading.session import Recorder


_NAMES = (  # NumPy's name, and that of JAX where it is another
    "exp log expm1 log1p sqrt cbrt square sin cos tan sinh cosh tanh floor ceil add subtract:sub "
    "multiply:mul true_divide:div negative:neg absolute:abs fabs:abs maximum:max minimum:min "
    "less:lt less_equal:le greater:gt greater_equal:ge equal:eq not_equal:ne"
)
_LAX: dict[Any, Callable[..., Any]] = {
    getattr(np, ours): getattr(lax, theirs or ours)
    for ours, _, theirs in (name.partition(":") for name in _NAMES.split())
}


def elementwise(
    reading: "Recorder", ufunc: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any], shadow: Any
) -> Any:
    """Call a ufunc; `shadow` computes the shadow in its place where it is an operator."""
    out, where = kwargs.pop("out", None), kwargs.pop("where", True)
    if is_stand(where) or where is not True:
        return _where(reading, ufunc, inputs, kwargs, out, where)
    if any(type(each) is Chosen for each in inputs):
        found = _on_chosen(reading, ufunc, inputs, kwargs, shadow)
        if found is not None and out is None:
            return found
        inputs = tuple(reading.plain(e) if type(e) is Chosen else e for e in inputs)
    if any(type(each) in (list, tuple) for each in inputs if reading.traced(each)):
        inputs = tuple(reading.call(np.asarray, (e,), {}) for e in inputs)
    traced = reading.traced(inputs)
    if traced and not all(map(_is_numeric, shadow_of(inputs))):
        return NotImplemented
    plain = shadow_of(inputs)  # NumPy first, which says what it refuses
    result = (ufunc if out is not None else shadow or ufunc)(*plain, **shadow_of(kwargs))
    symbols = symbols_of(reading, ufunc, inputs, kwargs) if traced else None
    if out is None:
        return reading.pair(result, symbols) if traced else reading.wrap(result)
    results = result if isinstance(result, tuple) else (result,)
    many = symbols if isinstance(symbols, tuple) else (symbols,) * len(results)
    for place, value, symbol in zip(out, results, many):
        if place is not None:
            if traced and not np.can_cast(
                value.dtype, place.dtype, kwargs.get("casting", "same_kind")
            ):
                ufunc(*plain, **shadow_of(kwargs), out=shadow_of(out))  # NumPy says why not
            reading.assign(place, value if symbol is None else reading.pair(value, symbol))
    return out[0] if len(out) == 1 else out


def symbols_of(
    reading: "Recorder", ufunc: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return a ufunc's symbols, operands cast to the dtypes of its loop and broadcast."""
    dtypes = _resolved(ufunc, shadow_of(inputs), kwargs)
    operands = [reading.symbol(each) for each in inputs]
    return apply(reading, ufunc, operands, dtypes)


def apply(reading: "Recorder", ufunc: Any, operands: list[Any], dtypes: tuple[Any, ...]) -> Any:
    """Return what a ufunc gives for symbols at the dtypes of a loop; bool results only once."""
    key = None
    if all(dtype.kind == "b" for dtype in dtypes[ufunc.nin :]):
        key = (ufunc, dtypes, tuple(map(reading.key, operands)))
    cast = [_cast(o, dtype) for o, dtype in zip(operands, dtypes)]

    def make() -> Any:
        if ufunc is np.power:
            power = _power(*cast)
            if power is not None:
                return power
        rule = _LAX.get(ufunc)
        if rule is None or all(dtype.kind == "b" for dtype in dtypes[: ufunc.nin]):
            twin = twin_of(ufunc)
            if twin is None:
                raise reading.refuse(f"{ufunc.__name__} has no counterpart in JAX")
            return twin(*cast)
        return rule(*_broadcast(cast))

    return make() if key is None else reading.known(key, make)


def _power(base: Any, exponent: Any) -> Any:
    """Return a constant whole power: its slope is right at zero, too."""
    if isinstance(exponent, np.ndarray) and exponent.size == 1 and not np.iscomplexobj(exponent):
        number = float(exponent.reshape(()))
        if number.is_integer() and abs(number) <= 64:
            shape = np.broadcast_shapes(np.shape(base), exponent.shape)
            powered = lax.integer_pow(base, int(number))
            return powered if powered.shape == shape else jnp.broadcast_to(powered, shape)
    return None


def _broadcast(operands: list[Any]) -> list[Any]:
    if len({np.shape(o) for o in operands}) == 1:
        return operands
    shape = np.broadcast_shapes(*map(np.shape, operands))
    return [
        o
        if np.shape(o) == shape or (isinstance(o, np.ndarray) and not o.ndim)
        else lax.broadcast_in_dim(o, shape, range(len(shape) - np.ndim(o), len(shape)))
        for o in operands
    ]


def _cast(symbol: Any, dtype: Any) -> Any:
    if isinstance(symbol, np.ndarray | np.generic | bool | int | float | complex):
        return np.asarray(symbol).astype(dtype)
    return symbol if symbol.dtype == dtype else lax.convert_element_type(symbol, dtype)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biufc"
    return isinstance(value, bool | int | float | complex)


def _resolved(ufunc: Any, shadows: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    types = [
        type(each) if type(each) in (int, float, complex) else np.asarray(each).dtype
        for each in shadows
    ]
    options = {name: kwargs[name] for name in ("casting", "signature") if name in kwargs}
    if kwargs.get("dtype") is not None:
        options["signature"] = (*(None,) * ufunc.nin, *(np.dtype(kwargs["dtype"]),) * ufunc.nout)
    return tuple(ufunc.resolve_dtypes((*types, *(None,) * ufunc.nout), **options))


def _on_chosen(
    reading: "Recorder", ufunc: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any], shadow: Any
) -> Any:
    if ufunc.signature is not None or ufunc.nout > 1 or kwargs:
        return None

    def both(operands: list[Any]) -> tuple[Any, Any]:
        plain = shadow_of(inputs)
        symbols = [reading.symbol(o) for o in operands]
        return (shadow or ufunc)(*plain), apply(
            reading, ufunc, symbols, _resolved(ufunc, plain, {})
        )

    reading.counted()
    return masks.entrywise(reading, inputs, both)


def _where(
    reading: "Recorder",
    ufunc: Any,
    inputs: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: Any,
    where: Any,
) -> Any:
    """Call a ufunc where a mask is true; elsewhere `out` stays, and is safe to differentiate."""
    place = out[0] if isinstance(out, tuple) else out
    mask = reading.call(np.asarray, (where,), {})
    if place is None:
        shape = np.broadcast_shapes(*map(np.shape, shadow_of((*inputs, mask))))
        dtype = _resolved(ufunc, shadow_of(inputs), kwargs)[-1]
        place = reading.wrap(np.zeros(shape, dtype))
    if reading.traced((inputs, place, mask)) and not is_stand(place):
        raise reading.refuse("a traced value is written into an array that gradlab does not trace")
    with np.errstate(all="ignore"):
        safe = tuple(reading.call(np.where, (mask, each, 1), {}) for each in inputs)
        safe = tuple(e if np.ndim(shadow_of(i)) else i for e, i in zip(safe, inputs))
        value = elementwise(reading, ufunc, safe, dict(kwargs), None)
    reading.assign(place, reading.call(np.where, (mask, value, place), {}))
    return place
