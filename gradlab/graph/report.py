"""A graph as plain data: every wire with its value and gradient at a glance, every gate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gradlab.nodes._arrays import is_inexact
from gradlab.report import Report

if TYPE_CHECKING:
    from gradlab.graph.graph import Graph

__all__ = ["Gate", "Glance", "GraphReport", "WireView", "glance", "graph_report"]

_SMALL = 6  # arrays of so many entries are shown whole


@dataclass(frozen=True)
class Glance:
    """An array at a glance: small ones whole, others by what their entries are like.

    `low`, `mean` and `high` are those of the finite entries.
    """

    shape: tuple[int, ...]
    dtype: str
    entries: Any = None
    low: float | None = None
    mean: float | None = None
    high: float | None = None
    zeros: int = 0
    nans: int = 0
    infinities: int = 0


@dataclass(frozen=True)
class WireView:
    """One wire: `kind` is input, constant or node; `marks` say what is odd about it."""

    name: str
    kind: str
    value: Glance
    gradient: Glance | None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gate:
    """One node at work: between which wires, written on which line."""

    name: str
    node: str
    detail: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    line: str = ""


@dataclass(frozen=True)
class GraphReport(Report):
    """A graph with a value and a gradient on every wire, ready to be drawn.

    Example:
        >>> from gradlab import Graph
        >>> g = Graph(lambda x, y: x * y, 3.0, 4.0)
        >>> _ = g.backward()
        >>> [(wire.name, wire.gradient.entries) for wire in g.report().wires]
        [('x', 4.0), ('y', 3.0), ('multiply', 1.0)]
    """

    kind: ClassVar[str] = "graph"

    title: str
    wires: tuple[WireView, ...]
    gates: tuple[Gate, ...]
    outputs: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No wire carries a NaN or an infinity, forward or backward."""
        glances = [g for wire in self.wires for g in (wire.value, wire.gradient) if g is not None]
        return not any(g.nans or g.infinities for g in glances)


def glance(array: Any) -> Glance:
    """Return an array at a glance.

    Example:
        >>> glance(np.array([[1.0, 0.0], [-1.0, 4.0]])).entries
        [[1.0, 0.0], [-1.0, 4.0]]
        >>> picture = glance(np.arange(12.0))
        >>> picture.low, picture.mean, picture.high, picture.zeros
        (0.0, 5.5, 11.0, 1)
    """
    array = np.asarray(array)
    shape, dtype = tuple(array.shape), str(array.dtype)
    if not is_inexact(array.dtype) and array.dtype.kind not in "iub":
        return Glance(shape, dtype)
    nans = int(np.isnan(array).sum()) if is_inexact(array.dtype) else 0
    finite = array[np.isfinite(array)] if is_inexact(array.dtype) else array
    wide = np.abs(finite) if array.dtype.kind == "c" else finite.astype(float)
    return Glance(
        shape,
        dtype,
        entries=array.tolist() if array.size <= _SMALL else None,
        low=float(wide.min()) if wide.size else None,
        mean=float(wide.mean()) if wide.size else None,
        high=float(wide.max()) if wide.size else None,
        zeros=int(array.size - np.count_nonzero(array)),
        nans=nans,
        infinities=array.size - finite.size - nans,
    )


def graph_report(graph: "Graph") -> GraphReport:
    """Return a graph as plain data."""
    names, plan, values = graph.labels, graph.plan, graph.run.values
    kinds = dict.fromkeys(plan.inputs, "input") | dict.fromkeys(plan.constants, "constant")
    wires = []
    for name in graph.names:
        wire = graph.wire(name)
        gradient = graph.gradient(wire)
        view = None if gradient is None else glance(gradient)
        wires.append(WireView(name, kinds.get(wire, "node"), glance(values[wire]), view))
    gates = tuple(
        Gate(
            names[step.outputs[0]],
            step.title,
            repr(step.node),
            tuple(names[wire] for wire in step.inputs),
            tuple(names[wire] for wire in step.outputs),
            step.line,
        )
        for step in plan.steps
    )
    outputs = tuple(names[wire] for wire in plan.outputs)
    return GraphReport(graph.title, tuple(wires), gates, outputs)
