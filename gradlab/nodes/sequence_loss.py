"""Losses of sequences whose alignment is not known: summed over all alignments."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, special
from gradlab.nodes._functions import log_softmax, logsumexp
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import BlockDiagonal, Reshape

__all__ = ["Ctc"]

_LABELS = Domain(low=1, high=3, integer=True)
_LENGTHS = Domain(low=1, high=3, integer=True)


@dataclass(frozen=True)
class Ctc(Node):
    """The connectionist temporal classification loss: -log p(labels | logits), for each sequence.

    p is the sum, over all paths that become the labels when repeats are merged and blanks then
    dropped, of the product of softmax(logits[t])[path[t]] over time.

    Shapes: logits (batch, time, classes); labels (batch, places), of which the first label_lengths
    (batch,) count, none of them blank; logit_lengths (batch,), how many steps of each sequence
    count; the loss (batch,).

    Args:
        blank: the class that stands for no label.

    Local gradient: one row per sequence, softmax(logits) - g, with g[t, c] the probability, given
    the labels, that the path is at class c at time t: 0 from logit_lengths on.
    Backward: dlogits = upstream * (softmax(logits) - g), g by the forward-backward recursions. A
    sequence too short for its labels has loss inf and gradient nan.
    Source: Graves et al., "Connectionist temporal classification" (ICML 2006), section 4.
    """

    blank: int = 0

    domains = (REALS, _LABELS, _LENGTHS, _LENGTHS)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        logits, labels, times, lengths = as_inputs(self, inputs)
        batch = logits.shape[0] if logits.shape else None
        if (
            len(logits.shape) != 3
            or len(labels.shape) != 2
            or not (batch,) == labels.shape[:1] == times.shape == lengths.shape
            or logits.shape[1] == 0
        ):
            raise InputError(
                f"{self!r}: logits have shape {shape_text(logits.shape)}, labels "
                f"{shape_text(labels.shape)}, logit_lengths {shape_text(times.shape)} and "
                f"label_lengths {shape_text(lengths.shape)}; expected (batch, time, classes) with "
                "at least one step, (batch, places), (batch,) and (batch,)"
            )
        xp, log_p = namespace(logits), log_softmax(logits, -1)
        states = self._states(labels)
        forward_log, backward_log = self._recursions(log_p, states, times, lengths)
        total = logsumexp(forward_log[:, 0] + backward_log[:, 0], -1)[:, 0]
        active = xp.arange(logits.shape[1])[None, :] < times[:, None]
        return -total.astype(logits.dtype), (
            log_p,
            states,
            forward_log + backward_log - total[:, None, None],
            active,
        )

    def _states(self, labels: Array) -> Array:
        """Return the labels with a blank before, between and after: (batch, 2 places + 1)."""
        xp = namespace(labels)
        blanks = xp.full_like(labels, self.blank)
        pairs = xp.stack([blanks, labels], axis=-1).reshape(labels.shape[0], -1)
        return xp.concat([pairs, xp.full_like(labels[:, :1], self.blank)], axis=1)

    def _recursions(
        self, log_p: Array, states: Array, times: Array, lengths: Array
    ) -> tuple[Array, Array]:
        """Return the log-probabilities of all ways to each state, and of all ways on from it."""
        xp = namespace(log_p)
        never = xp.asarray(-math.inf, dtype=log_p.dtype)
        at = xp.take_along_axis(log_p, states[:, None, :], axis=2)
        # A path may skip a blank between two labels that differ.
        differ = (states[:, 2:] != states[:, :-2]) & (states[:, 2:] != self.blank)
        skips = xp.concat(
            [xp.zeros_like(differ[:, :1]), xp.zeros_like(differ[:, :1]), differ], axis=1
        )
        place = xp.arange(states.shape[1])[None, :]
        end = 2 * lengths[:, None]
        final = (place == end) | (place == end - 1)

        def moved(a: Array, by: int) -> Array:
            rest = xp.full_like(a[:, : abs(by)], -math.inf)
            return xp.concat([rest, a[:, :-by]] if by > 0 else [a[:, -by:], rest], axis=1)

        ways = xp.where(place < 2, at[:, 0], never)
        forward = [ways]
        for t in range(1, log_p.shape[1]):
            skip = xp.where(skips, moved(ways, 2), never)
            ways = xp.logaddexp(xp.logaddexp(ways, moved(ways, 1)), skip) + at[:, t]
            forward.append(ways)
        leaving = xp.concat([skips[:, 2:], xp.zeros_like(skips[:, :2])], axis=1)
        on = xp.where(final, xp.zeros_like(ways), never)
        backward = [on]
        for t in range(log_p.shape[1] - 1, 0, -1):
            ahead = on + at[:, t]
            skip = xp.where(leaving, moved(ahead, -2), never)
            further = xp.logaddexp(xp.logaddexp(ahead, moved(ahead, -1)), skip)
            on = xp.where((t < times)[:, None], further, on)
            backward.append(on)
        return xp.stack(forward, axis=1), xp.stack(backward[::-1], axis=1)

    def _slope(self, residuals: Any) -> Array:
        """Return softmax(logits) - g where the sequence lasts, 0 after it."""
        log_p, states, log_g, active = residuals
        xp = namespace(log_p)
        onehot = states[:, :, None] == xp.arange(log_p.shape[2])[None, None, :]
        g = xp.exp(log_g) @ onehot.astype(log_p.dtype)
        slope = xp.exp(log_p) - g
        return xp.where(active[:, :, None], slope, xp.zeros_like(slope)).astype(log_p.dtype)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        log_p = residuals[0]
        n, time, classes = log_p.shape
        rows = BlockDiagonal(self._slope(residuals).reshape(n, 1, time * classes))
        before = Reshape(log_p.shape, (n, time * classes), log_p.dtype)
        return Reshape((n, 1), (n,), log_p.dtype) @ rows @ before, None, None, None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        log_p = residuals[0]
        u = as_upstream(self, upstream, log_p[:, 0, 0]).astype(log_p.dtype)
        return u[:, None, None] * self._slope(residuals), None, None, None

    def reference(
        self, logits: Array, labels: Array, logit_lengths: Array, label_lengths: Array
    ) -> Array:
        """Sum over all paths, as the definition says."""
        _, time, classes = logits.shape
        paths = np.array(list(product(range(classes), repeat=time)))
        log_p = jax.nn.log_softmax(logits, axis=-1)
        each = log_p[:, np.arange(time), paths]
        lasts = jnp.arange(time)[None, :] < logit_lengths[:, None]
        scores = jnp.where(lasts[:, None, :], each, 0.0).sum(-1)
        read = np.array([[_read(p[:n], self.blank, time) for p in paths] for n in range(time + 1)])
        wanted = jnp.full((labels.shape[0], time), -1).at[:, : labels.shape[1]].set(labels)
        wanted = jnp.where(jnp.arange(time)[None, :] < label_lengths[:, None], wanted, -1)
        match = (jnp.asarray(read)[logit_lengths] == wanted[:, None, :]).all(-1)
        # Paths that differ only after the end are one path: keep that which ends in class 0.
        once = jnp.where(lasts[:, None, :], 0, jnp.asarray(paths)[None]).sum(-1) == 0
        return -jax.nn.logsumexp(jnp.where(match & once, scores, -jnp.inf), axis=-1)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (2, 3, 3), [[1, 2], [2, 0]], [3, 2], [2, 1]),
            special(cls(), "generic", (1, 3, 2), [[1, 1]], [3], [2]),
            special(cls(blank=2), "generic", (2, 2, 3), [[0], [1]], [2, 1], [1, 1]),
            special(cls(), "no labels", (1, 3, 2), [[1]], [3], [0]),
            special(cls(), "saturated", [[[40.0, -40.0], [0.0, 300.0]]], [[1]], [2], [1]),
        )


def _read(path: Any, blank: int, size: int) -> list[int]:
    """Return the labels that a path becomes, filled up with -1."""
    kept = [int(c) for i, c in enumerate(path) if c != blank and (i == 0 or c != path[i - 1])]
    return kept + [-1] * (size - len(kept))
