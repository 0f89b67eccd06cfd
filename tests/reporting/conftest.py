"""One small report of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking.verify import verify
from gradlab.nodes._pages import node_pages
from gradlab.numerics import doctor
from gradlab.numerics.sweep import sweep

HOSTILE = "<script>alert('\"&')</script>\x1b"


def _custom(factor):
    @jax.custom_vjp
    def rule(x):
        return jnp.tanh(x)

    rule.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (factor * g * (1 - jnp.tanh(x) ** 2),))
    rule.__name__ = HOSTILE
    return rule


def _graph(function, *inputs):
    with np.errstate(all="ignore"):
        graph = gradlab.Graph(function, *inputs)
        graph.backward(graph.ones())
    graph.title = HOSTILE
    return graph.report()


@pytest.fixture(scope="session")
def reports():
    """Reports by what they are of; names in them try to be markup."""
    x = np.array([0.5, -1.0, 2.0], np.float32)
    wrong = _custom(2.0)
    half = jax.custom_jvp(jnp.sin)
    half.defjvps(lambda t, y, x: jnp.where(jnp.isfinite(x), jnp.inf, 0.0).astype(t.dtype) * t)
    named = lambda x, y: jnp.cumsum(x) * y  # noqa: E731  (its name is under test)
    named.__name__ = HOSTILE
    return {
        "verify": verify("tanh"),
        "check": gradlab.check(_custom(1.0), x),
        "check wrong": gradlab.check(wrong, x),
        "audit": gradlab.audit(lambda x: wrong(x) + wrong(2 * x), x),
        "jacobian": gradlab.jacobian(named, x, x),
        "sweep": sweep(jnp.tanh, "float16"),
        "precision": gradlab.precision(jnp.sin, x, dtypes=["float32"]),
        "precision wrong": gradlab.precision(half, x, dtypes=["float32"]),
        "graph": _graph(lambda x, y: (x + y) * x, 2.0, np.arange(12.0)),
        "graph odd": _graph(lambda x: np.log(x) * x, np.array([-1.0, 2.0])),
        "nodes": node_pages(["tanh"]),
        "doctor": doctor(),
    }
