"""A computational graph: its values and gradients, wire by wire."""

from typing import TYPE_CHECKING

from gradlab.reporting._diagrams import dot, mermaid
from gradlab.reporting._glance import glance_text
from gradlab.reporting._junit import Case, junit_document
from gradlab.reporting._stepping import page as html
from gradlab.reporting._svg import svg
from gradlab.reporting._table import is_fitted, table

if TYPE_CHECKING:
    from gradlab.graph.report import GraphReport

__all__ = ["dot", "html", "junit", "mermaid", "svg", "text"]

HEADERS = ("wire", "node", "inputs", "value", "gradient")
WIDEST = (32, 24, 40, 48, 48)  # a column is never wider than this; ten thousand lines stay readable

_MOST = 1000  # rows that are folded to fit a terminal; more are clipped, which takes no time


def text(report: "GraphReport") -> str:
    """Return a line for every wire, in the order in which they are computed."""
    gates = {output: gate for gate in report.gates for output in gate.outputs}
    rows: list[tuple[str, ...]] = [HEADERS]
    for wire in report.wires:
        gate = gates.get(wire.name)
        node = gate.node if gate else "constant" if wire.kind == "constant" else ""
        inputs = ", ".join(gate.inputs) if gate else ""
        rows.append((wire.name, node, inputs, glance_text(wire.value), glance_text(wire.gradient)))
    few = is_fitted() and len(rows) <= _MOST
    return "\n\n".join([table(HEADERS, rows[1:]) if few else _columns(rows), *report.findings])


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [min(max(map(len, column)), widest) for column, widest in zip(zip(*rows), WIDEST)]
    lines = []
    for row in rows:
        cells = (f"{_clipped(cell, width):<{width}}" for cell, width in zip(row, widths))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _clipped(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 3]}..."


def junit(report: "GraphReport") -> str:
    """Return the graph as a JUnit suite: a case for each wire, failed where it is not finite."""
    cases = []
    for wire in report.wires:
        fine = report.is_finite(wire)
        numbers = (
            f"value {glance_text(wire.value)}; gradient {glance_text(wire.gradient) or 'none'}"
        )
        text = "; ".join([*wire.marks, numbers])
        cases.append(Case(report.title, wire.name, "passed" if fine else "failed", text))
    return junit_document((f"gradlab graph {report.title}", cases))
