"""Colours of a symmetric matrix: an entry may be read as H[i, j] or as H[j, i].

Inputs that are coupled with very many others (the head of an arrow, what all groups of a model
share) get colours of their own. What they have in common with the others is read from their own
columns, so that the others are coloured as if they were not there: an arrow takes 2 colours instead
of n. This is the simplest of the star colourings (Coleman and More, Estimation of sparse Hessian
matrices and graph coloring problems, 1984; Gebremedhin, Manne and Pothen, What color is your
Jacobian?, 2005).
"""

from typing import TYPE_CHECKING

import numpy as np

from gradlab.patterns.colouring import Colouring, greedy

if TYPE_CHECKING:
    from gradlab.patterns.pattern import Pattern

__all__ = ["symmetric_colours"]

_LISTED = 2**21
_HEADS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def symmetric_colours(pattern: "Pattern") -> Colouring | None:
    """Return a colouring for JVPs that is right where the values are symmetric too.

    None where the pattern is not symmetric, is too large to be listed, or has no entries that are
    worth a colour of their own.

    Example:
        >>> import numpy as np
        >>> from gradlab.patterns import Pattern
        >>> arrow = np.eye(9, dtype=bool)
        >>> arrow[0], arrow[:, 0] = True, True
        >>> symmetric_colours(Pattern.explicit(arrow, (9,), (9,))).count
        2
    """
    if pattern.input_shape != pattern.output_shape or pattern.nnz > _LISTED:
        return None
    matrix = pattern.to_scipy().tocsr()
    if not matrix.nnz or (matrix != matrix.T).nnz:
        return None
    n = matrix.shape[0]
    busiest = np.argsort(-np.diff(matrix.indptr), kind="stable")

    def least(heads: int) -> int:
        others = np.sort(busiest[heads:])
        return heads + int(np.diff(matrix[others][:, others].indptr).max(initial=0))

    heads = min((k for k in (0, *_HEADS) if k <= n), key=least)
    if not heads:
        return None
    others = np.sort(busiest[heads:])
    assigned = np.zeros(n, np.int64)
    assigned[busiest[:heads]] = np.arange(heads)
    assigned[others] = heads + greedy(matrix[others][:, others])
    count = int(assigned.max()) + 1
    return Colouring("jvp", count, False, pattern.input_shape, lambda: assigned, heads)
