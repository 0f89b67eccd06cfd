"""Each node by itself against finite differences, along one random direction of its inputs.

An independent witness that costs no compilation: the node's own forward is differenced, in float64
where the node can be run in it, with the error estimate of `gradlab.references`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradlab.common.arrays import Array, is_inexact
from gradlab.formatting import count
from gradlab.graph._equation import Equation
from gradlab.graph._plan import Step
from gradlab.graph.report import NodeCheck
from gradlab.nodes._base import Kept
from gradlab.references import LIMIT, Slope, finite_differences, unit_roundoff

_MOST = 1 << 16  # entries of a node's inputs; it is run some sixty times
_DRAWS = 4
_BESIDE = "at a tie or a kink, finite differences agree only beside it"


def check_step(step: Step, inputs: list[Array]) -> NodeCheck:
    """Return how a step's backward stands against finite differences at its inputs."""
    arrays = [np.asarray(x) for x in inputs]
    moving = [p for p, _ in step.differentiable() if arrays[p].size]
    dtypes = [arrays[p].dtype for p in moving]
    if not moving or any(dtype.kind == "c" for dtype in dtypes):
        return NodeCheck("skipped", "no input is real")
    if step.title.endswith("stop_gradient"):
        return NodeCheck("skipped", "it stops the gradient on purpose")
    if sum(array.size for array in arrays) > _MOST:
        return NodeCheck("skipped", f"more than {_MOST:,} entries")
    if not _is_typed(step):
        arrays = [a.astype(float) if p in moving else a for p, a in enumerate(arrays)]
    found = _held(step, arrays, moving, 1.0)
    if found.status == "failed":  # a tie or a kink may look so, but not beside it
        rng = np.random.default_rng(1)
        for scale in (1.0, 2.0**-10):
            beside = _moved(arrays, {p: _direction(rng, arrays[p]) for p in moving}, scale / 256)
            if _held(step, beside, moving, scale).status != "failed":
                return replace(found, status="skipped", reason=_BESIDE)
    return found


def _held(step: Step, arrays: list[Array], moving: list[int], scale: float) -> NodeCheck:
    rng = np.random.default_rng(0)
    along = {p: _direction(rng, arrays[p]) for p in moving}

    def outputs(moves: Sequence[float]) -> list[list[Array]]:
        every = [_forward(step, _moved(arrays, along, t))[0] for t in moves]
        return [[np.asarray(y, float) for y in each] for each in every]

    made, residuals = _forward(step, arrays)
    if any(np.dtype(y.dtype).kind == "c" for y in made):
        return NodeCheck("skipped", "finite differences do not cover complex outputs")
    slopes = finite_differences(outputs, scale)
    weights = [_weights(rng, slope) * is_inexact(y.dtype) for slope, y in zip(slopes, made)]
    if not any(weight.any() for weight in weights):
        return NodeCheck("skipped", "finite differences decide nothing here")
    upstreams = [w.astype(y.dtype) for w, y in zip(weights, made)]
    terms = _sent(step, residuals, upstreams, along)
    actual = float(terms.sum())
    if not np.isfinite(actual):
        return NodeCheck("skipped", "its gradient is not finite")
    low, high, expected, error = np.sum([*map(_weighted, slopes, weights)], axis=0).tolist()
    unit = max(unit_roundoff(arrays[p].dtype) for p in moving)
    heights = sum(float((np.abs(w) * _sizes(y)).sum()) for w, y in zip(weights, made))
    error += LIMIT * unit * (float(np.abs(terms).sum()) + heights / scale)
    for _ in range(_DRAWS):  # how far rounding of the inputs alone moves what it sends back
        noise = {p: unit * np.sign(_direction(rng, arrays[p])) * _sizes(arrays[p]) for p in moving}
        _, again = _forward(step, _moved(arrays, noise, 1.0))
        error += LIMIT / _DRAWS * abs(float(_sent(step, again, upstreams, along).sum()) - actual)
    if max(abs(actual), abs(expected)) < unit**2:
        return NodeCheck("skipped", "too small for finite differences")
    if not low - error <= actual <= high + error:
        return NodeCheck("failed", "", actual, expected, error)
    return NodeCheck("passed", _words(weights, high > low), actual, expected, error)


def _forward(step: Step, arrays: list[Array]) -> tuple[list[Array], Kept]:
    outputs, residuals = step.node.forward(*arrays)
    return list(outputs) if step.several else [outputs], residuals


def _sent(step: Step, residuals: Kept, upstreams: list[Array], along: dict[int, Array]) -> Array:
    """Return what the step sends back, entry by entry, times the direction."""
    back = step.node.backward(tuple(upstreams) if step.several else upstreams[0], residuals)
    terms = [
        np.where(way != 0, np.asarray(back[p], float) * way, 0.0).ravel()
        for p, way in along.items()
        if back[p] is not None
    ]
    return np.concatenate(terms) if terms else np.zeros(0)


def _moved(arrays: list[Array], along: dict[int, Array], t: float) -> list[Array]:
    return [
        (a.astype(float) + t * along[p]).astype(a.dtype) if p in along else a
        for p, a in enumerate(arrays)
    ]


def _direction(rng: np.random.Generator, array: Array) -> Array:
    """Return a random direction, each entry of its own size; what is not finite stays."""
    sizes = _sizes(array)
    least = sizes[sizes > 0].min(initial=1.0)
    random = np.maximum(sizes, least) * rng.standard_normal(array.shape)
    return np.where(np.isfinite(array), random, 0.0)


def _sizes(array: Array) -> Array:
    """Return the size of each entry; 0 for what is not finite."""
    return np.where(np.isfinite(array), np.abs(array), 0.0).astype(float)


def _weights(rng: np.random.Generator, slope: Slope) -> Array:
    """Return an upstream: random where the slopes are known, 0 where they are not."""
    size = np.where(np.isfinite(slope.value), np.abs(slope.value), 0.0)
    rough = 0.01 * np.maximum(size, size.mean() if size.size else 0.0)
    known = np.isfinite(slope.left) & np.isfinite(slope.right) & (_error(slope) <= rough)
    return np.where(known, rng.standard_normal(slope.value.shape), 0.0)


def _error(slope: Slope) -> Array:
    """Return the error of a slope; at a kink, of those on its two sides."""
    half = np.where(slope.kink, np.abs(slope.right - slope.left) / 2, 0.0)
    return np.where(np.isfinite(slope.error), slope.error, np.inf) - half


def _weighted(slope: Slope, weight: Array) -> tuple[float, float, float, float]:
    """Return the least and the largest that a weighted sum of slopes can be, it, and its error.

    At a kink every entry may lie anywhere between its two slopes, whatever the others do.
    """
    known = weight != 0
    middle, weight = slope.value[known], weight[known]
    left = np.where(slope.kink, slope.left, slope.value)[known] * weight
    right = np.where(slope.kink, slope.right, slope.value)[known] * weight
    error = (np.abs(weight) * _error(slope)[known]).sum()
    low, high = np.minimum(left, right).sum(), np.maximum(left, right).sum()
    return float(low), float(high), float((middle * weight).sum()), float(error)


def _words(weights: list[Array], kink: bool) -> str:
    left_out = sum(weight.size - int(np.count_nonzero(weight)) for weight in weights)
    words = ["at a kink, between its two slopes"] if kink else []
    if left_out:
        entries = count(sum(weight.size for weight in weights), "entry", "entries")
        words.append(f"{left_out:,} of {entries} too rough to tell")
    return "; ".join(words)


def _is_typed(step: Step) -> bool:
    """Return whether a step holds equations of JAX, which are traced for the dtypes they have."""
    return isinstance(step.node, Equation) or any(map(_is_typed, step.inside))
