"""What lies on the wires of a graph, looked up by name."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from gradlab.arguments import nearest
from gradlab.common.arrays import Array
from gradlab.errors import InputError
from gradlab.operators import Operator

if TYPE_CHECKING:
    from gradlab.graph.graph import Graph


class Wires(Mapping[str, Array]):
    """A value for each wire, by name, in the order in which they are computed."""

    def __init__(self, graph: "Graph", lookup: Callable[[int], Array]) -> None:
        self._graph = graph
        self._lookup = lookup

    def __getitem__(self, name: str) -> Array:
        return self._lookup(self._graph.wire(name))

    def __contains__(self, name: object) -> bool:
        return name in self._graph.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._graph.names)

    def __len__(self) -> int:
        return len(self._graph.names)

    def __repr__(self) -> str:
        return f"Wires({', '.join(self)})"


class LocalGradients:
    """The Jacobian of one node with respect to one of its inputs: `local_gradients[node, input]`.

    A node is named by a wire that leaves it. An input is named by the wire that enters, or by its
    position; a wire that enters twice, as in `x * x`, has the sum of both Jacobians.
    """

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph

    def __getitem__(self, key: object) -> Operator:
        if not isinstance(key, tuple) or len(key) != 2:
            raise InputError(f"local_gradients[{key!r}]: pass two names, [node, input]")
        node, source = key
        graph = self._graph
        wire = graph.wire(node)
        step = next((s for s in graph.plan.steps if wire in s.outputs), None)
        if step is None:
            raise InputError(f"local_gradients: {node!r} is an input or a constant, not a node")
        with graph.plan.context():
            _, residuals = step.node.forward(*(graph.run.values[w] for w in step.inputs))
            gradients = step.node.local_gradient(residuals)
        if step.several:
            gradients = gradients[step.outputs.index(wire)]
        places = _places(step.inputs, source, graph)
        if not step.node.domain(places[0]).differentiable:
            raise InputError(f"local_gradients[{node!r}, {source!r}]: this input has no gradient")
        found = [gradients[place] for place in places]
        total: Operator = sum(found[1:], start=found[0])
        return total


def _places(inputs: tuple[int, ...], source: str | int, graph: "Graph") -> list[int]:
    """Return the positions at which a wire, or the input at a position, enters a node."""
    names = [graph.labels[wire] for wire in inputs]
    if isinstance(source, int) and -len(inputs) <= source < len(inputs):
        return [source]
    places = [place for place, name in enumerate(names) if name == source]
    if not places:
        raise InputError(f"local_gradients: {source!r} does not enter this node; {names} do")
    return places


def nearest_or_all(name: str, known: list[str]) -> str:
    """Return the end of an error message: the known names that are like `name`."""
    listed = f"{', '.join(map(repr, known[:10]))}{', ...' if len(known) > 10 else ''}"
    return nearest(name, known) or f"there are {listed}"
