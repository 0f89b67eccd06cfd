"""The walk and NumPy's arithmetic, held against JAX in float64, over values and gradients."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.typing import NDArray

from gradlab.references import on_host, options_for, vjp_program
from gradlab.tracing import Interpreter, Lifter, NumPy, TooLong, Value, compile_once, trace
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.running import AtOnce

RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6)), RNG.normal(size=(6, 5))
P = np.abs(X) + 0.1
IMAGE, KERNEL = RNG.normal(size=(2, 3, 7, 8)), RNG.normal(size=(4, 3, 3, 2))
I = np.array([3, 1, 1, 0])
SQUARE = X @ X.T + np.eye(4)


def conv(*settings, **more):
    return lambda a, b: lax.conv_general_dilated(a, b, *settings, **more)


def pool(initial, combine, window, strides, padding):
    return lambda a: lax.reduce_window(a, initial, combine, window, strides, padding)


UNARY = "sin cos tan sinh cosh tanh arcsinh exp exp2 expm1 square abs sign floor ceil cbrt negative"
POSITIVE = "log log1p log2 sqrt reciprocal arccosh"
BOUNDED = "arcsin arccos arctan arctanh"
BINARY = "add subtract multiply divide maximum minimum arctan2 power hypot logaddexp fmod remainder"
NETWORK = "relu gelu softplus selu elu sigmoid silu log_softmax softmax logsumexp standardize"
REDUCING = "sum prod max min mean var std cumsum cumprod sort median"
CASES = {
    **{name: (getattr(jnp, name), X) for name in UNARY.split()},
    **{name: (getattr(jnp, name), P + 1.0) for name in POSITIVE.split()},
    **{name: (getattr(jnp, name), np.tanh(X)) for name in BOUNDED.split()},
    **{name: (getattr(jnp, name), P, np.abs(Y) + 0.2) for name in BINARY.split()},
    **{name: (getattr(jax.nn, name), X) for name in NETWORK.split()},
    **{f"{n} of rows": (lambda x, n=n: getattr(jnp, n)(x, axis=1), X) for n in REDUCING.split()},
    **{f"{n} of columns": (lambda x, n=n: getattr(jnp, n)(x, axis=0), X) for n in REDUCING.split()},
    "matrix product": (jnp.matmul, X, W),
    "einsum": (lambda a, b: jnp.einsum("ij,ij,ik->k", a, a, b), X, Y),
    "batch of products": (jnp.matmul, RNG.normal(size=(3, 2, 4)), RNG.normal(size=(3, 4, 5))),
    "gather rows": (lambda a: a[I], X),
    "gather entries": (lambda a: a[I, I], X),
    "take": (lambda a: jnp.take(a, I + 2, axis=1), X),
    "take beyond": (lambda a: jnp.take(a, I + 4, axis=1, mode="fill", fill_value=2.0), X),
    "take clipped": (lambda a: jnp.take(a, I + 4, axis=1, mode="clip"), X),
    "take along": (lambda a: jnp.take_along_axis(a, jnp.argsort(a, 1), 1), X),
    "gather batch": (jax.vmap(lambda a, i: a[i]), X, I),
    "scatter add": (lambda a, b: a.at[I].add(b), X, Y),
    "scatter beyond": (lambda a, b: a.at[I + 2].add(b), X, Y),
    "scatter clipped": (lambda a, b: a.at[I + 2].add(b, mode="clip"), X, Y),
    "scatter subtract": (lambda a, b: a.at[I].subtract(b), X, Y),
    "scatter batch": (lambda a: jax.vmap(lambda a, i: a.at[i].add(2 * a[i]))(a, I), X),
    "scatter max": (lambda a, b: a.at[I].max(b), X, Y),
    "set": (lambda a, b: a.at[1:3].set(b[1:3]), X, Y),
    "multiply": (
        lambda a, b: a.at[np.array([0, 2])].multiply(b[:2], unique_indices=True),
        X,
        Y,
    ),
    "segments": (lambda a: jax.ops.segment_sum(a, I, 5), X),
    "convolution": (
        conv((2, 1), ((1, 2), (0, 1)), lhs_dilation=(1, 2), rhs_dilation=(1, 2)),
        IMAGE,
        KERNEL,
    ),
    "groups": (conv((1, 1), "SAME", feature_group_count=3), IMAGE, RNG.normal(size=(6, 1, 3, 3))),
    "channels last": (
        conv((1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        RNG.normal(size=(2, 5, 6, 3)),
        RNG.normal(size=(3, 2, 3, 4)),
    ),
    "max pool": (pool(-np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"), IMAGE),
    "max pool that overlaps": (pool(-np.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "SAME"), IMAGE),
    "mean pool": (pool(0.0, lax.add, (1, 1, 3, 3), (1, 1, 2, 1), "SAME"), IMAGE),
    "scan": (lambda a: lax.scan(lambda c, r: (jnp.tanh(c + r), c * r), a[0], a), X),
    "scan backwards": (
        lambda a: lax.scan(lambda c, r: (jnp.tanh(c + r), c * r), a[0], a, reverse=True),
        X,
    ),
    "empty scan": (lambda a: lax.scan(lambda c, r: (c + r, c), a[0], a[:0]), X),
    "loop": (lambda a: lax.fori_loop(0, 3, lambda i, c: c * a[i], a[0]), X),
    "batch of loops": (
        jax.vmap(lambda a: lax.fori_loop(0, 4, lambda i, c: jnp.sin(c) * a, a)),
        X[0],
    ),
    "cond": (lambda a: lax.cond(a[0, 0] > 0, jnp.sin, jnp.cos, a), X),
    "switch": (lambda a: lax.switch(jnp.int32(7), [jnp.sin, jnp.cos, jnp.exp], a), X),
    "pad": (lambda a: lax.pad(a, jnp.sum(a) * 0 + 0.5, ((1, -1, 2), (-2, 1, 1))), X),
    "reflect": (lambda a: jnp.pad(a, 1, mode="reflect"), X),
    "slices": (lambda a: a[::-1, 1::2] * a[:, ::2], X),
    "window": (lambda a: lax.dynamic_slice(a, jnp.int32([1, 7]), (2, 3)), X),
    "update": (lambda a, b: lax.dynamic_update_slice(a, b[:2, :3], jnp.int32([2, 9])), X, Y),
    "cholesky": (jnp.linalg.cholesky, SQUARE),
    "solve": (jnp.linalg.solve, SQUARE, X),
    "conjugate gradients": (lambda a: jax.scipy.sparse.linalg.cg(a, jnp.ones(4))[0], SQUARE),
    "spectrum": (lambda a: jnp.abs(jnp.fft.fft(a)), X),
    "error function": (lambda a: lax.erf(a) + lax.erfc(a) * lax.erf_inv(jnp.tanh(a)), X),
    "gamma": (lambda a: lax.lgamma(a) + lax.digamma(a), P),
    "bessel": (lambda a: jax.scipy.special.i0e(a) + jax.scipy.special.i1e(a), X),
    "complex": (lambda a, b: jnp.real(jnp.exp(1j * a) * (b + 1j * a)) + jnp.abs(a - 1j * b), X, Y),
    "largest": (lambda a: lax.top_k(a, 3)[0], X),
    "ties": (lambda a: lax.top_k(jnp.round(a), 3)[0] * jnp.argmax(jnp.round(a)), X),
    "sort two": (lambda a, b: lax.sort((jnp.round(a), b), num_keys=2)[1], X, Y),
    "where": (lambda a, b: jnp.where(a > b, a * b, jnp.where(b > 0, a, 2.0)), X, Y),
    "clip": (lambda a: jnp.clip(a, -0.5, 0.5), X),
    "round": (lambda a: (jnp.round(a * 3) + lax.round(a * 2)) * a, X),
    "dropout": (lambda a: jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, (4, 6)), a, 0), X),
    "integers": (lambda a: a * ((jnp.arange(-3, 3) // 2 % 3) + (jnp.arange(6) >> 1 | 1)), X),
    "to integers": (lambda a: a * (a * 1e12).astype(jnp.int32) * jnp.isfinite(a), X),
    "extremes so far": (lambda a: lax.cummax(a, 1) + lax.cumlogsumexp(a, 0, reverse=True), X),
    "moved": (lambda a: jnp.roll(a, 2, 1) + jnp.tile(a[:1], (4, 1)) + jnp.tril(a), X),
    "in another order": (lambda a: lax.reshape(a, (8, 3), (1, 0)), X),
    "stacked": (
        lambda a, b: jnp.stack([a, a * b], 1) * sum(jnp.unstack(b, axis=1))[:, None, None],
        X,
        Y,
    ),
    "recomputed": (jax.checkpoint(lambda a: jnp.sin(jnp.tanh(a) * a)), X),
    "matrix power": (lambda a: jnp.linalg.matrix_power(a, 5), SQUARE),
}


def lifted(program, arguments, draws=None):
    """The outputs in NumPy; `draws`: that many copies of every inexact input at once."""
    with on_host(), np.errstate(all="ignore"):
        walk = Lifter(NumPy())
        values = []
        for array, aval in zip(arguments, program.in_avals):
            depends = is_inexact(aval.dtype)
            array = np.stack([array] * draws) if draws and depends else np.asarray(array)
            values.append(Value(array, depends))
        return [walk.wide(value) for value in walk(program.jaxpr, values)]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_jax(name):
    function, *inputs = CASES[name]
    program = vjp_program(trace(function, *inputs))
    rng = np.random.default_rng(1)
    upstreams = [rng.normal(size=aval.shape) for aval in program.in_avals[len(inputs) :]]
    arguments = [*inputs, *upstreams]
    with on_host():
        run = compile_once(program.flat, *arguments, options=options_for(1))
        expected = [np.asarray(y) for y in run(*arguments)]
    for ours, theirs in zip(lifted(program, arguments), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(lifted(program, arguments, draws=3), expected, strict=True):
        if ours.shape != theirs.shape:
            assert ours.shape == (3, *theirs.shape)
        np.testing.assert_allclose(
            ours, np.broadcast_to(theirs, ours.shape), rtol=1e-11, atol=1e-11
        )


def test_every_draw_has_its_own_indices():
    def function(x):
        order = jnp.argsort(x)
        y = x[order] * jnp.arange(5.0)
        y = y.at[order].add(x)
        return lax.dynamic_update_slice(y, x[:2], (jnp.argmax(x),)) + lax.dynamic_slice(
            x, (jnp.argmin(x),), (5,)
        )

    rows = RNG.normal(size=(3, 5))
    program = trace(function, rows[0])
    with on_host():
        (ours,) = Lifter(NumPy())(program.jaxpr, [Value(rows, True)])
        expected = [program.flat(row)[0] for row in rows]
    np.testing.assert_allclose(ours.array, expected, rtol=1e-14)


def test_every_draw_takes_its_own_branch_and_its_own_turns():
    def function(x):
        y = lax.cond(x[0] > 0, lambda x: x * 2, lambda x: x - 1, x)
        return y, lax.while_loop(lambda c: c[0] < 4, lambda c: c + 1.5, x)

    rows = np.array([[0.5, 1.0], [-0.5, 2.0], [3.9, 3.0]])
    program = trace(function, rows[0])
    with on_host():
        ours = Lifter(NumPy())(program.jaxpr, [Value(rows, True)])
        expected = [program.flat(row) for row in rows]
    for i, value in enumerate(ours):
        np.testing.assert_array_equal(value.array, [each[i] for each in expected])


def test_values_that_do_not_depend_on_inputs_keep_their_dtype():
    x = X.astype(np.float32)
    program = trace(lambda x: x * jnp.float32(0.1) + jnp.arange(6, dtype=jnp.float32) / 3, x)
    (ours,) = lifted(program, [x.astype(np.float64)])
    thirds = (np.arange(6, dtype=np.float32) / np.float32(3)).astype(np.float64)
    np.testing.assert_array_equal(ours, x.astype(np.float64) * float(np.float32(0.1)) + thirds)


def test_writing_entry_after_entry_happens_in_place():
    def function(x, n):
        for i in range(n):
            x = x.at[i].set(x[i] * 2.0)
        return x

    taken = []
    for size in (100, 2_000_000):
        program, runs = trace(lambda x: function(x, 40), np.ones(size)), []
        for _ in range(3):  # other processes disturb one
            start = time.process_time()
            (ours,) = lifted(program, [np.ones(size)])
            runs.append(time.process_time() - start)
        taken.append(min(runs))
        np.testing.assert_array_equal(ours[:40], 2.0)
        np.testing.assert_array_equal(ours[40:], 1.0)
    assert taken[1] - taken[0] < 0.08  # 40 copies take some 0.2


def test_what_is_read_later_is_not_written_into():
    def function(x):
        first = x.at[0].set(5.0)
        view = first.reshape(2, 2)
        second = first.at[1].set(7.0)
        rows = lax.scan(lambda c, i: (c.at[i].add(1.0), c), second, jnp.arange(3))[1]
        fixed = lax.fori_loop(0, 3, lambda i, c: c + second.at[i].set(0.0), second)
        return x, view, second, rows, fixed, x.at[2].add(1.0)

    x = np.arange(4.0)
    program = trace(function, x)
    with on_host():
        expected = program.flat(x)
    for ours, theirs in zip(lifted(program, [x]), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(x, np.arange(4.0))


def test_an_endless_loop_is_stopped():
    program = trace(lambda x: lax.while_loop(lambda c: c > 0, lambda c: c + 1, x), 1.0)
    with on_host():
        walk = Lifter(NumPy())
        walk.turns = 100
        with pytest.raises(TooLong):
            walk(program.jaxpr, [Value(np.asarray(1.0), True)])


class Modular(Interpreter[NDArray[np.int64]]):
    """Arithmetic modulo 101: an algebra that is not floating point."""

    def constant(self, array):
        return np.asarray(array).astype(np.int64) % 101

    def equation(self, equation, inputs):
        name = equation.primitive.name
        known = {"add": np.add, "mul": np.multiply, "sub": np.subtract, "lt": np.less}
        if name == "convert_element_type":
            return list(inputs)
        return [known[name](*inputs) % 101]

    def concrete(self, value):
        return value

    def row(self, value, index, atom):
        return value[index]

    def stack(self, rows, variable):
        return np.array(rows)


def test_another_algebra_walks_through_loops_calls_and_rules():
    @jax.custom_vjp
    def cube(x):
        return x * x * x

    cube.defvjp(lambda x: (cube(x), x), lambda x, u: (3 * u * x * x,))

    def function(x, rows):
        total, products = lax.scan(lambda c, r: (c + r, c * r), x, rows)
        turns = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, total))
        return jax.jit(cube)(turns[1]), products

    program = trace(function, 5.0, np.arange(1.0, 4.0))
    value, products = Modular()(program.jaxpr, [np.int64(5), np.arange(1, 4)])
    total = 5 + 1 + 2 + 3
    assert value == (total * 125) ** 3 % 101
    assert products.tolist() == [5, 12, 24]


def test_loops_that_vmap_made_one_end_each_for_itself():
    def power(x):
        return lax.while_loop(lambda s: s[0] < x, lambda s: (s[0] + 1.0, s[1] * x), (0.0, 1.0))[1]

    x = np.array([0.5, 2.5, 1.5])
    program = trace(jax.vmap(power), x)
    expected = x ** np.ceil(x)
    np.testing.assert_allclose(AtOnce()(program.jaxpr, [x])[0], expected)
    rows = np.stack([x, x[::-1]])
    with on_host():
        (found,) = Lifter(NumPy())(program.jaxpr, [Value(rows, True)])
    np.testing.assert_allclose(found.array, [expected, expected[::-1]])
