"""Layers of a hundred thousand entries: right ones pass, and one wrong entry is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking import points
from gradlab.references import evaluation
from gradlab.tracing import trace
from gradlab.tracing.work import work

pytestmark = pytest.mark.usefixtures("verdict_alone")

RNG = np.random.default_rng(0)
N = 120_000
X = RNG.normal(size=N).astype(np.float32)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(jnp.tanh, marks=pytest.mark.slow),
        jax.nn.relu,
        lambda x: jax.nn.softmax(x.reshape(-1, 100)),
        pytest.param(lambda x: jnp.cumsum(x.reshape(-1, 100), 1), marks=pytest.mark.slow),
        lambda x: (x * x).mean(),
    ],
    ids=["tanh", "relu", "softmax", "cumsum", "mean"],
)
def test_a_plain_function_is_right(function):
    report = gradlab.check(function, X)
    assert report.ok, report
    assert report.oracle.startswith("finite differences")
    assert all(leaf.right > 0.9 * N for leaf in report.leaves)


def square(x):
    return np.sin(x) * x


def slope(g, x):
    return g * (np.sin(x) + x * np.cos(x))


def test_a_layer_in_numpy_is_right():
    assert gradlab.check(square, X.astype(np.float64), backward=slope).ok


def test_one_wrong_entry_of_a_layer_in_numpy_is_named():
    def off(g, x):
        gradient = slope(g, x)
        gradient[98_765] *= 1.01
        return gradient

    report = gradlab.check(square, X.astype(np.float64), backward=off)
    assert report.worst.index == (98_765,)
    assert report.leaves[0].wrong == 1


def test_one_wrong_entry_of_a_rule_is_named():
    layer = jax.custom_vjp(lambda x, w: jnp.tanh(x @ w))
    layer.defvjp(
        lambda x, w: ((y := jnp.tanh(x @ w)), (x, w, y)),
        lambda r, g: ((d := g * (1 - r[2] ** 2)) @ r[1].T, (r[0].T @ d).at[7, 300].multiply(1.001)),
    )
    x, w = RNG.normal(size=(4, 320)), RNG.normal(size=(320, 320)) / 25
    report = gradlab.check(layer, *(a.astype(np.float32) for a in (x, w)))
    assert (report.worst.path, report.worst.index) == ("w", (7, 300))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mean_that_divides_by_one_less_is_wrong(dtype):
    """Off by 3e-6 everywhere: an approximation to float32 would not err alike in all entries."""
    mean = jax.custom_vjp(lambda x: jnp.mean(x))
    mean.defvjp(lambda x: (jnp.mean(x), None), lambda _, g: (jnp.full(N, g / (N - 1)),))
    report = gradlab.check(mean, X.astype(dtype))
    assert report.failed, report
    assert report.leaves[0].wrong == N


def test_a_small_input_beside_a_large_one_is_judged_entry_by_entry():
    scale = np.array([0.5, -2.0, 1.5], np.float32)
    report = gradlab.check(lambda x, s: jnp.tanh(x.reshape(-1, 3) * s), X, scale)
    assert report.ok and [leaf.right for leaf in report.leaves][1] == 3


def test_inputs_that_lie_in_jax_keep_float64_where_numpy_interprets(monkeypatch):
    monkeypatch.setattr(evaluation, "pays_to_compile", lambda work: True)
    monkeypatch.setattr(points, "pays_to_compile", lambda work: False)
    f = jax.custom_jvp(jnp.tanh)
    f.defjvps(lambda t, y, x: t * (1 - y * y))
    report = gradlab.check(f, X)
    assert report.ok and not report.undecided, report


def test_a_wide_decomposition_is_run_seldom(monkeypatch):
    """Each takes milliseconds; a wrong entry is found all the same."""
    rows = []

    def counted(self, values, moved):
        rows.append(len(next(iter(moved.values()))))
        return called(self, values, moved)

    called = points.Points.__call__
    monkeypatch.setattr(points.Points, "__call__", counted)
    x = np.random.default_rng(0).standard_normal((7, 200))
    assert gradlab.check(jnp.linalg.pinv, x).ok
    assert sum(rows) < 2000

    def frozen(x):
        return jnp.linalg.pinv(x.at[3, 50].set(jax.lax.stop_gradient(x[3, 50])))

    assert gradlab.check(frozen, x).leaves[0].wrong == 1


def test_work_counts_what_decompositions_take():
    x = jnp.ones((3, 20, 30))
    iterates = work(trace(jnp.linalg.svdvals, x).jaxpr).decomposed
    assert iterates == 16 * x.size * 20
    direct = work(trace(jnp.linalg.cholesky, x[..., :20]).jaxpr).decomposed
    assert direct == 4 * 3 * 20**3
    assert work(trace(lambda x: x @ x[0].T, x).jaxpr).decomposed == 0
