"""A graph of any function: of its nodes where it is made of nodes, else of JAX's equations."""

from collections.abc import Callable
from typing import Any

from gradlab.graph.graph import Graph


def read_graph(function: Callable[..., Any], *inputs: Any) -> Graph:
    """Return the graph of a function, run forward and backward with an upstream of ones.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> read_graph(np.tanh, np.ones(3)).names, read_graph(jnp.tanh, np.ones(3)).names
        (['x', 'tanh'], ['x', 'tanh'])
    """
    try:
        graph = Graph(function, *inputs)
    except TypeError:  # it is no function of variables; whatever else is wrong, JAX will say
        graph = Graph.from_jax(function, *inputs)
    graph.backward(graph.ones())
    return graph
