"""What operators need of arrays that the array API does not give in NumPy and JAX alike."""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from gradlab.errors import InputError

__all__ = [
    "Array",
    "DTypeLike",
    "Shape",
    "add_at",
    "as_shape",
    "einsum",
    "map_columns",
    "matmul",
    "namespace",
    "normal_axes",
    "put",
    "result_type",
    "scalar",
]

Array: TypeAlias = Any
DTypeLike: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]


def namespace(*arrays: Array) -> Any:
    """Return the namespace that computes with all the arrays: JAX's if one is JAX's, else NumPy."""
    for array in arrays:
        if not isinstance(array, np.ndarray) and hasattr(array, "__array_namespace__"):
            xp = array.__array_namespace__()
            if xp is not np:
                return xp
    return np


def result_type(*dtypes: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that holds all; of bfloat16 and float16, float32 as in JAX."""
    try:
        return np.result_type(*dtypes)
    except np.exceptions.DTypePromotionError:
        return np.dtype(np.float32)


def as_shape(shape: Iterable[int]) -> Shape:
    """Return a shape as a tuple of Python integers, which cannot overflow."""
    return tuple(operator.index(size) for size in shape)


def normal_axes(axes: int | Sequence[int] | None, ndim: int, caller: str) -> tuple[int, ...]:
    """Return the axes sorted and counted from the front; None means all of them."""
    if axes is None:
        return tuple(range(ndim))
    given = (axes,) if isinstance(axes, int | np.integer) else tuple(axes)
    if any(not -ndim <= axis < ndim for axis in given):
        raise InputError(f"{caller}: axis {axes} does not exist in an array of {ndim} axes")
    normal = tuple(sorted(operator.index(axis) % ndim for axis in given))
    if len(set(normal)) < len(normal):
        raise InputError(f"{caller}: axis {axes} names the same axis twice (the array has {ndim})")
    return normal


def add_at(target: Array, index: Any, values: Array) -> Array:
    """Return the target with the values added at the index; repeated indices add up."""
    if hasattr(target, "at"):
        return target.at[index].add(values)
    np.add.at(target, index, values)
    return target


def put(target: Array, index: Any, values: Array) -> Array:
    """Return the target with the values written at the index."""
    if hasattr(target, "at"):
        return target.at[index].set(values)
    target[index] = values
    return target


def scalar(number: Any, array: Array) -> Any:
    """Return a number that leaves the dtype of `array` as it is when they are combined.

    NumPy's own dtypes yield to no Python number, but those of ml_dtypes, as bfloat16, do.
    """
    if isinstance(number, int | float) and namespace(array) is np:
        return array.dtype.type(number)
    return number


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
