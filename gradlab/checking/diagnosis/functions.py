"""The gradient of another function: tanh gelu for erf gelu, and their like."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding
from gradlab.tracing import without_checks

__all__ = ["diagonal", "not_transposed", "other_function"]

_CATALOGUE: dict[str, Callable[[Any], Any]] = {
    "the tanh approximation of gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu with erf": lambda x: jax.nn.gelu(x, approximate=False),
    "the sigmoid approximation of gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "erf": jax.scipy.special.erf,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "softsign": jax.nn.soft_sign,
    "arctan": jnp.arctan,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "exp": jnp.exp,
    "log(1 + x)": jnp.log1p,
    "x^2": jnp.square,
    "x^3 / 3 + x": lambda x: x**3 / 3 + x,
    "normal cdf": lambda x: 0.5 * (1 + jax.scipy.special.erf(x / math.sqrt(2))),
}
_DIAGONAL, _FEW = 256, 24


def other_function(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield the elementwise function whose gradient came in the place of the right one."""
    leaf = symptom.subject.targets[target]
    if leaf.kind != "real" or leaf.shape == () or np.prod(leaf.shape) < 3:
        return
    for upstream in symptom.subject.upstreams:
        if upstream.shape != leaf.shape:
            continue
        for name, function in _CATALOGUE.items():
            claims = []
            for case in symptom.cases:
                with without_checks():
                    slope = jax.vmap(jax.grad(function))(jnp.ravel(case.values[leaf.path]))
                    slope = np.asarray(slope).reshape(leaf.shape)
                claims.append(case.upstreams[upstream.name] * slope)
            if all(symptom.explains(k, target, claim) for k, claim in enumerate(claims)):
                text = f"the gradient of {leaf.path} is that of another function: {name}"
                yield Finding("other function", leaf.path, text)
                return


def diagonal(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield that only the diagonal of a Jacobian was used, where it is not diagonal."""
    path = symptom.subject.targets[target].path
    text = f"the Jacobian for {path} is treated as diagonal: its other entries are lost"
    if _jacobian_gives(symptom, target, lambda matrix, u: np.diagonal(matrix) * u):
        yield Finding("diagonal", path, text)


def not_transposed(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield that the Jacobian itself was used, where reverse mode needs its transpose."""
    path = symptom.subject.targets[target].path
    text = (
        f"the gradient of {path} multiplies the upstream by the Jacobian, and not by its "
        "transpose: forward mode is taken for reverse mode"
    )
    if _jacobian_gives(symptom, target, np.matmul):
        yield Finding("not transposed", path, text)


def _jacobian_gives(symptom: Symptom, target: int, product: Callable[[Any, Any], Any]) -> bool:
    """Whether some product of the square Jacobian and an upstream is the gradient that came."""
    leaf = symptom.subject.targets[target]
    size = int(np.prod(leaf.shape, dtype=np.int64))
    if not 1 < size <= (_DIAGONAL if symptom.trial.has_reference else _FEW):
        return False
    for upstream in symptom.subject.upstreams:
        if upstream.shape != leaf.shape:
            continue
        claims = []
        for case in symptom.cases:
            zeros = {name: np.zeros_like(u) for name, u in case.upstreams.items()}
            basis = np.eye(size).reshape(size, *leaf.shape)
            points = [(case.values, {**zeros, upstream.name: one}) for one in basis]
            rows = [row[target].ravel() for row in symptom.expected_many(points)]
            claim = product(np.array(rows), case.upstreams[upstream.name].ravel())
            claims.append(claim.reshape(leaf.shape))
        if all(symptom.explains(k, target, claim) for k, claim in enumerate(claims)):
            return True
    return False
