"""An audit meets every custom rule, at the inputs it meets there, with its own verdict."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

import gradlab


def scaled(factor, name):
    """A custom_jvp that multiplies by 2 and whose rule says `factor`."""

    def primal(x):
        return 2 * x

    primal.__name__ = name
    f = jax.custom_jvp(primal)
    f.defjvps(lambda t, y, x: factor * t)
    return f


right, wrong = scaled(2.0, "right"), scaled(3.0, "wrong")
X = jnp.array([[0.5, -1.0], [2.0, 0.25]], jnp.float32)

PLACES = {
    "jit": lambda f: jax.jit(f),
    "vmap": lambda f: jax.vmap(f),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, r: (c + f(r), f(c)), x[0], x),
    "cond": lambda f: lambda x: jax.lax.cond(x.sum() > 0, f, lambda x: x, x),
    "remat": lambda f: jax.checkpoint(f),
}


INSIDE = {"scan": ("scan",), "cond": ("cond",), "remat": ("checkpoint",)}


def verdicts(report):
    return {rule.name: rule.report.ok for rule in report.rules}


@pytest.mark.parametrize("place", PLACES)
def test_rules_are_met_wherever_they_are(place):
    report = gradlab.audit(lambda x: PLACES[place](wrong)(x), X)
    assert verdicts(report) == {"wrong": False}
    assert not report.ok
    assert all(rule.source.startswith("test_audit.py:") for rule in report.rules)
    assert {rule.inside for rule in report.rules} == {INSIDE.get(place, ())}
    assert " inside " in str(report) or place not in INSIDE


def test_each_rule_has_its_own_verdict():
    report = gradlab.audit(lambda x: jnp.sum(jax.nn.relu(right(x)) + wrong(x)), X)
    assert verdicts(report) == {"right": True, "relu": True, "wrong": False}


@pytest.mark.parametrize("factor", [2, 3])
def test_an_outer_rule_is_held_against_its_primal_without_the_rules_inside(factor):
    @jax.custom_vjp
    def outer(x):
        return jnp.sin(wrong(x))

    outer.defvjp(lambda x: (jnp.sin(wrong(x)), x), lambda x, g: (factor * g * jnp.cos(2 * x),))
    report = gradlab.audit(outer, X)
    assert [rule.name for rule in report.rules] == ["wrong", "outer"]
    assert [rule.inside for rule in report.rules] == [("outer",), ()]
    assert verdicts(report) == {"wrong": False, "outer": factor == 2}
    assert report.ok is (factor == 2)


def test_a_rule_that_another_one_shields_is_not_used_and_so_not_judged():
    """Its rule is wrong below zero; nothing differentiates it, whatever reaches it."""

    @jax.custom_vjp
    def root(x):
        return jnp.sqrt(jnp.abs(x))

    root.defvjp(lambda x: (root(x), x), lambda x, g: (g * 0.5 / jnp.sqrt(jnp.abs(x)),))

    @jax.custom_vjp
    def outer(x):
        return root(x) ** 2

    outer.defvjp(lambda x: (outer(x), x), lambda x, g: (g * jnp.sign(x),))
    report = gradlab.audit(outer, X)
    inner, found = report.rules
    assert report.ok and found.report.ok and found.calls == 1
    assert not inner.report.failed and inner.calls == 0
    assert "not used: outer has its own rule" in inner.report.laws[0].reason
    assert not gradlab.audit(lambda x: outer(x) + root(x), X).ok


def test_a_rule_in_a_loop_is_judged_at_its_iterations():
    """It is right at 1, where the first iteration meets it, and nowhere else."""

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (square(x), x), lambda x, g: (2 * g,))

    def model(x):
        return jax.lax.scan(lambda c, _: (c + 0.1, square(c)), x, length=20)[1]

    (rule,) = gradlab.audit(model, jnp.float32(1.0)).rules
    assert not rule.report.ok and rule.calls == 20 and rule.inputs_tried == 8
    assert gradlab.audit(square, jnp.float32(1.0), branches=False).ok
    assert not gradlab.audit(square, jnp.float32(1.0), branches=False, samples=3).ok
    assert not gradlab.audit(square, jnp.float32(1.0)).ok, "gradlab looks near 1 by itself"


@pytest.mark.usefixtures("verdict_alone")
def test_one_array_that_a_root_finder_closes_over_twice_has_one_gradient():
    def root(matrix, b, factor=1.0):
        return jax.lax.custom_root(
            lambda x: matrix @ x - b,
            jnp.zeros_like(b),
            lambda f, start: jnp.linalg.solve(matrix, b),
            lambda g, y: factor * jnp.linalg.solve(jax.jacobian(g)(y), y),
        )

    rng = np.random.default_rng(0)
    matrix, b = rng.normal(size=(3, 3)) + 3 * np.eye(3), rng.normal(size=3)
    (rule,) = gradlab.audit(root, matrix, b).rules
    assert rule.report.ok and rule.kind == "custom_root" and rule.name == "root"
    assert not gradlab.audit(lambda m, b: root(m, b, 2.0), matrix, b).ok


def test_a_wrapped_rule_has_the_users_name_and_the_arguments_their_names():
    equinox = pytest.importorskip("equinox")

    @equinox.filter_custom_vjp
    def sine(angle):
        return jnp.sin(angle)

    @sine.def_fwd
    def _(perturbed, angle):
        return sine(angle), angle

    @sine.def_bwd
    def _(saved, g, perturbed, angle):
        return 2 * g * jnp.cos(saved)

    found = {rule.name: rule for rule in gradlab.audit(sine, X).rules}
    assert found["sine"].defined.startswith("test_audit.py:")
    assert found["sine"].report.worst.path == "angle"


def test_operands_are_named_as_the_decorated_function_names_them():
    @jax.custom_vjp
    def layer(params, x):
        return params["w"] * jnp.sin(x)

    layer.defvjp(
        lambda p, v: (layer(p, v), (p, v)),
        lambda saved, g: ({"w": g * jnp.sin(saved[1])}, g * jnp.cos(saved[1])),
    )
    (rule,) = gradlab.audit(lambda w, x: layer({"w": w}, x), X + 2, X).rules
    assert [leaf.path for leaf in rule.report.leaves] == ["params['w']", "x"]
    assert rule.report.worst.path == "x"


def test_what_a_rule_closes_over_is_constant():
    """A rule may be silent about arguments that do not depend on the audited inputs."""

    @jax.custom_vjp
    def weighted(x, w):
        return x * w

    weighted.defvjp(lambda x, w: (x * w, w), lambda w, g: (g * w, None))
    constant = jnp.full((2, 2), 3.0)
    assert gradlab.audit(lambda x: weighted(x, constant), X).ok
    assert not gradlab.audit(lambda x, w: weighted(x, w), X, constant).ok


def test_the_same_rule_at_two_places_is_met_twice():
    report = gradlab.audit(lambda x: right(x)[0] + right(jnp.tile(x, 2))[0, :2], X)
    assert len(report.rules) == 2


def test_no_rule_is_said_and_not_taken_for_a_verdict():
    report = gradlab.audit(jax.grad(lambda x: jnp.sum(wrong(x))), X)
    assert report.ok and not report.rules
    assert "not its gradient" in report.notes[0]


def test_integer_inputs_and_pytrees():
    def model(params, tokens):
        return jax.nn.relu(params["embedding"][tokens]).sum()

    report = gradlab.audit(model, {"embedding": X}, np.array([0, 1, 0]))
    assert verdicts(report) == {"relu": True}


@pytest.mark.parametrize("name", ["relu6", "silu", "gelu", "softplus", "log_softmax", "logsumexp"])
def test_rules_of_jax_itself(name):
    assert gradlab.audit(getattr(jax.nn, name), X).ok


def test_reports_in_every_format():
    report = gradlab.audit(lambda x: right(x) + wrong(x), X)
    text = str(report)
    assert "1 of 2 custom rules is WRONG" in text
    assert "WRONG  wrong  custom_jvp  test_audit.py:" in text
    assert "+    f.defjvps(lambda t, y, x: 2 * t)" in text, "the function is 2 x"
    assert report.to_dict()["schema"] == "gradlab.audit/2"
    assert report.render("junit").count("<testsuite ") == 2
    assert "1 of 2 custom rules is WRONG" in report._repr_html_()


def test_what_one_edit_mends_is_told_once():
    report = gradlab.audit(lambda x: wrong(x).sum() + wrong(x[0]).sum(), X)
    assert [rule.status for rule in report.rules] == ["wrong", "wrong"]
    assert str(report).count("+    f.defjvps(lambda t, y, x: 2 * t)") == 1
    assert str(report).count("WRONG  wrong") == 2


def test_rules_of_one_factory_on_one_line_are_told_apart():
    def ruled(factor):
        @jax.custom_vjp
        def layer(x):
            return jnp.tanh(x) / 3

        layer.defvjp(lambda x: (layer(x), x), lambda x, g: ((1 - jnp.tanh(x) ** 2) * g * factor,))
        return layer

    right, wrong = ruled(1 / 3), ruled(1.0)
    report = gradlab.audit(lambda x: wrong(right(x)), jnp.ones(3))
    assert sorted(rule.report.ok for rule in report.rules) == [False, True]
    assert not report.ok


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 8, 11))]
)
def test_what_the_formula_forgives_the_pushforward_does_too(seed):
    """`fresnel` approximates to float32; its rule is exact, and its two outputs may cancel."""
    x = jnp.array([-0.3, -1.7, -2.45], jnp.float32)
    report = gradlab.audit(jax.scipy.special.fresnel, x, seed=seed)
    assert report.ok, report


def test_a_rule_that_closes_over_a_traced_value_is_judged_with_the_function_around_it():
    """JAX stops the gradient of what stands in nondiff_argnums: by n it is 0, the slope is not."""

    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def power(n, x):
        return x**n

    @power.defjvp
    def _(n, primals, tangents):
        (x,), (t,) = primals, tangents
        return x**n, n * x ** (n - 1) * t

    x, order = jnp.array([0.3, 0.7], jnp.float32), jnp.array([1.5, 2.0], jnp.float32)
    report = gradlab.audit(lambda n, x: jax.nn.relu(x) + power(n, x), order, x)
    found = {rule.name: rule.report for rule in report.rules}
    assert found["relu"].ok and not found["power"].ok
    assert [law.name for law in found["power"].failed] == ["finite differences"]
    assert any("it judged the whole function" in note for note in found["power"].notes)
    assert not jax.grad(lambda n: power(n, x).sum())(order).any()
    assert not gradlab.check(power, order, x).ok
    assert gradlab.check(power, order, x, wrt=1).ok


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_rule_that_is_made_inside_is_checked_inside(factor):
    def scaled(x, w):
        @jax.custom_jvp
        def inside(y):
            return jnp.sin(y) * w

        @inside.defjvp
        def _(primals, tangents):
            return inside(*primals), factor * tangents[0] * jnp.cos(primals[0]) * w

        return inside(x)

    x, w = np.array([0.3, 2.0]), np.array([1.0, 2.0])
    assert gradlab.check(scaled, x, w, wrt=0).ok is (factor == 1.0)
    (rule,) = gradlab.audit(lambda x: scaled(x, jnp.cos(x[0]) * w), x).rules
    assert not rule.report.ok  # the rule is silent about w, which depends on x, too


def test_an_approximation_that_errs_alike_at_equal_inputs_is_forgiven():
    x = jnp.full(4, -1.7, jnp.float32)
    assert all(gradlab.audit(jax.scipy.special.fresnel, x, seed=seed).ok for seed in (0, 1))


def sums_and_counts(wrong=""):
    """A root finder's shape: a value with a derivative, and statistics whose own are left out."""

    @jax.custom_jvp
    def solve(x):
        return jnp.sqrt(x), jnp.abs(jnp.sqrt(x) ** 2 - x) + x

    def jvp(primals, tangents):
        root, left = solve(*primals)
        slope = tangents[0] / (2 * root) * (3 if wrong else 1)
        return (root, left), (slope, jnp.zeros_like(left))

    solve.defjvp(jvp)
    return solve


@pytest.mark.usefixtures("verdict_alone")
@pytest.mark.parametrize("wrong", ["", "value"])
@pytest.mark.parametrize("place", ["plain", "scan", "while"])
def test_an_output_is_judged_where_an_upstream_reaches_it(place, wrong):
    solve = sums_and_counts(wrong)

    def body(x):
        root, left = solve(x)
        return root + 1, jax.lax.stop_gradient(left)

    def model(x):
        if place == "plain":
            return body(x)[0]
        if place == "scan":
            return jax.lax.scan(lambda c, _: body(c), x, length=3)
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, body(c[1])[0]), (0, x))[
            1
        ]

    x = jnp.array([0.5, 2.0], jnp.float32)
    (rule,) = gradlab.audit(model, x).rules
    assert rule.report.ok is not bool(wrong) and rule.calls
    assert any("output[1], which no upstream reaches in" in note for note in rule.report.notes)
    assert not gradlab.check(solve, x).ok  # alone, all of its outputs are asked


def test_a_rule_that_no_upstream_reaches_has_no_verdict():
    report = gradlab.audit(lambda x: jax.lax.stop_gradient(wrong(x)) + right(x), X)
    unused, used = report.rules
    assert report.ok and used.status == "right" and unused.calls == 0
    assert "no upstream reaches it" in unused.report.laws[0].reason


def end_of(wrong=False):
    """It forgets the tangent of `end` where `start` has none, as a loop's end knows none then."""

    @jax.custom_jvp
    def last(start, end):
        return 2 * end + 0 * start

    def jvp(primals, tangents):
        start, end = tangents
        if isinstance(start, jax.custom_derivatives.SymbolicZero):
            return last(*primals), jnp.zeros_like(primals[1])
        return last(*primals), (3 if wrong else 2) * end

    last.defjvp(jvp, symbolic_zeros=True)
    return last


def test_symbolic_zeros_are_those_that_occur():
    """Both always move together in the first model, and each alone in the second."""
    x = jnp.array([0.5, 2.0], jnp.float32)
    assert gradlab.audit(lambda x: end_of()(x, jnp.sin(x)), x).ok
    assert not gradlab.audit(lambda x: end_of(True)(x, jnp.sin(x)), x).ok
    assert not gradlab.audit(lambda x, y: end_of()(x, jnp.sin(y)), x, x).ok


@pytest.mark.usefixtures("verdict_alone")
@pytest.mark.parametrize("faulty", ["", "inner", "outer"])
def test_a_shielded_rule_is_judged_where_the_outer_rule_differentiates_it(faulty):
    """The outer backward differentiates its body itself, and so uses the rule inside."""
    inner = scaled(3.0 if faulty == "inner" else 2.0, "inner")

    def body(x):
        return jnp.sin(inner(x))

    @jax.custom_vjp
    def outer(x):
        return body(x)

    def bwd(x, u):
        (gradient,) = jax.vjp(body, x)[1](u)
        return ((5 if faulty == "outer" else 1) * gradient,)

    outer.defvjp(lambda x: (body(x), x), bwd)
    report = gradlab.audit(lambda x: outer(x), X)
    found = {rule.name: rule for rule in report.rules}
    assert found["outer"].report.ok is (faulty == "")
    assert report.ok is (faulty == "")
    if faulty == "inner":
        assert found["inner"].status == "wrong"


def ruled_by(primal, backward):
    f = jax.custom_vjp(primal)
    f.defvjp(lambda x: (primal(x), x), backward)
    return f


def declared(report):
    """Return the hint of a wrong rule, on one line."""
    return " ".join(str(report).split()).partition("pass intended=")[2].partition("}")[0] + "}"


def test_a_gradient_that_may_be_meant_says_how_to_declare_it():
    through = ruled_by(lambda x: jnp.round(x), lambda x, u: (u,))
    reverse = ruled_by(lambda x: x, lambda x, u: (-u,))
    stopped = ruled_by(jnp.sin, lambda x, u: (0 * u,))
    assert declared(gradlab.audit(lambda x: through(x), X)).endswith(": lambda x: x}")
    assert declared(gradlab.audit(lambda x: reverse(x), X)).endswith(": lambda x: -x}")
    assert declared(gradlab.audit(lambda x: stopped(x), X)) == '{"sin": lambda x: 0 * x}'
    report = gradlab.audit(lambda x: stopped(x), X, intended={"sin": lambda x: 0 * x})
    assert report.ok and "as intended" in str(report)


def test_the_gradient_of_a_sampler_may_be_that_of_its_distribution():
    """A rejection sampler's draw has slope 0 where the proposal ignores the rate."""

    @jax.custom_jvp
    def draw(rate, key):
        return jnp.floor(3 * jax.random.uniform(key, rate.shape)) + 0 * rate

    draw.defjvps(lambda t, y, rate, key: -y / rate * t, None)
    rate, key = jnp.array([0.5, 2.0]), jax.random.key(0)
    report = gradlab.audit(draw, rate, key)
    assert not report.ok and "draws random numbers" in " ".join(str(report).split())
    assert declared(report) == '{"draw": "any"}'
    assert gradlab.audit(draw, rate, key, intended={"draw": "any"}).ok


def test_a_rule_under_vmap_beside_a_kernel_has_a_fix():
    def kernel(x_ref, y_ref):
        y_ref[...] = x_ref[...] * x_ref[...]

    def square(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(kernel, shape, interpret=True)(x)

    def model(x):
        return square(x) + jax.vmap(jax.vmap(wrong))(x)

    (rule,) = gradlab.audit(model, X).rules
    assert "+    f.defjvps(lambda t, y, x: 2 * t)" in rule.fixes[0].diff
