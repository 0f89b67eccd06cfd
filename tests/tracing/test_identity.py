"""Equal keys for equal programs alone; what cannot be compared has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.references import vjp_program
from gradlab.tracing import remember, strip, trace
from gradlab.tracing.identity import identity

X = np.arange(1.0, 4.0, dtype=np.float32)


def of(function, *inputs):
    return trace(function, *inputs or (X,)).identity


def test_names_do_not_count():
    assert of(lambda x: jnp.tanh(x) * 2) == of(lambda y: jnp.tanh(y) * 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x * 2, lambda x: x * 3),
        (lambda x: x * 0.0, lambda x: x * -0.0),
        (lambda x: x + np.float32([1, 2, 3]), lambda x: x + np.float32([1, 2, 4])),
        (lambda x: x - jnp.sin(x), lambda x: jnp.sin(x) - x),
        (lambda x: lax.scan(lambda c, a: (c + a, c), 0.0, x)[1],
         lambda x: lax.scan(lambda c, a: (c - a, c), 0.0, x)[1]),
        (lambda x: (x, x * 1), lambda x: (x * 1, x)),
        (lambda x: x.astype(jnp.float16), lambda x: x.astype(jnp.bfloat16)),
        (lambda x: jnp.sum(x, keepdims=True), lambda x: jnp.max(x, keepdims=True)),
        (lambda x: lax.cumsum(x), lambda x: lax.cumsum(x, reverse=True)),
    ],
)  # fmt: skip
def test_what_computes_something_else_has_another_key(one, other):
    assert None not in (of(one), of(other))
    assert of(one) != of(other)
    assert of(one) == of(one)


def test_shapes_and_dtypes_count():
    assert of(jnp.tanh, X) != of(jnp.tanh, X[:2])
    assert of(jnp.tanh, X) != of(jnp.tanh, X.astype(np.float64))


def test_a_large_constant_has_no_key():
    table = np.arange(1e5)
    assert of(lambda x: x + table[:3]) is not None
    assert of(lambda x: x + jnp.asarray(table).sum()) is None


def test_functions_among_the_parameters_count_as_themselves():
    def call(function):
        return jax.make_jaxpr(
            lambda x: jax.pure_callback(function, jax.ShapeDtypeStruct((3,), np.float32), x)
        )(X)

    assert identity(call(np.sin)) != identity(call(np.cos))


def test_a_rule_given_anew_is_not_taken_for_the_old_one():
    layer = jax.custom_vjp(lambda x: x * x)
    layer.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))
    first = of(lambda x: jax.grad(lambda y: layer(y).sum())(x))
    layer.defvjp(lambda x: (x * x, x), lambda x, g: (3 * x * g,))
    assert of(lambda x: jax.grad(lambda y: layer(y).sum())(x)) != first


def test_settings_count():
    key, made = ("settings", "count"), []
    with jax.enable_x64(True):
        remember(key, lambda: made.append(1))
    remember(key, lambda: made.append(2))
    remember(key, lambda: made.append(3))
    assert made == [1, 2]


def test_without_a_key_everything_is_made_anew():
    made = []
    for _ in range(2):
        remember(None, lambda: made.append(1))
    assert made == [1, 1]


def test_the_key_of_values_does_not_ask_for_rules_and_that_of_programs_does():
    def ruled(factor):
        @jax.custom_vjp
        def layer(x):
            return jnp.tanh(x)

        layer.defvjp(lambda x: (layer(x), x), lambda x, g: (factor * g,))
        return trace(layer, X)

    one, other = ruled(1.0), ruled(2.0)
    assert one.computes == other.computes is not None
    assert one.identity is None or one.identity != other.identity
    assert one.computes != trace(jnp.sin, X).computes


def ruled(slope, primal=jnp.tanh):
    @jax.custom_jvp
    def layer(x):
        return primal(x)

    layer.defjvp(lambda primals, tangents: (layer(*primals), slope * tangents[0]))
    return layer


def softened(x):
    return jnp.logaddexp(x, 0.0)


@pytest.mark.parametrize("function", [jax.nn.relu, softened, jnp.sinc, jax.nn.softplus])
def test_a_rule_that_jax_wrote_is_the_same_in_every_trace(function):
    assert of(lambda x: function(x) * 1) == of(lambda x: function(x) * 1) is not None


def test_rules_that_jax_wrote_are_told_apart_and_those_of_users_are_new_in_every_trace():
    assert of(jax.nn.relu) != of(lambda x: jnp.maximum(x, 0))
    layer = ruled(2.0)
    assert of(layer) != of(layer)
    mine = jax.custom_jvp(lambda x: jnp.maximum(x, 0))
    mine.defjvps(lambda t, out, x: t)  # JAX wraps it in a function of its own
    assert of(mine) != of(mine)


def test_without_its_rules_a_layer_is_stripped_once_and_with_another_primal_anew():
    one, other = strip(trace(ruled(2.0, softened), X)), strip(trace(ruled(3.0, softened), X))
    assert one.jaxpr is other.jaxpr
    assert vjp_program(one).jaxpr is vjp_program(other).jaxpr
    assert strip(trace(ruled(2.0, jax.nn.relu), X)).jaxpr is not one.jaxpr
