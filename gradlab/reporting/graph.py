"""A computational graph: its values and gradients, wire by wire."""

from typing import TYPE_CHECKING

from gradlab.reporting._diagrams import dot, mermaid
from gradlab.reporting._glance import glance_text
from gradlab.reporting._graph_page import html
from gradlab.reporting._svg import svg
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.graph.report import GraphReport

__all__ = ["dot", "html", "mermaid", "svg", "text"]

HEADERS = ("wire", "node", "inputs", "value", "gradient")


def text(report: "GraphReport") -> str:
    """Return a line for every wire, in the order in which they are computed."""
    gates = {output: gate for gate in report.gates for output in gate.outputs}
    rows = []
    for wire in report.wires:
        gate = gates.get(wire.name)
        node = gate.node if gate else "constant" if wire.kind == "constant" else ""
        inputs = ", ".join(gate.inputs) if gate else ""
        rows.append((wire.name, node, inputs, glance_text(wire.value), glance_text(wire.gradient)))
    return "\n\n".join([table(HEADERS, rows), *report.findings])
