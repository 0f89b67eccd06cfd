import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.errors import InputError
from gradlab.references import (
    Evaluation,
    evaluation,
    judge,
    jvp_program,
    numpy_estimate,
    unit_roundoff,
    vjp_program,
)
from gradlab.tracing import rename, strip, trace

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 7))


def scatter(function, *inputs, law="accuracy", draws=40):
    """The scatter of a function's output, not of its gradient."""
    program = trace(function, *inputs)
    lab = Evaluation(function=program)
    return lab.estimates(dict(zip(program.in_names, inputs)), law, draws)["function"][0]


def test_programs_of_derivatives_agree_with_jax():
    def function(x, w, i):
        return jnp.tanh(x @ w)[i], x.sum()

    x, w, i = jnp.asarray(X, jnp.float32), jnp.ones((7, 2)), np.array([0, 0, 4])
    program = trace(function, x, w, i)
    gradient, push = vjp_program(program), jvp_program(program)
    assert gradient.in_names == ("x", "w", "i", "upstream[0]", "upstream[1]")
    assert gradient.out_names == ("output[0]", "output[1]", "gradient x", "gradient w")
    assert push.in_names == ("x", "w", "i", "tangent x", "tangent w")
    g, h = jnp.ones((3, 2)), jnp.float32(2)
    y, backward = jax.vjp(lambda x, w: function(x, w, i), x, w)
    for ours, theirs in zip(gradient.flat(x, w, i, g, h), [*y, *backward((g, h))], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    pushed = jax.jvp(lambda x, w: function(x, w, i), (x, w), (x, w))[1]
    for ours, theirs in zip(push.flat(x, w, i, x, w)[2:], pushed, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert vjp_program(program, wrt=[1]).out_names[2:] == ("gradient w",)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_one_rounding_scatters_by_the_unit_of_its_dtype(dtype):
    x = X.astype(jnp.dtype(dtype))
    relative = scatter(jnp.add, x, x[::-1].copy()).scatter / np.abs(np.float64(x + x[::-1]))
    expected = unit_roundoff(dtype) / np.sqrt(3)  # uniform within one unit
    assert np.nanmax(np.abs(relative / expected - 1)) < 0.5


EXACT = {
    "negate": lambda x: -x,
    "max": lambda x: jnp.maximum(x, 0),
    "transpose": lambda x: x.T.reshape(-1)[::2],
    "select": lambda x: jnp.where(x > 0, x, 0),
    "double": lambda x: x * 2.0 / 4.0,
    "gather": lambda x: x[np.array([0, 0, 1])],
    "sort": lambda x: jnp.sort(x, 1),
    "ties": lambda x: jnp.where(x * x == jnp.max(x * x, 1, keepdims=True), 1.0, 0.0),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_operations_do_not_scatter(name):
    assert not scatter(EXACT[name], X.astype(np.float32), draws=4).scatter.any()


def test_sums_scatter_with_the_root_of_their_length():
    x = np.ones((4000, 2), np.float32)
    estimate = scatter(lambda x: x.sum(0), x)
    expected = unit_roundoff("float32") * np.sqrt(4000) * 4000 / np.sqrt(3)
    assert np.all(np.abs(estimate.scatter / expected - 1) < 0.5)
    product = scatter(lambda x: x.T @ x, x)
    assert np.all(np.abs(product.scatter / expected - 1) < 0.5)


def test_cancellation_scatters_and_is_not_hidden():
    estimate = scatter(lambda x: (x + 1000.0) - 1000.0, np.float32([1e-3]))
    assert estimate.scatter[0] > 100 * unit_roundoff("float32") * estimate.value[0]


def test_every_iteration_of_a_loop_has_its_own_noise():
    def accumulate(x):
        return lax.scan(lambda c, _: (c * 1.0000001, None), x, None, 400)[0]

    estimate = scatter(accumulate, np.ones(50, np.float32))
    expected = unit_roundoff("float32") * np.sqrt(400 / 3)
    assert 0.5 < np.sqrt(np.mean(estimate.scatter**2)) / expected < 2


def test_zeros_stay_zero_and_tiny_numbers_underflow():
    estimate = scatter(lambda x: x * x, np.float16([0.0, 1e-5, 1.0]))
    assert estimate.scatter[0] == 0
    assert 1e-8 < estimate.scatter[1] < 1e-7
    (small,) = scatter(jnp.exp, np.float32([-100.0])).scatter
    assert 1e-39 < small < 1e-37


def test_float16_overflows_in_the_accuracy_law_alone():
    x = np.float16([300.0, 200.0])
    accuracy = scatter(lambda x: jnp.sqrt(x * x), x)
    assert np.isinf(accuracy.scatter[0]) and np.isfinite(accuracy.scatter[1])
    assert np.isfinite(scatter(lambda x: jnp.sqrt(x * x), x, law="formula").scatter).all()
    assert np.isfinite(accuracy.value).all()


def test_infinite_masks_do_not_spoil_the_values():
    def masked(x):
        return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((5, 5), bool)), x, -jnp.inf))

    estimate = scatter(masked, X[:, :5].astype(np.float32))
    assert np.isfinite(estimate.value).all() and np.isfinite(estimate.scatter).all()
    assert not estimate.scatter[np.triu_indices(5, 1)].any()


def test_constants_are_as_exact_as_the_function_meant_them():
    """0.1 * 3 and 0.3 differ in float32 by rounding; both laws must call them the same."""
    x = X.astype(np.float32)
    three = trace(lambda x: x * 0.1 * 3.0 + 0.7, x)
    other = trace(lambda x: x * 0.3 + 0.7, x)
    lab = Evaluation(reference=three, rule=other)
    estimate = lab.estimates({"x": x}, "formula")
    assert judge(
        estimate["rule"][0].value, *(estimate[k][0] for k in ("reference", "rule")), float
    ).ok
    wrong = Evaluation(reference=three, rule=trace(lambda x: x * 0.3000003 + 0.7, x))
    estimate = wrong.estimates({"x": x}, "formula")
    assert judge(estimate["rule"][0].value, estimate["reference"][0], None, float).wrong.all()


def test_a_rule_that_computes_in_a_narrower_dtype_is_not_excused():
    x = X.astype(np.float32)
    program = trace(jnp.square, x)

    def narrow(g, x):
        return [(2 * x.astype(jnp.float16) * g.astype(jnp.float16)).astype(jnp.float32)]

    rule = rename(trace(narrow, x, x), ["upstream", "x"])
    lab = Evaluation(reference=vjp_program(program), rule=rule)
    estimate = lab.estimates({"x": x, "upstream": x}, "accuracy")
    actual = np.asarray(jax.jit(rule.flat)(x, x)[0])
    verdict = judge(actual, estimate["reference"][1], estimate["rule"][0], "float32")
    assert verdict.wrong.sum() > 25
    formula = lab.estimates({"x": x, "upstream": x}, "formula")
    assert judge(formula["rule"][0].value, formula["reference"][1], None, "float64").ok


@jax.custom_vjp
def softmax(x):
    return jax.nn.softmax(x)


def _backward(y, g):
    return (y * (g - jnp.sum(g * y, -1, keepdims=True)),)


softmax.defvjp(lambda x: (softmax(x), softmax(x)), _backward)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_custom_rule_against_its_stripped_primal(dtype):
    x = X.astype(jnp.dtype(dtype))
    program = trace(softmax, x)
    rule, reference = vjp_program(program), vjp_program(strip(program))
    lab = Evaluation(reference=reference, rule=rule)
    values = {"x": x, "upstream": RNG.normal(size=x.shape).astype(x.dtype)}
    formula, accuracy = lab.both(values)
    with jax.enable_x64(program.x64):
        actual = np.asarray(jax.jit(rule.flat)(x, values["upstream"])[1])
    exact = judge(formula["rule"][1].value, formula["reference"][1], formula["rule"][1], float)
    real = judge(actual, accuracy["reference"][1], accuracy["rule"][1], dtype)
    assert exact.right.all() and exact.error.max() < 4
    assert real.ok and real.error.max() < 4 and real.right.mean() > 0.8


def test_complex_gradients():
    z = (X + 1j * X[::-1]).astype(np.complex64)
    program = trace(lambda z: jnp.exp(z) * z, z)
    lab = Evaluation(reference=vjp_program(program))
    estimate = lab.estimates({"z": z, "upstream": z}, "accuracy")["reference"][1]
    actual = np.asarray(jax.vjp(lambda z: jnp.exp(z) * z, z)[1](jnp.asarray(z))[0])
    assert estimate.value.dtype == np.complex128
    assert judge(actual, estimate, None, z.dtype).right.all()
    assert judge(actual.conj(), estimate, None, z.dtype).wrong.any()


def test_along_moves_the_inputs():
    lab = Evaluation(f=trace(lambda x, k: x**2 * k, X, np.arange(7)))
    at = lab.along({"x": X, "k": np.arange(7)}, {"x": np.ones_like(X)})
    np.testing.assert_allclose(at([0.5])["f"][0][0], (X + 0.5) ** 2 * np.arange(7), rtol=1e-14)


def test_missing_and_misshapen_inputs_are_named():
    lab = Evaluation(f=trace(lambda x: x, X))
    with pytest.raises(InputError, match="no value for input 'x'"):
        lab.values({})
    with pytest.raises(InputError, match=r"'x' has shape \(2,\)"):
        lab.values({"x": np.ones(2)})
    with pytest.raises(InputError, match="rename one"):
        Evaluation(f=trace(lambda x: x, X), g=trace(lambda x: x, X[0]))


def test_numpy_functions_scatter_at_inputs_one_unit_away():
    x = (X * 20).astype(np.float32)
    g = RNG.normal(size=x.shape).astype(np.float32)

    def backward(g, x):
        y = np.exp(x - x.max(-1, keepdims=True))
        y = y / y.sum(-1, keepdims=True)
        return [y * g - y * (y * g).sum(-1, keepdims=True)]  # cancels where a row is saturated

    lab = Evaluation(reference=vjp_program(trace(jax.nn.softmax, x)))
    reference = lab.estimates({"x": x, "upstream": g}, "accuracy")["reference"][1]
    (own,) = numpy_estimate(backward, [g, x])
    (actual,) = backward(g, x)
    assert judge(actual, reference, own, "float32").ok
    assert not judge(actual * 1.001, reference, own, "float32").ok
    (exact,) = numpy_estimate(lambda x, i: [np.sign(x) * i], [x, np.arange(7)])
    assert not exact.scatter.any() and exact.value.dtype == np.float64


def test_infinities_stay_infinite_where_nothing_is_added():
    x = np.array([1000.0, 1.0])
    assert scatter(lambda x: 1 / jnp.cosh(x) ** 2, x, draws=2).value[0] == 0


def test_callbacks_run_as_traced_and_count_with_the_digits_they_have():
    def fused(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda x: np.float32(2) * x + np.sin(x), shape, x)

    x = X[0].astype(np.float32)
    plain, other = (trace(f, x) for f in (lambda x: 2 * x + jnp.sin(x), fused))
    formula, _ = Evaluation(reference=plain, rule=other).both({"x": x})
    reference, rule = formula["reference"][0], formula["rule"][0]
    assert judge(rule.value, reference, rule, "float64").right.all()
    assert judge(rule.value * 1.0001, reference, rule, "float64").wrong.all()
    assert np.median(rule.scatter / np.abs(rule.value)) > 1e-9


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_large_programs_scatter_as_small_ones_do(dtype, monkeypatch):
    a, b = (jnp.asarray(np.random.default_rng(k).normal(size=(256, 256)), dtype) for k in (0, 1))
    program = trace(lambda a, b: jnp.tanh(a @ b), a, b)
    point = {"a": a, "b": b}
    small = Evaluation(program=program).both(point)
    monkeypatch.setattr("gradlab.references.evaluation._LARGE", 1000)
    large = Evaluation(program=program).both(point)
    for law in (0, 1):
        wanted, found = (np.median(each[law]["program"][0].scatter) for each in (small, large))
        assert 0.5 < found / wanted < 2.0, "formula" if law == 0 else "accuracy"


BOTH_WAYS = {
    "layer norm": lambda x: (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1) + 1e-5)[:, None],
    "softmax": lambda x: jax.nn.softmax(x, 1),
    "gelu": jax.nn.gelu,
    "selu": jax.nn.selu,
    "product": lambda x: x @ x.T @ jnp.tanh(x),
    "gather": lambda x: x[np.int32([0, 0, 1])] * x[1],
    "segments": lambda x: jax.ops.segment_sum(x, np.int32([0, 1, 1, 0, 2]), 3) ** 3,
    "scan": lambda x: lax.scan(lambda c, r: (jnp.tanh(c + r), c * r), x[0], x),
    "branches": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.exp, x) * x,
    "while": lambda x: lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c * c + 1, x),
    "solve": lambda x: jnp.linalg.solve(x.T @ x + jnp.eye(7), x.T),
    "spectrum": lambda x: jnp.abs(jnp.fft.fft(x)) ** 2,
    "special": lambda x: lax.lgamma(jnp.abs(x)) + lax.erf(x) + jnp.cumsum(x * x, 1),
    "mixed": lambda x: (x.astype(jnp.bfloat16) * 2.1).astype(x.dtype) @ x.T,
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_numpy_and_xla_scatter_alike(name, dtype, monkeypatch):
    if name == "solve" and dtype in ("bfloat16", "float16"):
        pytest.skip("JAX solves in float32 and float64")
    if name == "spectrum" and dtype in ("bfloat16", "float16"):
        pytest.skip("JAX transforms float32 and float64")
    program = trace(BOTH_WAYS[name], X.astype(jnp.dtype(dtype)))
    if name != "while":  # which has no gradient backwards
        program = vjp_program(program)
    rng = np.random.default_rng(3)
    point = {
        name: rng.normal(size=aval.shape).astype(aval.dtype)
        for name, aval in zip(program.in_names, program.in_avals)
    }
    ways = []
    for compiles in (False, True):
        monkeypatch.setattr(evaluation, "pays_to_compile", lambda work, c=compiles: c)
        ways.append(Evaluation(reference=program).both(point, draws=40, seed=1))
    for interpreted, compiled in zip(*ways):
        for ours, theirs in zip(interpreted["reference"], compiled["reference"], strict=True):
            np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-9, atol=1e-12)
            assert np.array_equal(np.isfinite(ours.scatter), np.isfinite(theirs.scatter))
            noisy = np.isfinite(ours.scatter) & (theirs.scatter > 0)
            np.testing.assert_array_equal(ours.scatter > 0, theirs.scatter > 0)
            ratios = ours.scatter[noisy] / theirs.scatter[noisy]
            if ratios.size:
                assert 0.5 < np.median(ratios) < 2
                assert ratios.min() > 0.1 and ratios.max() < 10


@pytest.mark.parametrize("compiles", [True, False])
def test_a_loop_that_never_ends_at_another_input_has_no_value_there(compiles, monkeypatch):
    """Newton's iteration for the root of a negative number."""

    def root(a):
        def step(state):
            return 0.5 * (state[0] + a / state[0]), state[0]

        return lax.while_loop(lambda s: jnp.abs(s[0] - s[1]) > 1e-6, step, (a, 0 * a))[0]

    monkeypatch.setattr(evaluation, "pays_to_compile", lambda work: compiles)
    both = Evaluation(function=trace(root, np.float64(2.0)))
    assert abs(both.values({"a": np.float64(2.0)})["function"][0] - 2**0.5) < 1e-9
    assert np.isnan(both.values({"a": np.float64(-2.0)})["function"][0])


def test_a_loop_that_is_long_at_the_first_inputs_runs_to_its_end():
    def count(a):
        return lax.while_loop(lambda s: s < 1e5 * a, lambda s: s + a, 0 * a)

    found = Evaluation(function=trace(count, np.float64(2.0))).values({"a": np.float64(2.0)})
    assert found["function"][0] == 200_000
