import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.tracing import NotStrippable, custom_rules, rule_inputs, strip, trace

X = jnp.array([-1.0, 0.25, 2.0])


@jax.custom_vjp
def wrong(x):
    return jnp.sin(x) * x


wrong.defvjp(lambda x: (wrong(x), x), lambda x, g: (g * jnp.cos(x),))


def plain(x):
    return jnp.sin(x) * x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def power(n, x):
    return x**n


power.defvjp(lambda n, x: (x**n, x), lambda n, x, g: (g,))


@jax.custom_jvp
def product(x):
    return x * x


product.defjvps(lambda t, y, x: t)


@jax.custom_gradient
def square(x):
    return x * x, lambda g: (g,)


def symbolic():
    @jax.custom_vjp
    def function(x):
        return x * x

    def forward(x):
        return x.value * x.value, None

    function.defvjp(forward, lambda _, g: (g,), symbolic_zeros=True)
    return function


def remat_optimised():
    @jax.custom_vjp
    def function(x):
        return x * x

    function.defvjp(lambda x: (x * x, None), lambda _, g: (g,), optimize_remat=True)
    return function


def closing_over(w):
    @jax.custom_vjp
    def function(x):
        return x * w

    function.defvjp(lambda x: (x * w, None), lambda _, g: (g,))
    return function


PLACES = {
    "plain": (wrong, plain),
    "jit": (jax.jit(wrong), plain),
    "vmap": (lambda x: jax.vmap(wrong)(x), plain),
    "remat": (jax.checkpoint(wrong), plain),
    "scan": (
        lambda x: lax.scan(lambda c, _: (wrong(c), c), x, None, 2)[0],
        lambda x: plain(plain(x)),
    ),
    "cond": (lambda x: lax.cond(x[0] < 0, wrong, jnp.cos, x), plain),
    "while": (lambda x: lax.fori_loop(0, 1, lambda _, c: wrong(c), x), plain),
    "jit in scan": (
        lambda x: lax.scan(lambda c, _: (jax.jit(wrong)(c), None), x, None, 1)[0],
        plain,
    ),
    "nondiff_argnums": (lambda x: power(3, x), lambda x: x**3),
    "defjvps": (product, lambda x: x * x),
    "custom_gradient": (square, lambda x: x * x),
    "symbolic_zeros": (symbolic(), lambda x: x * x),
    "optimize_remat": (remat_optimised(), lambda x: x * x),
    "closure": (closing_over(2.0), lambda x: 2.0 * x),
}


@pytest.mark.parametrize("place", PLACES)
def test_rules_are_found_and_stripped_wherever_they_are(place):
    function, primal = PLACES[place]
    program = trace(function, X)
    rules = [rule for rule in custom_rules(program) if rule.user]
    assert rules and all("test_rules.py" in rule.defined for rule in rules)
    stripped = strip(program)
    assert not [rule for rule in custom_rules(stripped) if rule.user]
    np.testing.assert_allclose(stripped.flat(X)[0], primal(X), rtol=1e-6)
    if place == "while":
        return  # JAX does not differentiate it in reverse mode
    gradient = jax.grad(lambda x: stripped.flat(x)[0].sum())(X)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: primal(x).sum())(X), rtol=1e-5)


def test_kinds_names_and_places():
    def function(x):
        return lax.scan(lambda c, _: (product(wrong(c)), None), square(x), None, 2)[0]

    rules = custom_rules(trace(jax.jit(function), X))
    assert [rule.kind for rule in rules] == ["custom_gradient", "custom_vjp", "custom_jvp"]
    assert [rule.name for rule in rules[1:]] == ["wrong", "product"]
    assert rules[1].inside == ("jit", "scan")
    assert rules[1].source.startswith("test_rules.py:")


def test_rules_of_jax_itself_stay():
    program = trace(lambda x: jax.nn.softplus(wrong(x)) + jax.nn.relu(x), X)
    assert {rule.name: rule.user for rule in custom_rules(program)} == {
        "wrong": True,
        "logaddexp": False,
        "relu": False,
    }
    assert {rule.name for rule in custom_rules(strip(program))} == {"logaddexp", "relu"}
    nothing = strip(program, lambda rule: True)
    assert not custom_rules(nothing)


def test_stripping_one_of_several():
    program = trace(lambda x: wrong(product(x)), X)
    kept = strip(program, lambda rule: rule.name == "product")
    assert [rule.name for rule in custom_rules(kept)] == ["wrong"]


def test_equal_programs_are_stripped_once_unless_a_rule_of_the_user_stays():
    stripped = [strip(trace(wrong, X)) for _ in range(2)]
    assert stripped[0].jaxpr is stripped[1].jaxpr
    beside_jax = [strip(trace(lambda x: jax.nn.relu(wrong(x)), X)) for _ in range(2)]
    assert beside_jax[0].jaxpr is beside_jax[1].jaxpr
    both = [trace(lambda x: product(wrong(x)), X) for _ in range(2)]
    kept = [strip(program, lambda rule: rule.name == "wrong") for program in both]
    assert kept[0].jaxpr is not kept[1].jaxpr


def test_a_program_without_rules_is_returned_as_it_is():
    program = trace(plain, X)
    assert strip(program) is program


def test_rules_are_met_at_their_inputs_and_without_what_they_close_over():
    def network(x, key):
        w = jax.random.normal(key, (3,))
        last, _ = lax.scan(lambda c, r: (wrong(c + r), None), closing_over(w)(x), x[None], 1)
        return lax.cond(last[0] > 1e9, wrong, square, last)

    key = jax.random.key(1)
    program = trace(network, X, key)
    met = rule_inputs(program, program.flatten((X, key)))
    assert [meeting.rule.name for meeting in met][:2] == ["function", "wrong"]
    assert len(met) == 4
    scaled = X * jax.random.normal(key, (3,))
    np.testing.assert_allclose(met[0].points[0][1], X)
    np.testing.assert_allclose(met[1].points[0][0], scaled + X, rtol=1e-6)
    for meeting in met[2:]:  # both branches, whichever is taken
        np.testing.assert_allclose(meeting.points[0][0], plain(scaled + X), rtol=1e-5)
    assert met[0].wrt == (1,)
    np.testing.assert_allclose(met[0].program.flat(*met[0].points[0])[0], scaled, rtol=1e-6)
    assert [meeting.made_up for meeting in met] == [False, False, True, False]
    assert [rule.name for rule in custom_rules(met[1].program)] == ["wrong"]


def test_nested_rules_are_met_innermost_first():
    @jax.custom_vjp
    def outer(x):
        return 2.0 * wrong(x)

    outer.defvjp(lambda x: (outer(x), x), lambda x, g: (g,))
    met = rule_inputs(trace(outer, X), [X])
    assert [meeting.rule.name for meeting in met] == ["wrong", "outer"]


def test_a_rule_that_cannot_be_taken_out_is_not_passed_over():
    @jax.custom_vjp
    def outer(x):
        return 2.0 * wrong(x)

    outer.defvjp(lambda x: (outer(x), x), lambda x, g: (g,))
    with pytest.raises(NotStrippable, match="inside custom_vjp_call"):
        strip(trace(outer, X), lambda rule: rule.name == "wrong")

    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("a")
    sharded = jax.shard_map(wrong, mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(NotStrippable, match="shard_map"):
        strip(trace(sharded, X))
