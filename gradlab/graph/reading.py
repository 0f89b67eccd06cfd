"""A graph of any function: of its nodes where it is made of nodes, else of JAX's equations."""

from collections.abc import Callable
from typing import Any

from gradlab.graph._tree import rebuild
from gradlab.graph.graph import Graph
from gradlab.nodes._arrays import namespace

__all__ = ["read_graph"]


def read_graph(function: Callable[..., Any], *inputs: Any) -> Graph:
    """Return the graph of a function, run forward and backward.

    The upstream is 1 for every entry of the outputs: the gradients are those of their sum.
    """
    graph = Graph(function, *inputs)
    graph.backward(rebuild(graph.forward(), lambda y: namespace(y).ones_like(y)))
    return graph
