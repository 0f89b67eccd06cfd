"""`why()`: each text is a correct proof, and names the lines that matter."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.structure import jacobian


def blank(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layer(x):
    return jnp.tanh(x)


def softmax(x):
    e = jnp.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def attention(x):
    mask = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), bool))
    scores = jnp.where(mask, x @ x.T, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1) @ x


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    number = next(k for k, line in enumerate(lines, first) if text in line)
    return f"test_proof.py:{number}"


def test_tanh_is_elementwise_and_says_what_that_saves():
    text = jacobian(layer, blank(100, 4096)).why()
    assert f"{line_of(layer, 'tanh')}  |  return jnp.tanh(x)  entry by entry" in text
    assert "out[i, j] depends on x[i, j] alone." in text
    assert "one JVP with a tangent of ones gives d" in text
    assert "409,600 numbers, not 167,772,160,000; backward = upstream * d; " in text
    assert "true for every input of this shape" in text


def test_a_product_gives_its_entries_in_a_formula():
    report = jacobian(lambda W, x: W @ x, blank(3, 4), blank(4))
    text = report.why()
    assert report.notation.splitlines()[0] == "out[b] <- W[b, :]"
    assert "d out[k] / d W[i, j] = x[j] where k = i, else 0." in text
    assert "d out[j] / d x[i] = W[j, i]." in text
    assert "3 blocks of 1 x 4: 12 numbers, not 36" in text


def test_the_formula_of_a_batched_product_is_true():
    q, k = (np.random.default_rng(n).standard_normal((2, n, 4)).astype("f") for n in (3, 5))

    def scores(q, k):
        return jnp.einsum("bqd,bkd->bqk", q, k)

    text = jacobian(scores, q, k, wrt="q").why()
    assert "d out[m, n, p] / d q[i, j, l] = k[i, p, l] where m = i and n = j, else 0." in text
    dense = jax.jacrev(scores)(q, k)
    m, n, p, i, j, el = np.ogrid[:2, :3, :5, :2, :3, :4]
    assert np.allclose(dense, np.where((m == i) & (n == j), k[i, p, el], 0))


def test_softmax_couples_its_rows_and_nothing_else():
    report = jacobian(softmax, blank(100, 512))
    text = report.why()
    assert "out[b, :] depends on x[b, :] alone." in text
    assert "100 blocks of 512 x 512: 26,214,400 numbers, not 2,621,440,000" in text
    assert f"{line_of(softmax, 'max(1')}  |  e = jnp.exp(x - x.max(1, keepdims=True))" in text
    assert "softmax: axis 1 of x is coupled: out[b, :] depends on x[b, :] alone" in report.why(1)
    assert f"{line_of(softmax, 'max(1')}  |  e = " in report.why(1)
    assert "stays apart" in report.why(0)
    assert "coupled" not in report.why(0)


def test_attention_is_causal_and_its_lines_are_named():
    report = jacobian(attention, blank(64, 16))
    assert "out[t, :] depends on x[<=t, :] alone." in report.why()
    assert "out is causal along axis 0: no entry reads a later one of x." in report.why()
    assert "532,480 numbers, not 1,048,576" in report.why()
    said = report.why(0)
    assert f"{line_of(attention, 'x @ x.T')}  |  scores = " in said
    assert f"{line_of(attention, 'axis=-1) @ x')}  |  return jax.nn.softmax(scores" in said
    assert "^^ sums products over axis 1 (causally)" in said


def finite_mask(x):
    mask = jnp.tril(jnp.ones((x.shape[0], x.shape[0]), bool))
    return jax.nn.softmax(jnp.where(mask, x @ x.T, jnp.finfo(x.dtype).min), axis=-1) @ x


def finite_bias(x):
    bias = np.where(np.tril(np.ones((8, 8), bool)), 0, -1e9).astype("float32")
    return jax.nn.softmax(x @ x.T + bias, axis=-1) @ x


def test_a_finite_mask_is_named_where_it_keeps_an_axis_coupled():
    hint = "hint: {} at {}: the mask uses {}, a finite number; use -jnp.inf"
    said = jacobian(finite_mask, blank(64, 16)).why(0)
    assert hint.format("select_n", line_of(finite_mask, "finfo"), "-3.4e+38") in said
    said = jacobian(finite_bias, blank(8, 4)).why(0)
    assert hint.format("add", line_of(finite_bias, "+ bias"), "-1e+09") in said


def test_no_hint_where_no_mask_is_finite():
    def shifted(x):
        return jax.nn.softmax(x - 2000.0, 0)

    assert "hint:" not in jacobian(attention, blank(64, 16)).why(0)
    assert "hint:" not in jacobian(shifted, blank(8)).why(0)


def test_what_jax_does_inside_counts_as_done_by_the_caller():
    def first(x):
        return jnp.where(x > 0, x, 0)

    def second(x):
        return jnp.where(x > 0, x, 0)

    for function in (first, second):
        report = jacobian(function, blank(3))
        assert f"{line_of(function, 'where')}  |  return jnp.where(x > 0, x, 0)" in report.why()


def test_a_custom_rule_is_said_to_be_read_backwards():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g[::-1] * jnp.cos(x),))
    text = jacobian(lambda x: f(x), blank(4)).why()
    assert "custom_vjp sin, read backwards" in text
    assert "The Jacobian is a permutation" in text


def test_nothing_reaches_the_output():
    text = jacobian(lambda x: jnp.round(x), blank(4)).why()
    assert "out does not depend on x." in text
    assert "zero" in text


def test_why_names_the_line_where_a_scalar_output_is_made_behind_a_custom_rule():
    """The Jacobian is read backwards, and a scalar has no axis."""

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, u: (2 * x * u,))

    def loss(x):
        return square(jnp.sin(x)).sum()

    text = jacobian(loss, blank(3)).why(0)
    assert "square(jnp.sin(x)).sum()" in text and "sums over axis 0" in text
    assert "no single line" not in text and "apart" not in text


def test_parallel_scans_are_causal_though_they_join_empty_arrays():
    def decayed(x):
        half = jnp.full(x.shape, 0.5)
        pairs = lax.associative_scan(lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (half, x))
        return pairs[1]

    assert jacobian(decayed, jnp.ones(8)).nnz == 36
    J = jacobian(lambda x: lax.cumlogsumexp(x, axis=1), jnp.ones((4, 5)))
    assert J.nnz == 60 and not J.notes
