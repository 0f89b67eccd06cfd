"""What the evaluated entries of a Jacobian show: a linear map, symmetric, orthogonal, low rank.

Evidence "observed": true of the numbers at the points that were evaluated, to rounding, and no
proof. Two entries count as equal where they differ by at most 64 eps of the larger of the two, or
by eps of the block's largest entry; a sum of K products may be off by 64 eps sqrt(K). A fact that
rounding hides is not reported; one that is reported may still fail at another point.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from gradlab.formatting import count

__all__ = ["Property", "observe"]

Array = np.ndarray[Any, Any]

_SLACK = 64
_PRODUCTS = 1 << 26  # multiplications up to which J J' is formed
_RANK = 4
_BLOCK = 1 << 11  # entries of a side of a block up to which its rank is looked for


class Property(NamedTuple):
    """One observed fact.

    Attributes:
        name: "constant", "zero", "identity", "scaled identity", "symmetric", "toeplitz",
            "orthogonal" or "diagonal plus low rank".
        detail: the fact in words.
    """

    name: str
    detail: str


def observe(matrix: Any, eps: float, others: Sequence[Any] = ()) -> tuple[Property, ...]:
    """Return what one block's entries show; nothing where one of them is not finite.

    Args:
        matrix: the block, a SciPy sparse matrix of shape (m, n).
        eps: the spacing of the entries' dtype at 1, `finfo(dtype).eps`.
        others: the same block at other points.

    Example:
        >>> import numpy as np, scipy.sparse
        >>> rotation = scipy.sparse.csr_array([[0.6, -0.8], [0.8, 0.6]])
        >>> [fact.name for fact in observe(rotation, np.finfo(float).eps)]
        ['orthogonal']
    """
    if not min(matrix.shape) or not all(np.isfinite(m.data).all() for m in (matrix, *others)):
        return ()
    found = []
    if others and all(_equal(matrix, other, eps) for other in others):
        points = f"the same at {len(others) + 1} points"
        found.append(Property("constant", f"constant: {points}, as of a linear map"))
    scale = float(abs(matrix).max())
    if scale == 0:
        return (*found, Property("zero", "zero: every entry vanishes at these points"))
    if matrix.shape[0] == matrix.shape[1]:
        found += _of_square(matrix, eps, scale)
    if (
        min(matrix.shape) > 2
        and not _is_diagonal(matrix, eps, scale)
        and _is_toeplitz(matrix, eps, scale)
    ):
        found.append(Property("toeplitz", "Toeplitz: one number along each diagonal"))
    return tuple(found)


def _of_square(matrix: Any, eps: float, scale: float) -> list[Property]:
    n = matrix.shape[0]
    found = []
    if _is_diagonal(matrix, eps, scale):
        d = matrix.diagonal()
        if not _agree(d, d[0], eps, scale).all():
            return []
        if _agree(d[:1], 1.0, eps, 1.0).all():
            return [Property("identity", "the identity")]
        return [Property("scaled identity", f"{d[0]:.6g} times the identity")]
    if _equal(matrix, matrix.T, eps):
        found.append(Property("symmetric", "symmetric"))
    if _is_orthogonal(matrix, eps):
        found.append(Property("orthogonal", "orthogonal: J J' is the identity"))
    rank, blocks = _rank_beside_diagonal(matrix, eps)
    if rank:
        where = "" if blocks == 1 else f" in each of {count(blocks, 'block')}"
        found.append(Property("diagonal plus low rank", f"a diagonal plus rank {rank}{where}"))
    return found if n > 1 else []


def _agree(a: Any, b: Any, eps: float, scale: float) -> Any:
    return np.abs(a - b) <= eps * np.maximum(_SLACK * np.maximum(np.abs(a), np.abs(b)), scale)


def _equal(a: Any, b: Any, eps: float) -> bool:
    """Return whether two sparse matrices agree entry by entry."""
    larger = abs(a).maximum(abs(b))
    apart = abs(a - b) - _SLACK * eps * larger
    return bool(apart.max() <= eps * larger.max())


def _is_diagonal(matrix: Any, eps: float, scale: float) -> bool:
    diagonal = scipy.sparse.diags_array(matrix.diagonal(), shape=matrix.shape)
    return bool(abs(matrix - diagonal).max() <= eps * scale)


def _is_toeplitz(matrix: Any, eps: float, scale: float) -> bool:
    m, n = matrix.shape
    entries = matrix.tocoo()
    if np.iscomplexobj(entries.data):
        return False
    offset = entries.col.astype(np.int64) - entries.row + m - 1
    k = np.arange(m + n - 1) - (m - 1)
    full = np.bincount(offset, minlength=m + n - 1) == np.minimum(
        np.minimum(m, m + k), np.minimum(n, n - k)
    )
    low, high = np.where(full, np.inf, 0.0), np.where(full, -np.inf, 0.0)
    np.minimum.at(low, offset, entries.data)
    np.maximum.at(high, offset, entries.data)
    return bool(_agree(low, high, eps, scale).all())


def _is_orthogonal(matrix: Any, eps: float) -> bool:
    columns = np.diff(matrix.tocsc().indptr).astype(np.float64)
    if np.iscomplexobj(matrix.data) or float(columns @ columns) > _PRODUCTS:
        return False
    rows = matrix.astype(np.float64)
    apart = abs(rows @ rows.T - scipy.sparse.eye_array(matrix.shape[0]))
    longest = int(np.diff(matrix.tocsr().indptr).max())
    return bool(apart.max() <= _SLACK * eps * math.sqrt(longest))


def _rank_beside_diagonal(matrix: Any, eps: float) -> tuple[int, int]:
    """Return (r, blocks) where each block is a diagonal plus rank r at most; else (0, 0)."""
    blocks, label = connected_components(matrix, directed=False)
    sizes = np.bincount(label)
    if np.iscomplexobj(matrix.data) or sizes.min() < 4 * _RANK or sizes.max() > _BLOCK:
        return 0, 0
    order = np.argsort(label, kind="stable")
    sorted_rows = matrix.tocsr()[order][:, order]
    rank, end = 0, 0
    for size in sizes.tolist():
        block = sorted_rows[end : end + size, end : end + size].toarray()
        found = _rank_of_block(block.astype(np.float64), eps)
        if found == 0:
            return 0, 0
        rank, end = max(rank, found), end + size
    return rank, blocks


def _rank_of_block(block: Array, eps: float) -> int:
    """Return the least r up to 4 with block = diag(d) + rank r, or 0 where there is none.

    Rows R and columns C that share no index do not meet the diagonal, and L[:, C] L[R, C]^+ L[R, :]
    is a matrix L of low rank (Goreinov, Tyrtyshnikov and Zamarashkin, A theory of pseudoskeleton
    approximations, 1997). Two such samples tell what the low-rank part has on the diagonal.
    """
    n = len(block)
    order = np.random.default_rng(0).permutation(n)
    few = min(n // 4, 4 * _RANK)
    low = block.copy()
    for k in (0, 2):
        sample = order[k * few : (k + 1) * few], order[(k + 1) * few : (k + 2) * few]
        other = np.setdiff1d(order, np.concatenate(sample))
        low[other, other] = np.diagonal(_skeleton(block, sample, eps)[0])[other]
    rebuilt, rank, condition = _skeleton(low, (order[:few], order[few : 2 * few]), eps)
    apart = np.abs(rebuilt - low).max()
    return rank if apart <= _SLACK * eps * condition * np.abs(low).max() else 0


def _skeleton(block: Array, sample: tuple[Array, Array], eps: float) -> tuple[Array, int, float]:
    """Return the matrix of low rank that agrees in these rows and columns, its rank, condition."""
    rows, columns = sample
    left, values, right = np.linalg.svd(block[np.ix_(rows, columns)])
    rank = int((values > _SLACK * eps * values[0]).sum())
    if not 0 < rank <= _RANK:
        return np.zeros_like(block), 0, 0.0
    inverse = (right[:rank].T / values[:rank]) @ left[:, :rank].T
    return block[:, columns] @ inverse @ block[rows], rank, float(values[0] / values[rank - 1])
