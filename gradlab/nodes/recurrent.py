"""Recurrent layers: a cell, one step of it, and whole sequences (backpropagation through time).

A cell sees its input and its state through two affine maps, a = x wx + b and r = h wh, each of
`gates` blocks as wide as the state. All else is entry by entry, so that a cell is known by its
slopes: how much each new state changes with each gate of a and of r, and with each old state. Both
the local gradients and the backward follow from these, here, once.

Over a sequence the gradients of the steps compose. With A_t the gradient of step t in the state
before it and B_t in its input, d state_t / d x_s = A_t ... A_{s+1} B_s for s <= t, else 0. The
local gradient forms these products; backward applies them from the last step to the first
(backpropagation through time).

Source: Werbos, "Backpropagation through time: what it does and how to do it" (1990).
"""

from abc import abstractmethod
from typing import ClassVar, NamedTuple, TypeAlias

from gradlab import operators as ops
from gradlab.common.arrays import Array, DTypeLike, Shape, einsum, namespace
from gradlab.nodes._base import Applied, Gradients, Kept, Namespace, Node, Outputs, Pulled
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import logistic, logistic_slope, over_rows
from gradlab.operators import Operator

States: TypeAlias = tuple[Array, ...]


class GateSlopes(NamedTuple):
    """How one new state changes: with the gates (batch, gates, width), with old states directly."""

    of_input: Array
    of_state: Array
    direct: tuple[Array | None, ...]


class Cell(Node):
    """One step: (x, *states, wx, wh, b) -> the new states."""

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    shapes = (
        "x (batch, inputs), h (batch, width), wx (inputs, columns), wh (width, columns), "
        "b (columns) -> (batch, width)"
    )

    @classmethod
    @abstractmethod
    def step(cls, a: Array, r: Array, states: States) -> tuple[States, tuple[GateSlopes, ...]]:
        """Return the new states and their slopes; a and r are (batch, gates, width)."""

    @classmethod
    def split(
        cls, node: Node, inputs: tuple[Array, ...]
    ) -> tuple[Array, States, Array, Array, Array]:
        """Return x, the states, wx, wh and b.

        Raises:
            InputError: there are not as many columns as the gates need.
        """
        x, *states = inputs[: 1 + cls.states]
        wx, wh, b = inputs[1 + cls.states :]
        fits = wh.shape[1] == cls.gates * wh.shape[0]
        node.require(fits, f"expected wh (width, {cls.gates} width)", wh=wh.shape)
        return x, tuple(states), wx, wh, b

    @classmethod
    def by_gate(cls, a: Array) -> Array:
        """Return (..., gates * width) as (..., gates, width)."""
        return a.reshape(*a.shape[:-1], cls.gates, a.shape[-1] // cls.gates)

    def apply(self, xp: Namespace, *inputs: Array) -> Applied:
        x, states, wx, wh, b = self.split(self, inputs)
        a, r = x @ wx + b[None, :], states[0] @ wh
        after, slopes = self.step(self.by_gate(a), self.by_gate(r), states)
        return after if self.states > 1 else after[0], (x, states, wx, wh, slopes)

    def gradients(self, xp: Namespace, *kept: Kept) -> Gradients:
        """Return the gradients of each new state."""
        *parts, slopes = kept
        rows = tuple(self.state_gradients(slope, *parts) for slope in slopes)
        return rows if self.states > 1 else rows[0]

    @classmethod
    def state_gradients(
        cls, slope: GateSlopes, x: Array, states: States, wx: Array, wh: Array
    ) -> tuple[Operator, ...]:
        """Return the gradients of one new state in x, each state, wx, wh and b."""
        h = states[0]

        def through(s: Array, w: Array) -> Operator:
            return ops.BlockDiagonal(einsum("ngh,dgh->nhd", s, cls.by_gate(w)))

        def of_weights(s: Array, left: Array, w: Array) -> Operator:
            gated = cls.by_gate(w).shape
            each = ops.Contraction("ngh,nd,dgh->nh", s, left, input_shape=gated)
            return each @ ops.Reshape(w.shape, gated, w.dtype)

        of_states: list[Operator] = [through(slope.of_state, wh)]
        of_states += [ops.Zero(h.shape, s.shape, s.dtype) for s in states[1:]]
        for i, d in enumerate(slope.direct):
            of_states[i] = of_states[i] if d is None else of_states[i] + ops.Diagonal(d)
        of_b = ops.Contraction("ngh,gh->nh", slope.of_input, input_shape=slope.of_input.shape[1:])
        return (
            through(slope.of_input, wx),
            *of_states,
            of_weights(slope.of_input, x, wx),
            of_weights(slope.of_state, h, wh),
            of_b @ ops.Reshape(wh.shape[1:], of_b.input_shape, wh.dtype),
        )

    @classmethod
    def gate_gradients(
        cls, upstream: States, slopes: tuple[GateSlopes, ...], wh: Array
    ) -> tuple[Array, Array, States]:
        """Return the gradients of a, of r, and of the old states."""
        pairs = list(zip(upstream, slopes))
        flat = (upstream[0].shape[0], wh.shape[1])
        da = sum(u[:, None, :] * s.of_input for u, s in pairs).reshape(flat)
        dr = sum(u[:, None, :] * s.of_state for u, s in pairs).reshape(flat)
        before = [dr @ wh.T, *(0.0 * u for u in upstream[1:])]
        for u, s in pairs:
            before = [g if d is None else g + u * d for g, d in zip(before, s.direct)]
        return da, dr, tuple(g.astype(wh.dtype) for g in before)

    def pull(self, xp: Namespace, upstream: Outputs, *kept: Kept) -> Pulled:
        x, states, wx, wh, slopes = kept
        u = upstream if self.states > 1 else (upstream,)
        da, dr, before = self.gate_gradients(u, slopes, wh)
        return da @ wx.T, *before, x.T @ da, states[0].T @ dr, da.sum(axis=0)


class _OverTime(Node):
    """A cell run over x: its first state at every step, and the last of each other state."""

    _kind = (
        "Local gradients: in x block-lower-triangular in time and by batch row, dh_t/dx_s = A_t "
        "... A_{s+1} B_s, with A_t and B_t the cell's gradients in its state and its input at "
        "step t; in h0 the products A_t ... A_1; in the weights the sums over the steps. "
        "Backward: that of the cell from the last step to the first, which hands the states' "
        "gradients on."
    )

    cell: ClassVar[type[Cell]]
    shapes = (
        "x (batch, length, inputs), h0 (batch, width), wx (inputs, columns), wh (width, columns), "
        "b (columns) -> (batch, length, width)"
    )

    def apply(self, xp: Namespace, *inputs: Array) -> Applied:
        x, states, wx, wh, b = self.cell.split(self, inputs)
        self.require(x.shape[1] > 0, "expected at least one step", x=x.shape)
        a = self.cell.by_gate(x @ wx + b[None, None, :])
        history, slopes = [states], []
        for t in range(x.shape[1]):
            r = self.cell.by_gate(history[-1][0] @ wh)
            after, slope = self.cell.step(a[:, t], r, history[-1])
            history.append(after)
            slopes.append(slope)
        hidden = xp.stack([after[0] for after in history[1:]], axis=1)
        output = (hidden, *history[-1][1:]) if self.cell.states > 1 else hidden
        return output, (x, history[:-1], wx, wh, slopes)

    def gradients(self, xp: Namespace, *kept: Kept) -> Gradients:
        """Return the products of the steps' gradients, summed over all paths through time."""
        x, history, wx, wh, slopes = kept
        states, dtype = history[0], wh.dtype
        h, n = states[0], len(states)
        shapes = (x.shape, *(s.shape for s in states), wx.shape, wh.shape, wh.shape[1:])
        none = [ops.Zero(h.shape, shape, dtype) for shape in shapes]
        # reach[i][k]: how state i, as it is now, changes with input k
        reach: list[list[Operator]] = [[*none] for _ in states]
        for i in range(n):
            reach[i][1 + i] = ops.Identity(h.shape, dtype)
        y = (*x.shape[:2], h.shape[1])
        total: list[Operator] = [ops.Zero(y, shape, dtype) for shape in shapes]
        for t, (before, slope) in enumerate(zip(history, slopes)):
            read = _at(t, x.shape, dtype).T
            place = _at(t, y, dtype)
            rows = [self.cell.state_gradients(s, x[:, t], before, wx, wh) for s in slope]
            owns = [[row[0] @ read, *none[1 : 1 + n], *map(_dense, row[1 + n :])] for row in rows]
            reach = [
                [
                    sum((row[1 + j] @ old[k] for j, old in enumerate(reach)), start=own[k])
                    for k in range(len(shapes))
                ]
                for row, own in zip(rows, owns)
            ]
            total = [g + place @ now for g, now in zip(total, reach[0])]
        return (tuple(total), *map(tuple, reach[1:])) if n > 1 else tuple(total)

    def pull(self, xp: Namespace, upstream: Outputs, *kept: Kept) -> Pulled:
        x, history, wx, wh, slopes = kept
        each, *last = upstream if self.cell.states > 1 else (upstream,)
        before = (xp.zeros_like(history[0][0]), *last)
        das, drs = [], []
        for t in reversed(range(x.shape[1])):
            u = (each[:, t] + before[0], *before[1:])
            da, dr, before = self.cell.gate_gradients(u, slopes[t], wh)
            das.append(da)
            drs.append(dr)
        da, dr = (xp.stack(d[::-1], axis=1) for d in (das, drs))
        past = xp.stack([step[0] for step in history], axis=1)
        return da @ wx.T, *before, over_rows(x, da), over_rows(past, dr), da.sum(axis=(0, 1))

    def reference(self, x: Array, h0: Array, wx: Array, wh: Array, b: Array) -> Outputs:
        h, history = h0, []
        for t in range(x.shape[1]):
            h = self.cell().reference(x[:, t], h, wx, wh, b)
            history.append(h)
        return jnp.stack(history, axis=1)


def _dense(operator: Operator) -> Operator:
    return ops.Dense(operator.to_dense(), operator.output_shape, operator.input_shape)


def _at(step: int, shape: Shape, dtype: DTypeLike) -> Operator:
    """Return the map that sets an array (batch, width) into zeros of `shape`, at one step."""
    batch, _, width = shape
    slices = (slice(None), slice(step, step + 1))
    alone = ops.Reshape((batch, width), (batch, 1, width), dtype)
    return ops.embedding(slices, shape, dtype) @ alone


def _rows(b: Array, like: Array) -> Array:
    return jnp.broadcast_to(b, like.shape)


class RnnCell(Cell):
    """One step of a recurrent network: tanh(x wx + h wh + b).

    Local gradients, with d = 1 - y^2: in x and h the blocks diag(d_n) wx^T and diag(d_n) wh^T of
    each batch row n; dy[n, j]/dwx[i, j] = d[n, j] x[n, i], likewise in wh; dy[n, j]/db[j] = d.
    Backward: da = upstream * (1 - y^2); dx = da wx^T, dh = da wh^T, dwx = x^T da, dwh = h^T da,
    db = da summed over the batch.
    Source: Elman, "Finding structure in time" (1990).
    """

    drawn = "2x3 2x4 3x4 4x4 4; 3x1 3x2 1x2 2x2 2; 1x2 1x3 2x3 3x3 3; zero size: 0x2 0x3 2x3 3x3 3"
    points = {"saturated": ([[40.0]], (1, 2), [[1.0, -1.0]], (2, 2), (2,))}

    @classmethod
    def step(cls, a: Array, r: Array, states: States) -> tuple[States, tuple[GateSlopes, ...]]:
        y = namespace(a).tanh(a + r)
        slope = 1.0 - y * y
        return (y[:, 0],), (GateSlopes(slope, slope, (None,)),)

    def reference(self, x: Array, h: Array, wx: Array, wh: Array, b: Array) -> Array:
        a = x @ wx + h @ wh
        return jnp.tanh(a + _rows(b, a))


class LstmCell(Cell):
    """One step of a long short-term memory: c' = f c + i g, h' = o tanh(c').

    i, f, o = sigmoid and g = tanh of the four blocks of x wx + h wh + b, in the order i, f, o, g,
    so there are 4 width columns.

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
    shapes = (
        "x (batch, inputs), h (batch, width), c (batch, width), wx (inputs, columns), "
        "wh (width, columns), b (columns) -> (batch, width), (batch, width)"
    )
    drawn = "2x3 2x2 2x2 3x8 2x8 8; 3x1 3x1 3x1 1x4 1x4 4; 1x2 1x3 1x3 2x12 3x12 12"
    points = {"saturated": ([[40.0]], (1, 1), (1, 1), [[1.0, -1.0, 1.0, -1.0]], (1, 4), (4,))}

    @classmethod
    def step(cls, a: Array, r: Array, states: States) -> tuple[States, tuple[GateSlopes, ...]]:
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
        slopes = (GateSlopes(of_h, of_h, (None, pass_on * f)), GateSlopes(of_c, of_c, (None, f)))
        return (o * squashed, after), slopes

    def reference(self, x: Array, h: Array, c: Array, wx: Array, wh: Array, b: Array) -> Outputs:
        a = x @ wx + h @ wh
        i, f, o, g = jnp.split(a + _rows(b, a), 4, axis=1)
        i, f, o, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)
        c = f * c + i * g
        return o * jnp.tanh(c), c


class GruCell(Cell):
    """One step of a gated recurrent unit: h' = (1 - z) n + z h.

    With a = x wx + b and r = h wh in three blocks: reset = sigmoid(a_0 + r_0), z = sigmoid(a_1 +
    r_1), n = tanh(a_2 + reset r_2): the reset gate acts after the product, as in cuDNN. There are
    3 width columns.

    Local gradients, with e = (1 - z)(1 - n^2): dh'/da = diag(e r_2 reset(1-reset)),
    diag((h - n) z(1-z)), diag(e); dh'/dr the same with e reset last; dh'/dh directly diag(z); then
    through the affine maps: blocks per batch row in x and h.
    Backward: da and dr = upstream times these slopes; dx = da wx^T, dh = dr wh^T + upstream z,
    dwx = x^T da, dwh = h^T dr, db = da summed over the batch.
    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder"
    (arXiv:1406.1078, 2014), section 2.3.
    """

    gates = 3
    drawn = "2x3 2x2 3x6 2x6 6; 3x1 3x1 1x3 1x3 3; 1x2 1x3 2x9 3x9 9"
    points = {"saturated": ([[40.0]], (1, 1), [[1.0, -1.0, 1.0]], (1, 3), (3,))}

    @classmethod
    def step(cls, a: Array, r: Array, states: States) -> tuple[States, tuple[GateSlopes, ...]]:
        xp, h = namespace(a), states[0]
        to_reset, to_z = a[:, 0] + r[:, 0], a[:, 1] + r[:, 1]
        reset, z = logistic(to_reset), logistic(to_z)
        n = xp.tanh(a[:, 2] + reset * r[:, 2])
        e = logistic(-to_z) * (1.0 - n * n)
        gates = e * r[:, 2] * logistic_slope(to_reset), (h - n) * logistic_slope(to_z)
        of_a, of_r = (xp.stack([*gates, last], axis=1) for last in (e, e * reset))
        return (logistic(-to_z) * n + z * h,), (GateSlopes(of_a, of_r, (z,)),)

    def reference(self, x: Array, h: Array, wx: Array, wh: Array, b: Array) -> Array:
        a = x @ wx
        a, r = jnp.split(a + _rows(b, a), 3, axis=1), jnp.split(h @ wh, 3, axis=1)
        z = jax.nn.sigmoid(a[1] + r[1])
        n = jnp.tanh(a[2] + jax.nn.sigmoid(a[0] + r[0]) * r[2])
        return jax.nn.sigmoid(-(a[1] + r[1])) * n + z * h


class Rnn(_OverTime):
    """A tanh recurrent network over a sequence: h_t = tanh(x_t wx + h_{t-1} wh + b).

    Source: Werbos, "Backpropagation through time" (1990).
    """

    cell = RnnCell
    drawn = "2x3x1 2x2 1x2 2x2 2; 1x2x3 1x1 3x1 1x1 1; 3x1x2 3x2 2x2 2x2 2"


class Lstm(_OverTime):
    """A long short-term memory over a sequence, and its last cell state.

    c_t = f c_{t-1} + i g, h_t = o tanh(c_t), with the gates i, f, o, g of x_t wx + h_{t-1} wh + b.

    Source: Hochreiter and Schmidhuber, "Long short-term memory" (1997).
    """

    cell = LstmCell
    shapes = (
        "x (batch, length, inputs), h0 (batch, width), c0 (batch, width), wx (inputs, columns), "
        "wh (width, columns), b (columns) -> (batch, length, width), (batch, width)"
    )
    drawn = "2x2x1 2x1 2x1 1x4 1x4 4; 1x3x2 1x1 1x1 2x4 1x4 4; 1x1x1 1x2 1x2 1x8 2x8 8"

    def reference(self, x: Array, h0: Array, c0: Array, wx: Array, wh: Array, b: Array) -> Outputs:
        h, c, history = h0, c0, []
        for t in range(x.shape[1]):
            h, c = LstmCell().reference(x[:, t], h, c, wx, wh, b)
            history.append(h)
        return jnp.stack(history, axis=1), c


class Gru(_OverTime):
    """A gated recurrent unit over a sequence: h_t = (1 - z) n + z h_{t-1} (see GruCell).

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder"
    (arXiv:1406.1078, 2014), section 2.3.
    """

    cell = GruCell
    drawn = "2x2x1 2x2 1x6 2x6 6; 1x3x2 1x1 2x3 1x3 3; 3x1x2 3x1 2x3 1x3 3"
