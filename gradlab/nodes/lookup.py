"""Rows of a table, read by index: word vectors. Backward adds where a word occurs again."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, keeping, namespace, scatter_add
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, special
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Diagonal, Selection, sum_over

__all__ = ["Embedding", "EmbeddingBag", "OneHotProduct"]

_INDICES = Domain(low=0, high=3, integer=True)


def _inputs(node: Node, inputs: tuple[Any, ...]) -> tuple[Array, Array]:
    table, indices = as_inputs(node, inputs)
    if len(table.shape) != 2:
        raise InputError(
            f"{node!r}: the table has shape {shape_text(table.shape)}; expected (words, features)"
        )
    return table, indices


@dataclass(frozen=True)
class Embedding(Node):
    """The rows of a table, (words, features), at indices of any shape: the word embedding.

    Args:
        padding: the index of a row that is read but never trained; None for none.

    Local gradient: a selection, with a diagonal of zeros at padding; None for the indices.
    Backward: dtable = the upstream added at the indices; the padding's row gets nothing, as in
    torch. The reference says so with `stop_gradient`.
    """

    padding: int | None = None
    domains = (REALS, _INDICES)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        table, indices = _inputs(self, inputs)
        y = table[indices]
        return y, (table, indices, y)

    def _trained(self, indices: Array, y: Array) -> Array:
        return (indices != self.padding)[..., None].astype(y.dtype)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        table, indices, y = residuals
        rows = Selection(indices, table.shape, table.dtype, axis=0)
        if self.padding is None:
            return rows, None
        trained = namespace(y).broadcast_to(self._trained(indices, y), y.shape)
        return Diagonal(trained) @ rows, None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        table, indices, y = residuals
        upstream = as_upstream(self, upstream, y).astype(table.dtype)
        if self.padding is not None:
            upstream = upstream * self._trained(indices, y)
        return scatter_add(table.shape, indices, upstream), None

    def reference(self, table: Array, indices: Array) -> Array:
        y = jnp.take(table, indices, axis=0)
        if self.padding is None:
            return y
        padding = jnp.broadcast_to((jnp.asarray(indices) == self.padding)[..., None], y.shape)
        return jnp.where(padding, jax.lax.stop_gradient(y), y)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [2, 0]),
            special(cls(), "generic", (3, 2), [[2, 1], [0, 1]]),
            special(cls(padding=0), "generic", (4, 2), [[0, 3, 1], [2, 0, 3]]),
            special(cls(), "repeated words", (4, 2), [1, 3, 1, 1]),
            special(cls(padding=1), "all padding", (3, 2), [1, 1]),
            Case(cls(), ((4, 2), (0,)), "zero size"),
        )


@dataclass(frozen=True)
class EmbeddingBag(Node):
    """The mean or sum of the rows of a table at each bag of indices, (bags, words).

    Args:
        mean: whether the rows are averaged, not summed.

    Local gradient: a sum after a selection; None for the indices.
    Backward: dtable = the upstream of each bag, divided by its size for a mean, added at each of
    its indices: fused, the rows of a bag are never stored.
    """

    mean: bool = True
    domains = (REALS, _INDICES)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        table, indices = _inputs(self, inputs)
        if len(indices.shape) != 2:
            raise InputError(
                f"{self!r}: the indices have shape {shape_text(indices.shape)}; "
                "expected (bags, words)"
            )
        y = keeping(table[indices].sum(axis=1) * self._weight(indices), (table,))
        return y, (table, indices, y)

    def _weight(self, indices: Array) -> float:
        return 1.0 / max(indices.shape[1], 1) if self.mean else 1.0

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        table, indices, _ = residuals
        rows = Selection(indices, table.shape, table.dtype, axis=0)
        fold = sum_over(rows.output_shape, 1, table.dtype)
        return self._weight(indices) * (fold @ rows), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        table, indices, y = residuals
        xp = namespace(table, indices)
        share = (as_upstream(self, upstream, y) * self._weight(indices)).astype(table.dtype)
        each = xp.broadcast_to(share[:, None, :], (*indices.shape, table.shape[1]))
        return scatter_add(table.shape, indices, each), None

    def reference(self, table: Array, indices: Array) -> Array:
        rows = jnp.take(table, indices, axis=0)
        return jnp.mean(rows, axis=1) if self.mean else jnp.sum(rows, axis=1)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [[2, 0], [1, 3]]),
            special(cls(mean=False), "generic", (3, 2), [[2, 1, 0]]),
            special(cls(), "generic", (5, 2), [[4], [0], [3]]),
            special(cls(), "repeated words", (4, 2), [[1, 1, 3], [1, 0, 0]]),
            Case(cls(), ((4, 2), (0, 2)), "zero size"),
        )


class OneHotProduct(Node):
    """onehot(indices) @ table, for a table (words, features): a product that reads rows.

    An index outside the table has no 1 in its row of the one-hot matrix, so it gives zeros.

    Local gradient: the one-hot matrix for each feature, which is a selection with a diagonal of
    zeros at indices outside; None for the indices.
    Backward: dtable = onehot(indices)^T @ upstream: the upstream added at the indices.
    """

    domains = (REALS, _INDICES)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        table, indices = _inputs(self, inputs)
        xp = namespace(table, indices)
        inside = (indices >= 0) & (indices < table.shape[0])
        rows = xp.where(inside, indices, 0 * indices)
        known = inside[..., None].astype(table.dtype)
        y = table[rows] * known
        return y, (table, rows, xp.broadcast_to(known, y.shape), y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        table, rows, known, _ = residuals
        return Diagonal(known) @ Selection(rows, table.shape, table.dtype, axis=0), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        table, rows, known, y = residuals
        upstream = as_upstream(self, upstream, y).astype(table.dtype) * known
        return scatter_add(table.shape, rows, upstream), None

    def reference(self, table: Array, indices: Array) -> Array:
        return jnp.matmul(jax.nn.one_hot(indices, table.shape[0], dtype=table.dtype), table)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [2, 0]),
            special(cls(), "generic", (3, 2), [[2, 1], [0, 1]]),
            special(cls(), "generic", (5, 2), [4]),
            special(cls(), "repeated and outside", (3, 2), [1, -1, 1, 3]),
            Case(cls(), ((4, 2), (0,)), "zero size"),
        )
