"""Arrays of NumPy and of JAX under one set of functions: the one file that tells them apart.

Code above this room is written once against `namespace(x)`. It runs on NumPy and on `jax.numpy`,
eager or traced, on any device. Where the two namespaces differ, the difference is settled here.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text

Array: TypeAlias = Any  # an array of any namespace; the array API standard has no type for it
NumPyArray: TypeAlias = np.ndarray[Any, Any]
Namespace: TypeAlias = Any  # numpy or jax.numpy
DTypeLike: TypeAlias = Any  # a dtype, its name, or a type that stands for one
Tree: TypeAlias = Any  # an array, a number, or containers of them: what JAX calls a pytree
Index: TypeAlias = Any  # what stands between an array's brackets
Function: TypeAlias = Callable[..., Any]
DType: TypeAlias = np.dtype[Any]
Shape: TypeAlias = tuple[int, ...]
Axis: TypeAlias = int | tuple[int, ...] | None  # one, several or all
_NUMPY_OR_NONE = frozenset((np.ndarray, tuple, int, float, bool))  # of no namespace but NumPy's


def namespace(*arrays: Array) -> Namespace:
    """Return the namespace that computes with all the arrays: JAX's if one is JAX's, else NumPy."""
    for array in arrays:
        if array.__class__ not in _NUMPY_OR_NONE and hasattr(array, "__array_namespace__"):
            xp = array.__array_namespace__()
            if xp is not np:
                return xp
    return np


def result_type(*dtypes: DTypeLike) -> DType:
    """Return the dtype that holds all; of bfloat16 and float16, float32 as in JAX."""
    try:
        return np.result_type(*dtypes)
    except np.exceptions.DTypePromotionError:
        return np.dtype(np.float32)


@functools.cache
def is_inexact(dtype: DTypeLike) -> bool:
    """Return whether a dtype is real or complex floating point, bfloat16 and float8 included."""
    try:
        if np.issubdtype(dtype, np.inexact):
            return True
        finfo(dtype)
    except (ValueError, TypeError):  # TypeError: the dtype of JAX's random keys
        return False
    return True


def finfo(dtype: DTypeLike) -> ml_dtypes.finfo:
    """Return the limits of a floating-point dtype, bfloat16 and float8 included."""
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # it has no types


def at_least_float32(x: Array) -> Array:
    """Return half-precision x in float32, where its squares and sums do not overflow."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def in_dtype_of(y: Array, x: tuple[Array, ...]) -> Array:
    """Return y in the dtype that all float inputs have: beside a number NumPy widens bfloat16."""
    for xi in x:
        if xi.dtype.kind == "V":
            break
    else:
        return y
    floats = {xi.dtype for xi in x if xi.dtype.kind not in "biu"}
    return y.astype(*floats) if len(floats) == 1 else y


def scalar(number: Array, array: Array) -> Array:
    """Return a number that leaves the dtype of `array` as it is when they are combined.

    NumPy's own dtypes yield to no Python number, but those of ml_dtypes, as bfloat16, do.
    """
    if isinstance(number, int | float) and namespace(array) is np:
        return array.dtype.type(number)
    return number


def as_shape(shape: Iterable[int]) -> Shape:
    """Return a shape as a tuple of Python integers, which cannot overflow."""
    return tuple(operator.index(size) for size in shape)


def normal_axes(axis: int | Sequence[int] | None, shape: Shape, caller: object) -> Shape:
    """Return axes sorted and counted from the front; None means all of them."""
    rank = len(shape)
    if axis is None:
        return tuple(range(rank))
    if axis.__class__ is int and -rank <= axis < rank:
        return (axis % rank,)
    given = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    if any(not -rank <= a < rank for a in given):
        raise InputError(
            f"{caller}: axis {axis} is out of range for shape {shape_text(shape)}; "
            f"axes run from {-rank} to {rank - 1}"
        )
    normal = tuple(sorted(operator.index(a) % rank for a in given))
    if len(set(normal)) < len(normal):
        raise InputError(f"{caller}: axis {axis} names an axis twice")
    return normal


@functools.lru_cache(maxsize=1024)
def repeated_axes(small: Shape, large: Shape) -> Shape | None:
    """Return the axes of `large` along which NumPy repeats an array of shape `small`.

    None if `small` does not broadcast to `large`.
    """
    extra = len(large) - len(small)
    pairs = list(zip(small, large[extra:])) if extra >= 0 else []
    if extra < 0 or any(few not in (1, many) for few, many in pairs):
        return None
    return (*range(extra), *(extra + i for i, (few, many) in enumerate(pairs) if few != many))


def aligned(x: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return arrays of shapes that broadcast, ready to be combined.

    NumPy aligns ranks by itself. JAX does too, unless its user asked that ranks be never promoted
    silently (`jax.numpy_rank_promotion("raise")`). There the arrays are repeated first.
    """
    for xi in x:
        if xi.__class__ is not np.ndarray:
            break
    else:
        return x
    shapes = [xi.shape for xi in x]
    if shapes.count(shapes[0]) == len(shapes):
        return x
    shape = np.broadcast_shapes(*shapes)
    xp = namespace(*x)
    return x if xp is np else tuple(xp.broadcast_to(xi, shape) for xi in x)


def add_at(target: Array, index: Index, values: Array) -> Array:
    """Return the target with values added at the index; repeated indices add up.

    A NumPy target is changed in place: hand in one that nobody else holds.
    """
    if hasattr(target, "at"):
        return target.at[index].add(values)
    np.add.at(target, index, values)  # `target[index] += values` would keep one of the repeats
    return target


def scatter_add(shape: Shape, index: Index, updates: Array) -> Array:
    """Return zeros of `shape` with `updates` added at `index`; repeated indices add up."""
    return add_at(namespace(updates).zeros(shape, dtype=updates.dtype), index, updates)


def set_at(x: Array, index: Index, values: Array) -> Array:
    """Return x with `values` written at `index`; x itself is left as it is."""
    if hasattr(x, "at"):
        return x.at[index].set(values)
    out = x.copy()
    out[index] = values
    return out


def max_at(x: Array, index: Index, values: Array) -> Array:
    """Return x with the greater of itself and `values` at `index`; repeated indices all count."""
    if hasattr(x, "at"):
        return x.at[index].max(values)
    out = x.copy()
    np.maximum.at(out, index, values)
    return out


def einsum(subscripts: str, *arrays: Array) -> Array:
    """Contract the arrays; in NumPy, bfloat16 and its like are summed in float32."""
    xp = namespace(*arrays)
    if xp is np and any(array.dtype.kind == "V" for array in arrays):
        dtype = result_type(*(array.dtype for array in arrays))
        wide = [array.astype(np.float32) for array in arrays]
        return np.einsum(subscripts, *wide, optimize=True).astype(dtype)
    return xp.einsum(subscripts, *arrays, optimize=True)


def matmul(a: Array, b: Array) -> Array:
    """Multiply matrices; in NumPy, the product of bfloat16 and its like stays of that dtype."""
    xp = namespace(a, b)
    if xp is np:
        return np.matmul(a, b).astype(result_type(a.dtype, b.dtype), copy=False)
    return xp.matmul(a, b)


def map_columns(apply: Callable[[Array], Array], matrix: Array, shape: Shape) -> Array:
    """Return the matrix whose columns are `apply` of each column, read as an array of `shape`."""

    def column(x: Array) -> Array:
        return apply(x.reshape(shape)).reshape(-1)

    if namespace(matrix) is np:
        columns = [column(x) for x in matrix.T]
        return namespace(*columns).stack(columns, axis=1)
    import jax

    return jax.vmap(column, in_axes=1, out_axes=1)(matrix)


def erf(x: Array) -> Array:
    """Return the error function of each entry; neither namespace has it at the top level."""
    if namespace(x) is np:
        from scipy.special import erf as scipy_erf

        wide = x if x.dtype.kind == "f" and x.dtype.itemsize >= 4 else x.astype(np.float32)
        return scipy_erf(wide).astype(x.dtype)
    from jax.scipy.special import erf as jax_erf

    return jax_erf(x)
