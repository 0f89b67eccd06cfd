"""What `a @ b` and `a + b` become: two neighbours are merged as long as a rule of `rules` applies.

Zeros, identities and numbers are seen to first; a dense matrix takes in what makes it no larger.
"""

from functools import reduce

from gradlab.errors import InputError
from gradlab.operators._arrays import map_columns, result_type
from gradlab.operators.base import Operator
from gradlab.operators.compose import Product, Scaled, SumOfOperators
from gradlab.operators.dense import Dense
from gradlab.operators.rules import PRODUCTS, SUMS
from gradlab.operators.trivial import Identity, Zero

__all__ = ["add", "product"]


def product(left: Operator, right: Operator) -> Operator:
    """Return `left @ right`, right applied first, as simple as the rules make it.

    Raises:
        InputError: If what goes out of `right` does not go into `left`.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Diagonal
        >>> product(Diagonal(np.array([2.0, 3.0])), Diagonal(np.array([5.0, 7.0]))).diagonal
        array([10., 21.])
    """
    if left.input_shape != right.output_shape:
        raise InputError(
            f"{left.name} @ {right.name}: the left takes arrays of shape {left.input_shape}; "
            f"the right returns shape {right.output_shape}"
        )
    for side, other in (left, right), (right, left):
        if isinstance(side, Scaled):
            pair = (side.operator, other) if side is left else (other, side.operator)
            return product(*pair)._scale(side.factor)
    if isinstance(left, Zero) or isinstance(right, Zero):
        return Zero(left.output_shape, right.input_shape, result_type(left.dtype, right.dtype))
    *before, last = _factors(left)
    first, *after = _factors(right)
    merged = _merge(last, first)
    if merged is None:
        return Product(*before, last, first, *after)
    # What two neighbours became may now merge with theirs; there is one factor less each time.
    return reduce(product, [*before, merged, *after])


def add(first: Operator, second: Operator) -> Operator:
    """Return `first + second`, as simple as the rules make it.

    Raises:
        InputError: If the shapes differ.

    Example:
        >>> import numpy as np
        >>> from gradlab.operators import Diagonal, Identity
        >>> add(Identity((2,), np.float64), Diagonal(np.array([5.0, 7.0]))).diagonal
        array([6., 8.])
    """
    shapes = [(term.output_shape, term.input_shape) for term in (first, second)]
    if shapes[0] != shapes[1]:
        (out, into), (other_out, other_into) = shapes
        raise InputError(
            f"{first.name} + {second.name}: the first maps shape {into} to {out}; "
            f"the second maps {other_into} to {other_out}"
        )
    terms: list[Operator] = []
    for operator in (first, second):
        for term in operator.terms if isinstance(operator, SumOfOperators) else (operator,):
            _collect(terms, term)
    return terms[0] if len(terms) == 1 else SumOfOperators(*terms)


def _factors(operator: Operator) -> tuple[Operator, ...]:
    return operator.factors if isinstance(operator, Product) else (operator,)


def _merge(left: Operator, right: Operator) -> Operator | None:
    """Return the one operator that two neighbours become, or None."""
    if right.is_identity:
        return left
    if left.is_identity:
        return right
    rule = PRODUCTS.get((type(left), type(right)))
    if rule is not None:
        return rule(left, right)
    if isinstance(left, Dense):
        return _absorb_right(left, right)
    if isinstance(right, Dense):
        absorbed = _absorb_right(right.T, left.T)
        return absorbed.T if absorbed is not None else None
    return None


def _collect(terms: list[Operator], term: Operator) -> None:
    """Add a term, merged with those that are there as long as a rule applies."""
    if term.is_identity:
        term = Identity(term.input_shape, term.dtype)
    for i, other in enumerate(terms):
        merged = _merge_terms(other, term)
        if merged is not None:
            del terms[i]
            _collect(terms, merged)
            return
    terms.append(term)


def _merge_terms(one: Operator, other: Operator) -> Operator | None:
    """Return the one operator that two terms become, or None."""
    for first, second in (one, other), (other, one):
        if isinstance(first, Zero):
            return second
        if isinstance(first, Dense):
            return Dense(
                first.matrix + second.to_dense(second.dense_bytes),
                one.output_shape,
                one.input_shape,
            )
        rule = SUMS.get((type(first), type(second)))
        if rule is not None:
            return rule(first, second)
    return None


def _absorb_right(dense: Dense, right: Operator) -> Operator | None:
    """Return `dense @ right` as one matrix, where that is no larger than the two kept apart."""
    rows, columns = dense.shape[0], right.shape[1]
    if rows * columns > rows * dense.shape[1] + right.stored_bytes // right.dtype.itemsize:
        return None
    if rows * columns == 0:
        return Zero(dense.output_shape, right.input_shape, result_type(dense.dtype, right.dtype))
    matrix = map_columns(right.T.apply, dense.matrix.T, right.output_shape).T
    return Dense(matrix, dense.output_shape, right.input_shape)
