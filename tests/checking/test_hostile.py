"""Switches of the user, callbacks, refusals and odd inputs: a check runs, or says what to do."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking.probes import Dropped

X = np.array([0.5, 1.2, 2.0])


def with_rule(f, slope, *, vjp=jax.custom_vjp):
    rule = vjp(f)
    rule.defvjp(lambda x: (rule(x), x), lambda x, g: (g * slope(x),))
    return rule


sine = with_rule(jnp.sin, jnp.cos)
wrong = with_rule(jnp.sin, lambda x: 1.01 * jnp.cos(x))

SWITCHES = {
    "disable_jit": jax.disable_jit,
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "checking_leaks": jax.checking_leaks,
    "enable_checks": lambda: jax.enable_checks(True),
    "errstate": lambda: np.errstate(all="raise"),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_users_switch_changes_no_verdict_and_is_left_as_it_was(switch):
    x = jnp.asarray(X, jnp.float32)
    before = np.geterr()
    with SWITCHES[switch]():
        state = jax.config.jax_disable_jit, jax.config.jax_debug_nans
        assert gradlab.check(sine, x).ok and gradlab.audit(sine, x).ok
        assert not gradlab.check(wrong, x).ok
        assert state == (jax.config.jax_disable_jit, jax.config.jax_debug_nans)
    assert np.geterr() == before


def test_jax_does_not_check_every_trace_that_gradlab_makes():
    """A user's own switch, which costs a tenth of a check's time."""
    seen = []

    def watched(x):
        seen.append(jax.config.jax_enable_checks)
        return jnp.sin(x)

    with jax.enable_checks(True):
        assert gradlab.check(watched, X).ok
    assert seen and not any(seen)


def test_with_warnings_as_errors_an_infinite_input_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = gradlab.check(
            lambda x: np.exp(-x),
            np.array([np.inf, 1.0]),
            backward=lambda g, x: -g * np.exp(-x),
        )
    assert not report.failed


TRACED = {
    "check": lambda x: gradlab.check(sine, x),
    "a leaf": lambda x: gradlab.check(lambda p: sine(p["a"]), {"a": x}),
    "closed over": lambda x: gradlab.check(lambda y: x * y, X),
    "backward": lambda x: gradlab.check(jnp.sin, x, backward=lambda g, x: g * jnp.cos(x)),
    "backward closes": lambda x: gradlab.check(
        jnp.sin, X, backward=lambda g, y: g * jnp.cos(y) + 0 * x
    ),
    "reference closes": lambda x: gradlab.check(sine, X, reference=lambda y: jnp.sin(y) + 0 * x),
    "assert_gradients": lambda x: gradlab.assert_gradients(sine, x),
    "audit": lambda x: gradlab.audit(sine, x),
    "audit closes": lambda x: gradlab.audit(lambda y: sine(y) * x, X),
    "precision": lambda x: gradlab.precision(sine, x, dtypes=["float32"]),
    "precision closes": lambda x: gradlab.precision(lambda y: y * x, X, dtypes=["float32"]),
}


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_what_is_traced_has_no_values_to_check(transform, name):
    def inside(x):
        TRACED[name](x)
        return jnp.sum(x) if transform is jax.grad else x

    x = jnp.ones((2, 3)) if transform is jax.vmap else jnp.ones(3)
    with pytest.raises(gradlab.InputError, match="traced by jit, vmap or grad") as raised:
        transform(inside)(x)
    assert "outside of them" in str(raised.value)


def callback(function, x, **options):
    return jax.pure_callback(function, jax.ShapeDtypeStruct(x.shape, x.dtype), x, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_a_callback_gets_all_digits_of_its_input(dtype):
    """JAX hands a callback float32 where x64 is on in one thread alone."""
    seen = []

    def on_host(x):
        seen.append(np.asarray(x).dtype)
        return np.sin(np.asarray(x))

    f = with_rule(lambda x: callback(on_host, x, vmap_method="broadcast_all"), jnp.cos)
    x = X.astype(dtype) if dtype != "complex128" else X + 0.5j
    report = gradlab.check(f, x if dtype != "float32" else jnp.asarray(x), reference=jnp.sin)
    assert report.ok, report
    assert set(map(str, seen)) == {dtype}


def test_a_callback_without_a_batching_rule_is_not_wrong():
    f = with_rule(lambda x: callback(lambda v: np.sin(np.asarray(v)), x), jnp.cos)
    report = gradlab.check(f, jnp.asarray(X, jnp.float32), reference=jnp.sin)
    assert report.ok, report
    (law,) = (law for law in report.laws if law.name == "transforms")
    assert law.status == "inconclusive" and "vmap" in law.reason


def only_positive(x):
    if not (np.asarray(x) > 0).all():
        raise ValueError("the logarithm needs positive numbers")
    return np.log(np.asarray(x))


def test_an_input_that_gradlab_made_and_the_function_refuses_is_left_out_with_a_note():
    f = with_rule(lambda x: callback(only_positive, x, vmap_method="sequential"), lambda x: 1 / x)
    x = jnp.asarray([1e-3, 2.0], jnp.float32)
    report = gradlab.check(f, x, reference=jnp.log)
    assert report.ok, report
    assert any("the logarithm needs positive numbers" in note for note in report.notes)
    f = with_rule(lambda x: callback(only_positive, x, vmap_method="sequential"), lambda x: 2 / x)
    assert gradlab.check(f, x, reference=jnp.log).failed


def test_a_numpy_layer_that_refuses_zero_is_judged_where_it_runs():
    def inverse(x):
        if (x <= 0.9).any():
            raise ArithmeticError("x is too small")
        return 1 / x

    x = np.array([1.0, 2.0])
    assert gradlab.check(inverse, x, backward=lambda g, x: -g / x**2).ok
    assert not gradlab.check(inverse, x, backward=lambda g, x: -g / x).ok


def test_memory_that_runs_out_is_no_fault_of_a_point():
    def compute():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    with pytest.raises(jax.errors.JaxRuntimeError):
        Dropped("f").attempt(compute)


def test_a_float32_carry_in_a_backward_is_no_error():
    cumsum = jax.custom_vjp(lambda x: jnp.cumsum(x))

    def backward(_, g):
        zero = jnp.zeros((), jnp.float32)
        return (jax.lax.scan(lambda s, v: (s + v, s + v), zero, g, reverse=True)[1],)

    cumsum.defvjp(lambda x: (cumsum(x), None), backward)
    assert gradlab.check(cumsum, jnp.asarray(X, jnp.float32)).ok


def leaky(kind):
    @functools.partial(kind, nondiff_argnums=(1,))
    def rectified(x, slope):
        return jnp.where(x > 0, x, slope * x)

    return rectified


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_number_in_nondiff_argnums_stays_a_number(factor):
    f = leaky(jax.custom_vjp)
    f.defvjp(lambda x, a: (f(x, a), x), lambda a, x, g: (jnp.where(x > 0, g, factor * a * g),))
    report = gradlab.check(f, np.array([0.3, -2.0]), 0.1)
    assert report.ok is (factor == 1.0), report
    assert gradlab.check(f, np.array([0.3, -2.0]), np.array(0.1), wrt=0).ok is (factor == 1.0)


def test_a_python_number_beside_float32_may_have_a_float32_gradient():
    x = jnp.asarray([1.0, -2.0], jnp.float32)
    right = gradlab.check(
        lambda x, a: x * a, x, 0.5, backward=lambda g, x, a: (g * a, (g * x).sum())
    )
    assert right.ok, right
    off = gradlab.check(lambda x, a: x * a, x, 0.5, backward=lambda g, x, a: (g * a, g.sum()))
    assert off.failed


def test_a_loss_that_returns_its_own_gradient_is_held_against_autodiff():
    rng = np.random.default_rng(0)
    w, x, y = rng.normal(size=3), rng.normal(size=(5, 3)), rng.normal(size=5)

    def loss(w, factor=1.0):
        rest = x @ w - y
        return 0.5 * (rest @ rest), factor * (x.T @ rest)

    assert gradlab.check(loss, w, returns="output+gradients").ok
    assert gradlab.check(lambda w: loss(w, 2.0), w, returns="output+gradients").failed


def test_a_gradient_of_a_wrong_shape_is_a_verdict():
    x, w = np.arange(12.0).reshape(3, 4), np.arange(8.0).reshape(4, 2)
    report = gradlab.check(
        lambda x, w: x @ w, x, w, backward=lambda g, x, w: (g @ w.T, x.sum(axis=1))
    )
    assert not report.ok and "form" in [law.name for law in report.failed]


class Foreign:
    """An array of some other library."""

    shape, dtype = (2,), "float32"

    def __array__(self, dtype=None, copy=None):
        return np.ones(2)


@pytest.mark.parametrize(
    ("value", "error", "remedy"),
    [
        (Foreign(), gradlab.InputTypeError, "numpy.asarray"),
        ({"w": Foreign()}, gradlab.InputTypeError, r"x\['w'\]"),
        (np.zeros(2, np.longdouble), gradlab.InputError, "astype"),
        (np.zeros(2, np.clongdouble), gradlab.InputError, "complex128"),
    ],
    ids=["foreign", "inside", "longdouble", "clongdouble"],
)
def test_an_array_that_jax_has_not_is_refused_with_the_remedy(value, error, remedy):
    with pytest.raises(error, match=remedy):
        gradlab.check(lambda x: x, value)
    with pytest.raises(error, match=remedy):
        gradlab.audit(lambda x: x, value)


def doubled(x):
    return jax.lax.while_loop(lambda s: jnp.sum(s) < 100, lambda s: 2 * s, x)


def test_what_reverse_mode_cannot_run_is_not_failed():
    report = gradlab.check(doubled, np.array([1.0, 3.0]))
    assert not report.failed and not report.ok
    assert "while" in report.laws[0].reason


def test_what_jax_refuses_of_a_rule_is_failed():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (f(x), x), lambda x, g: (jnp.sum(g * jnp.cos(x)),))
    assert gradlab.check(f, X).failed


def test_a_linear_call_is_right_though_it_cannot_be_batched():
    def triple(x, back):
        return jax.custom_derivatives.linear_call(
            lambda k, t: k * t, lambda k, t: back * t, jnp.full_like(x, 3.0), x
        )

    assert gradlab.check(lambda x: triple(x, 3.0), X).ok
    assert not gradlab.check(lambda x: triple(x, 2.0), X).ok
