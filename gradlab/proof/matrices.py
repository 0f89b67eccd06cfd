"""Factorisations and solves in a field: elimination, with the pivots that the numbers took."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from gradlab.proof.field import Element

Found = Sequence["Element | None"]


class _Matrix:
    """A matrix whose blocks are read as elements and written in place."""

    def __init__(self, x: Element) -> None:
        self.x = x
        self.a = x.a.copy()

    def __getitem__(self, index: tuple[Any, Any]) -> Element:
        return self.x.made(self.a[..., *index])

    def __setitem__(self, index: tuple[Any, Any], block: Element) -> None:
        self.a = self.a.astype(np.result_type(self.a, block.a), copy=False)
        self.a[..., *index] = block.a

    @property
    def element(self) -> Element:
        """All of it."""
        return self.x.made(self.a)


def _turned(x: Element) -> Element:
    return x.arranged(lambda a: np.swapaxes(a, -1, -2))


def _cholesky(params: Mapping[str, Any], operands: Sequence[Element], real: Any) -> Found:
    """Return L with L L^T = A, from the lower half of A."""
    x = operands[0]
    matrix, n = _Matrix(x.arranged(np.tril)), x.a.shape[-1]
    for k in range(n):
        here, below = slice(k, k + 1), slice(k + 1, n)
        matrix[here, here] = matrix[here, here].sqrt()
        column = matrix[below, here] * matrix[here, here].inverse()
        matrix[below, here] = column
        matrix[below, below] = matrix[below, below] - column * _turned(column)
    return (matrix.element.arranged(np.tril),)


def _triangular(params: Mapping[str, Any], operands: Sequence[Element], real: Any) -> Found | None:
    """Return the solution by substitution, row after row."""
    a, b = operands
    lower, left = params["lower"], params["left_side"]
    if params["transpose_a"]:
        a, lower = _turned(a), not lower
    if not left:  # x a = b: solve a^T x^T = b^T
        a, b, lower = _turned(a), _turned(b), not lower
    matrix, found, n = _Matrix(a), _Matrix(b), a.a.shape[-1]
    for k in range(n) if lower else range(n - 1, -1, -1):
        here, rest = slice(k, k + 1), slice(k + 1, n) if lower else slice(0, k)
        every = slice(None)
        if not params["unit_diagonal"]:
            found[here, every] = found[here, every] * matrix[here, here].inverse()
        step = matrix[rest, here] * found[here, every]
        found[rest, every] = found[rest, every] - step
    return (found.element if left else _turned(found.element),)


def _lu(params: Mapping[str, Any], operands: Sequence[Element], real: Any) -> Found:
    """Return the factors of the rows in the order that the numbers' pivots gave."""
    (x,), order = operands, np.asarray(real[2])[None, ..., :, None]
    matrix = _Matrix(x.arranged(lambda a: np.take_along_axis(a, order, -2)))
    m, n = x.a.shape[-2:]
    for k in range(min(m, n)):
        here, below, right = slice(k, k + 1), slice(k + 1, m), slice(k + 1, n)
        column = matrix[below, here] * matrix[here, here].inverse()
        matrix[below, here] = column
        matrix[below, right] = matrix[below, right] - column * matrix[here, right]
    return matrix.element, None, None


def _reduce_prod(params: Mapping[str, Any], operands: Sequence[Element], real: Any) -> Found:
    (x,), axes = operands, [axis + 1 for axis in params["axes"]]
    kept = [axis for axis in range(x.a.ndim) if axis not in axes]
    flat = x.arranged(lambda a: a.transpose(*kept, *axes).reshape(*(a.shape[i] for i in kept), -1))
    total = flat.made(np.ones(flat.a.shape[:-1]))
    for k in range(flat.a.shape[-1]):
        total = total * flat.arranged(itemgetter((..., k)))
    return (total,)


def _cumprod(params: Mapping[str, Any], operands: Sequence[Element], real: Any) -> Found:
    (x,), axis = operands, params["axis"] + 1
    moved = x.arranged(lambda a: np.moveaxis(a, axis, -1)[..., None])
    matrix, count = _Matrix(moved), x.a.shape[axis]
    order = list(range(count - 1, -1, -1) if params["reverse"] else range(count))
    for before, k in pairwise(order):
        here = slice(k, k + 1), slice(None)
        matrix[here] = matrix[here] * matrix[slice(before, before + 1), slice(None)]
    return (matrix.element.arranged(lambda a: np.moveaxis(a[..., 0], -1, axis)),)


MATRICES: dict[str, Callable[..., Found | None]] = {
    "cholesky": _cholesky,
    "cumprod": _cumprod,
    "lu": _lu,
    "reduce_prod": _reduce_prod,
    "triangular_solve": _triangular,
}
