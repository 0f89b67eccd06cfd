"""What the array namespaces lack or do differently, and the checks that every node makes.

Nodes are written once against `x.__array_namespace__()`: the same text runs on NumPy and on
`jax.numpy`, eager, jitted, on any device. This file is the only one that knows which is which.
"""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.common.arrays import (
    Array,
    Shape,
    aligned,
    erf,
    finfo,
    is_inexact,
    max_at,
    namespace,
    normal_axes,
    repeated_axes,
    scatter_add,
    set_at,
)
from gradlab.common.arrays import (
    at_least_float32 as widened,
)
from gradlab.common.arrays import (
    in_dtype_of as keeping,
)
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


def unbroadcast(gradient: Array, like: Array) -> Array:
    """Sum `gradient` over the axes along which `like` was broadcast; keep `like`'s dtype.

    Example:
        >>> unbroadcast(np.ones((3, 4)), np.zeros((4,)))
        array([3., 3., 3., 3.])
    """
    if gradient.shape != like.shape:
        gradient = gradient.sum(axis=repeated_axes(like.shape, gradient.shape)).reshape(like.shape)
    return gradient if gradient.dtype == like.dtype else gradient.astype(like.dtype)


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
    """Return `axis` as a sorted tuple of axes counted from the front; None means all."""
    return normal_axes(axis, shape, node)
