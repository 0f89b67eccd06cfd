"""A graph of any function: of its nodes where it is made of nodes, else of JAX's equations."""

from gradlab.common.arrays import Function, Tree
from gradlab.graph.graph import Graph


def read_graph(function: Function, *inputs: Tree) -> Graph:
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
