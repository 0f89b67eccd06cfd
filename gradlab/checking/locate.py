"""Through which output is an entry wrong? Bisection over upstreams, never the whole Jacobian.

The error of one gradient entry is linear in the upstream: an upstream that is zero outside a part
of the outputs gives that part's share of it. A few halvings lead to one output entry.
"""

from typing import Any

import numpy as np

from gradlab.checking.laws.entries import entry_name
from gradlab.checking.laws.linearity import nonlinearity
from gradlab.checking.trial import Trial
from gradlab.common.arrays import NumPyArray

_PARTS = 8


def worst_output(trial: Trial, target: int, index: tuple[int, ...]) -> str:
    """Return the output entry through which a gradient entry is wrong, if it can be found."""
    subject = trial.subject
    if not (subject.linear and trial.has_reference) or trial.formula_gradients is None:
        return ""
    if nonlinearity(trial, "rule"):
        return ""
    positions = np.arange(sum(int(np.prod(u.shape, dtype=np.int64)) for u in subject.upstreams))
    while positions.size > 1:
        parts = np.array_split(positions, min(_PARTS, positions.size))
        shares = _shares(trial, target, index, parts)
        if not max(shares) > 0:
            return ""
        positions = parts[int(np.argmax(shares))]
    return _name(trial, int(positions[0])) if positions.size else ""


def _shares(trial: Trial, target: int, index: tuple[int, ...], parts: list[Any]) -> list[float]:
    """Return how much of the error of one entry comes from each part of the outputs."""
    cases = [_restricted(trial, part) for part in parts]
    ours, theirs = (trial.gradients_at(key, cases) for key in ("rule", "reference"))
    return [float(np.abs(a[target][index] - b[target][index])) for a, b in zip(ours, theirs)]


def _restricted(trial: Trial, part: NumPyArray) -> dict[str, Any]:
    """Return the upstreams with everything outside a part of the outputs set to zero."""
    case, start = {}, 0
    for upstream in trial.subject.upstreams:
        value = np.asarray(trial.upstreams[upstream.name])
        inside = part[(part >= start) & (part < start + value.size)] - start
        kept = np.zeros(value.size, value.dtype)
        kept[inside] = value.ravel()[inside]
        case[upstream.name] = kept.reshape(value.shape)
        start += value.size
    return case


def _name(trial: Trial, position: int) -> str:
    for upstream in trial.subject.upstreams:
        size = int(np.prod(upstream.shape, dtype=np.int64))
        if position < size:
            index = np.unravel_index(position, upstream.shape) if upstream.shape else ()
            return entry_name(upstream.output, [int(i) for i in index])
        position -= size
    return ""
