"""Every operator against the matrix of the same map written in plain NumPy, on NumPy and on JAX."""

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gradlab.operators import (
    BlockDiagonal,
    Broadcast,
    Contraction,
    Convolution,
    CumulativeSum,
    Dense,
    Diagonal,
    DiagonalPlusLowRank,
    Identity,
    LowerTriangular,
    Operator,
    Permutation,
    Reshape,
    Selection,
    Slice,
    Zero,
    embedding,
    left_multiplication,
    right_multiplication,
    scatter,
    sum_over,
)

_RANDOM = np.random.default_rng(20)
F = np.float64


def draw(*shape: int) -> np.ndarray:
    """Generic numbers, none of them near zero, so that the matrix is nonzero where it may be."""
    return _RANDOM.uniform(0.5, 2.0, shape) * _RANDOM.choice([-1.0, 1.0], shape)


class Case(NamedTuple):
    name: str
    build: Callable[..., Operator]  # from its arrays
    function: Callable[..., np.ndarray]  # the same map in plain NumPy: its arrays, then x
    arrays: tuple[np.ndarray, ...] = ()


def embed(slices: tuple[slice, ...], shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    zeros = np.zeros(shape)
    zeros[slices] = x
    return zeros


def added_at(indices: np.ndarray, size: int, x: np.ndarray) -> np.ndarray:
    total = np.zeros((size, *x.shape[1:]))
    for i, index in enumerate(indices):
        total[index] += x[i]
    return total


def convolve(kernel, x, strides, padding, dilation, groups):
    """Two-dimensional convolution by its definition, one output entry at a time."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    out, into, *window = kernel.shape
    places = [
        (size - step * (taps - 1) - 1) // stride + 1
        for size, taps, stride, step in zip(x.shape[2:], window, strides, dilation)
    ]
    y = np.zeros((x.shape[0], out, *places))
    for b, o, i, j in np.ndindex(*y.shape):
        first = into * (o // (out // groups))
        rows = slice(
            i * strides[0], i * strides[0] + dilation[0] * (window[0] - 1) + 1, dilation[0]
        )
        columns = slice(
            j * strides[1], j * strides[1] + dilation[1] * (window[1] - 1) + 1, dilation[1]
        )
        y[b, o, i, j] = np.sum(kernel[o] * x[b, first : first + into, rows, columns])
    return y


def along(axis: int, matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.moveaxis((matrix @ np.moveaxis(x, axis, -1)[..., None])[..., 0], -1, axis)


ROWS = np.array([2, 0, 2, -1])
FLAT = np.array([[0, 5], [5, -1], [3, 0]])
EDGES = (slice(1, None), slice(None, None, -2))
CONVOLUTION = {"strides": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2), "groups": 2}

CASES = [
    Case("zero", lambda: Zero((2,), (3, 2), F), lambda x: np.zeros(2)),
    Case("identity", lambda: Identity((3, 2), F), lambda x: x),
    Case("identity of a scalar", lambda: Identity((), F), lambda x: x),
    Case("diagonal", Diagonal, lambda d, x: d * x, (draw(3, 4),)),
    Case("diagonal of a scalar", Diagonal, lambda d, x: d * x, (draw(),)),
    Case("diagonal, empty", Diagonal, lambda d, x: d * x, (draw(0, 4),)),
    Case("reshape", lambda: Reshape((3, 4), (2, 6), F), lambda x: x.reshape(2, 6)),
    Case("reshape, empty", lambda: Reshape((0, 4), (2, 0), F), lambda x: x.reshape(2, 0)),
    Case(
        "permutation",
        lambda: Permutation((2, 0, -2), (2, 3, 4), F),
        lambda x: np.transpose(x, (2, 0, 1)),
    ),
    Case(
        "broadcast",
        lambda: Broadcast((3, 1), (2, 3, 4), F),
        lambda x: np.broadcast_to(x, (2, 3, 4)),
    ),
    Case(
        "broadcast of a scalar",
        lambda: Broadcast((), (2, 3), F),
        lambda x: np.broadcast_to(x, (2, 3)),
    ),
    Case("broadcast to empty", lambda: Broadcast((1, 3), (0, 3), F), lambda x: np.zeros((0, 3))),
    Case(
        "broadcast along the last",
        lambda: Broadcast((2,), (2, 3), F, [-1]),
        lambda x: np.outer(x, np.ones(3)),
    ),
    Case(
        "sum to a shape",
        lambda: Broadcast((3, 1), (2, 3, 4), F).T,
        lambda x: x.sum((0, 2))[:, None],
    ),
    Case("sum over an axis", lambda: sum_over((2, 3), 1, F), lambda x: x.sum(1)),
    Case("sum over all", lambda: sum_over((2, 3), None, F), lambda x: x.sum()),
    Case(
        "sum, axes kept",
        lambda: sum_over((2, 3, 4), (0, -1), F, keepdims=True),
        lambda x: x.sum((0, 2), keepdims=True),
    ),
    Case("sum of none", lambda: sum_over((0, 3), 0, F), lambda x: x.sum(0)),
    Case("mean", lambda: 0.25 * sum_over((3, 4), -1, F), lambda x: x.mean(-1)),
    Case("minus", lambda: -Identity((3,), F), lambda x: -x),
    Case("take rows", lambda i: Selection(i, (3, 2), F, axis=0), lambda i, x: x[i], (ROWS,)),
    Case(
        "take columns by a matrix",
        lambda i: Selection(i, (2, 6), F, axis=-1),
        lambda i, x: x[:, i],
        (FLAT,),
    ),
    Case(
        "take from the flat array",
        lambda i: Selection(i, (2, 3), F),
        lambda i, x: x.reshape(-1)[i],
        (FLAT,),
    ),
    Case("take nothing", lambda i: Selection(i, (3, 2), F, axis=0), lambda i, x: x[i], (ROWS[:0],)),
    Case("take one", lambda i: Selection(i, (3, 2), F, axis=0), lambda i, x: x[i], (ROWS[1],)),
    Case(
        "scatter", lambda i: scatter(i, (3, 2), F, axis=0), lambda i, x: added_at(i, 3, x), (ROWS,)
    ),
    Case("slice", lambda: Slice((3, 5), EDGES, F), lambda x: x[EDGES]),
    Case("slice of the first axis", lambda: Slice((3, 5), EDGES[:1], F), lambda x: x[1:]),
    Case("slice of nothing", lambda: Slice((3, 5), [slice(2, 2)], F), lambda x: x[2:2]),
    Case("flip", lambda: Slice((4,), [slice(None, None, -1)], F), lambda x: x[::-1]),
    Case("embedding", lambda: embedding(EDGES, (3, 5), F), lambda x: embed(EDGES, (3, 5), x)),
    Case(
        "blocks",
        BlockDiagonal,
        lambda blocks, x: np.einsum("abmn,abn->abm", blocks, x),
        (draw(2, 3, 4, 2),),
    ),
    Case("one block", BlockDiagonal, lambda blocks, x: blocks @ x, (draw(4, 2),)),
    Case(
        "softmax-like",
        lambda p: DiagonalPlusLowRank(p, -p[..., None], p[..., None]),
        lambda p, x: p * x - p * (p * x).sum(-1, keepdims=True),
        (draw(3, 4),),
    ),
    Case(
        "low rank",
        DiagonalPlusLowRank,
        lambda d, u, v, x: d * x + np.einsum("bnr,bmr,bm->bn", u, v, x),
        (draw(3, 4), draw(3, 4, 2), draw(3, 4, 2)),
    ),
    Case(
        "dense",
        lambda matrix: Dense(matrix, (2, 3), (4,)),
        lambda matrix, x: (matrix @ x).reshape(2, 3),
        (draw(6, 4),),
    ),
    Case(
        "dense, no input",
        lambda matrix: Dense(matrix, (2, 3), (0,)),
        lambda matrix, x: np.zeros((2, 3)),
        (draw(6, 0),),
    ),
    Case(
        "contraction",
        lambda a: Contraction("bmk,kbn->nbm", a, input_shape=(4, 2, 3)),
        lambda a, x: np.einsum("bmk,kbn->nbm", a, x),
        (draw(2, 3, 4),),
    ),
    Case(
        "contraction of two arrays",
        lambda a, b: Contraction("ij,bj,bj->ib", a, b, input_shape=(2, 4)),
        lambda a, b, x: np.einsum("ij,bj,bj->ib", a, b, x),
        (draw(3, 4), draw(2, 4)),
    ),
    Case(
        "kronecker",
        lambda a, b: Contraction("Aa,Bb,ab->AB", a, b, input_shape=(3, 5)),
        lambda a, b, x: a @ x @ b.T,
        (draw(2, 3), draw(4, 5)),
    ),
    Case(
        "kronecker of three",
        lambda a, b, c: Contraction("Aa,Bb,Cc,abc->ABC", a, b, c, input_shape=(3, 2, 2)),
        lambda a, b, c, x: np.einsum("ai,bj,ck,ijk->abc", a, b, c, x),
        (draw(2, 3), draw(3, 2), draw(1, 2)),
    ),
    Case("cumulative sum", lambda: CumulativeSum((3, 4), F, 0), lambda x: np.cumsum(x, 0)),
    Case(
        "cumulative sum from the end",
        lambda: CumulativeSum((3, 4), F, reverse=True),
        lambda x: np.cumsum(x[:, ::-1], -1)[:, ::-1],
    ),
    Case(
        "causal",
        lambda entries: LowerTriangular(entries, (3, 4), 0),
        lambda entries, x: along(0, np.tril(entries), x),
        (draw(3, 3),),
    ),
    Case(
        "causal, each row its own",
        lambda entries: LowerTriangular(entries, (2, 3, 4), 1),
        lambda entries, x: along(1, np.tril(entries), x),
        (draw(2, 4, 3, 3),),
    ),
    Case(
        "upper triangle",
        lambda entries: LowerTriangular(np.swapaxes(entries, -1, -2), (2, 3)).T,
        lambda entries, x: along(1, np.triu(entries), x),
        (draw(3, 3),),
    ),
    Case(
        "convolution",
        lambda kernel: Convolution(kernel, (2, 4, 5, 6), **CONVOLUTION),
        lambda kernel, x: convolve(kernel, x, **CONVOLUTION),
        (draw(6, 2, 3, 2),),
    ),
    Case(
        "convolution of a sequence",
        lambda kernel: Convolution(kernel, (1, 2, 5), padding=1),
        lambda kernel, x: convolve(
            kernel[:, :, None], x[:, :, None], (1, 1), ((0, 0), (1, 1)), (1, 1), 1
        )[:, :, 0],
        (draw(3, 2, 3),),
    ),
    Case(
        "convolution, window too large",
        lambda kernel: Convolution(kernel, (1, 1, 2), strides=3),
        lambda kernel, x: np.zeros((1, 1, 0)),
        (draw(1, 1, 5),),
    ),
    Case(
        "elementwise with broadcasting",
        lambda d: Diagonal(d) @ Broadcast((4,), (3, 4), F),
        lambda d, x: d * x,
        (draw(3, 4),),
    ),
    Case(
        "sum of operators",
        lambda d: 2 * (Diagonal(d) + Permutation((1, 0), (3, 3), F)),
        lambda d, x: 2 * (d * x + x.T),
        (draw(3, 3),),
    ),
]

_SHAPES = [
    ((3, 4), (4, 2)),
    ((4,), (4, 2)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((5, 1, 3, 4), (2, 4, 2)),
    ((1, 3, 4), (5, 4, 2)),
    ((2, 5, 3, 4), (4,)),
    ((4,), (2, 5, 4, 3)),
    ((1, 1, 4), (1, 4, 1)),
    ((0, 3, 4), (1, 4, 2)),
    ((3, 0), (0, 2)),
]
CASES += [
    case
    for a, b in _SHAPES
    for case in (
        Case(
            f"matmul {a} {b}, left fixed",
            lambda a, b=b: left_multiplication(a, b),
            lambda a, x: a @ x,
            (draw(*a),),
        ),
        Case(
            f"matmul {a} {b}, right fixed",
            lambda b, a=a: right_multiplication(b, a),
            lambda b, x: x @ b,
            (draw(*b),),
        ),
    )
]

every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def matrix_of(case: Case, operator: Operator) -> np.ndarray:
    """The matrix of the plain function, one column per input entry."""
    columns = [
        case.function(*case.arrays, e.reshape(operator.input_shape)).reshape(-1)
        for e in np.eye(math.prod(operator.input_shape))
    ]
    return np.stack(columns, axis=1) if columns else np.zeros(operator.shape)


@every_case
def test_is_its_matrix(case: Case) -> None:
    operator = case.build(*case.arrays)
    matrix = matrix_of(case, operator)
    x, y = draw(*operator.input_shape), draw(*operator.output_shape)

    assert operator.shape == matrix.shape
    assert operator.dtype == np.float64
    assert operator.dense_bytes == matrix.nbytes
    np.testing.assert_allclose(operator.to_dense(), matrix, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(
        operator @ x,
        (matrix @ x.reshape(-1)).reshape(operator.output_shape),
        rtol=1e-12,
        atol=1e-12,
    )
    np.testing.assert_allclose(operator.T.to_dense(), matrix.T, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(
        y @ operator, (y.reshape(-1) @ matrix).reshape(operator.input_shape), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(operator.T.T.to_dense(), matrix, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose((3 * operator).to_dense(), 3 * matrix, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose((-operator).apply(x), -operator.apply(x), rtol=1e-13, atol=0)


@every_case
def test_transpose_is_the_adjoint(case: Case) -> None:
    operator = case.build(*case.arrays)
    x, y = draw(*operator.input_shape), draw(*operator.output_shape)
    assert np.vdot(operator @ x, y) == pytest.approx(
        np.vdot(x, operator.T @ y), rel=1e-12, abs=1e-12
    )


@every_case
def test_pattern_is_where_its_matrix_is_nonzero(case: Case) -> None:
    operator = case.build(*case.arrays)
    expected = matrix_of(case, operator) != 0
    np.testing.assert_array_equal(operator.pattern.to_dense(), expected)
    np.testing.assert_array_equal(operator.T.pattern.to_dense(), expected.T)


@every_case
@pytest.mark.one_in(3)
def test_on_jax_with_traced_arrays(case: Case) -> None:
    expected = case.build(*case.arrays)
    x, y = draw(*expected.input_shape), draw(*expected.output_shape)

    def everything(arrays: Any, x: Any, y: Any) -> Any:
        operator = case.build(*arrays)
        return operator.apply(x), operator.T.apply(y), operator.to_dense()

    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        arguments = jax.tree.map(jnp.asarray, (case.arrays, x, y))
        image, pulled, dense = jax.tree.map(np.asarray, jax.jit(everything)(*arguments))
    np.testing.assert_allclose(image, expected @ x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(pulled, y @ expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dense, expected.to_dense(), rtol=1e-13, atol=1e-13)
    assert dense.dtype == image.dtype == pulled.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@every_case
def test_keeps_the_dtype(case: Case, dtype: Any) -> None:
    arrays = [a.astype(dtype) if a.dtype == np.float64 else a for a in case.arrays]
    operator = case.build(*arrays)
    x = np.ones(operator.input_shape, dtype)
    y = np.ones(operator.output_shape, dtype)
    assert operator.apply(x).dtype == dtype
    assert operator.T.apply(y).dtype == dtype


_EAGER = ["diagonal", "sum to a shape", "take rows", "scatter", "low rank", "convolution"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", [case for case in CASES if case.name in _EAGER])
def test_on_jax_eagerly(case: Case) -> None:
    expected = case.build(*case.arrays)
    x = draw(*expected.input_shape)
    with jax.enable_x64(True):
        operator = case.build(*map(jnp.asarray, case.arrays))
        image = operator @ jnp.asarray(x)
        dense = operator.to_dense()
        assert isinstance(image, jax.Array)
        assert operator.stored_bytes == expected.stored_bytes
        image, dense = np.asarray(image), np.asarray(dense)
    np.testing.assert_allclose(image, expected @ x, rtol=1e-12)
    np.testing.assert_allclose(dense, expected.to_dense(), rtol=1e-13)


def test_numpy_alone_loads_no_jax() -> None:
    program = """
import sys
import numpy as np
from gradlab.operators import Diagonal, Selection, sum_over
gradient = sum_over((3, 2), 0, float) @ Diagonal(np.ones((3, 2)))
gradient = gradient @ Selection([0, 2, 2], (3, 2), float, 0)
gradient.apply(np.ones((3, 2))), np.ones(2) @ gradient, gradient.to_dense()
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_numpy_operators_apply_to_jax_arrays() -> None:
    operator = Diagonal(np.ones(3, np.float32)) @ Selection([0, 2, 2], (3,), np.float32, axis=0)
    image = jax.jit(operator.apply)(jnp.arange(3, dtype=jnp.float32))
    assert image.tolist() == [0.0, 2.0, 2.0]


def test_operators_are_made_under_vmap() -> None:
    rows = jnp.arange(6, dtype=jnp.float32).reshape(2, 3)
    dense = jax.vmap(lambda d: (Diagonal(d) @ Diagonal(d)).to_dense())(rows)
    assert dense.shape == (2, 3, 3)
    assert float(dense[1, 2, 2]) == 25.0


def test_a_traced_index_has_an_unknown_pattern() -> None:
    operator = Selection(jnp.asarray([0, 1]), (3,), np.float32, axis=0)
    assert operator.pattern.nnz == 6


def test_jax_indices_out_of_bounds_are_adjoint_too() -> None:
    operator = Selection(jnp.asarray([0, 7]), (3,), np.float32, axis=0)
    np.testing.assert_array_equal(np.asarray(operator.to_dense()), [[1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(np.asarray(operator.T.to_dense()), [[1, 0], [0, 0], [0, 0]])


def test_an_infinite_factor_stays_in_its_place() -> None:
    np.testing.assert_array_equal(
        Diagonal(np.array([np.inf, 2.0])).to_dense(), np.diag([np.inf, 2])
    )


def test_a_convolution_is_its_definition_for_many_settings() -> None:
    for strides, low, dilation in product((1, 2), (0, 2), (1, 3)):
        setting = {
            "strides": (strides, 1),
            "padding": ((low, 1), (0, low)),
            "dilation": (1, dilation),
            "groups": 1,
        }
        kernel, x = draw(2, 3, 2, 2), draw(1, 3, 4, 5)
        expected = convolve(kernel, x, **setting)
        np.testing.assert_allclose(
            Convolution(kernel, x.shape, **setting) @ x, expected, atol=1e-12
        )
