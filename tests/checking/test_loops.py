"""Primals that iterate until they have converged: right in the digits of their own dtype alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.ode import odeint

import gradlab

pytestmark = pytest.mark.usefixtures("verdict_alone")


def series(x):
    """Return exp(x), summed until the next term is below the dtype's precision."""
    eps = jnp.finfo(x.dtype).eps

    def step(state):
        total, term, k = state
        term = term * x / k
        return total + term, term, k + 1

    return jax.lax.while_loop(
        lambda s: jnp.any(jnp.abs(s[1]) > eps * jnp.abs(s[0])),
        step,
        (jnp.ones_like(x), jnp.ones_like(x), jnp.ones((), x.dtype)),
    )[0]


def ruled(factor):
    f = jax.custom_jvp(series)
    f.defjvp(lambda x, t: (series(x[0]), factor * series(x[0]) * t[0]))
    return f


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        pytest.param([0.15, 0.35, 0.225], np.float32, marks=pytest.mark.slow),
        ([1e-3, 2e-5, 3e-4], np.float64),
        ([2.0, -1.0, 0.5], np.float32),
        pytest.param([2.0, -1.0, 0.5], np.float64, marks=pytest.mark.slow),
    ],
)
def test_a_series_cut_where_its_dtype_ends_accuses_no_rule(values, dtype):
    assert gradlab.check(ruled(1.0), np.array(values, dtype)).ok
    wrong = gradlab.check(ruled(1.1), np.array(values, dtype), branches=False, prove=False)
    assert wrong.failed


@pytest.mark.slow
def test_hyp1f1_of_jax_is_right_and_its_parameters_only_up_to_250_terms():
    """Confirmed with mpmath: d/da and d/db are cut after 250 terms, which x > 150 needs."""
    from jax.scipy.special import hyp1f1

    x = jnp.array([0.3, 0.7, 0.45], jnp.float32)
    assert gradlab.audit(hyp1f1, x, x + 0.2, x / 2).ok
    with jax.enable_x64(True):
        a, b, x, step = 1.3, 2.2, 300.0, 1e-5
        ahead, behind = float(hyp1f1(a + step, b, x)), float(hyp1f1(a - step, b, x))
        given = float(jax.grad(hyp1f1)(a, b, x))
    slope = (ahead - behind) / (2 * step)
    assert abs(given / slope - 1) > 0.5  # when this fails, JAX has mended it


def implicit(solve, factor):
    """Return x = cos(a x) with the exact solution's derivative, times a factor."""

    def backward(kept, g):
        a, x = kept
        return (-factor * g * jnp.sin(a * x) * x / (1 + a * jnp.sin(a * x)),)

    rule = jax.custom_vjp(solve)
    rule.defvjp(lambda a: ((x := solve(a)), (a, x)), backward)
    return rule


def until_close(a):
    """Stop where an iteration changes x by less than 1e-2."""
    far = jnp.full_like(a, 10.0), jnp.full_like(a, 0.5)
    return jax.lax.while_loop(
        lambda two: jnp.max(jnp.abs(two[1] - two[0])) > 1e-2,
        lambda two: (two[1], jnp.cos(a * two[1])),
        far,
    )[1]


def eight_times(a):
    return jax.lax.fori_loop(0, 8, lambda i, x: jnp.cos(a * x), jnp.full_like(a, 0.5))


@pytest.mark.parametrize("solve", [until_close, eight_times])
def test_a_rule_for_the_exact_solution_is_judged_by_the_loop_that_runs_on(solve):
    a = np.array([0.3, 0.5, 0.7])
    report = gradlab.check(implicit(solve, 1.0), a)
    assert report.ok and report.leaves[0].right == 3, report
    report = gradlab.check(implicit(solve, 1.003), a)
    assert report.status == "wrong" and report.leaves[0].wrong == 3, report


@pytest.mark.parametrize(
    ("factor", "status"), [(1.0, "right"), pytest.param(1.01, "wrong", marks=pytest.mark.slow)]
)
def test_a_solver_with_adaptive_steps_is_confirmed_by_slopes(factor, status):
    """Its loop ends by a tolerance, so autodiff of it is no more exact than that."""

    def solved(y):
        return odeint(lambda y, t: -0.7 * y + jnp.sin(t), y, jnp.array([0.0, 0.3]))

    def adjoint(y, upstream):
        return (factor * jax.vjp(solved, y)[1](upstream)[0],)

    rule = jax.custom_vjp(solved)
    rule.defvjp(lambda y: (solved(y), y), adjoint)
    assert gradlab.check(rule, jnp.array([0.7]), branches=False, prove=False).status == status


def newton(a):
    """Return the square root of `a`; of a negative number it never ends."""
    x = a.copy()
    while True:
        following = 0.5 * (x + a / x)
        if np.abs(following - x).max() < 1e-12:
            return following
        x = following


def test_a_loop_of_the_users_python_that_never_ends_elsewhere_is_left():
    a = np.array([2.0, 3.0, 0.5])
    assert gradlab.check(newton, a, backward=lambda g, a: g / (2 * newton(a))).ok


def test_a_wrong_implicit_rule_is_explained_where_its_loop_may_never_end():
    @jax.custom_vjp
    def root(a):
        def step(state):
            return 0.5 * (state[0] + a / state[0]), state[0]

        return jax.lax.while_loop(
            lambda s: jnp.max(jnp.abs(s[0] - s[1])) > 1e-3, step, (a, jnp.zeros_like(a))
        )[0]

    root.defvjp(lambda a: (root(a), root(a)), lambda x, g: (g / x,))
    assert gradlab.check(root, jnp.asarray([2.0, 9.0, 0.3])).status == "wrong"


def test_a_symmetric_system_solved_by_iteration_stays_symmetric():
    def solved(a, b):
        def solve(product, b):
            return jax.scipy.sparse.linalg.cg(product, b, tol=1e-7, maxiter=50)[0]

        return jax.lax.custom_linear_solve(lambda x: a @ x + 5 * x, b, solve, symmetric=True)

    rng = np.random.default_rng(4)
    half = rng.normal(size=(4, 4))
    report = gradlab.check(solved, half @ half.T, rng.normal(size=4), wrt=1, prove=False)
    assert report.ok, report
