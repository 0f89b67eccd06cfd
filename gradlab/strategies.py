"""Hypothesis strategies for gradient tests: arrays away from kinks, or exactly on them.

Entries are multiples of 1/8, exact in every dtype, never subnormal, and shrink to 0; arrays shrink
to one nonzero entry. Sizes of different axes differ, so that a transposed or wrongly summed
gradient cannot hide; they come from a small set, so that JAX compiles few programs.

Example:
    >>> from hypothesis import given
    >>> from gradlab import strategies
    >>> @given(strategies.arrays((3, 4)))
    ... def test_square(x):
    ...     assert (x * x >= 0).all()
    >>> test_square()
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis.errors import InvalidArgument
from hypothesis.extra import numpy as npst

from gradlab.common.arrays import Array, DTypeLike, NumPyArray, Tree, is_inexact
from gradlab.errors import GradlabError
from gradlab.nodes import Node, find
from gradlab.nodes._base import Case
from gradlab.nodes._domain import REALS, Domain

__all__ = ["arrays", "inputs_for", "pytrees", "shapes_for", "upstreams"]

_SIZES = (3, 4, 2, 5)  # distinct, small, few
_LAYOUTS = ("C", "Fortran", "strided", "reversed", "read-only")


def arrays(
    shape: Sequence[int],
    dtype: DTypeLike = np.float64,
    *,
    domain: Domain = REALS,
    near_kinks: bool = False,
    layouts: bool = False,
) -> st.SearchStrategy[NumPyArray]:
    """Return arrays of one shape whose entries lie in a domain.

    Args:
        shape: the shape: a tuple of integers.
        dtype: a floating-point dtype; index and mask domains have their own.
        domain: where the entries lie: a node's, or `Domain(low, high, kinks, distinct)`.
        near_kinks: draw kinks, ties and zeros on purpose, where otherwise they are avoided.
        layouts: also draw Fortran-ordered, strided, reversed and read-only arrays.

    Raises:
        InvalidArgument: when drawn, if the shape has negative sizes, the dtype is not floating
            point, or the domain holds no number of the grid.

    Example:
        >>> from hypothesis import given
        >>> @given(arrays((2, 3), domain=Domain(low=0.0)))
        ... def test_log(x):
        ...     assert (x > 0).all()
        >>> test_log()
    """
    return st.deferred(lambda: _arrays(shape, dtype, domain, near_kinks, layouts))


def _arrays(
    sizes: Any, dtype: DTypeLike, domain: Domain, near_kinks: bool, layouts: bool
) -> st.SearchStrategy[Array]:
    if not isinstance(sizes, tuple | list) or any(not isinstance(n, int) or n < 0 for n in sizes):
        raise InvalidArgument(
            f"shape: {sizes!r} is no shape; expected a tuple of integers that are 0 or more"
        )
    shape = tuple(sizes)
    if domain.boolean:
        drawn = npst.arrays(np.bool_, shape, elements=st.booleans(), fill=st.nothing())
    elif domain.integer:
        indices = st.integers(int(domain.low), int(domain.high) - 1)
        drawn = npst.arrays(np.int64, shape, elements=indices, fill=st.nothing())
    else:
        if not _is_floating(dtype):
            raise InvalidArgument(f"dtype: {dtype} is not floating point; try 'float64'")
        unique = domain.distinct and not near_kinks
        points = _points(domain, near_kinks, math.prod(shape) if unique else 1)
        drawn = npst.arrays(
            np.float64, shape, elements=st.sampled_from(points), fill=st.nothing(), unique=unique
        ).map(lambda x: x.astype(dtype))
    if layouts:
        return st.tuples(drawn, st.sampled_from(_LAYOUTS)).map(lambda pair: _laid_out(*pair))
    return drawn


def _is_floating(dtype: DTypeLike) -> bool:
    try:
        return is_inexact(np.dtype(dtype))
    except TypeError:  # NumPy knows no such dtype
        return False


def _points(domain: Domain, near_kinks: bool, at_least: int) -> list[float]:
    """Return the grid within a domain, nearest to zero first, finer if more points are needed."""
    step = 1 / 8
    low, high = max(domain.low, -8.0), min(domain.high, 8.0)
    while True:
        grid = [k * step for k in range(math.floor(low / step), math.ceil(high / step) + 1)]
        points = [
            x
            for x in grid
            if domain.low < x < domain.high
            and abs(x) <= 8
            and (near_kinks or all(abs(x - kink) >= 1 / 16 for kink in domain.kinks))
        ]
        if near_kinks:
            points += [kink for kink in domain.kinks if kink not in points]
        if len(points) >= 2 * at_least:
            return sorted(points, key=lambda x: (abs(x), x < 0))
        if step < 2**-20:
            raise InvalidArgument(
                f"domain: {domain} holds fewer than {at_least} numbers in [-8, 8]"
            )
        step /= 8


def _laid_out(x: NumPyArray, layout: str) -> NumPyArray:
    """Return equal entries in another memory layout."""
    if layout == "Fortran":
        return np.asfortranarray(x)
    if layout == "strided" and x.ndim:
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if layout == "reversed" and x.ndim:
        return x[::-1].copy()[::-1]
    if layout == "read-only":
        x = x.copy()
        x.flags.writeable = False
    return x


def inputs_for(
    node: Any, *, dtype: DTypeLike = np.float64, near_kinks: bool = False, layouts: bool = False
) -> st.SearchStrategy[tuple[NumPyArray, ...]]:
    """Return inputs of a node: the shapes of its generic cases, entries in its domains.

    Args:
        node: a node, its class or its name.
        dtype: the dtype of the differentiable inputs.
        near_kinks: draw kinks, ties and zeros on purpose.
        layouts: also draw arrays that are not contiguous, or read-only.

    Raises:
        InvalidArgument: when drawn, if there is no such node.

    Example:
        >>> from hypothesis import given
        >>> from gradlab import nodes, strategies
        >>> @given(strategies.inputs_for("multiply"))
        ... def test_multiply_swaps(inputs):
        ...     _, residuals = nodes.Multiply().forward(*inputs)
    """
    return st.deferred(lambda: st.sampled_from(_cases(node))).flatmap(
        lambda case: st.tuples(
            *(
                _input(case, i, spec, dtype, near_kinks, layouts)
                for i, spec in enumerate(case.inputs)
            )
        )
    )


def _cases(node: Any) -> list[Case]:
    try:
        cases = [case for case in find(node).cases() if case.generic]
    except GradlabError as error:
        raise InvalidArgument(f"node: {error}") from None
    own = [case for case in cases if isinstance(node, Node) and case.node == node]
    return own or cases


def _input(
    case: Case, position: int, spec: Any, dtype: DTypeLike, near_kinks: bool, layouts: bool
) -> st.SearchStrategy[Any]:
    if not isinstance(spec, tuple):
        return st.just(spec)
    domain = case.node.domain(position)
    return arrays(spec, dtype, domain=domain, near_kinks=near_kinks, layouts=layouts)


def upstreams(output: Array, *, layouts: bool = True) -> st.SearchStrategy[NumPyArray]:
    """Return upstreams for an output: signed, generic, in every memory layout.

    Args:
        output: an array, or anything with `shape` and `dtype`.
        layouts: also draw arrays that are not contiguous, or read-only.

    Raises:
        InvalidArgument: when drawn, if `output` has no shape and dtype.

    Example:
        >>> from hypothesis import given
        >>> from gradlab import strategies
        >>> @given(strategies.upstreams(np.zeros((2, 3), np.float32)))
        ... def test_shape(upstream):
        ...     assert upstream.shape == (2, 3)
        >>> test_shape()
    """
    return st.deferred(lambda: _upstreams(output, layouts))


def _upstreams(output: Array, layouts: bool) -> st.SearchStrategy[Array]:
    if not hasattr(output, "shape") or not hasattr(output, "dtype"):
        raise InvalidArgument(
            f"output: {type(output).__name__} has no shape and dtype; pass the array that the "
            "function returns"
        )
    return arrays(output.shape, output.dtype, layouts=layouts)


def shapes_for(signature: str, *, sizes: Sequence[int] = _SIZES) -> st.SearchStrategy[Any]:
    """Return one shape per input of a signature; sizes of different axes differ.

    Args:
        signature: as a generalised ufunc's: "(m,k),(k,n)->(m,n)".
        sizes: the sizes to choose from; at least as many as the signature has letters.

    Raises:
        InvalidArgument: when drawn, if the signature cannot be read or has too many letters.

    Example:
        >>> from hypothesis import given
        >>> from gradlab import strategies
        >>> @given(strategies.shapes_for("(m,k),(k,n)->(m,n)"))
        ... def test_inner_sizes_agree(shapes):
        ...     assert shapes[0][1] == shapes[1][0]
        >>> test_inner_sizes_agree()
    """
    return st.deferred(lambda: _shapes_for(signature, tuple(sizes)))


def _shapes_for(signature: str, sizes: tuple[int, ...]) -> st.SearchStrategy[Any]:
    inputs = re.findall(r"\(([\w,\s]*)\)", str(signature).partition("->")[0])
    letters = [[name.strip() for name in axes.split(",") if name.strip()] for axes in inputs]
    names = sorted({name for axes in letters for name in axes})
    if not inputs:
        raise InvalidArgument(f"signature: {signature!r} names no input; try '(m,k),(k,n)->(m,n)'")
    if len(names) > len(set(sizes)):
        raise InvalidArgument(
            f"sizes: {sizes} are too few for the {len(names)} axes of {signature!r}"
        )
    return st.permutations(sorted(set(sizes))).map(
        lambda order: tuple(tuple(dict(zip(names, order))[n] for n in axes) for axes in letters)
    )


def pytrees(leaves: st.SearchStrategy[Tree], *, max_leaves: int = 4) -> st.SearchStrategy[Any]:
    """Return dicts, lists and tuples of leaves, nested.

    Args:
        leaves: what to put into them.
        max_leaves: about how many leaves at the most.

    Example:
        >>> from hypothesis import given
        >>> from gradlab import strategies
        >>> @given(strategies.pytrees(strategies.arrays((2,))))
        ... def test_parameters(parameters):
        ...     pass
    """
    names = st.sampled_from(["w", "b", "scale"])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.dictionaries(names, inner, min_size=1, max_size=3),
            st.lists(inner, min_size=1, max_size=2),
            st.tuples(inner, inner),
        ),
        max_leaves=max_leaves,
    )
