"""Each law fails for a rule that breaks it alone, and passes for its right twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import SymbolicZero

import gradlab
from gradlab.checking.laws.book import LAWS
from gradlab.checking.laws.linearity import _differs

pytestmark = pytest.mark.usefixtures("verdict_alone")

X, Y = np.array([0.5, 1.2, -0.7]), np.array([2.0, -1.0, 3.0])


def law(report, name):
    return next(each for each in report.laws if each.name == name)


def failed(report):
    return [each.name for each in report.failed]


def test_the_book_says_of_each_law_what_it_claims_and_needs():
    names = [row.name for row in LAWS]
    assert len(set(names)) == len(names) == 13
    assert all(row.hold.__doc__.startswith("Hold ") for row in LAWS)
    assert all(need.otherwise for row in LAWS for need in row.needs)


# linear


@pytest.mark.parametrize("least", [1e-3, 1e-5, 0.0])
def test_a_numpy_backward_that_drops_small_upstreams_is_not_linear(least):
    def backward(g, x):
        return np.where(np.abs(g) < least, 0.0, g) * np.cos(x)

    report = gradlab.check(np.sin, X, backward=backward)
    assert failed(report) == (["linear"] if least else []), report


@pytest.mark.parametrize("most", [1e3, 1e5, np.inf])
def test_a_backward_that_clips_large_upstreams_is_not_linear(most):
    report = gradlab.check(np.sin, X, backward=lambda g, x: np.clip(g, -most, most) * np.cos(x))
    assert failed(report) == ([] if most == np.inf else ["linear"]), report


def test_a_right_backward_that_rounds_to_float16_inside_is_linear():
    def backward(g, x):
        return (g.astype(np.float16) * np.cos(x).astype(np.float16)).astype(x.dtype)

    report = gradlab.check(np.sin, X.astype(np.float32), backward=backward)
    assert law(report, "linear").status == "passed", law(report, "linear")


def of_two(right):
    @jax.custom_vjp
    def pair(x):
        return jnp.sin(x), x * x

    def backward(x, upstream):
        g, h = upstream
        whole = g * jnp.cos(x) + 2 * x * h
        return (whole if right else jnp.where(jnp.any(h != 0), whole, 0.0),)

    pair.defvjp(lambda x: (pair(x), x), backward)
    return pair


@pytest.mark.parametrize("right", [True, False])
def test_an_upstream_of_zero_for_one_output_is_asked(right):
    assert failed(gradlab.check(of_two(right), X)) == ([] if right else ["linear"])


@pytest.mark.parametrize("right", [True, False])
def test_zeros_in_some_entries_of_an_upstream_are_asked(right):
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(
        lambda x: (f(x), x),
        lambda x, g: (g * jnp.cos(x) * (1.0 if right else jnp.all(g != 0)),),
    )
    assert failed(gradlab.check(f, X)) == ([] if right else ["linear"])


@pytest.mark.parametrize("right", [True, False])
def test_a_rule_that_is_told_of_symbolic_zeros_is_asked_for_each_input_alone(right):
    @jax.custom_jvp
    def multiply(x, y):
        return x * y

    def rule(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        if isinstance(dy, SymbolicZero):
            return x * y, dx * (y if right else x)
        if isinstance(dx, SymbolicZero):
            return x * y, x * dy
        return x * y, dx * y + x * dy

    multiply.defjvp(rule, symbolic_zeros=True)
    report = gradlab.check(multiply, X, Y)
    assert failed(report) == ([] if right else ["linear"]), report
    assert right or "y needs no gradient" in law(report, "linear").reason


@pytest.mark.parametrize("right", [True, False])
def test_a_backward_that_is_told_of_symbolic_zeros_is_asked_for_each_output_alone(right):
    @jax.custom_vjp
    def pair(x):
        return jnp.sin(x), x * x

    def forward(x):
        return (jnp.sin(x.value), x.value**2), x.value

    def backward(x, upstream):
        g, h = upstream
        if isinstance(h, SymbolicZero):
            return (g * jnp.cos(x) * (1 if right else 2),)
        if isinstance(g, SymbolicZero):
            return (2 * x * h,)
        return (g * jnp.cos(x) + 2 * x * h,)

    pair.defvjp(forward, backward, symbolic_zeros=True)
    assert failed(gradlab.check(pair, X)) == ([] if right else ["linear"])


# used


def test_an_output_that_is_piecewise_constant_needs_no_upstream():
    def forward(x):
        return np.abs(x), np.sign(x), np.float64((x > 0).sum()), np.sort(x).argmax() * 1.0

    report = gradlab.check(forward, X, backward=lambda g, x: g[0] * np.sign(x))
    assert report.ok, report


def test_an_upstream_that_moves_rounding_alone_is_not_ignored():
    """The cosine of parallel vectors is at its maximum: its gradients are zero by cancellation."""

    def cosine(a, b):
        return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())

    def backward(upstream, a, b):
        m, n = np.sqrt((a * a).sum()), np.sqrt((b * b).sum())
        c = (a * b).sum() / (m * n)
        return upstream * (b / (m * n) - c * a / m**2), upstream * (a / (m * n) - c * b / n**2)

    a = np.random.default_rng(0).normal(size=7).astype(np.float32)
    assert failed(gradlab.check(cosine, a, 2 * a, backward=backward)) == []


def test_an_upstream_that_matters_and_is_ignored_is_found():
    report = gradlab.check(lambda x: (np.abs(x), x**3), X, backward=lambda g, x: g[0] * np.sign(x))
    assert "used" in failed(report) and "output[1]" in law(report, "used").reason


# value


def test_a_numpy_forward_is_held_against_the_reference():
    def backward(g, x):
        return g * (1 - np.tanh(x) ** 2)

    assert gradlab.check(np.tanh, X, backward=backward, reference=jnp.tanh).ok
    report = gradlab.check(np.tanh, X, backward=backward, reference=lambda x: jnp.tanh(x) + 1)
    assert failed(report) == ["value"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_forward_that_rounds_under_differentiation_alone_is_wrong(dtype):
    f = jax.custom_vjp(lambda x: 3 * jnp.sin(x))
    f.defvjp(lambda x: (f(x.astype(dtype)).astype(x.dtype), x), lambda x, g: (g * 3 * jnp.cos(x),))
    report = gradlab.check(f, jnp.asarray(X, jnp.float32))
    assert ("value" in failed(report)) is (dtype == jnp.bfloat16), report


@pytest.mark.parametrize("right", [True, False])
def test_integer_outputs_are_compared(right):
    @jax.custom_vjp
    def ranked(x):
        order = jnp.argsort(x)
        return x[order], order

    def forward(x):
        order = jnp.argsort(x)
        return (x[order], order if right else jnp.argsort(order)), order

    ranked.defvjp(forward, lambda order, g: (jnp.zeros_like(g[0]).at[order].set(g[0]),))
    report = gradlab.check(ranked, np.array([0.5, 2.0, -1.0, 1.0]))
    assert failed(report) == ([] if right else ["value"]), report


def test_a_forward_that_overflows_like_its_primal_is_not_wrong():
    f = jax.custom_vjp(lambda x: jnp.log(jnp.exp(x)))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g,))
    report = gradlab.check(f, jnp.asarray([1.0, 100.0], jnp.float32))
    assert law(report, "value").status != "failed", report


def test_an_output_that_is_nan_by_itself_is_named():
    f = jax.custom_vjp(lambda x: (jnp.sin(x), jnp.log(x)))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g[0] * jnp.cos(x) + g[1] / x,))
    found = law(gradlab.check(f, X), "value")
    assert found.status == "inconclusive" and "output[1] is NaN" in found.reason


# pure


@pytest.mark.parametrize("steps", [True, False])
def test_a_backward_that_puts_another_array_into_the_callers_dict_is_not_pure(steps):
    def forward(p, x):
        return np.tanh(x @ p["w"] + p["b"])

    def backward(g, p, x):
        h = np.tanh(x @ p["w"] + p["b"])
        d = g * (1 - h * h)
        if steps:
            p["b"] = p["b"] - 0.1 * d.sum(0)
        return {"w": x.T @ d, "b": d.sum(axis=0)}, d @ p["w"].T

    rng = np.random.default_rng(0)
    p = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    before = {name: value.copy() for name, value in p.items()}
    report = gradlab.check(forward, p, rng.normal(size=(5, 3)), backward=backward)
    assert failed(report) == (["pure"] if steps else []), report
    assert not steps or "p['b']" in law(report, "pure").reason
    assert all((p[name] == before[name]).all() for name in p)


# transforms


@pytest.mark.parametrize("right", [True, False])
def test_a_rule_that_takes_another_way_without_jit_is_held_to_the_same_numbers(right):
    def backward(x, g):
        if isinstance(x, jax.core.Tracer) or isinstance(g, jax.core.Tracer):
            return (2 * x * g,)
        return (jnp.asarray((2 if right else 1) * np.asarray(x) * np.asarray(g)),)

    square = jax.custom_vjp(lambda x: x * x)
    square.defvjp(lambda x: (square(x), x), backward)
    report = gradlab.check(square, X)
    assert failed(report) == ([] if right else ["transforms"]), report
    assert right or "without jit" in law(report, "transforms").reason


def test_a_rule_that_reads_numbers_where_it_can_is_right():
    def backward(x, g):
        if isinstance(x, jax.core.Tracer):
            return (g * jnp.cos(x),)
        largest = float(jnp.max(x))  # a number, where x is one
        return (g * jnp.cos(x) * (largest / largest),)

    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(lambda x: (f(x), x), backward)
    assert gradlab.check(f, X).ok


@pytest.mark.parametrize("right", [True, False])
def test_a_batching_rule_of_the_users_is_held_to_a_loop(right):
    @jax.custom_batching.custom_vmap
    def shifted(x):
        return jnp.exp(x - jnp.max(x))

    @shifted.def_vmap
    def _(axis_size, in_batched, x):
        return jnp.exp(x - jnp.max(x, -1 if right else None, keepdims=True)), True

    layer = jax.custom_vjp(lambda x: shifted(x))

    def backward(x, g):
        mine = g * jnp.exp(x - jnp.max(x))
        return (mine - jnp.where(jnp.arange(x.size) == jnp.argmax(x), jnp.sum(mine), 0.0),)

    layer.defvjp(lambda x: (layer(x), x), backward)
    report = gradlab.check(layer, np.array([0.3, 1.7, -0.4]))
    assert failed(report) == ([] if right else ["transforms"]), report


@pytest.mark.parametrize("method", ["broadcast_all", "sequential"])
def test_a_callback_that_mixes_the_batch_is_found(method):
    """Its norm runs over all that it gets; called row by row it is right."""

    def on_host(function, *arrays):
        shape = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
        return jax.pure_callback(
            lambda *a: np.asarray(function(*map(np.asarray, a)), shape.dtype),
            shape,
            *arrays,
            vmap_method=method,
        )

    def gradient(x, g):
        n = np.linalg.norm(x)
        return (g - x * np.sum(x * g) / n**2) / n

    unit = jax.custom_vjp(lambda x: on_host(lambda x: x / np.linalg.norm(x), x))
    unit.defvjp(lambda x: (unit(x), x), lambda x, g: (on_host(gradient, x, g),))
    report = gradlab.check(
        unit,
        jnp.asarray([1.0, 2.0, 2.0], jnp.float32),
        reference=lambda x: x / jnp.sqrt(jnp.sum(x * x)),
    )
    assert failed(report) == ([] if method == "sequential" else ["transforms"]), report


def test_jit_of_jacrev_is_warned_of_where_this_jax_compiles_it_wrongly():
    def rms_norm(x):
        return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(24, 8)), jnp.float32)
    same = np.allclose(jax.jit(jax.jacrev(rms_norm))(x), jax.jacrev(rms_norm)(x), atol=1e-3)
    report = gradlab.check(rms_norm, x)
    found = law(report, "transforms")
    assert report.ok and found.status == ("passed" if same else "warned")
    assert same or jax.__version__ in found.reason


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "function", [jnp.fft.fft, lambda x: x * (1 + 2j), lambda x: jnp.exp(1j * x)]
)
def test_a_plain_function_may_make_complex_numbers_of_real_ones(function, order):
    report = gradlab.check(function, jnp.linspace(-1.0, 2.0, 6).reshape(2, 3), order=order)
    assert report.status == "right", report


# what was judged


def test_the_laws_on_entries_say_how_many_they_judged():
    for function in (jnp.sin, lambda x: jnp.sum(x**3)):
        found = gradlab.check(function, X)
        assert [law(found, name).judged for name in ("formula", "accuracy")] == [3, 3]
        assert "second function" in law(found, "branches").reason


def test_a_rule_that_refuses_an_upstream_is_not_held_to_it():
    def refusing(g):
        if not np.any(g):
            raise ValueError("an upstream of zero")
        return np.asarray(g)

    def backward(x, g):
        g = jax.pure_callback(refusing, jax.ShapeDtypeStruct(g.shape, g.dtype), g)
        return (g / x,)

    f = jax.custom_vjp(jnp.log)
    f.defvjp(lambda x: (jnp.log(x), x), backward)
    found = gradlab.check(f, np.abs(X))
    assert found.ok and "an upstream of zero" in " ".join(found.notes), found


@pytest.mark.parametrize("numpy_", [False, True])
def test_nan_under_an_upstream_of_zero_is_found_beside_an_upstream_that_is_refused(numpy_):
    """A refusal is no NaN: what is refused is left out, and nothing else."""

    def refusing(g):
        if np.abs(np.asarray(g)).max() > 1e4:
            raise ValueError("the upstream is too large")
        return np.asarray(g)

    def backward(x, g):
        g = jax.pure_callback(refusing, jax.ShapeDtypeStruct(g.shape, g.dtype), g)
        return (jnp.where((g == 0).all(), jnp.nan, g / x),)

    f = jax.custom_vjp(jnp.log)
    f.defvjp(lambda x: (jnp.log(x), x), backward)
    options = {}
    if numpy_:
        f = np.log
        options["backward"] = lambda g, x: (
            (refusing(g) / x if (g != 0).any() else np.full(x.shape, np.nan)),
        )
    report = gradlab.check(f, np.abs(X), **options)
    assert failed(report) == ["linear"], report
    assert any("too large" in note for note in report.notes)


def test_a_numpy_backward_that_decides_by_the_upstream_is_called_where_it_decides_otherwise():
    """What was read of it holds where the sum of the upstream has the sign that it had."""

    def backward(g, x):
        return (g / x if g.sum() > 0 else 2 * g / x,)

    def right(g, x):
        return (g / x if g.sum() > 0 else (2 * g / x) / 2,)

    for seed in range(3):
        x = np.abs(np.random.default_rng(seed).normal(size=4)) + 0.1
        assert failed(gradlab.check(np.log, x, backward=right, seed=seed)) == []
        assert not gradlab.check(np.log, x, backward=backward, seed=seed).ok


def test_a_gradient_that_underflows_under_a_small_upstream_is_linear():
    """XLA flushes to zero what NumPy keeps as a subnormal number."""
    small, large = np.array([2.5e-308]), np.array([2.5e-290])
    assert _differs(np.zeros(1), [(2.0**-20, small)], np.zeros(1), None) is None
    assert _differs(np.zeros(1), [(2.0**-20, large)], np.zeros(1), None) == (0,)


def test_a_power_that_is_no_float32_number_is_the_same_without_jit():
    """17.3 is rounded to float32 in the trace; lifting restores its digits, and a call does not."""
    f = jax.custom_vjp(lambda x: x**17.3)
    f.defvjp(lambda x: (x**17.3, x), lambda x, g: (g * (17.3 * x**16.3),))
    x = np.abs(np.random.default_rng(2).normal(size=6)) + 2
    assert failed(gradlab.check(f, x.astype(np.float32))) == []


def test_terms_that_cancel_may_be_added_in_another_order():
    """The bias before a batch norm has no gradient but rounding, which a strided upstream moves."""

    def forward(x, b):
        y = x + b
        s = 1 / np.sqrt(y.var(0) + np.float32(1e-5))
        return (y - y.mean(0)) * s, ((y - y.mean(0)) * s, s)

    def backward(upstream, kept):
        h, s = kept
        d = s * (upstream - upstream.mean(0) - h * (upstream * h).mean(0))
        return d, d.sum(0)

    rng = np.random.default_rng(0)
    x, b = (rng.normal(size=s).astype(np.float32) for s in ((8, 4), 4))
    found = gradlab.check(forward, x, b, backward=backward, returns="output+residuals")
    assert failed(found) == []


# second order


@pytest.mark.parametrize("numpy", [jnp, np])
def test_the_second_gradient_of_a_backward_beside_its_forward_is_judged(numpy):
    def rule(g, x):
        return g * numpy.cos(x)

    found = gradlab.check(lambda x: numpy.sin(x), X, backward=rule, order=3)
    assert found.ok and law(found, "third order").judged, found

    def stopped(g, x):
        return g * jax.lax.stop_gradient(jnp.cos(x))

    found = gradlab.check(lambda x: jnp.sin(x), X, backward=stopped, order=2)
    assert failed(found) == ["second order"], found


def test_the_second_gradient_at_a_kink_is_one_between_the_slopes():
    """JAX takes a half of both sides; a rule may take one of them, and nothing else."""

    def second(primal, rule):
        f = jax.custom_vjp(primal)
        f.defvjp(lambda x: (primal(x), x), lambda x, g: (g * rule(x),))
        return failed(gradlab.check(f, np.array([1.0, 0.0, -2.0, 0.5]), order=2))

    def far(x):  # the same values, and a slope of 7 at zero
        return 2 * jnp.maximum(x, 0) + 7 * (x == 0) * (x - jax.lax.stop_gradient(x))

    assert second(lambda x: jnp.maximum(x, 0), lambda x: 1.0 * (x > 0)) == []
    square = lambda x: jnp.maximum(x, 0) ** 2  # noqa: E731
    assert second(square, lambda x: 2 * jnp.maximum(x, 0)) == []
    assert second(square, lambda x: 2 * jnp.where(x > 0, x, 0)) == []
    assert second(square, far) == ["second order"]
    clip = lambda x: jnp.clip(x, -1, 1) ** 2  # noqa: E731
    assert second(clip, lambda x: jnp.where(jnp.abs(x) < 1, 2 * x, 0)) == []  # it jumps at 1


def test_the_second_gradient_of_a_plain_function_is_held_to_its_slopes():
    def wave(x):
        slope = jax.lax.stop_gradient(jnp.cos(x))
        return jax.lax.stop_gradient(jnp.sin(x) - x * jnp.cos(x)) + x * slope

    assert failed(gradlab.check(wave, X)) == []
    assert failed(gradlab.check(wave, X, order=2)) == ["second order"]
    for right in (jnp.sin, lambda x: jnp.sum(x**3) * x, lambda x: jax.nn.softmax(x)):
        found = gradlab.check(right, X, order=2)
        assert found.ok and law(found, "second order").judged, found


@pytest.mark.parametrize("series", [True, False])
def test_a_second_gradient_that_is_nan_where_it_need_not_be_is_found(series):
    """sin(x) / x at 0, where the second derivative is -1/3."""

    @jax.custom_jvp
    def sinc(x):
        return jnp.where(x == 0, 1.0, jnp.sin(x) / x)

    @sinc.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        if series:
            far = jnp.where(jnp.abs(x) < 0.1, 1.0, x)
            near = -x / 3 + x**3 / 30 - x**5 / 840 + x**7 / 45360
            slope = (far * jnp.cos(far) - jnp.sin(far)) / far**2
            return sinc(x), t * jnp.where(jnp.abs(x) < 0.1, near, slope)
        slope = jnp.where(x == 0, 0.0, (x * jnp.cos(x) - jnp.sin(x)) / x**2)
        return sinc(x), slope * t

    report = gradlab.check(sinc, np.array([0.0, 0.5]), order=2)
    assert report.ok is series, report


@pytest.mark.parametrize("order", [2, 3, 4])
def test_each_order_is_checked_up_to_the_one_that_was_asked_for(order):
    """Sine and its derivatives are rules; the third alone is one percent off."""

    def sine(factor):
        def with_slope(primal, slope):
            f = jax.custom_vjp(primal)
            f.defvjp(lambda x: (f(x), x), lambda x, upstream: (upstream * slope(x),))
            return f

        second = with_slope(lambda x: -jnp.sin(x), lambda x: -factor * jnp.cos(x))
        return with_slope(jnp.sin, with_slope(jnp.cos, second))

    right = gradlab.check(sine(1.0), X, order=order)
    names = ["second order", "third order", "fourth order"][: order - 1]
    assert right.ok and [each.name for each in right.laws if "order" in each.name] == names
    assert all(law(right, name).judged for name in names)
    wrong = gradlab.check(sine(1.01), X, order=order)
    assert failed(wrong) == ["third order"][: order - 2]
    assert order < 4 or law(wrong, "fourth order").status == "skipped"


def test_the_third_gradient_of_a_plain_function_is_held_to_its_slopes():
    def wave(x):
        at = jax.lax.stop_gradient(x)
        return jnp.sin(at) + (x - at) * jnp.cos(at) - (x - at) ** 2 * jnp.sin(at) / 2

    assert gradlab.check(wave, X, order=2).ok
    assert failed(gradlab.check(wave, X, order=3)) == ["third order"]
    for right in (jax.nn.softplus, lambda x: jnp.sum(x**5) * x, lambda x: jnp.exp(x) / x[::-1]):
        found = gradlab.check(right, X, order=4)
        assert found.ok and law(found, "fourth order").judged, found


@pytest.mark.parametrize("order", [1, 2, 3])
def test_an_input_without_entries_has_every_derivative(order):
    assert gradlab.check(jnp.sin, np.zeros((2, 0, 1)), order=order).ok


def test_a_second_gradient_at_a_kink_lies_between_the_slopes():
    assert gradlab.check(lambda x: jnp.maximum(x, 0) ** 2, np.array([0.0, 1.0]), order=2).ok


def test_a_gradient_that_has_no_forward_mode_is_held_to_the_other_witnesses():
    @jax.custom_vjp
    def cosine(x):
        return jnp.cos(x)

    cosine.defvjp(lambda x: (jnp.cos(x), x), lambda x, g: (-g * jax.lax.stop_gradient(jnp.sin(x)),))
    f = jax.custom_jvp(lambda x: jnp.sin(x))
    f.defjvp(lambda p, t: (f(*p), t[0] * cosine(p[0])))
    assert gradlab.check(f, X).ok
    assert gradlab.check(f, X, order=2).ok


def test_a_backward_that_integrates_to_a_tolerance_is_linear_up_to_it():
    """The steps of the adjoint equation depend on the upstream, and on how large it is."""
    from jax.experimental.ode import odeint

    times = np.array([0.0, 1.0], np.float32)

    def decayed(y, k):
        return odeint(lambda y, t, k: -k * y + jnp.sin(t), y, times, k)

    report = gradlab.check(decayed, np.float32(0.7), np.float32(0.7), branches=False, prove=False)
    (law,) = [law for law in report.laws if law.name == "linear"]
    assert not report.failed and law.status == "inconclusive" and "tolerance" in law.reason


def test_a_kink_just_beside_the_point_is_no_fault_of_the_gradient():
    def bent(x):
        return np.maximum(x - 0.995, 0) * 0.01 + np.sin(x), x

    def back(up, x):
        return up * (0.01 * (x > 0.995) + np.cos(x))

    report = gradlab.check(bent, np.ones(3), backward=back, returns="output+residuals")
    assert report.ok and "read from NumPy" in report.oracle, report
