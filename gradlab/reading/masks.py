"""`x[mask]` while the mask is traced: the whole array beside its mask.

Operations entry by entry act on the whole; `out[mask] = ...` is a select, and sums leave out what
was not chosen. So a mask decides nothing until the number of its entries is asked for.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.reading.standins import Chosen, Stand, shadow_of

if TYPE_CHECKING:
    from gradlab.reading.session import Recorder


def chosen(reading: "Recorder", stand: Stand, mask: Stand) -> Any:
    """Return `stand[mask]`."""
    reading.counted()
    shadow = stand.shadow[mask.shadow]
    symbol, where = jnp.asarray(reading.symbol(stand)), reading.symbol(mask)
    return Chosen(reading, shadow, symbol, where, np.array(mask.shadow), safe=False)


def filled(reading: "Recorder", chosen: Chosen) -> Any:
    """Return the whole with a number that was chosen where nothing is: none makes a NaN there."""
    if chosen.safe:
        return chosen.whole
    shape = chosen.whole.shape

    def fill() -> Any:
        some = chosen.shadow[0] if len(chosen.shadow) else np.ones((), chosen.shadow.dtype)
        rest = np.array(np.broadcast_to(some, shape))
        return lax.select(_over(chosen.mask, shape), chosen.whole, jnp.asarray(rest))

    return reading.known(("filled", reading.key(chosen.whole), reading.key(chosen.mask)), fill)


def entrywise(
    reading: "Recorder", operands: tuple[Any, ...], apply: Callable[..., Any]
) -> Chosen | None:
    """Return an operation on arrays of one mask and on what all rows share, or None."""
    kept = [each for each in operands if type(each) is Chosen]
    first = kept[0]
    rest = first.whole.ndim - first.where.ndim
    if any(each.mask is not first.mask or each.whole.ndim != first.whole.ndim for each in kept):
        return None
    if any(np.ndim(shadow_of(each)) > rest for each in operands if type(each) is not Chosen):
        return None
    shadow, whole = apply([filled(reading, e) if type(e) is Chosen else e for e in operands])
    return Chosen(reading, shadow, whole, first.mask, first.where)


def choose(reading: "Recorder", stand: Stand, mask: Stand, value: Any) -> None:
    """Write `stand[mask] = value`."""
    where, shape = reading.symbol(mask), stand.shadow.shape
    rest = stand.shadow.ndim - mask.shadow.ndim
    if type(value) is Chosen and value.mask is where and value.whole.shape == shape:
        new = lax.convert_element_type(value.whole, stand.shadow.dtype)
    elif np.ndim(shadow_of(value)) <= rest:
        new = reading.spread(value, stand.shadow.dtype, shape)
    else:
        stand[reading.decide(mask, "mask")] = value
        return
    plain = shadow_of(value)
    old = jnp.asarray(reading.symbol(stand))
    symbol = lax.select(_over(where, shape), jnp.asarray(new), old)
    reading.written(stand, symbol, lambda: stand.shadow.__setitem__(mask.shadow, plain))


def reduced(reading: "Recorder", name: str, value: Chosen, args: Any, kwargs: Any) -> Any:
    """Return a sum, mean, maximum and the like over what was chosen, or None."""
    if name not in ("sum", "mean", "max", "min", "any", "all"):
        return None
    axis = args[0] if args else kwargs.get("axis")
    if len(args) > 1 or set(kwargs) - {"axis"} or axis not in (None, 0):
        return None
    where, whole = _over(value.mask, value.whole.shape), value.whole
    shadow = getattr(value.shadow, name)(axis)
    axes = tuple(range(value.where.ndim)) if axis == 0 else None
    options: dict[str, Any] = {"axis": axes, "where": where}
    if name in ("max", "min"):
        info = (np.iinfo if value.shadow.dtype.kind in "iu" else np.finfo)(value.shadow.dtype)
        options["initial"] = info.min if name == "max" else info.max
    if name in ("sum", "mean"):
        whole = lax.convert_element_type(whole, shadow.dtype)
    return reading.pair(shadow, getattr(jnp, name)(whole, **options))


def _over(mask: Any, shape: tuple[int, ...]) -> Any:
    return mask if mask.shape == shape else lax.broadcast_in_dim(mask, shape, range(mask.ndim))
