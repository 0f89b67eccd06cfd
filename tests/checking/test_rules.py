"""Custom rules are found and held wherever JAX lets them be, with no reference to write."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking.evidence import Evidence


def rule(factor, primal=jnp.sin, slope=jnp.cos):
    """A custom_vjp of `primal` whose backward is off by `factor`."""

    @jax.custom_vjp
    def f(x):
        return primal(x)

    f.defvjp(lambda x: (primal(x), x), lambda x, g: (factor * g * slope(x),))
    return f


X = jnp.array([0.3, -1.2, 2.0], jnp.float32)


def under_jit(f):
    return jax.jit(f)


def under_vmap(f):
    return jax.vmap(f)


def under_scan(f):
    return lambda x: jax.lax.scan(lambda c, r: (c + f(r), f(c)), x[0], x)


def under_cond(f):
    return lambda x: jax.lax.cond(x.sum() > 0, f, lambda x: 2 * x, x)


def under_remat(f):
    return jax.checkpoint(f)


def in_a_closure(f):
    scale = jnp.float32(3.0)
    return lambda x: scale * f(x)


def with_nondiff_argnums(factor):
    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def f(x, power):
        return x**power

    f.defvjp(
        lambda x, power: (x**power, x),
        lambda power, x, g: (factor * g * power * x ** (power - 1),),
    )
    return lambda x: f(x, 3)


def with_symbolic_zeros(factor):
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(
        lambda x: (jnp.sin(x.value), x.value),
        lambda x, g: (factor * g * jnp.cos(x),),
        symbolic_zeros=True,
    )
    return f


def with_optimize_remat(factor):
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(
        lambda x: (jnp.sin(x), x), lambda x, g: (factor * g * jnp.cos(x),), optimize_remat=True
    )
    return f


def custom_jvp(factor):
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvps(lambda t, y, x: factor * t * jnp.cos(x))
    return f


def custom_gradient(factor):
    @jax.custom_gradient
    def f(x):
        return jnp.sin(x), lambda g: (factor * g * jnp.cos(x),)

    return f


PLACES = [under_jit, under_vmap, under_scan, under_cond, under_remat, in_a_closure]
KINDS = [
    with_nondiff_argnums,
    with_symbolic_zeros,
    with_optimize_remat,
    custom_jvp,
    custom_gradient,
]


@pytest.mark.parametrize("place", PLACES)
def test_a_rule_is_seen_wherever_it_is(place):
    assert gradlab.check(place(rule(1.0)), X).ok
    wrong = gradlab.check(place(rule(1.5)), X)
    assert wrong.failed and "formula" in {law.name for law in wrong.failed}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rule_is_held(kind):
    right, wrong = gradlab.check(kind(1.0), X), gradlab.check(kind(1.5), X)
    assert right.ok and "without its rule" in right.oracle
    assert wrong.failed
    diagnosed = any("factor 3/2" in finding.text for finding in wrong.findings)
    mended = any("factor" not in fix.after[0] for fix in wrong.fixes)
    assert diagnosed or mended, wrong


def test_a_rule_whose_backward_has_a_wrong_shape_is_a_failed_form():
    f = jax.custom_vjp(lambda x, b: x + b)
    f.defvjp(lambda x, b: (x + b, None), lambda _, g: (g, g))
    report = gradlab.check(f, jnp.ones((3, 4)), jnp.ones(4))
    assert [law.name for law in report.failed] == ["form"]
    assert "custom_vjp" in report.failed[0].reason.lower().replace(" ", "_")


def test_a_rule_around_a_loop_is_judged_by_finite_differences():
    """The primal iterates, so reverse mode cannot go through it."""

    def root(a):
        return jax.lax.while_loop(
            lambda s: jnp.any(jnp.abs(s * s - a) > 1e-12 * a), lambda s: (s + a / s) / 2, a
        )

    def of(factor):
        f = jax.custom_vjp(root)
        f.defvjp(lambda a: (root(a), root(a)), lambda y, g: (factor * g / (2 * y),))
        return f

    a = np.array([2.0, 3.0, 0.5])
    assert gradlab.check(of(1.0), a).ok
    assert gradlab.check(of(1.01), a).failed


def test_stop_gradient_estimators_fail_and_can_be_stated():
    def rounded(x):
        return x + jax.lax.stop_gradient(jnp.round(x) - x)

    x = jnp.array([0.3, 1.2, 4.4])
    report = gradlab.check(rounded, x)
    assert report.failed and "passes the upstream through" in report.diagnosis
    stated = gradlab.check(rounded, x, reference=rounded)
    assert stated.ok
    statuses = {law.name: law.status for law in stated.laws}
    assert statuses["finite differences"] in ("warned", "inconclusive")


def test_gradient_clipping_can_be_stated():
    f = jax.custom_vjp(lambda x: 3 * x)
    f.defvjp(lambda x: (3 * x, None), lambda _, g: (jnp.clip(3 * g, -1, 1),))
    x = jnp.array([0.3, 1.2, 4.4])
    report = gradlab.check(f, x)
    assert "linear" in [law.name for law in report.failed]
    assert "not linear" in report.diagnosis or "(3 * g,)" in report.fixes[0].after[0]
    assert gradlab.check(f, x, reference=f).ok


def test_autodiff_of_the_primal_may_be_what_is_wrong():
    """max + log1p(exp(-|x|)) has slope 1/2 at 0, where autodiff of it gives another number."""

    def primal(x):
        return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))

    f = jax.custom_vjp(primal)
    f.defvjp(lambda x: (primal(x), x), lambda x, g: (g * jax.nn.sigmoid(x),))
    report = gradlab.check(f, jnp.array([0.0, 1.0, -2.0]))
    formula = next(law for law in report.laws if law.name == "formula")
    assert report.ok, report
    assert "at x[0] autodiff gives" in formula.reason


def test_a_kink_is_passed_and_named():
    f = jax.custom_vjp(lambda x: jnp.maximum(x, 0))
    f.defvjp(lambda x: (jnp.maximum(x, 0), x), lambda x, g: (jnp.where(x > 0, g, 0),))
    report = gradlab.check(f, jnp.array([0.0, 1.0, -1.0]))
    assert report.ok
    assert "kink at x[0]" in next(law for law in report.laws if law.name == "formula").reason


def test_tied_maxima_share_one_upstream():
    """Each value lies between its slopes, and together they are still no gradient."""

    def of(share):
        f = jax.custom_vjp(lambda x: x.max())
        f.defvjp(lambda x: (x.max(), x), lambda x, g: (g * (x == x.max()) / (share(x)),))
        return f

    x = jnp.array([3.0, 1.0, 3.0])
    assert gradlab.check(of(lambda x: (x == x.max()).sum()), x).ok
    assert gradlab.check(of(lambda x: 1), x).failed


def test_a_nan_from_the_branch_not_taken_is_found_without_any_rule():
    report = gradlab.check(
        lambda x: jnp.where(x > 1, jnp.sqrt(x - 1), x), jnp.array([1.0, 2.0, 0.5])
    )
    assert report.failed
    assert report.worst.index == (0,)


def test_zero_against_zero_is_no_evidence():
    """A converged loss has a zero gradient whatever its rule; it is judged close by instead."""

    def of(factor):
        f = jax.custom_vjp(lambda x, t: ((x - t) ** 2).sum())
        f.defvjp(
            lambda x, t: (((x - t) ** 2).sum(), x - t),
            lambda d, g: (2 * factor * g * d, -2 * factor * g * d),
        )
        return f

    x = jnp.array([1.0, 2.0])
    assert gradlab.check(of(1.0), x, x).ok
    wrong = gradlab.check(of(0.5), x, x)
    assert not wrong.ok
    with pytest.raises(gradlab.GradientUndecided):
        gradlab.assert_gradients(of(0.5), x, x)


def test_second_order_is_checked_when_asked():
    f = jax.custom_vjp(lambda x: x**3)
    f.defvjp(
        lambda x: (x**3, jax.lax.stop_gradient(3 * x * x)),
        lambda s, g: (g * jax.lax.stop_gradient(s),),
    )
    x = jnp.array([1.0, 2.0])
    assert gradlab.check(f, x).ok
    assert [law.name for law in gradlab.check(f, x, order=2).failed] == ["second order"]
    assert gradlab.check(
        lambda x: jnp.sin(x) * x, x, reference=lambda x: x * jnp.sin(x), order=2
    ).ok


def test_samples_find_what_special_inputs_hide():
    """A weight that is used twice does not show while all weights are one."""
    f = jax.custom_vjp(lambda x, w: x * w)
    f.defvjp(lambda x, w: (x * w, (x, w)), lambda r, g: (g * r[1] ** 2, g * r[0]))
    x, w = jnp.array([1.0, 2.0]), jnp.ones(2)
    assert gradlab.check(f, x, w, branches=False).ok
    assert gradlab.check(f, x, w, branches=False, samples=2).failed


def test_a_pallas_kernel_with_a_wrong_backward():
    pallas = pytest.importorskip("jax.experimental.pallas")

    def kernel(x_ref, o_ref):
        o_ref[...] = jnp.tanh(x_ref[...])

    def run(x):
        return pallas.pallas_call(
            kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True
        )(x)

    def of(factor):
        f = jax.custom_vjp(run)
        f.defvjp(lambda x: (run(x), x), lambda x, g: (factor * g * (1 - jnp.tanh(x) ** 2),))
        return f

    x = jnp.array([[0.3, -0.7], [1.1, 0.2]], jnp.float32)
    assert gradlab.check(of(1.0), x).ok
    assert gradlab.check(of(1.1), x).failed
    assert gradlab.check(of(1.0), x, reference=jnp.tanh).ok


def test_a_rule_that_refuses_float64_is_checked_in_float32():
    def kernel(x):
        if x.dtype != jnp.float32:
            raise TypeError("float32 only")
        return jnp.sin(x)

    f = jax.custom_vjp(kernel)
    f.defvjp(lambda x: (kernel(x), x), lambda x, g: (g * jnp.cos(x),))
    report = gradlab.check(f, np.array([0.5, 1.5]))
    assert report.ok and report.dtypes == ("float32",)
    assert any("refuses float64" in note for note in report.notes)


def test_integers_of_numpy_beside_float32():
    table = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
    rows = np.array([0, 4, 0, 2])
    assert rows.dtype == np.int64
    assert gradlab.check(lambda table, rows: table[rows], table, rows).ok


@pytest.mark.parametrize(("factor", "draws"), [(1.0, {12}), (1 + 1e-14, {12, 120})])
def test_a_verdict_of_wrong_that_is_close_is_settled_with_more_draws(factor, draws, monkeypatch):
    asked, drawn = set(), Evidence.drawn

    def noting(self, count):
        asked.add(count)
        return drawn(self, count)

    monkeypatch.setattr(Evidence, "drawn", noting)
    report = gradlab.check(rule(factor), np.array([0.3, -1.2, 2.0]))
    assert asked == draws, report
