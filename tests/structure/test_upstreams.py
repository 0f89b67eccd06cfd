"""A custom rule may send its upstream through anything, also what no derivative of JAX's would.

A backward that sorts or decomposes its upstream is no gradient, but it is a program, and what it
reads is held against the program itself: an entry of the upstream is moved, and every entry of the
result that moves with it must be in the pattern.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.structure import jacobian

SIDE = (4, 4)
KEPT = np.arange(16.0, dtype=np.float32).reshape(SIDE)


def _both(g):
    return lax.sort((jnp.asarray(KEPT.T), g), dimension=1, num_keys=1)[1]


def _largest(g):
    return jnp.concatenate([lax.top_k(g, 2)[0], g[:, :2]], axis=1)


def _least_absolute(x, y):
    return lax.select(lax.abs(x) < lax.abs(y), x, y)


def _reduced(g):
    return g + lax.reduce(g, np.float32(9), _least_absolute, (1,))[:, None]


def _reduced_from(g):
    return lax.reduce(jnp.asarray(KEPT), g[0, 0], _least_absolute, (1,))[:, None] * g


# what is done to the upstream -> how many entries of the pattern may be too many
SENT = {
    "sort": (lambda g: jnp.sort(g, axis=1), 0),
    "sort along the first axis": (lambda g: jnp.sort(g, axis=0), 0),
    "sort beside keys that do not depend on it": (_both, 48),
    "top_k": (_largest, 0),
    "a reduction of its own": (_reduced, 192),
    "the start of a reduction": (_reduced_from, 7),
    "qr": (lambda g: jnp.linalg.qr(g)[0], 112),
    "eigh": (lambda g: jnp.linalg.eigh(g + g.T)[0][:, None] * g, 99),
    "svd": (lambda g: jnp.linalg.svd(g, compute_uv=False)[:, None] * g, 99),
    "maximum": (lambda g: jnp.maximum(g, 2 * g), 0),
    "abs": (jnp.abs, 0),
    "sign": (lambda g: jnp.sign(g) * g, 0),
    "bits": (lambda g: lax.bitcast_convert_type(lax.bitcast_convert_type(g, np.int32), "f4"), 240),
    "a barrier": (lambda g: lax.optimization_barrier((g, g.T))[1], 0),
    "where it is positive": (lambda g: jnp.where(g > 0, g, g.T), 0),
    "cummax": (lambda g: lax.cummax(g, axis=1), 0),
}


def moved_with(send):
    """Return which entries of the result move with which entry of the upstream, at some points."""
    random = np.random.default_rng(0)
    run = jax.jit(lambda many: lax.map(send, many))
    seen = np.zeros((16, 16), bool)
    for _ in range(40):
        g = random.standard_normal(SIDE).astype(np.float32)
        beside = np.stack([g, *np.repeat(g[None], 16, 0)])
        for j in range(16):
            beside[1 + j].flat[j] = random.standard_normal() * 3
        results = np.asarray(run(beside)).reshape(17, 16)
        seen |= (results[1:] != results[0]).T
    return seen


@pytest.mark.parametrize("name", SENT)
def test_no_entry_is_missed(name):
    send, spare = SENT[name]

    @jax.custom_vjp
    def layer(x):
        return x

    layer.defvjp(lambda x: (x, None), lambda _, g: (send(g),))
    report = jacobian(layer, np.zeros(SIDE, np.float32))
    pattern = report.pattern.to_dense().T  # rows: the upstream's entries sent on; columns: read
    seen = moved_with(send)
    assert not (seen & ~pattern).any(), report.notation
    assert (pattern & ~seen).sum() <= spare, (report.notation, report.notes)
