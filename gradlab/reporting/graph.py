"""A computational graph: its values and gradients, wire by wire."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gradlab.reporting._gates import folded_constants, sign
from gradlab.reporting._glance import glance_text
from gradlab.reporting._graph_page import html as html
from gradlab.reporting._svg import svg as svg
from gradlab.reporting._table import table
from gradlab.reporting._things import structure

if TYPE_CHECKING:
    from gradlab.graph.report import GraphReport, WireView

_CHECKED = {"passed": "right", "failed": "WRONG", "skipped": "not decided"}
HEADERS = ("wire", "node", "inputs", "value", "gradient")


def text(report: "GraphReport") -> str:
    """Return a line for every wire, in the order in which they are computed."""
    gates = {output: gate for gate in report.gates for output in gate.outputs}
    local = any(gate.local_gradients for gate in report.gates)
    checked = any(gate.check for gate in report.gates)
    more = ("local gradients",) * local + ("by differences",) * checked
    rows = []
    for wire in report.wires:
        gate = gates.get(wire.name)
        node = gate.node if gate else "constant" if wire.kind == "constant" else ""
        inputs = ", ".join(gate.inputs) if gate else ""
        row = [wire.name, node, inputs, glance_text(wire.value), glance_text(wire.gradient)]
        words = ", ".join(map(structure, gate.local_gradients)) if gate else ""
        status = _CHECKED[gate.check.status] if gate and gate.check else ""
        rows.append((*row, *[words] * local, *[status] * checked))
    return "\n\n".join([table((*HEADERS, *more), rows), *report.findings])


def dot(report: "GraphReport") -> str:
    """Return the graph in Graphviz's language; each edge carries its wire's value and gradient."""
    lines = [f"digraph {_quoted(report.title)} {{", "  rankdir=LR;", "  node [shape=circle];"]
    for name, label, is_gate in _vertices(report):
        lines.append(f"  {name} [label={_quoted(label)}{'' if is_gate else ', shape=plaintext'}];")
    for source, target, wire in _edges(report):
        label = _quoted("\n".join(_numbers(wire)))
        lines.append(f"  {source} -> {target} [label={label}];")
    return "\n".join([*lines, "}"])


def mermaid(report: "GraphReport") -> str:
    """Return the graph in Mermaid's language, which Markdown pages draw."""
    lines = ["flowchart LR"]
    for name, label, is_gate in _vertices(report):
        before, after = ("((", "))") if is_gate else ("[", "]")
        lines.append(f"  {name}{before}{_entities(label)}{after}")
    for source, target, wire in _edges(report):
        label = "<br/>".join(map(_escaped, _numbers(wire)))
        lines.append(f'  {source} -->|"{label}"| {target}')
    return "\n".join(lines)


def _vertices(report: "GraphReport") -> Iterator[tuple[str, str, bool]]:
    """Yield each vertex's name, its label, and whether it is a gate."""
    hidden = folded_constants(report)
    made = {name for gate in report.gates for name in gate.outputs}
    for i, wire in enumerate(report.wires):
        if wire.name not in made and wire.name not in hidden:
            yield f"w{i}", wire.name, False
    for i, gate in enumerate(report.gates):
        yield f"g{i}", sign(gate, hidden), True
    for i, name in enumerate(report.outputs):
        yield f"o{i}", name, False


def _edges(report: "GraphReport") -> Iterator[tuple[str, str, "WireView"]]:
    """Yield each edge's ends and the wire that it is."""
    hidden = folded_constants(report)
    views = {wire.name: wire for wire in report.wires}
    sources = {wire.name: f"w{i}" for i, wire in enumerate(report.wires)}
    for i, gate in enumerate(report.gates):
        for name in gate.outputs:
            sources[name] = f"g{i}"
    for i, gate in enumerate(report.gates):
        for name in gate.inputs:
            if name not in hidden:
                yield sources[name], f"g{i}", views[name]
    for i, name in enumerate(report.outputs):
        yield sources[name], f"o{i}", views[name]


def _numbers(wire: "WireView") -> list[str]:
    value, gradient = glance_text(wire.value, 3), glance_text(wire.gradient, 3)
    return [value, *([f"gradient {gradient}"] if gradient else []), *wire.marks]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _entities(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """Return text with Mermaid's entities for what its grammar, or HTML, would read."""
    safe = " .,:+-/*=()[]_"
    return "".join(c if c.isalnum() or c in safe else f"#{ord(c)};" for c in text)
