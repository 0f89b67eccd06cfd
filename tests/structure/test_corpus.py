"""Stencils, control, graphs and layers as people write them: patterns and entries against JVPs."""

import math

import jax
import numpy as np
import pytest
from programs.corpus import CORPUS

from gradlab.structure import jacobian

# entries that are zero by value: terms that cancel, branches not taken, rows with one key
SPARE = {
    "stencils: upwind": 4,
    "stencils: shallow water": 14,
    "stencils: minmod": 10,
    "control: traffic": 5,
    "control: bezier": 16,
    "graphs: strongest neighbour": 10,
    "graphs: ragged sums by their ends": 14,
    "graphs: shortest paths": 3,
    "graphs: several graphs": 2,
    "graphs: comparisons": 19,
    "graphs: groups of points": 2,
    "layers: causal attention": 24,
    "layers: windowed attention": 12,
    "layers: packed attention": 12,
    "layers: packed and causal": 36,
    "layers: grouped queries": 16,
    "layers: rotary places": 4,
    "layers: scores by distance": 6,
    "layers: largest of windows": 14,
}
POINTS = 3


def truth(function, points):
    """Return the Jacobian at each point, from one JVP after another."""
    size = math.prod(points.shape[1:])
    seeds = np.eye(size, dtype=np.float32).reshape(size, *points.shape[1:])

    def column(point, seed):
        return jax.jvp(function, (point,), (seed,))[1].reshape(-1)

    def matrix(point):
        return jax.lax.map(lambda seed: column(point, seed), seeds).T

    return np.asarray(jax.jit(lambda points: jax.lax.map(matrix, points))(points))


@pytest.mark.one_in(16)
@pytest.mark.parametrize("name", CORPUS)
def test_patterns_and_entries(name):
    function, shape = CORPUS[name]
    points = np.random.default_rng(3).standard_normal((POINTS, *shape)).astype(np.float32)
    dense = truth(function, points)
    report = jacobian(function, points[0])
    pattern, seen = report.pattern.to_dense(), (dense != 0).any(axis=0)
    assert not report.unknown
    assert not (seen & ~pattern).any()
    assert (pattern & ~seen).sum() <= SPARE.get(name, 0)
    compiled = report.compile("dense")
    for point, expected in zip(points, dense):
        allowed = 1e-5 * max(1, abs(expected).max())
        np.testing.assert_allclose(compiled(point), expected, rtol=1e-3, atol=allowed)
