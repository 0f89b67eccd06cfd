"""A sparse Jacobian as a `lineax` linear operator, for solvers of JAX. Only here lineax is used.

What is proved of the pattern becomes a tag, so that lineax picks a solver for triangular matrices
by itself. Diagonal and tridiagonal matrices become lineax's own operators.
"""

from typing import Any

import equinox
import jax
import jax.numpy as jnp
import lineax  # type: ignore[import-untyped]
import numpy as np

from gradlab.structure.entries import Listing


class SparseOperator(lineax.AbstractLinearOperator):  # type: ignore[misc]  # it has no types
    """A matrix by the entries that may be nonzero.

    Attributes:
        data: the entries.
        rows: the row of each entry, in rising order.
        cols: the column of each entry.
        size: the number of rows and columns.
        tags: what is known of the matrix, as lineax's operators have it.
    """

    data: jax.Array
    rows: Any
    cols: Any
    size: tuple[int, int] = equinox.field(static=True)
    tags: frozenset[object] = equinox.field(static=True)

    def __init__(
        self, data: Any, rows: Any, cols: Any, size: tuple[int, int], tags: frozenset[object]
    ) -> None:
        self.data, self.rows, self.cols = data, rows, cols
        self.size, self.tags = size, tags

    def mv(self, vector: Any) -> Any:
        """Return the product with a vector of n entries."""
        products = self.data * vector[self.cols]
        return jax.ops.segment_sum(products, jnp.asarray(self.rows), self.size[0])

    def as_matrix(self) -> Any:
        """Return the dense matrix."""
        return jnp.zeros(self.size, self.data.dtype).at[self.rows, self.cols].set(self.data)

    def transpose(self) -> "SparseOperator":
        """Return the transposed matrix."""
        return SparseOperator(
            self.data, self.cols, self.rows, self.size[::-1], lineax.transpose_tags(self.tags)
        )

    def in_structure(self) -> Any:
        """Return the shape and dtype of the vectors that it takes."""
        return jax.ShapeDtypeStruct((self.size[1],), self.data.dtype)  # type: ignore[no-untyped-call]  # it has no types

    def out_structure(self) -> Any:
        """Return the shape and dtype of the vectors that it gives."""
        return jax.ShapeDtypeStruct((self.size[0],), self.data.dtype)  # type: ignore[no-untyped-call]  # it has no types


def as_operator(listing: Listing, data: Any) -> Any:
    """Return the operator of a matrix, given its entries by row."""
    below, above = listing.bandwidths
    m, n = listing.shape
    square = m == n
    if square and below <= 1 and above <= 1:
        bands = [_band(listing, data, offset) for offset in (0, -1, 1)]
        if not below and not above:
            return lineax.DiagonalLinearOperator(bands[0])
        return lineax.TridiagonalLinearOperator(*bands)
    tags: set[object] = set()
    if square and not above:
        tags.add(lineax.lower_triangular_tag)
    if square and not below:
        tags.add(lineax.upper_triangular_tag)
    if listing.symmetric:
        tags.add(lineax.symmetric_tag)
    return SparseOperator(data, listing.rows, listing.cols, listing.shape, frozenset(tags))


def _band(listing: Listing, data: Any, offset: int) -> Any:
    """Return the diagonal with `column - row == offset`."""
    here = np.flatnonzero(listing.cols.astype(np.int64) - listing.rows == offset)
    length = listing.shape[0] - abs(offset)
    if len(here) == length:
        return data[here]
    start = listing.rows[here] - max(0, -offset)
    return jnp.zeros(length, data.dtype).at[start].set(data[here])


def _tagged(tag: object) -> Any:
    return lambda operator: tag in operator.tags


for _question, _tag in (
    (lineax.is_symmetric, lineax.symmetric_tag),
    (lineax.is_diagonal, lineax.diagonal_tag),
    (lineax.is_tridiagonal, lineax.tridiagonal_tag),
    (lineax.has_unit_diagonal, lineax.unit_diagonal_tag),
    (lineax.is_lower_triangular, lineax.lower_triangular_tag),
    (lineax.is_upper_triangular, lineax.upper_triangular_tag),
    (lineax.is_positive_semidefinite, lineax.positive_semidefinite_tag),
    (lineax.is_negative_semidefinite, lineax.negative_semidefinite_tag),
):
    _question.register(SparseOperator, _tagged(_tag))


def _itself(operator: SparseOperator) -> SparseOperator:
    return operator


def _diagonal(operator: SparseOperator) -> Any:
    held = jnp.where(operator.rows == operator.cols, operator.data, 0)
    return jax.ops.segment_sum(held, operator.rows, min(operator.size))


def _conj(operator: SparseOperator) -> SparseOperator:
    return SparseOperator(
        operator.data.conj(), operator.rows, operator.cols, operator.size, operator.tags
    )


lineax.linearise.register(SparseOperator, _itself)
lineax.materialise.register(SparseOperator, _itself)
lineax.diagonal.register(SparseOperator, _diagonal)
lineax.conj.register(SparseOperator, _conj)
