"""The second witness: kinks, ties, vertical tangents, jumps, zeros, infinities, loops, lifting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking.summary import explaining

pytestmark = pytest.mark.usefixtures("verdict_alone")


def with_rule(function, backward):
    rule = jax.custom_vjp(function)
    rule.defvjp(lambda *x: (function(*x), x), lambda x, g: backward(g, *x))
    return rule


def codes(report, k=0):
    return {reason.code: reason.entries for reason in report.leaves[k].reasons}


def both(g, x, y):
    return g * (x >= y), g * (y >= x)


def first(g, x, y):
    return g * (x >= y), g * (y > x)


def halves(g, x, y):
    return g * ((x > y) + 0.5 * (x == y)), g * ((y > x) + 0.5 * (x == y))


TIED = np.linspace(-2, 2, 200)


@pytest.mark.parametrize(("backward", "ok"), [(both, False), (first, True), (halves, True)])
def test_ties_share_one_upstream_however_many_there_are(backward, ok):
    """The slopes of max(x, y) at x = y add to 1; 200 ties are more than any pair search takes."""
    report = gradlab.check(with_rule(jnp.maximum, backward), TIED, TIED.copy())
    assert report.ok == ok, report
    assert ok or codes(report)["impossible together"] == 200
    assert gradlab.check(np.maximum, TIED[:60], TIED[:60].copy(), backward=backward).ok == ok


def test_one_impossible_tie_among_many_possible_ones_is_found_alone():
    def backward(g, x, y):
        dx, dy = first(g, x, y)
        return dx, dy.at[7].set(g[7])

    report = gradlab.check(with_rule(jnp.maximum, backward), TIED, TIED.copy())
    assert [leaf.wrong for leaf in report.leaves] == [1, 1]


def test_a_tie_of_which_one_side_is_as_autodiff_has_it():
    """Autodiff gives both halves; all for x besides half for y is more than there is."""
    rule = with_rule(jnp.maximum, lambda g, x, y: (g * (x >= y), halves(g, x, y)[1]))
    assert gradlab.check(rule, TIED, TIED.copy()).failed


def test_tied_inputs_of_other_sizes():
    def scaled(second):
        return with_rule(
            lambda x, y: jnp.maximum(x, 2 * y),
            lambda g, x, y: (g * (x >= 2 * y), 2 * g * second(2 * y, x)),
        )

    assert gradlab.check(scaled(jnp.greater), 2 * TIED, TIED).ok
    assert gradlab.check(scaled(jnp.greater_equal), 2 * TIED, TIED).failed


@pytest.mark.parametrize("width", [2, 6, 40])
def test_ties_of_a_row(width):
    """Autodiff gives each of n equal entries 1 / n; the first may have all, not every one."""
    x = np.ones((12, width))

    def one(g, x):
        return (g[:, None] * jax.nn.one_hot(x.argmax(-1), width, dtype=x.dtype),)

    def all_of_them(g, x):
        return (g[:, None] * (x == x.max(-1, keepdims=True)),)

    assert gradlab.check(with_rule(lambda x: x.max(-1), one), x).ok
    assert gradlab.check(with_rule(lambda x: x.max(-1), all_of_them), x).failed


def test_slopes_of_relu_at_zero():
    x = np.array([0.0, 0.0, 1.0, -1.0, 0.0])
    for rule in (lambda g, x: g * (x >= 0), lambda g, x: g * ((x > 0) + 0.3 * (x == 0))):
        assert gradlab.check(with_rule(jax.nn.relu, lambda g, x, r=rule: (r(g, x),)), x).ok
        assert gradlab.check(lambda x: np.maximum(x, 0), x, backward=rule).ok
    steep = gradlab.check(
        lambda x: np.maximum(x, 0), x, backward=lambda g, x: g * ((x > 0) + 2 * (x == 0))
    )
    assert steep.failed and steep.leaves[0].wrong == 3


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_vertical_tangent_has_an_infinite_slope_of_its_sign(dtype, sign):
    x = np.array([0.0, 1.0, -8.0], dtype)

    def backward(g, x):
        slope = g / (3 * jnp.cbrt(x) ** 2)
        return (jnp.where(x == 0, sign * slope, slope),)

    assert gradlab.check(jnp.cbrt, x).ok
    assert bool(gradlab.check(with_rule(jnp.cbrt, backward), x).failed) == (sign < 0)


def test_an_infinite_slope_that_autodiff_of_a_guard_hides():
    def x_log_x(x):
        return jnp.where(x == 0, 0.0, x * jnp.log(jnp.where(x == 0, 1.0, x)))

    report = gradlab.check(
        with_rule(x_log_x, lambda g, x: (g * (jnp.log(x) + 1),)), np.array([0.0, 0.5, 2.0])
    )
    assert not report.failed and codes(report) == {
        "within rounding": 2,
        "confirmed by differences": 1,
    }


@pytest.mark.parametrize("function", [jnp.linalg.eigvalsh, lambda a: jnp.linalg.eigvalsh(a)[-1]])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_eigenvalues_are_a_kink(function, dtype):
    assert not gradlab.check(function, np.eye(3, dtype=dtype)).failed


def test_a_jump_leaves_its_own_entry_undecided_alone():
    report = gradlab.check(jnp.floor, np.array([1.0, 2.3, -0.5]))
    assert report.ok and report.leaves[0].right == 2 and codes(report)["at a jump"] == 1
    through = gradlab.check(np.floor, np.array([1.2, 2.3]), backward=lambda g, x: g)
    assert through.failed and through.leaves[0].wrong == 2


@pytest.mark.parametrize("slope", [1.0, 1.1])
def test_an_infinite_output_leaves_undecided_what_it_depends_on(slope):
    x, factor = np.array([0.0, 2.0, 3.0]), np.array([1.0, slope, 1.0])
    with np.errstate(divide="ignore"):
        report = gradlab.check(np.log, x, backward=lambda g, x: factor * g / x)
    leaf = report.leaves[0]
    assert (leaf.right, leaf.wrong) == ((2, 0) if slope == 1 else (1, 1))
    plain = gradlab.check(jnp.log, x)
    assert plain.leaves[0].right == 2 and codes(plain)["output not finite"] == 1
    constant = gradlab.check(lambda x: x + jnp.array([jnp.inf, 0.0]), np.array([1.0, 2.0]))
    assert constant.ok and constant.leaves[0].right == 1


def standardised(bias, x):
    h = x @ WEIGHTS + bias
    h = h - h.mean(0)
    return h / jnp.sqrt((h**2).mean(0) + 1e-5)


WEIGHTS = np.random.default_rng(0).normal(size=(4, 3))
ROWS = np.random.default_rng(1).normal(size=(6, 4))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_bias_before_a_norm_has_a_gradient_of_zero(dtype):
    report = gradlab.check(standardised, np.ones(3), ROWS, dtypes=dtype)
    assert report.ok and report.leaves[0].right == 3, report


def test_zero_to_rounding_is_not_a_licence():
    def backward(g, bias, x):
        d_bias, d_x = jax.vjp(standardised, bias, x)[1](g)
        return d_bias + 1e-6, d_x

    report = gradlab.check(with_rule(standardised, backward), np.ones(3), ROWS)
    assert report.failed and report.leaves[0].wrong == 3
    detached = with_rule(lambda x: ((x - 1) ** 2).sum(), lambda g, x: (0 * x,))
    assert gradlab.check(detached, np.ones(3)).status == "undecided", "zero by chance"


def test_slopes_that_are_zero():
    for function, x in (
        (jnp.sin, np.array([np.pi / 2])),
        (jnp.cos, np.zeros(2)),
        (lambda s: jax.nn.softmax(s + jnp.arange(3.0)), np.array(0.7)),
        (lambda x: jax.nn.softmax(x, axis=-1), np.array([[0.3], [1.2]])),
    ):
        assert gradlab.check(function, x).ok


def cube_root(steps):
    def newton(a):
        return jax.lax.fori_loop(
            0, steps, lambda _, x: x - (x**3 - a) / (3 * x**2), jnp.full_like(a, 1.5)
        )

    return newton


@pytest.mark.parametrize("steps", [3, pytest.param(5, marks=pytest.mark.slow), 20])
def test_a_rule_for_the_exact_solution_of_a_loop_is_not_wrong(steps):
    newton, a = cube_root(steps), np.array([2.0, 5.0])
    for factor, wrong in ((1.0, False), (1.1, True)):
        rule = with_rule(newton, lambda g, a, factor=factor: (factor * g / (3 * newton(a) ** 2),))
        report = gradlab.check(rule, a)
        assert bool(report.failed) == wrong and (not wrong or not report.ok), report


def test_a_loop_over_inputs_is_no_iteration():
    def recurrent(h, xs):
        return jax.lax.scan(lambda h, x: (jnp.tanh(h + x), None), h, xs)[0]

    def backward(g, h, xs):
        return tuple((1 + 1e-6) * d for d in jax.vjp(recurrent, h, xs)[1](g))

    rule = with_rule(recurrent, backward)
    assert gradlab.check(rule, np.array([0.1, 0.2]), np.full((4, 2), 0.3)).failed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_larger_error_never_gets_a_better_verdict(dtype):
    ranks = {"passed": 0, "skipped": 0, "inconclusive": 0, "warned": 1, "failed": 2}
    seen = []
    for error in (1e-7, 8e-7, 2e-6, 3.5e-6, 5e-6, 1e-4, 0.1):
        factor = 1 + error * np.array([1, -1, 0.5, 0.7])
        rule = with_rule(
            lambda x: x**3, lambda g, x, f=factor: (3 * x * x * g * f.astype(x.dtype),)
        )
        unexplained = explaining.set(False)  # the verdict is the question, not why
        try:
            report = gradlab.check(rule, np.array([0.5, -1.2, 2.0, 0.7]), dtypes=dtype)
        finally:
            explaining.reset(unexplained)
        seen.append(max(ranks[law.status] for law in report.laws))
    assert seen == sorted(seen) and seen[-1] == 2
    if dtype == "float32":
        assert seen[1] == seen[3] == 1 and seen[4] == 2


@pytest.mark.parametrize(("dtype", "magic"), [("float32", 3 * 2**22), ("bfloat16", 384)])
def test_a_function_that_rounds_by_a_large_number_is_not_judged_by_its_lifting(dtype, magic):
    """frac(x) is x minus its nearest integer at this dtype alone; its slope is 1."""
    large = jnp.asarray(magic, dtype)

    def fraction(x):
        return x - ((x + large) - large)

    x = jnp.asarray([0.3, 1.2, -2.35], dtype)
    assert abs(float(fraction(x)[0])) > 0.25
    report = gradlab.check(fraction, x)
    assert report.status == "undecided" and codes(report) == {"dtype on purpose": 3}
    for slope in (1.0, 2.0):
        rule = with_rule(fraction, lambda g, x, s=slope: (jnp.asarray(s, x.dtype) * g,))
        assert gradlab.check(rule, x).status == "undecided"


def test_slopes_alone_tell_both_parts_of_a_complex_gradient():
    """JAX cannot reverse the loop, and there are too many entries to go forwards."""

    def fourth(z):
        twice = jax.lax.while_loop(lambda s: s[1] < 2, lambda s: (s[0] ** 2, s[1] + 1), (z, 0))
        return twice[0]

    z = np.exp(1j * np.linspace(0.1, 3.0, 300))
    rule = with_rule(fourth, lambda g, z: (3 * g * z**3,))
    report = gradlab.check(rule, z, branches=False, prove=False)
    assert report.status == "wrong" and "finite differences" in report.oracle
    assert abs(report.worst.actual / report.worst.expected - 0.75) < 1e-6


@pytest.mark.parametrize(("size", "seed"), [(3, 5), (6, 0), (6, 2), (40, 4)])
def test_a_linear_function_at_zero_has_slopes_without_error(size, seed):
    """Its quotients are all the same number; what the gradient predicts is still rounded."""
    rule = with_rule(lambda x: x * 8, lambda g, x: (g * 8,))
    assert gradlab.check(rule, np.zeros(size), seed=seed).ok


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_plain_difference_of_equal_inputs_is_right(value, seed):
    x = np.full(40, value)
    report = gradlab.check(lambda a, b: a - b, x, x, seed=seed, branches=False, prove=False)
    assert report.status == "right", report


FLAT = (jnp.exp, jnp.tanh, jax.nn.sigmoid, jax.nn.softplus, jax.nn.relu, lambda x: 1 / x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", FLAT)
def test_no_slope_refutes_a_plain_function_at_an_infinite_input(function, dtype):
    """JAX's gradient there is 0 where the output stays finite, as its limit is."""
    with jax.enable_x64(True):
        x = jnp.asarray([-jnp.inf, 1.0, 0.5], dtype)
        report = gradlab.check(function, x)
        assert report.status == "right", report
        assert report.leaves[0].right == 3
        assert gradlab.check(function, x[:1]).status == "right"


def test_what_is_wrong_beside_an_infinite_input_is_found():
    def wrong(x):
        return np.exp(x), lambda u: u * np.exp(x) * np.where(x > 0, 1.01, 1.0)

    def backward(u, x):
        return wrong(x)[1](u)

    x = np.array([-np.inf, 1.0, -0.5])
    report = gradlab.check(lambda x: wrong(x)[0], x, backward=backward)
    assert report.status == "wrong"
    assert report.worst is not None and report.worst.index == (1,)
