"""What a pattern is called: well-defined names, each a predicate on the pattern.

=======================  =========================================================================
zero                     no entry
diagonal                 equally many outputs and inputs, entries only where the flat indices agree
permutation              every output depends on one input, every input reaches one output
selection                an output depends on at most one input (gather, slice, broadcast)
sum                      an input reaches at most one output (the transpose of a selection)
banded                   same shape; every axis is equal or within a band narrower than the axis
lower-triangular         same shape; no output depends on an input with a larger flat index
upper-triangular         same shape; none on an input with a smaller flat index
block-diagonal           an output axis and an input axis of one size are equal in every entry
block-banded             an output axis stays within a band of an input axis of its size
block-lower-triangular   no output depends on later indices of an input axis (causal along it)
block-upper-triangular   none on earlier ones
dense                    all entries
sparse                   none of these
=======================  =========================================================================

`holds` is containment: a partial permutation is contained in a permutation, a diagonal is
banded, zero is everything. `names` lists what holds and says something, the most telling first.
"""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from gradlab.errors import InputError
from gradlab.patterns.describing import axis_relation

if TYPE_CHECKING:
    from gradlab.patterns.pattern import Pattern

__all__ = ["NAMES", "holds", "names"]

_COMPARED = 32


def _is_zero(p: "Pattern") -> bool:
    return p.is_zero


def _is_diagonal(p: "Pattern") -> bool:
    from gradlab.patterns.maps import reshape  # maps builds patterns, and so lies above this file

    if p.shape[0] != p.shape[1]:
        return False
    return not prod(p.shape) or reshape(p.input_shape, p.output_shape).covers(p)


def _is_partial_permutation(p: "Pattern") -> bool:
    return p.shape[0] == p.shape[1] and _is_selection(p) and _is_sum(p)


def _is_selection(p: "Pattern") -> bool:
    """Inputs that share an output are the same input."""
    if len(p.zones) > _COMPARED:
        return False
    return type(p).identity(p.input_shape).covers(p.T @ p)


def _is_sum(p: "Pattern") -> bool:
    return _is_selection(p.T)


def _is_banded(p: "Pattern") -> bool:
    if p.output_shape != p.input_shape or not p.output_shape:
        return False
    return all(n == 1 or _within_band(p, k, k) for k, n in enumerate(p.output_shape))


def _within_band(p: "Pattern", k: int, i: int) -> bool:
    kind, low, high = axis_relation(p, k, i)
    if kind in ("zero", "equal"):
        return True
    return low is not None and high is not None and high - low + 1 < p.output_shape[k]


def _is_lower(p: "Pattern") -> bool:
    return p.output_shape == p.input_shape and _triangle(p).covers(p)


def _is_upper(p: "Pattern") -> bool:
    return p.output_shape == p.input_shape and _triangle(p).covers(p.T)


def _triangle(p: "Pattern") -> "Pattern":
    """Return the lower triangle over flat indices: equal up to an axis, and smaller there."""
    make, shape = type(p).from_axes, p.output_shape
    parts = [make(shape, shape, [(k, ~k) for k in range(len(shape))])]
    for last in range(len(shape)):
        equal = [(k, ~k, 0, 0) for k in range(last)]
        parts.append(make(shape, shape, [*equal, (last, ~last, 1, None)]))
    return type(p).union(parts)


def _some_axes(p: "Pattern", good: Callable[[int, int], bool]) -> bool:
    return any(
        n == m > 1 and good(k, i)
        for k, n in enumerate(p.output_shape)
        for i, m in enumerate(p.input_shape)
    )


def _is_block_diagonal(p: "Pattern") -> bool:
    return _some_axes(p, lambda k, i: axis_relation(p, k, i)[0] in ("zero", "equal"))


def _is_block_banded(p: "Pattern") -> bool:
    return _some_axes(p, lambda k, i: _within_band(p, k, i))


def _is_block_lower(p: "Pattern") -> bool:
    def good(k: int, i: int) -> bool:
        kind, low, _ = axis_relation(p, k, i)
        return kind == "zero" or (low is not None and low >= 0)

    return _some_axes(p, good)


def _is_block_upper(p: "Pattern") -> bool:
    return _is_block_lower(p.T)


NAMES: dict[str, Callable[["Pattern"], bool]] = {
    "zero": _is_zero,
    "diagonal": _is_diagonal,
    "permutation": _is_partial_permutation,
    "selection": _is_selection,
    "sum": _is_sum,
    "banded": _is_banded,
    "lower-triangular": _is_lower,
    "upper-triangular": _is_upper,
    "block-banded": _is_block_banded,
    "block-lower-triangular": _is_block_lower,
    "block-upper-triangular": _is_block_upper,
    "block-diagonal": _is_block_diagonal,
    "dense": lambda p: True,
    "sparse": lambda p: True,
}


def holds(pattern: "Pattern", name: str) -> bool:
    """Return whether the pattern is contained in a structure of this name."""
    if name not in NAMES:
        raise InputError(f"there is no structure named {name!r}; known are {', '.join(NAMES)}")
    return pattern.is_zero or NAMES[name](pattern)


def names(pattern: "Pattern") -> tuple[str, ...]:
    """Return the names that hold and say something, the most telling first."""
    if pattern.is_zero:
        return ("zero",)
    full = pattern.nnz == pattern.shape[0] == pattern.shape[1] and pattern.exact
    pairs = [
        axis_relation(pattern, k, i)
        for k, n in enumerate(pattern.output_shape)
        for i, m in enumerate(pattern.input_shape)
        if n == m > 1
    ]
    found: list[str] = []
    for name, good in NAMES.items():
        says = {
            "permutation": full,
            "block-lower-triangular": any(k == "order" and low is not None for k, low, _ in pairs),
            "block-upper-triangular": any(k == "order" and low is None for k, low, _ in pairs),
            "block-banded": any(k == "band" for k, _, _ in pairs),
            "dense": pattern.is_dense,
            "zero": False,
            "sparse": not found,
        }.get(name, True)
        if says and good(pattern):
            found.append(name)
    if pattern.is_dense and found[0] != "diagonal":
        found = ["dense", *(name for name in found if name != "dense")]
    return tuple(found)
