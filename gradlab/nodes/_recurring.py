"""What recurrent cells share, and the same cells run over time.

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
from typing import Any, ClassVar, NamedTuple

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.operators import (
    BlockDiagonal,
    Contraction,
    Dense,
    Diagonal,
    Identity,
    Operator,
    Reshape,
    Zero,
    embedding,
)

__all__ = ["Cell", "Sequence", "Slopes"]


class Slopes(NamedTuple):
    """How one new state changes: with the gates (batch, gates, width), with old states directly."""

    of_input: Array
    of_state: Array
    direct: tuple[Array | None, ...]


class Cell(Node):
    """One step: (x, *states, wx, wh, b) -> the new states."""

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def step(
        cls, a: Array, r: Array, states: tuple[Array, ...]
    ) -> tuple[tuple[Array, ...], tuple[Slopes, ...]]:
        """Return the new states and their slopes; a and r are (batch, gates, width)."""

    @classmethod
    def parts(cls, node: Node, inputs: tuple[Array, ...]) -> tuple[Array, Any, Array, Array, Array]:
        """Return x, the states, wx, wh and b.

        Raises:
            InputError: their shapes do not belong together.
        """
        x, states, (wx, wh, b) = inputs[0], inputs[1 : 1 + cls.states], inputs[1 + cls.states :]
        h = states[0]
        columns = cls.gates * h.shape[-1] if h.shape else 0
        if (
            any(len(s.shape) != 2 or s.shape != h.shape for s in states)
            or x.shape[:1] != h.shape[:1]
            or wx.shape != (x.shape[-1], columns)
            or wh.shape != (h.shape[-1], columns)
            or b.shape != (columns,)
        ):
            names = zip(node.input_names(), inputs)
            shapes = ", ".join(f"{name} {shape_text(i.shape)}" for name, i in names)
            raise InputError(
                f"{node!r}: the shapes are {shapes}; expected states (batch, width), wx (inputs, "
                f"columns), wh (width, columns) and b (columns,), with columns = {cls.gates} width"
            )
        return x, tuple(states), wx, wh, b

    @classmethod
    def gated(cls, a: Array) -> Array:
        """Return (..., gates * width) as (..., gates, width)."""
        return a.reshape(*a.shape[:-1], cls.gates, a.shape[-1] // cls.gates)

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        inputs = as_inputs(self, inputs)
        x, states, wx, wh, b = self.parts(self, inputs)
        if len(x.shape) != 2:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (batch, inputs)"
            )
        a, r = x @ wx + b[None, :], states[0] @ wh
        after, slopes = self.step(self.gated(a), self.gated(r), states)
        output = after if self.states > 1 else after[0]
        return output, (inputs, output, slopes)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        inputs, _, slopes = residuals
        rows = tuple(self.gradients(slope, self.parts(self, inputs)) for slope in slopes)
        return rows if self.states > 1 else rows[0]

    @classmethod
    def gradients(cls, slope: Slopes, parts: Any) -> tuple[Operator, ...]:
        """Return the gradients of one new state in x, each state, wx, wh and b."""
        x, states, wx, wh, b = parts
        xp, h = namespace(x), states[0]

        def through(s: Array, w: Array) -> Operator:
            return BlockDiagonal(xp.einsum("ngh,dgh->nhd", s, cls.gated(w)))

        def of_weights(s: Array, left: Array, w: Array) -> Operator:
            gated = cls.gated(w).shape
            each = Contraction("ngh,nd,dgh->nh", s, left, input_shape=gated)
            return each @ Reshape(w.shape, gated, w.dtype)

        of_states: list[Operator] = [through(slope.of_state, wh)]
        of_states += [Zero(h.shape, s.shape, s.dtype) for s in states[1:]]
        for i, d in enumerate(slope.direct):
            of_states[i] = of_states[i] if d is None else of_states[i] + Diagonal(d)
        of_b = Contraction("ngh,gh->nh", slope.of_input, input_shape=cls.gated(b).shape)
        return (
            through(slope.of_input, wx),
            *of_states,
            of_weights(slope.of_input, x, wx),
            of_weights(slope.of_state, h, wh),
            of_b @ Reshape(b.shape, of_b.input_shape, b.dtype),
        )

    @classmethod
    def pulled(
        cls, upstream: tuple[Array, ...], slopes: tuple[Slopes, ...], wh: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        """Return the gradients of a, of r, and of the old states."""
        pairs = list(zip(upstream, slopes))
        flat = (upstream[0].shape[0], wh.shape[1])
        da = sum(u[:, None, :] * s.of_input for u, s in pairs).reshape(flat)
        dr = sum(u[:, None, :] * s.of_state for u, s in pairs).reshape(flat)
        before = [dr @ wh.T, *(0.0 * u for u in upstream[1:])]
        for u, s in pairs:
            before = [g if d is None else g + u * d for g, d in zip(before, s.direct)]
        return da, dr, tuple(g.astype(wh.dtype) for g in before)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        inputs, output, slopes = residuals
        x, states, wx, wh, _ = self.parts(self, inputs)
        pairs = zip(upstream, output) if self.states > 1 else [(upstream, output)]
        u = tuple(as_upstream(self, ui, y) for ui, y in pairs)
        da, dr, before = self.pulled(u, slopes, wh)
        grads = (da @ wx.T, *before, x.T @ da, states[0].T @ dr, da.sum(axis=0))
        return tuple(g.astype(i.dtype) for g, i in zip(grads, inputs))


class Sequence(Node):
    """A cell run over x: its first state at every step, and the last of each other state."""

    cell: ClassVar[type[Cell]]

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        inputs = as_inputs(self, inputs)
        x, states, wx, wh, b = self.cell.parts(self, inputs)
        if len(x.shape) != 3 or x.shape[1] == 0:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (batch, length, inputs) "
                "with at least one step"
            )
        a = self.cell.gated(x @ wx + b[None, None, :])
        history, slopes = [states], []
        for t in range(x.shape[1]):
            r = self.cell.gated(history[-1][0] @ wh)
            after, slope = self.cell.step(a[:, t], r, history[-1])
            history.append(after)
            slopes.append(slope)
        hidden = namespace(x).stack([after[0] for after in history[1:]], axis=1)
        output = (hidden, *history[-1][1:]) if self.cell.states > 1 else hidden
        return output, (inputs, output, history, slopes)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        inputs, _, history, slopes = residuals
        x, states, wx, wh, b = self.cell.parts(self, inputs)
        h, n = states[0], len(states)
        steps = x.shape[1]
        of_x: list[list[Operator]] = []  # for each step so far, the gradients of all states in it
        of_states = [
            [_unit(s, old, i == j) for i, s in enumerate(states)] for j, old in enumerate(states)
        ]
        of_weights: list[list[Operator]] = [
            [Zero(h.shape, w.shape, w.dtype) for _ in states] for w in (wx, wh, b)
        ]
        total: list[Operator | None] = [None] * len(inputs)
        for t, (before, slope) in enumerate(zip(history, slopes)):
            parts = (x[:, t], before, wx, wh, b)
            rows = [self.cell.gradients(s, parts) for s in slope]
            of_x = [_carried(rows, reach) for reach in of_x] + [[row[0] for row in rows]]
            of_states = [_carried(rows, reach) for reach in of_states]
            of_weights = [
                [old + _dense(row[1 + n + k]) for old, row in zip(_carried(rows, reach), rows)]
                for k, reach in enumerate(of_weights)
            ]
            place = _at(t, (h.shape[0], steps, h.shape[1]), h.dtype)
            reached = self._over_inputs(0, of_x, of_states, of_weights, x)
            total = [place @ r if g is None else g + place @ r for g, r in zip(total, reached)]
        if n == 1:
            return tuple(total)
        last = (self._over_inputs(i, of_x, of_states, of_weights, x) for i in range(1, n))
        return (tuple(total), *last)

    def _over_inputs(
        self, state: int, of_x: Any, of_states: Any, of_weights: Any, x: Array
    ) -> tuple[Operator, ...]:
        """Return the gradients of one state, as it is now, in each input."""
        first, *rest = (reach[state] @ _at(s, x.shape, x.dtype).T for s, reach in enumerate(of_x))
        return (
            sum(rest, start=first),
            *(reach[state] for reach in of_states),
            *(reach[state] for reach in of_weights),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        inputs, output, history, slopes = residuals
        x, states, wx, wh, _ = self.cell.parts(self, inputs)
        pairs = zip(upstream, output) if self.cell.states > 1 else [(upstream, output)]
        each, *last = (as_upstream(self, u, y) for u, y in pairs)
        xp = namespace(x)
        before = (xp.zeros_like(states[0]), *last)
        das, drs = [], []
        for t in reversed(range(x.shape[1])):
            u = (each[:, t] + before[0], *before[1:])
            da, dr, before = self.cell.pulled(u, slopes[t], wh)
            das.append(da)
            drs.append(dr)
        da, dr = (xp.stack(d[::-1], axis=1) for d in (das, drs))
        past = xp.stack([step[0] for step in history[:-1]], axis=1)
        grads = (da @ wx.T, *before, _over_rows(x, da), _over_rows(past, dr), da.sum(axis=(0, 1)))
        return tuple(g.astype(i.dtype) for g, i in zip(grads, inputs))


def _over_rows(a: Array, b: Array) -> Array:
    """Return a^T b over all steps of all sequences."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])


def _unit(state: Array, old: Array, same: bool) -> Operator:
    shape, dtype = state.shape, state.dtype
    return Identity(shape, dtype) if same else Zero(shape, old.shape, dtype)


def _carried(rows: list[tuple[Operator, ...]], reach: list[Operator]) -> list[Operator]:
    """Return the gradients of the new states, where `reach` has those of the old ones."""
    carried = []
    for row in rows:
        first, *rest = (row[1 + j] @ old for j, old in enumerate(reach))
        carried.append(sum(rest, start=first))
    return carried


def _dense(operator: Operator) -> Operator:
    return Dense(operator.to_dense(), operator.output_shape, operator.input_shape)


def _at(step: int, shape: tuple[int, ...], dtype: Any) -> Operator:
    """Return the map that sets an array (batch, width) into zeros of `shape`, at one step."""
    batch, _, width = shape
    slices = (slice(None), slice(step, step + 1))
    alone = Reshape((batch, width), (batch, 1, width), dtype)
    return embedding(slices, shape, dtype) @ alone
