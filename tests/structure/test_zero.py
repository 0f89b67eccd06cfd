"""A backward that is not zero where its upstream is zero: every entry that it makes is found.

JAX does not hold a custom rule to linearity. `jax.jacrev` sends one upstream after the other
through the backward, all but one entry of it zero, and keeps what comes out. Each rule here is held
against that, one plain call of the backward for each upstream.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.structure import jacobian

X = np.array([[1.5, 2.0, 0.75], [3.0, 0.5, 1.25], [0.25, 1.75, 2.5]], np.float32)
FILLED = np.array([0, 7, 2])
HALF = np.tri(3, dtype=np.float32)
ROWS = np.array([[0], [2]])
NUMBERS = lax.ScatterDimensionNumbers((1,), (0,), (0,))


def _bits(g):
    return lax.bitcast_convert_type(g, jnp.int32)


def _flags(g):
    return g != 0


def _whole(g):
    return jnp.round(g).astype(jnp.int32)


def _carried(start):
    def step(carry, row):
        carry = carry + row
        return carry, 2 * carry

    return lambda x, g: lax.scan(step, start(x, g), g)


def _replaced(x, g):
    cell = jax.new_ref(x)
    cell[...] = g
    return cell[...]


def _added(x, g):
    cell = jax.new_ref(x)
    cell.addupdate(g)
    return cell[...]


def _written(x, g):
    cell = jax.new_ref(x)
    cell[0] = g[0]
    return cell[...]


def _scattered(function):
    return lambda x, g: function(x, ROWS, g[:2], NUMBERS, unique_indices=True)


# name -> what a backward makes of the input x and the upstream g
NOT_ZERO = {
    # booleans
    "less than": lambda x, g: (g < 0.5) * x,
    "less or equal": lambda x, g: (g <= 0) * x,
    "greater": lambda x, g: (g > -0.5) * x,
    "greater, the other side": lambda x, g: (x > g) * x,
    "greater or equal": lambda x, g: (g >= 0) * x,
    "equal": lambda x, g: (g == 0) * x,
    "not equal to 1": lambda x, g: (g != 1) * x,
    "not": lambda x, g: ~_flags(g) * x,
    "or": lambda x, g: (_flags(g) | (x > 1)) * x,
    "xor": lambda x, g: (_flags(g) ^ (x > 1)) * x,
    "is finite": lambda x, g: jnp.isfinite(g) * x,
    "all": lambda x, g: (~_flags(g)).all(axis=0) * x,
    "a choice of numbers": lambda x, g: jnp.where(_flags(g), g, x),
    "a choice of numbers by place": lambda x, g: jnp.where(HALF > 0, g, x),
    # integers
    "integer added": lambda x, g: (_whole(g) + 1) * x,
    "bitwise not": lambda x, g: ~_whole(g) * x,
    "bitwise or": lambda x, g: (_whole(g) | 2) * x,
    "bitwise xor": lambda x, g: (_whole(g) ^ 2) * x,
    "shifted by": lambda x, g: (2 << _whole(g)) * x,
    "leading zeros": lambda x, g: lax.clz(_whole(g)) * x,
    "bits of -0.0": lambda x, g: _bits(-g) * x,
    "integer quotient by zero": lambda x, g: (_whole(g) // (x > 1).astype(jnp.int32)) * x,
    "remainder": lambda x, g: jnp.fmod(x, 1 + g),
    "argmax of another": lambda x, g: jnp.argmin(g + x) * x,
    # complex numbers
    "modulus": lambda x, g: x * jnp.abs(lax.complex(g, x)),
    "real part": lambda x, g: lax.complex(x, g).real,
    "complex product": lambda x, g: (lax.complex(g, x) * lax.complex(x, g)).imag,
    "angle": lambda x, g: jnp.angle(lax.complex(-g, g)),
    # functions
    "exponential": lambda x, g: x * jnp.exp(g),
    "logistic": lambda x, g: x * jax.nn.sigmoid(g),
    "cosine": lambda x, g: x * jnp.cos(g),
    "power": lambda x, g: x * (1 + g) ** x,
    "a power of zero": lambda x, g: x * g**0,
    "digits": lambda x, g: x * jnp.nextafter(1 + g, 2),
    "atan2": lambda x, g: jnp.arctan2(g, -g) * x,
    "erfc": lambda x, g: x * jax.scipy.special.erfc(g),
    "bessel": lambda x, g: x * jax.scipy.special.i0e(g),
    "loggamma": lambda x, g: x * jax.scipy.special.gammaln(3 + g),
    "a constant added": lambda x, g: g + 1,
    "the input added": lambda x, g: g + x,
    "the input alone": lambda x, g: x,
    "a constant alone": lambda x, g: jnp.ones_like(x),
    "clipped away from zero": lambda x, g: jnp.clip(g, 0.5, 1.0),
    "clipped by the input": lambda x, g: jnp.maximum(g, x),
    # running and sorted
    "cumlogsumexp": lambda x, g: lax.cumlogsumexp(g) * x,
    "logsumexp": lambda x, g: jax.nn.logsumexp(g, axis=0) * x,
    "softmax": lambda x, g: jax.nn.softmax(g) * x,
    "sorted by the upstream": lambda x, g: lax.sort((g, x), dimension=1, num_keys=1)[1],
    "argsort": lambda x, g: jnp.argsort(g) * x,
    "top_k indices": lambda x, g: lax.top_k(g, 3)[1] * x,
    "a reduction from 1": lambda x, g: lax.reduce(g, np.float32(1), lax.add, (0,)) * x,
    "a reduction by a program": lambda x, g: (
        lax.reduce(g, np.float32(0), lambda a, b: a + b + 1, (0,)) * x
    ),
    "pooled, empty": lambda x, g: (
        lax.reduce_window(g, np.float32(3), lambda a, b: a + b, (2, 2), (1, 1), "SAME") * x
    ),
    # filled, indexed, written
    "take with a fill": lambda x, g: x * jnp.take(g, FILLED, axis=0, mode="fill", fill_value=3.0),
    "flags taken with a fill": lambda x, g: x * jnp.take(_flags(g), FILLED, axis=0, mode="fill"),
    "whole numbers taken with a fill": lambda x, g: (
        x * jnp.take(_whole(g), FILLED, axis=0, mode="fill")
    ),
    "chosen by the upstream": lambda x, g: x[_whole(g)[0]],
    "sliced by the upstream": lambda x, g: lax.dynamic_slice(x, (_whole(g)[0, 0], 0), (3, 3)),
    "padded with 1": lambda x, g: jnp.pad(g[1:], ((1, 0), (0, 0)), constant_values=1.0),
    "joined": lambda x, g: jnp.concatenate([g[:2], x[:1]]),
    "set by a constant": lambda x, g: g.at[0].set(1.0),
    "set by the input": lambda x, g: g.at[0].set(x[0]),
    "written into the input": lambda x, g: x.at[0].set(g[0]),
    "updated slice": lambda x, g: lax.dynamic_update_slice(x, g[:1], (1, 0)),
    "applied at a place": lambda x, g: g.at[np.array([0])].apply(lambda v: 2 * v + 1),
    "added to the input": lambda x, g: x.at[ROWS[:, 0]].add(g[:2]),
    "scaled entries of the input": _scattered(lax.scatter_mul),
    "least of the input": _scattered(lax.scatter_min),
    "greatest of the input": lambda x, g: g.at[ROWS[:, 0]].max(x[:2]),
    # algebra
    "orthogonal": lambda x, g: jnp.linalg.qr(g)[0] * x,
    "eigenvectors": lambda x, g: jnp.linalg.eigh(g + g.T)[1] * x,
    "inverse": lambda x, g: jnp.linalg.inv(g + 2 * np.eye(3, dtype=np.float32)) * x,
    "solve of the input": lambda x, g: lax.linalg.triangular_solve(
        g + np.eye(3, dtype=np.float32), x, left_side=True, lower=True
    ),
    "permutation": lambda x, g: lax.linalg.lu(g + x)[2] * x,
    # control flow
    "one branch": lambda x, g: lax.cond(x[0, 0] > 1, lambda: jnp.ones_like(g), lambda: g),
    "the other branch": lambda x, g: lax.switch(1, [lambda: g, lambda: x]),
    "a carry from 1": lambda x, g: _carried(lambda x, g: jnp.ones(3))(x, g)[1],
    "the last carry from the input": lambda x, g: _carried(lambda x, g: x[0])(x, g)[0] * x,
    "a loop from the input": lambda x, g: lax.fori_loop(0, 2, lambda i, c: c + g, x),
    "a while loop from 1": lambda x, g: lax.while_loop(
        lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] + g), (0, jnp.ones_like(g))
    )[1],
    "a loop that forgets": lambda x, g: lax.fori_loop(0, 2, lambda i, c: x + 0 * c, g),
    "a step of its own": lambda x, g: lax.scan(
        lambda c, r: (c, jnp.where(c > 0, r[1], r[0])), 1.0, (g, x)
    )[1],
    "a mutable array": _added,
    "a part of a mutable array": _written,
}
ZERO = {
    "where it is positive": (lambda x, g: jnp.where(g > 0, g, 0), 3),
    "clipped": (lambda x, g: jnp.clip(g, -1, 1), 3),
    "flags": (lambda x, g: _flags(g) * x, 3),
    "greater than 1": (lambda x, g: (g > 1) * x, 3),
    "a choice that the upstream makes of zeros": (lambda x, g: jnp.where(g < 0.5, g, 2 * g), 3),
    "comparison times upstream": (lambda x, g: (g <= 1) * g * x, 3),
    "a carry from 0": (lambda x, g: _carried(lambda x, g: jnp.zeros(3))(x, g)[1], 6),
    "a replaced mutable array": (_replaced, 3),
    "largest": (lambda x, g: lax.top_k(g, 3)[0], 9),
    "take with zeros": (
        lambda x, g: jnp.take(g, FILLED, axis=0, mode="fill", fill_value=0.0),
        2,
    ),
    "a barrier beside the input": (lambda x, g: lax.optimization_barrier((g, x))[0], 3),
    "a program that adds": (
        lambda x, g: lax.reduce(g, np.float32(0), lambda a, b: a + b, (0,)) * x,
        9,
    ),
}
"""For each, how many rows of blocks of 3 entries its pattern has: more would be a loss."""


def layer(send):
    @jax.custom_vjp
    def rule(x):
        return x * x

    rule.defvjp(lambda x: (x * x, x), lambda x, g: (jnp.asarray(send(x, g), x.dtype),))
    return rule


def columns(send):
    """Return where a Jacobian is not zero, one call of the backward for each upstream."""
    seeds = np.eye(9, dtype=np.float32).reshape(9, 3, 3)
    with np.errstate(all="ignore"):
        rows = [np.asarray(send(jnp.asarray(X), jnp.asarray(s)), np.float32) for s in seeds]
    return np.stack(rows).reshape(9, 9) != 0


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", NOT_ZERO)
def test_what_is_not_zero_is_found(name):
    nonzero = columns(NOT_ZERO[name])
    assert nonzero.sum() > 9
    missed = nonzero & ~jacobian(layer(NOT_ZERO[name]), X).pattern.to_dense()
    assert not missed.any(), missed


@pytest.mark.parametrize("name", ZERO)
def test_what_stays_zero_is_proved(name):
    send, rows = ZERO[name]
    pattern = jacobian(layer(send), X).pattern
    assert not (columns(send) & ~pattern.to_dense()).any()
    assert pattern.nnz <= 3 * rows
