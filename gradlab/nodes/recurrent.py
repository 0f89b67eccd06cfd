"""Recurrent layers: a cell, one step of it, and whole sequences (backpropagation through time).

The affine maps, the gradients and the loop over time are in `_recurring`; a cell is what it does
to its gates, and the slopes of that.
"""

from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._functions import logistic, logistic_slope
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._recurring import Cell, Sequence, Slopes

__all__ = ["Gru", "GruCell", "Lstm", "LstmCell", "Rnn", "RnnCell"]


def _rows(b: Array, like: Array) -> Array:
    return jnp.broadcast_to(b, like.shape)


class RnnCell(Cell):
    """One step of a recurrent network: tanh(x wx + h wh + b).

    Shapes: x (batch, inputs), h (batch, width), wx (inputs, width), wh (width, width), b (width,);
    the output is the new h.

    Local gradients, with d = 1 - y^2: in x and h the blocks diag(d_n) wx^T and diag(d_n) wh^T of
    each batch row n; dy[n, j]/dwx[i, j] = d[n, j] x[n, i], likewise in wh; dy[n, j]/db[j] = d.
    Backward: da = upstream * (1 - y^2); dx = da wx^T, dh = da wh^T, dwx = x^T da, dwh = h^T da,
    db = da summed over the batch.
    Source: Elman, "Finding structure in time" (1990).
    """

    @classmethod
    def step(cls, a: Array, r: Array, states: Any) -> Any:
        y = namespace(a).tanh(a + r)
        slope = 1.0 - y * y
        return (y[:, 0],), (Slopes(slope, slope, (None,)),)

    def reference(self, x: Array, h: Array, wx: Array, wh: Array, b: Array) -> Array:
        a = x @ wx + h @ wh
        return jnp.tanh(a + _rows(b, a))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (2, 4), (3, 4), (4, 4), (4,)),
            generic(cls(), (3, 1), (3, 2), (1, 2), (2, 2), (2,)),
            generic(cls(), (1, 2), (1, 3), (2, 3), (3, 3), (3,)),
            special(cls(), "saturated", [[40.0]], (1, 2), [[1.0, -1.0]], (2, 2), (2,)),
            Case(cls(), ((0, 2), (0, 3), (2, 3), (3, 3), (3,)), "zero size"),
        )


class LstmCell(Cell):
    """One step of a long short-term memory: c' = f c + i g, h' = o tanh(c').

    i, f, o = sigmoid and g = tanh of the four blocks of x wx + h wh + b, in the order i, f, o, g.

    Shapes: x (batch, inputs), h and c (batch, width), wx (inputs, 4 width), wh (width, 4 width),
    b (4 width,); outputs h' and c' (batch, width).

    Local gradients: dc'/dgates = diag(g i(1-i)), diag(c f(1-f)), 0, diag(i (1-g^2)); dc'/dc =
    diag(f); dh' = o (1 - tanh(c')^2) dc' + tanh(c') o(1-o) for the gate o; then through the affine
    maps as for any layer: blocks per batch row in x and h.
    Backward: dc' += dh' o (1 - tanh(c')^2); dgates by the slopes above; dc = dc' f; dx = dgates
    wx^T, dh = dgates wh^T, dwx = x^T dgates, dwh = h^T dgates, db = dgates summed over the batch.
    Source: Hochreiter and Schmidhuber, "Long short-term memory" (1997); the forget gate: Gers et
    al., "Learning to forget" (2000).
    """

    gates = 4
    states = 2

    @classmethod
    def step(cls, a: Array, r: Array, states: Any) -> Any:
        xp, c = namespace(a), states[1]
        s = a + r
        (i, f, o), g = (logistic(s[:, k]) for k in range(3)), xp.tanh(s[:, 3])
        di, df, do = (logistic_slope(s[:, k]) for k in range(3))
        after = f * c + i * g
        squashed = xp.tanh(after)
        pass_on = o * (1.0 - squashed * squashed)
        none = xp.zeros_like(g)
        of_c = xp.stack([g * di, c * df, none, i * (1.0 - g * g)], axis=1)
        of_o = xp.stack([none, none, squashed * do, none], axis=1)
        of_h = pass_on[:, None, :] * of_c + of_o
        slopes = Slopes(of_h, of_h, (None, pass_on * f)), Slopes(of_c, of_c, (None, f))
        return (o * squashed, after), slopes

    def reference(self, x: Array, h: Array, c: Array, wx: Array, wh: Array, b: Array) -> Any:
        a = x @ wx + h @ wh
        i, f, o, g = jnp.split(a + _rows(b, a), 4, axis=1)
        i, f, o, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)
        c = f * c + i * g
        return o * jnp.tanh(c), c

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (2, 2), (2, 2), (3, 8), (2, 8), (8,)),
            generic(cls(), (3, 1), (3, 1), (3, 1), (1, 4), (1, 4), (4,)),
            generic(cls(), (1, 2), (1, 3), (1, 3), (2, 12), (3, 12), (12,)),
            special(
                cls(), "saturated", [[40.0]], (1, 1), (1, 1), [[1.0, -1.0, 1.0, -1.0]], (1, 4), (4,)
            ),
        )


class GruCell(Cell):
    """One step of a gated recurrent unit: h' = (1 - z) n + z h.

    With a = x wx + b and r = h wh in three blocks: reset = sigmoid(a_0 + r_0), z = sigmoid(a_1 +
    r_1), n = tanh(a_2 + reset r_2): the reset gate acts after the product, as in cuDNN.

    Shapes: x (batch, inputs), h (batch, width), wx (inputs, 3 width), wh (width, 3 width),
    b (3 width,); the output is the new h.

    Local gradients, with e = (1 - z)(1 - n^2): dh'/da = diag(e r_2 reset(1-reset)),
    diag((h - n) z(1-z)), diag(e); dh'/dr the same with e reset last; dh'/dh directly diag(z); then
    through the affine maps: blocks per batch row in x and h.
    Backward: da and dr = upstream times these slopes; dx = da wx^T, dh = dr wh^T + upstream z,
    dwx = x^T da, dwh = h^T dr, db = da summed over the batch.
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder"
    (arXiv:1406.1078, 2014), section 2.3.
    """

    gates = 3

    @classmethod
    def step(cls, a: Array, r: Array, states: Any) -> Any:
        xp, h = namespace(a), states[0]
        to_reset, to_z = a[:, 0] + r[:, 0], a[:, 1] + r[:, 1]
        reset, z = logistic(to_reset), logistic(to_z)
        n = xp.tanh(a[:, 2] + reset * r[:, 2])
        e = logistic(-to_z) * (1.0 - n * n)
        gates = e * r[:, 2] * logistic_slope(to_reset), (h - n) * logistic_slope(to_z)
        of_a, of_r = (xp.stack([*gates, last], axis=1) for last in (e, e * reset))
        return (logistic(-to_z) * n + z * h,), (Slopes(of_a, of_r, (z,)),)

    def reference(self, x: Array, h: Array, wx: Array, wh: Array, b: Array) -> Array:
        a = x @ wx
        a, r = jnp.split(a + _rows(b, a), 3, axis=1), jnp.split(h @ wh, 3, axis=1)
        z = jax.nn.sigmoid(a[1] + r[1])
        n = jnp.tanh(a[2] + jax.nn.sigmoid(a[0] + r[0]) * r[2])
        return jax.nn.sigmoid(-(a[1] + r[1])) * n + z * h

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (2, 2), (3, 6), (2, 6), (6,)),
            generic(cls(), (3, 1), (3, 1), (1, 3), (1, 3), (3,)),
            generic(cls(), (1, 2), (1, 3), (2, 9), (3, 9), (9,)),
            special(cls(), "saturated", [[40.0]], (1, 1), [[1.0, -1.0, 1.0]], (1, 3), (3,)),
        )


class Rnn(Sequence):
    """A tanh recurrent network over a sequence: h_t = tanh(x_t wx + h_{t-1} wh + b).

    Shapes: x (batch, length, inputs), h0 (batch, width), wx (inputs, width), wh (width, width),
    b (width,), output h (batch, length, width).

    Local gradients: in x block-lower-triangular in time, dh_t/dx_s = A_t ... A_{s+1} B_s with
    A = diag(1 - h^2) wh^T and B = diag(1 - h^2) wx^T, by batch row; in h0 the products A_t ... A_1;
    in the weights the sums of what each step contributes.
    Backward, from the last step: da_t = (upstream_t + dh_t) * (1 - h_t^2), dh_{t-1} = da_t wh^T;
    dx_t = da_t wx^T, dwx = sum x_t^T da_t, dwh = sum h_{t-1}^T da_t, db = sum da_t.
    Source: Werbos, "Backpropagation through time" (1990).
    """

    cell = RnnCell

    def reference(self, x: Array, h0: Array, wx: Array, wh: Array, b: Array) -> Array:
        h, history = h0, []
        for t in range(x.shape[1]):
            h = RnnCell().reference(x[:, t], h, wx, wh, b)
            history.append(h)
        return jnp.stack(history, axis=1)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 1), (2, 2), (1, 2), (2, 2), (2,)),
            generic(cls(), (1, 2, 3), (1, 1), (3, 1), (1, 1), (1,)),
            generic(cls(), (3, 1, 2), (3, 2), (2, 2), (2, 2), (2,)),
        )


class Lstm(Sequence):
    """A long short-term memory over a sequence, and its last cell state.

    c_t = f c_{t-1} + i g, h_t = o tanh(c_t), with the gates i, f, o, g of x_t wx + h_{t-1} wh + b.

    Shapes: x (batch, length, inputs), h0 and c0 (batch, width), wx (inputs, 4 width),
    wh (width, 4 width), b (4 width,); outputs h (batch, length, width) and c (batch, width).

    Local gradients: in x block-lower-triangular in time and by batch row, products of the steps'
    gradients (see LstmCell); in h0 and c0 the products over all steps; in the weights the sums of
    what each step contributes.
    Backward: that of LstmCell from the last step to the first, handing dh and dc on; the weights'
    gradients are summed over the steps.
    Source: Hochreiter and Schmidhuber, "Long short-term memory" (1997).
    """

    cell = LstmCell

    def reference(self, x: Array, h0: Array, c0: Array, wx: Array, wh: Array, b: Array) -> Any:
        h, c, history = h0, c0, []
        for t in range(x.shape[1]):
            h, c = LstmCell().reference(x[:, t], h, c, wx, wh, b)
            history.append(h)
        return jnp.stack(history, axis=1), c

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2, 1), (2, 1), (2, 1), (1, 4), (1, 4), (4,)),
            generic(cls(), (1, 3, 2), (1, 1), (1, 1), (2, 4), (1, 4), (4,)),
            generic(cls(), (1, 1, 1), (1, 2), (1, 2), (1, 8), (2, 8), (8,)),
        )


class Gru(Sequence):
    """A gated recurrent unit over a sequence: h_t = (1 - z) n + z h_{t-1} (see GruCell).

    Shapes: x (batch, length, inputs), h0 (batch, width), wx (inputs, 3 width), wh (width,
    3 width), b (3 width,), output h (batch, length, width).

    Local gradients: in x block-lower-triangular in time and by batch row, products of the steps'
    gradients; in h0 the products over all steps; in the weights the sums over the steps.
    Backward: that of GruCell from the last step to the first, handing dh on; the weights'
    gradients are summed over the steps.
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder"
    (arXiv:1406.1078, 2014), section 2.3.
    """

    cell = GruCell

    def reference(self, x: Array, h0: Array, wx: Array, wh: Array, b: Array) -> Array:
        h, history = h0, []
        for t in range(x.shape[1]):
            h = GruCell().reference(x[:, t], h, wx, wh, b)
            history.append(h)
        return jnp.stack(history, axis=1)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2, 1), (2, 2), (1, 6), (2, 6), (6,)),
            generic(cls(), (1, 3, 2), (1, 1), (2, 3), (1, 3), (3,)),
            generic(cls(), (3, 1, 2), (3, 1), (2, 3), (1, 3), (3,)),
        )
