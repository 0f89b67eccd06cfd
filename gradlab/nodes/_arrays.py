"""What the array namespaces lack or do differently, and the checks that every node makes.

Nodes are written once against `x.__array_namespace__()`: the same text runs on NumPy and on
`jax.numpy`, eager, jitted, on any device. This file is the only one that knows which is which.
"""

import functools
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import shape_text

if TYPE_CHECKING:
    from gradlab.nodes._base import Node

__all__ = [
    "Array",
    "Shape",
    "aligned",
    "as_inputs",
    "as_upstream",
    "axes_of",
    "erf",
    "finfo",
    "is_inexact",
    "keeping",
    "max_at",
    "namespace",
    "require_broadcast",
    "scatter_add",
    "set_at",
    "unbroadcast",
    "widened",
]

Array = Any  # an array of any namespace; the standard has no type for it
Shape = tuple[int, ...]
_NUMPY = (np.ndarray, np.generic)


def namespace(*arrays: Array) -> Any:
    """Return the namespace of the first array that is not NumPy's, else NumPy."""
    for array in arrays:
        if not isinstance(array, _NUMPY) and hasattr(array, "__array_namespace__"):
            return array.__array_namespace__()
    return np


@functools.cache
def is_inexact(dtype: Any) -> bool:
    """Return whether a dtype is real or complex floating point, bfloat16 and float8 included."""
    try:
        if np.issubdtype(dtype, np.inexact):
            return True
        finfo(dtype)
    except (ValueError, TypeError):  # TypeError: the dtype of JAX's random keys
        return False
    return True


def finfo(dtype: Any) -> Any:
    """Return the limits of a floating-point dtype, bfloat16 and float8 included."""
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # it has no types


def as_inputs(node: "Node", inputs: tuple[Any, ...]) -> tuple[Array, ...]:
    """Return the inputs as arrays of one namespace; Python numbers take the dtype beside them.

    Raises:
        InputError: an integer array came where the node needs floats, or the other way round.
        InputTypeError: the number of inputs is wrong, or one is no array.
    """
    kinds = _kinds(type(node), len(inputs))
    for x, kind in zip(inputs, kinds):
        if x.__class__ is not np.ndarray or x.dtype.kind not in kind:
            break
    else:
        return inputs  # NumPy arrays of the right kind: nothing to do, and by far the most common
    xp = namespace(*inputs)
    floats = (x.dtype for x in inputs if hasattr(x, "shape") and is_inexact(x.dtype))
    dtype = next(floats, np.dtype(float))
    return tuple(_as_input(node, i, x, xp, dtype) for i, x in enumerate(inputs))


@functools.cache
def _kinds(cls: type["Node"], number: int) -> tuple[str, ...]:
    """Return the kinds of NumPy dtypes that each of so many inputs may have."""
    low, high = cls.arity()
    if not low <= number <= high:
        expected = str(low) if low == high else f"{low} or more"
        raise InputTypeError(
            f"{cls.__name__} takes {expected} input(s) ({', '.join(cls.input_names())}), "
            f"but {number} came"
        )
    domains = map(cls.domain, range(number))
    return tuple("iu" if d.integer else "b" if d.boolean else "fc" for d in domains)


def _as_input(node: "Node", position: int, x: Any, xp: Any, dtype: Any) -> Array:
    domain = node.domain(position)
    if not hasattr(x, "shape"):  # a number; inside JAX's transformations it may have a dtype
        x = _from_python(node, position, x, xp, None if domain.integer else dtype)
    elif xp is not np and isinstance(x, np.ndarray):
        x = xp.asarray(x)
    if domain.integer:
        if x.dtype.kind not in "iu":
            raise InputError(
                f"{node!r}: input {position} ({node.input_names()[position]}) has dtype {x.dtype}; "
                "it holds indices, pass integers (x.astype(int))"
            )
    elif not is_inexact(x.dtype) and not domain.boolean:
        raise InputError(
            f"{node!r}: input {position} ({node.input_name(position)}) has dtype {x.dtype}; "
            "gradients need floating point, pass x.astype(float)"
        )
    return x


def _from_python(node: "Node", position: int, x: Any, xp: Any, dtype: Any) -> Array:
    try:
        array = np.asarray(x)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biufc":
        raise InputTypeError(
            f"{node!r}: input {position} ({node.input_name(position)}) is "
            f"{type(x).__name__}; pass an array or a number"
        )
    if array.dtype.kind in "iuf" and dtype is not None:
        array = array.astype(dtype)
    return xp.asarray(array)


def as_upstream(node: "Node", upstream: Any, output: Array) -> Array:
    """Return the upstream gradient as an array with the output's shape.

    Raises:
        InputError: its shape is not the output's.
    """
    if not hasattr(upstream, "dtype"):
        upstream = namespace(output).asarray(upstream, dtype=output.dtype)
    if upstream.shape != output.shape:
        raise InputError(
            f"{node!r}: upstream has shape {shape_text(upstream.shape)}, but the output has shape "
            f"{shape_text(output.shape)}; upstream is the gradient with respect to the output"
        )
    return upstream


def keeping(y: Array, x: tuple[Array, ...]) -> Array:
    """Return y in the dtype that all float inputs have: beside a number NumPy widens bfloat16."""
    for xi in x:
        if xi.dtype.kind == "V":
            break
    else:
        return y
    floats = {xi.dtype for xi in x if xi.dtype.kind not in "biu"}
    return y.astype(*floats) if len(floats) == 1 else y


def widened(x: Array) -> Array:
    """Return half-precision x in float32, where its squares and sums do not overflow."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def unbroadcast(gradient: Array, like: Array) -> Array:
    """Sum `gradient` over the axes along which `like` was broadcast; keep `like`'s dtype.

    Example:
        >>> unbroadcast(np.ones((3, 4)), np.zeros((4,)))
        array([3., 3., 3., 3.])
    """
    if gradient.shape != like.shape:
        gradient = gradient.sum(axis=_repeated(gradient.shape, like.shape)).reshape(like.shape)
    return gradient if gradient.dtype == like.dtype else gradient.astype(like.dtype)


@functools.lru_cache(maxsize=1024)
def _repeated(shape: Shape, original: Shape) -> Shape:
    """Return the axes of `shape` along which an array of shape `original` was repeated."""
    extra = len(shape) - len(original)
    kept = enumerate(original, start=extra)
    return (*range(extra), *(i for i, n in kept if n == 1 and shape[i] != 1))


def aligned(x: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return arrays of shapes that broadcast, ready to be combined.

    NumPy aligns ranks by itself. JAX does too, unless its user asked that ranks be never promoted
    silently (`jax.numpy_rank_promotion("raise")`); there it is said out loud.
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


def require_broadcast(node: "Node", x: tuple[Array, ...]) -> None:
    """Raise an InputError if the shapes of these arrays do not broadcast."""
    try:
        np.broadcast_shapes(*(xi.shape for xi in x))
    except ValueError:
        shapes = " and ".join(shape_text(xi.shape) for xi in x)
        raise InputError(
            f"{node!r}: shapes {shapes} do not broadcast; aligned from the right, "
            "each pair of sizes must be equal or one of them 1"
        ) from None


def axes_of(node: "Node", axis: int | tuple[int, ...] | None, shape: Shape) -> tuple[int, ...]:
    """Return `axis` as a sorted tuple of axes counted from the front; None means all.

    Raises:
        InputError: an axis is out of range or named twice.
    """
    rank = len(shape)
    if axis is None:
        return tuple(range(rank))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    positive = sorted(a + rank if a < 0 else a for a in axes)
    if any(not 0 <= a < rank for a in positive):
        raise InputError(
            f"{node!r}: axis {axis} is out of range for shape {shape_text(shape)}; "
            f"axes run from {-rank} to {rank - 1}"
        )
    if len(set(positive)) < len(positive):
        raise InputError(f"{node!r}: axis {axis} names an axis twice")
    return tuple(positive)


def scatter_add(shape: Shape, index: Any, updates: Array) -> Array:
    """Return zeros of `shape` with `updates` added at `index`; repeated indices add up.

    Example:
        >>> scatter_add((3,), (np.array([1, 1]),), np.array([2.0, 5.0]))
        array([0., 7., 0.])
    """
    xp = namespace(updates)
    out = xp.zeros(shape, dtype=updates.dtype)
    if xp is np:
        np.add.at(out, index, updates)  # `out[index] += updates` would keep one of the repeats
        return out
    return out.at[index].add(updates)


def set_at(x: Array, index: Any, values: Array) -> Array:
    """Return x with `values` written at `index`; x itself is left as it is.

    Example:
        >>> set_at(np.zeros(3), slice(1, 3), np.array([5.0, 7.0]))
        array([0., 5., 7.])
    """
    if namespace(x) is np:
        out = x.copy()
        out[index] = values
        return out
    return x.at[index].set(values)


def max_at(x: Array, index: Any, values: Array) -> Array:
    """Return x with the greater of itself and `values` at `index`; repeated indices all count.

    Example:
        >>> max_at(np.zeros(2), np.array([0, 0]), np.array([5.0, 3.0]))
        array([5., 0.])
    """
    if namespace(x) is np:
        out = x.copy()
        np.maximum.at(out, index, values)
        return out
    return x.at[index].max(values)


def erf(x: Array) -> Array:
    """Return the error function of each entry; neither namespace has it at the top level."""
    if namespace(x) is np:
        from scipy.special import erf as scipy_erf

        wide = x if x.dtype.kind == "f" and x.dtype.itemsize >= 4 else x.astype(np.float32)
        return scipy_erf(wide).astype(x.dtype)
    from jax.scipy.special import erf as jax_erf

    return jax_erf(x)
