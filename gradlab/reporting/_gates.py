"""What is written in a gate: the signs of the course, with scalar constants taken in ("+1")."""

from typing import TYPE_CHECKING

from gradlab.reporting._glance import number

if TYPE_CHECKING:
    from gradlab.graph.report import Gate, GraphReport

_SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "negate": "*-1",
    "reciprocal": "1/x",
    "square": "x²",
    "sqrt": "√",
    "power": "xʸ",
    "abs": "|x|",
    "maximum": "max",
    "minimum": "min",
    "sigmoid": "\N{GREEK SMALL LETTER SIGMA}",
    "sum": "Σ",
    "matmul": "@",
    "dot_general": "@",
    "l2_loss": "L2",
    "transpose": "T",
    "broadcast_in_dim": "broadcast",
    "convert_element_type": "cast",
    "softmax_cross_entropy": "softmax CE",
}
_LONGEST = 20


def folded_constants(report: "GraphReport") -> dict[str, str]:
    """Return the scalar constants, which are written into their gates, as text."""
    return {
        wire.name: number(wire.value.entries, 4)
        for wire in report.wires
        if wire.kind == "constant" and wire.value.shape == () and wire.value.entries is not None
    }


def sign(gate: "Gate", constants: dict[str, str]) -> str:
    """Return what is written in a gate."""
    name = _SIGNS.get(gate.node, gate.node)
    values = [constants.get(wire) for wire in gate.inputs]
    if len(values) == 2 and len(name) == 1 and values.count(None) == 1:
        left, right = values
        if right is not None:
            return f"{name}{right}"
        return f"{left}{name}" if gate.node in ("subtract", "divide") else f"{name}{left}"
    if any(value is not None for value in values):
        arguments = ", ".join("·" if value is None else value for value in values)
        name = f"{name}({arguments})"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
