"""Products and sums of operators: equal to their matrices', and as simple as they can be."""

import math
from functools import reduce
from itertools import product
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from gradlab.operators import (
    BlockDiagonal,
    Broadcast,
    Contraction,
    CumulativeSum,
    Dense,
    Diagonal,
    DiagonalPlusLowRank,
    Identity,
    LowerTriangular,
    Operator,
    OperatorSum,
    Permutation,
    Product,
    Reshape,
    Scaled,
    Selection,
    Slice,
    Zero,
    embedding,
    scatter,
    sum_over,
)
from gradlab.operators.core import PRODUCTS, SUMS

F = np.float64
_RANDOM = np.random.default_rng(3)


def draw(*shape: int) -> np.ndarray:
    return _RANDOM.uniform(0.5, 2.0, shape) * _RANDOM.choice([-1.0, 1.0], shape)


def operators(one: Any) -> list[Operator]:
    """One or more of every kind, most of them from (3, 3) to (3, 3), their numbers times `one`."""
    random = np.random.default_rng(7)

    def array(*shape: int) -> Any:
        return random.uniform(0.5, 2.0, shape) * one

    square = (3, 3)
    low_rank = DiagonalPlusLowRank(array(3, 3), array(3, 3, 2), array(3, 3, 2))
    return [
        Zero(square, square, F),
        Identity(square, F),
        2.0 * Identity(square, F),
        Diagonal(array(3, 3)),
        Permutation((1, 0), square, F),
        BlockDiagonal(array(3, 3, 3)),
        low_rank,
        Dense(array(9, 9), square, square),
        Contraction("ab,bc->ac", array(3, 3), input_shape=square),
        Contraction("Aa,Bb,ab->AB", array(3, 3), array(3, 3), input_shape=(3, 3)),
        CumulativeSum(square, F, 0),
        LowerTriangular(array(3, 3), square),
        Selection(np.array([0, 2, 2]), square, F, axis=0),
        Selection(np.array([[0, 8, 3]] * 3), square, F),
        Slice(square, [slice(None, None, -1)], F),
        Broadcast((3,), square, F),
        Broadcast((3,), square, F).T,
        Broadcast((3, 1), square, F),
        sum_over(square, 1, F),
        Reshape(square, (9,), F),
        Reshape((9,), square, F),
        Reshape((1, 3), (3,), F),
        Reshape((3,), (3, 1), F),
        embedding([slice(0, 3)], (5, 3), F),
        Slice((5, 3), [slice(0, 3)], F),
        Slice((5, 3), [slice(4, 1, -1)], F),
        Slice((5, 3), [slice(3, 5)], F),
        embedding([slice(1, 3)], (3, 3), F),
        embedding([slice(None), slice(2, 5)], (5, 6), F),
        Slice(square, [slice(1, 3)], F),
        Dense(array(4, 9), (4,), square),
        Dense(array(9, 4), square, (4,)),
        Broadcast((3, 3), (4, 3, 3), F),
        Broadcast((3, 3), (4, 3, 3), F).T,
        low_rank + Permutation((1, 0), square, F),
        Diagonal(array(3, 3)) @ Broadcast((3,), square, F),
    ]


def chains(pool: list[Operator]) -> list[tuple[Operator, Operator]]:
    return [(a, b) for a, b in product(pool, pool) if a.input_shape == b.output_shape]


def parallels(pool: list[Operator]) -> list[tuple[Operator, Operator]]:
    shapes = [(a.output_shape, a.input_shape) for a in pool]
    pairs = product(zip(pool, shapes), repeat=2)
    return [(a, b) for (a, one), (b, other) in pairs if one == other]


OPERATORS = operators(1.0)
CHAINS = chains(OPERATORS)
PARALLEL = parallels(OPERATORS)


def test_products_are_products_of_matrices() -> None:
    for a, b in CHAINS:
        composed = a @ b
        expected = a.to_dense() @ b.to_dense()
        message = f"{a!r} @ {b!r} = {composed!r}"
        assert composed.shape == expected.shape, message
        np.testing.assert_allclose(composed.to_dense(), expected, atol=1e-12, err_msg=message)
        np.testing.assert_allclose(composed.T.to_dense(), expected.T, atol=1e-12, err_msg=message)
        x = draw(*composed.input_shape)
        np.testing.assert_allclose(composed @ x, a @ (b @ x), atol=1e-12, err_msg=message)


def test_sums_are_sums_of_matrices() -> None:
    for a, b in PARALLEL:
        expected = a.to_dense() + b.to_dense()
        for total, matrix in ((a + b, expected), (a - b, a.to_dense() - b.to_dense())):
            message = f"{a!r}, {b!r}: {total!r}"
            np.testing.assert_allclose(total.to_dense(), matrix, atol=1e-12, err_msg=message)
            np.testing.assert_allclose(total.T.to_dense(), matrix.T, atol=1e-12, err_msg=message)
            x = draw(*total.input_shape)
            np.testing.assert_allclose(
                (total @ x).reshape(-1), matrix @ x.reshape(-1), atol=1e-12, err_msg=message
            )


def test_no_product_stores_more_than_its_factors() -> None:
    for a, b in CHAINS:
        assert (a @ b).stored_bytes <= a.stored_bytes + b.stored_bytes + 8, f"{a!r} @ {b!r}"


@pytest.mark.parametrize("kinds", PRODUCTS, ids=lambda kinds: "-".join(k.__name__ for k in kinds))
def test_every_rule_for_products_is_reached(kinds: tuple[type, type]) -> None:
    reached = [
        a @ b for a, b in CHAINS if (type(a), type(b)) == kinds and not isinstance(a @ b, Product)
    ]
    assert reached


@pytest.mark.parametrize("kinds", SUMS, ids=lambda kinds: "-".join(k.__name__ for k in kinds))
def test_every_rule_for_sums_is_reached(kinds: tuple[type, type]) -> None:
    reached = [
        a + b
        for a, b in PARALLEL
        if (type(a), type(b)) == kinds and not isinstance(a + b, OperatorSum)
    ]
    assert reached


SIMPLE = {
    "diagonal @ diagonal": (lambda: Diagonal(draw(2, 3)) @ Diagonal(draw(2, 3)), Diagonal),
    "zero @ anything": (lambda: Zero((4,), (2,), F) @ Diagonal(draw(2)), Zero),
    "anything @ identity": (lambda: Dense(draw(4, 2), (4,), (2,)) @ Identity((2,), F), Dense),
    "a reshape and back": (
        lambda: Reshape((6,), (2, 3), F) @ Reshape((2, 3), (6,), F) @ Diagonal(draw(2, 3)),
        Diagonal,
    ),
    "a transposition and back": (
        lambda: (
            Diagonal(draw(2, 3))
            @ Permutation((1, 0), (3, 2), F)
            @ Permutation((1, 0), (2, 3), F)
            @ Diagonal(draw(2, 3))
        ),
        Diagonal,
    ),
    "broadcast between equal shapes": (
        lambda: Diagonal(draw(2, 3)) @ Broadcast((2, 3), (2, 3), F),
        Diagonal,
    ),
    "the transpose of a broadcast after it": (
        lambda: Broadcast((3,), (4, 3), F).T @ Broadcast((3,), (4, 3), F),
        Scaled,
    ),
    "a slice after its embedding": (
        lambda: Slice((5,), [slice(3)], F) @ embedding([slice(3)], (5,), F),
        Identity,
    ),
    "a slice beside an embedding": (
        lambda: Slice((5,), [slice(3)], F) @ embedding([slice(3, 5)], (5,), F),
        Zero,
    ),
    "a small matrix of a product": (
        lambda: Dense(draw(2, 50), (2,), (50,)) @ Dense(draw(50, 3), (50,), (3,)),
        Dense,
    ),
    "a matrix that would grow": (
        lambda: Dense(draw(50, 2), (50,), (2,)) @ Dense(draw(2, 50), (2,), (50,)),
        Product,
    ),
    "two softmaxes": (
        lambda: (
            DiagonalPlusLowRank(draw(2, 9), draw(2, 9, 1), draw(2, 9, 1))
            @ DiagonalPlusLowRank(draw(2, 9), draw(2, 9, 1), draw(2, 9, 1))
        ),
        DiagonalPlusLowRank,
    ),
    "what cancels in the middle": (
        lambda: Diagonal(draw(3)) @ Broadcast((3,), (4, 3), F).T @ Broadcast((3,), (4, 3), F),
        Diagonal,
    ),
    "what vanishes in the middle": (
        lambda: (
            (Diagonal(draw(3)) @ Slice((5,), [slice(3)], F))
            @ (embedding([slice(3, 5)], (5,), F) @ Diagonal(draw(2)))
        ),
        Zero,
    ),
    "three terms": (
        lambda: Identity((3,), F) + Permutation((0,), (3,), F) + Diagonal(draw(3)),
        Diagonal,
    ),
    "a flip of nothing": (
        lambda: Slice((0,), [slice(None, None, -1)], F) @ Slice((3,), [slice(0, 0)], F),
        Slice,
    ),
    "a sum of one term": (
        lambda: Broadcast((3,), (1, 3), F).T @ Broadcast((3,), (1, 3), F),
        Identity,
    ),
    "x + x": (lambda: Identity((3,), F) + Identity((3,), F), Scaled),
    "x + f(x)": (lambda: Identity((3,), F) + Diagonal(draw(3)), Diagonal),
    "a number goes into the factor that holds numbers": (
        lambda: -(Diagonal(draw(4, 3)) @ Broadcast((3,), (4, 3), F)),
        Product,
    ),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_becomes_simple(name: str) -> None:
    build, kind = SIMPLE[name]
    assert type(build()) is kind


def test_rules_hold_on_traced_arrays() -> None:
    """All products and sums that a rule simplifies, in one compiled program."""
    xs = {operator.input_shape: draw(*operator.input_shape) for operator in OPERATORS}

    def images(one: Any, xs: Any) -> Any:
        pool = operators(one)
        products = [
            (a @ b) @ xs[b.input_shape] for a, b in chains(pool) if (type(a), type(b)) in PRODUCTS
        ]
        sums = [
            (a + b) @ xs[a.input_shape] for a, b in parallels(pool) if (type(a), type(b)) in SUMS
        ]
        return products, sums

    expected = (
        [a @ (b @ xs[b.input_shape]) for a, b in CHAINS if (type(a), type(b)) in PRODUCTS],
        [
            a @ xs[a.input_shape] + b @ xs[a.input_shape]
            for a, b in PARALLEL
            if (type(a), type(b)) in SUMS
        ],
    )
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        arguments = jnp.float64(1), {shape: jnp.asarray(x) for shape, x in xs.items()}
        found = jax.tree.map(np.asarray, jax.jit(images)(*arguments))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, expected)


@st.composite
def movements(draw: Any) -> list[Operator]:
    """A chain of movements, each applied to what the one before puts out."""
    shape: tuple[int, ...] = draw(st.sampled_from([(), (3,), (2, 3), (1, 3), (2, 1, 3), (0, 2)]))
    chain: list[Operator] = []
    for _ in range(draw(st.integers(1, 5))):
        operator = draw(st.sampled_from(_steps(shape)))
        chain.append(operator)
        shape = operator.output_shape
    return chain


def _steps(shape: tuple[int, ...]) -> list[Operator]:
    size, last = math.prod(shape), len(shape) - 1
    steps: list[Operator] = [
        Reshape(shape, (size,), F),
        Reshape(shape, (*shape, 1), F),
        Permutation(tuple(range(last, -1, -1)), shape, F),
        Identity(shape, F),
    ]
    if size <= 24:
        steps += [Broadcast(shape, (2, *shape), F), Broadcast(shape, (*shape, 2), F, [-1])]
    if shape:
        start = min(1, shape[0])
        steps += [
            Reshape(shape, (1, *shape), F),
            sum_over(shape, 0, F),
            sum_over(shape, -1, F, keepdims=True),
            Slice(shape, [slice(None, None, -1)], F),
            Slice(shape, [slice(start, None)], F),
            Slice(shape, [slice(0, 0)], F),
            embedding([slice(1, 1 + shape[0])], (shape[0] + 2, *shape[1:]), F),
        ]
    if size:
        steps += [
            Selection([size - 1, 0, 0], shape, F),
            scatter(np.arange(size).reshape(shape) // 2, (size,), F),
        ]
    return steps


@given(movements())
def test_chains_of_movements(chain: list[Operator]) -> None:
    composed = reduce(lambda before, after: after @ before, chain)
    expected = reduce(
        lambda matrix, after: after.to_dense() @ matrix, chain[1:], chain[0].to_dense()
    )
    np.testing.assert_array_equal(composed.to_dense(), expected)
    np.testing.assert_array_equal(composed.T.to_dense(), expected.T)


@given(movements())
def test_patterns_of_chains_miss_no_entry(chain: list[Operator]) -> None:
    composed = reduce(lambda before, after: after @ before, chain)
    pattern = composed.pattern
    found, needed = pattern.to_dense(), composed.to_dense() != 0
    assert not np.any(needed & ~found)
    if pattern.exact:
        assert pattern.nnz == np.count_nonzero(found)
