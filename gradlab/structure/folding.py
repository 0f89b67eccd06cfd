"""Evaluation of index arithmetic in NumPy, where NumPy and XLA cannot differ.

Integers and booleans wherever both libraries agree to the bit; floats only where nothing is
rounded. Everything else stays unknown.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["fold"]

Array = np.ndarray[Any, Any]

_EXACT: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "is_finite": np.isfinite,
}
_REDUCED: dict[str, Callable[..., Any]] = {
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_and": np.all,
    "reduce_or": np.any,
}
_INTEGER: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}


def fold(
    name: str, params: Mapping[str, Any], values: list[Array], shape: tuple[int, ...], dtype: Any
) -> Array | None:
    """Return the value of an equation at known operands, or None where that is not certain.

    Args:
        name: the primitive.
        params: its parameters.
        values: its operands.
        shape: the output's shape.
        dtype: the output's dtype.
    """
    try:
        with np.errstate(all="ignore"):
            result = _evaluate(name, params, values, shape, np.dtype(dtype))
    except (TypeError, ValueError):
        return None
    return None if result is None or result.shape != shape else result.astype(dtype, copy=False)


def _evaluate(
    name: str, params: Mapping[str, Any], values: list[Array], shape: tuple[int, ...], dtype: Any
) -> Array | None:
    integers = all(value.dtype.kind in "biu" for value in values)
    if name in _EXACT:
        return np.asarray(_EXACT[name](*values))
    if integers and name in _INTEGER:
        return np.asarray(_INTEGER[name](*values))
    if integers and name in ("div", "rem") and np.all(values[1] != 0):
        quotient = np.trunc(values[0] / values[1]).astype(np.int64)  # below 2**31, exact in float64
        small = all(np.all(np.abs(value.astype(np.float64)) < 2**31) for value in values)
        whole = quotient if name == "div" else values[0] - quotient * values[1]
        return whole if small else None
    if name == "convert_element_type":
        return values[0].astype(dtype)
    if name in ("copy", "stop_gradient"):
        return values[0]
    if name == "select_n":
        return np.choose(np.asarray(values[0]).astype(np.int64), values[1:])
    if name == "broadcast_in_dim":
        middle = [1] * len(shape)
        for axis, target in enumerate(params["broadcast_dimensions"]):
            middle[target] = values[0].shape[axis]
        return np.broadcast_to(values[0].reshape(middle), shape)
    if name == "reshape" and params["dimensions"] is not None:
        return values[0].transpose(params["dimensions"]).reshape(shape)
    if name in ("reshape", "squeeze", "expand_dims"):
        return values[0].reshape(shape)
    if name == "transpose":
        return values[0].transpose(params["permutation"])
    if name == "rev":
        return np.flip(values[0], params["dimensions"])
    if name == "concatenate":
        return np.concatenate(values, params["dimension"])
    if name == "slice":
        strides = params["strides"] or (1,) * values[0].ndim
        parts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return values[0][tuple(slice(*part) for part in parts)]
    if name in _REDUCED:
        return np.asarray(_REDUCED[name](values[0], axis=tuple(params["axes"])))
    if integers and name in ("reduce_sum", "cumsum"):
        if name == "cumsum":
            return None if params["reverse"] else np.cumsum(values[0], params["axis"], dtype=dtype)
        return np.asarray(np.sum(values[0], axis=tuple(params["axes"]), dtype=dtype))
    return None
