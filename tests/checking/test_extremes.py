"""Right rules where numbers are very large or very small, or where all entries are at a kink."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

pytestmark = pytest.mark.usefixtures("verdict_alone")


def ruled(primal, slope):
    """Return an elementwise function with its derivative written by hand."""
    f = jax.custom_vjp(primal)
    f.defvjp(lambda x: (primal(x), x), lambda x, g: (g * slope(x),))
    return f


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


relu = ruled(lambda x: jnp.maximum(x, 0), lambda x: (x > 0) * jnp.ones_like(x))
steady_sigmoid = ruled(sigmoid, lambda x: sigmoid(x) * sigmoid(-x))
steady_silu = ruled(lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x)))
exp2 = ruled(jnp.exp2, lambda x: jnp.exp2(x) * np.log(2))


def test_a_rule_that_is_zero_at_kinks_does_not_ignore_its_upstream():
    report = gradlab.check(relu, jnp.zeros(3))
    assert report.ok, report
    assert {law.name: law.status for law in report.laws}["used"] == "inconclusive"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", [steady_sigmoid, steady_silu])
def test_autodiff_overflows_on_its_way_and_the_rule_does_not(rule, dtype):
    """(1 + exp(-x)) ** 2 is infinite in float64 from -x = 355 on."""
    assert gradlab.check(rule, np.array([0.5, -400.0, -535.0, -620.0]), dtypes=dtype).ok
    assert not gradlab.check(rule, np.array([-535.0]), dtypes=dtype).failed


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_gradients_whose_squares_overflow(dtype):
    """In bfloat16 log(2) is known to 8 bits: its scatter at exp2(640) has no finite square."""
    report = gradlab.check(exp2, np.array([0.5, 14.3, 105.5, 640.0, -640.0]), dtypes=dtype)
    assert report.ok, report


@pytest.mark.parametrize("add", [np.add, jnp.add])
def test_an_array_without_entries_beside_one_with_entries(add):
    """The sum over no rows is zero."""
    empty, row = np.zeros((0, 3), np.float32), np.ones(3, np.float32)

    def backward(upstream, a, b):
        return upstream, upstream.sum(0)

    report = gradlab.check(lambda a, b: add(a, b), empty, row, backward=backward)
    assert report.ok, report
    assert [leaf.right for leaf in report.leaves] == [0, 3]


def test_infinite_gradients_give_no_warning():
    rule = ruled(jnp.log2, lambda x: 1 / (x * np.log(2)))
    gradlab.check(rule, np.array([0.0, 1.0, 2.0]), dtypes="float16")


def test_a_saturated_layer_is_linear_up_to_its_rounding():
    """Where tanh is within 1e-8 of -1, autodiff's g + g * y has half of its digits left."""
    layer = jax.custom_vjp(lambda x, w: jnp.tanh(x @ w))
    layer.defvjp(
        lambda x, w: (jnp.tanh(x @ w), (x, w)),
        lambda r, g: jax.vjp(lambda x, w: jnp.tanh(x @ w), *r)[1](g),
    )
    w = np.linspace(-1, 1, 12).reshape(4, 3)
    for x in (
        [[-0.625, -6.25, 6.625, 7.0], [6.375, 5.0, -6.25, -3.5], [-4.625, -2.0, 5.375, 5.375]],
        [[3.0, 6.375, 0.375, -6.125], [4.25, 3.0, 5.25, -7.625], [7.0, 6.375, -3.125, -2.625]],
    ):
        report = gradlab.check(layer, np.array(x), w)
        assert report.ok, report


@pytest.mark.parametrize(
    "x", [[2000.3, -999.7, 512.25], [1783.4998, 2.5, -2441.2], [128.5, 2.5, -1000.5]]
)
def test_a_staircase_has_no_slope_that_finite_differences_could_tell(x):
    """Steps of 1 on inputs of 1000 look like a slope of 1, and like noise."""
    flat = ruled(lambda x: jnp.round(x), lambda x: 0 * x)
    report = gradlab.check(flat, np.array(x))
    assert report.ok, report


def test_products_that_cancel_are_no_false_alarm():
    """<J t, u> sums numbers of both signs, and is rounded as the largest of them is."""
    f = jax.custom_vjp(lambda x: jnp.roll(x, 2, axis=1))
    f.defvjp(lambda x: (jnp.roll(x, 2, axis=1), None), lambda _, g: (jnp.roll(g, -2, axis=1),))
    for seed in (14, 18, 19):
        x = np.random.default_rng(seed).normal(size=(3, 6))
        assert gradlab.check(f, x).ok


def softmax(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_a_saturated_softmax_is_linear_in_its_upstream():
    """Its gradients are what is left of far larger numbers that cancel."""

    def backward(x, g):
        y = softmax(x)
        return (y * (g - (g * y).sum(-1, keepdims=True)),)

    f = jax.custom_vjp(softmax)
    f.defvjp(lambda x: (softmax(x), x), backward)
    for seed in (6, 9, 18, 19):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(3, 5)) * 10.0 ** rng.uniform(-3, 3, size=(3, 5))
        for report in (gradlab.check(f, x), gradlab.check(f, 1e3 * x)):
            assert not report.failed, report  # but digits may be lost that autodiff keeps


def test_a_function_of_two_scales_is_not_judged_by_coarse_steps():
    """Rows that hardly vary: layer norm is steep there, and flat from 1e-3 on."""

    def normal(x):
        c = x - x.mean(-1, keepdims=True)
        return c / jnp.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)

    x = 100 + 1e-9 * np.random.default_rng(0).normal(size=(4, 8))
    assert gradlab.check(normal, x, reference=normal).ok
    assert not gradlab.check(normal, x).failed


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_gradient_is_not_judged_where_the_output_is_not_finite(dtype):
    """0 / 0 at 0; far to the right, e^x / x is beyond what float16 holds."""

    def backward(x, g):
        return (g * (jnp.exp(x) * x - jnp.expm1(x)) / x**2,)

    f = jax.custom_vjp(lambda x: jnp.expm1(x) / x)
    f.defvjp(lambda x: (jnp.expm1(x) / x, x), backward)
    report = gradlab.check(f, np.array([-1.0, 0.0, 2.0], dtype))
    assert report.ok, report
    assert (report.leaves[0].right, report.leaves[0].inconclusive) == (2, 1)
    assert "output not finite" in [reason.code for reason in report.leaves[0].reasons]


def test_bit_tricks_that_approximate_are_held_to_what_they_can_keep():
    """Three Newton steps from the bits of 1 / sqrt(x) leave 4e-12, which float32 cannot hold."""

    def inverse_root(x):
        bits = jax.lax.bitcast_convert_type(x, jnp.int32)
        y = jax.lax.bitcast_convert_type(0x5F3759DF - (bits >> 1), jnp.float32)
        for _ in range(3):
            y = y * (1.5 - 0.5 * x * y * y)
        return y

    x = np.array([0.5, 2.0, 7.0], np.float32)
    for factor, status in ((1.0, "right"), (1.001, "wrong")):
        rule = ruled(inverse_root, lambda x, factor=factor: -0.5 * factor * inverse_root(x) ** 3)
        report = gradlab.check(rule, x, reference=jax.lax.rsqrt)
        assert report.status == status, report


def test_where_the_function_has_no_value_a_rule_need_not_have_one():
    """Autodiff's 1 / x is finite there; exp(-log(x)) is not."""
    x = np.array([2.0, -3.0, 4.0])
    log = jax.custom_vjp(jnp.log)
    log.defvjp(lambda x: (jnp.log(x), jnp.log(x)), lambda y, g: (g * jnp.exp(-y),))
    report = gradlab.check(log, x)
    assert report.ok, report
    assert (report.leaves[0].right, report.leaves[0].inconclusive) == (2, 1)
    wrong = gradlab.check(ruled(jnp.log, lambda x: jnp.where(x > 3, jnp.nan, 1 / x)), x)
    assert wrong.status == "wrong" and wrong.leaves[0].wrong == 1, wrong
