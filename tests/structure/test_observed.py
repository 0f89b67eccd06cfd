"""Observed properties against closed forms, those that hold and those that almost hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.structure import jacobian

DRAW = np.random.default_rng(0)
X = DRAW.standard_normal(20).astype(np.float32)
ROWS = DRAW.standard_normal((3, 20)).astype(np.float32)
A = DRAW.standard_normal((20, 20)).astype(np.float32)
Q = np.linalg.qr(A)[0]
U, V = A[:, :2], A[:, 2:4]


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def shown(function, x=X):
    (facts,) = jacobian(function, x).observe().observed.values()
    return {fact.name for fact in facts}


HOLDS = {
    "matrix": (lambda x: A @ x, X, {"constant"}),
    "identity": (lambda x: x + 0, X, {"constant", "identity"}),
    "inverse": (lambda x: jnp.real(jnp.fft.ifft(jnp.fft.fft(x))), X, {"constant", "identity"}),
    "scaled": (lambda x: -2.5 * x, X, {"constant", "scaled identity"}),
    "tanh": (jnp.tanh, X, set()),
    "zero": (lambda x: x * jnp.zeros(20) + 1, X, {"constant", "zero"}),
    "even": (lambda x: (A + A.T) @ x, X, {"constant", "symmetric"}),
    "orthogonal": (lambda x: Q @ x, X, {"constant", "orthogonal"}),
    "flip": (lambda x: x[::-1], X, {"constant", "symmetric", "orthogonal"}),
    "convolution": (
        lambda x: jnp.convolve(x, np.array([1, 2, 4], np.float32), mode="same"),
        X,
        {"constant", "toeplitz"},
    ),
    "wide convolution": (
        lambda x: jnp.convolve(x, np.array([1, 2, 4], np.float32), mode="valid"),
        X,
        {"constant", "toeplitz"},
    ),
    "cumulative": (jnp.cumsum, X, {"constant", "toeplitz"}),
    "low rank": (lambda x: x * x * X + U @ (V.T @ x), X, {"diagonal plus low rank"}),
    "softmax": (jax.nn.softmax, X, {"symmetric", "diagonal plus low rank"}),
    "softmax of rows": (jax.nn.softmax, ROWS, {"symmetric", "diagonal plus low rank"}),
    "layer norm": (layer_norm, ROWS, {"symmetric", "diagonal plus low rank"}),
    "hessian": (jax.grad(lambda x: jnp.sin(A @ x).sum()), X, {"symmetric"}),
}


@pytest.mark.parametrize("name", HOLDS)
def test_what_holds_is_shown_and_nothing_else(name):
    function, x, facts = HOLDS[name]
    assert shown(function, x) == facts


NEARLY = {
    "symmetric": (A + A.T) * (1 + 1e-4 * np.tri(20, k=-1)),
    "orthogonal": Q * (1 + 1e-2 * np.eye(20)),
    "identity": np.eye(20) + 1e-5 * np.diag(np.arange(19), 1),
    "scaled identity": np.diag(2 + 1e-4 * np.arange(20)),
    "toeplitz": np.tri(20) + 1e-4 * np.diag(np.arange(20)),
    "diagonal plus low rank": np.diag(X) + U @ V.T + 1e-3 * A,
}


@pytest.mark.parametrize("name", NEARLY)
def test_what_nearly_holds_is_not_shown(name):
    matrix = NEARLY[name].astype(np.float32)
    assert shown(lambda x: matrix @ x) == {"constant"}


def test_a_map_that_is_linear_only_here_is_not_constant():
    assert shown(jax.nn.relu, np.ones(20, np.float32)) == {"identity"}


def test_the_rank_and_the_blocks_are_said():
    (facts,) = jacobian(layer_norm, ROWS).observe().observed.values()
    assert facts[-1].detail == "a diagonal plus rank 2 in each of 3 blocks"


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, np.float64])
def test_each_dtype_is_held_to_its_own_rounding(dtype):
    assert shown(jnp.cumsum, np.ones(6, dtype)) == {"constant", "toeplitz"}
    tilted = np.asarray(np.tri(6) + np.diag(np.arange(6) / 4), dtype)
    assert shown(lambda x: tilted @ x, np.ones(6, dtype)) == {"constant"}


def test_nothing_is_shown_where_an_entry_is_not_finite():
    assert shown(jnp.sqrt, np.zeros(4, np.float32)) == set()


def test_what_is_shown_is_said_and_kept_apart_from_what_is_proved():
    report = jacobian(lambda x, y: (A @ x, x * y), X, X).observe()
    assert report.evidence == "proved"
    assert "observed  d output[0] / d x: constant: the same at 3 points" in str(report)
    said = report.to_dict()["observed"]
    assert {(fact["output"], fact["input"], fact["name"]) for fact in said} >= {
        ("output[0]", "x", "constant"),
        ("output[0]", "y", "zero"),
    }
    assert jacobian(jnp.tanh, X).entries is None
