"""Which node of a graph has the wrong backward: the first on the way back that fails by itself."""

import copy
import dataclasses

from gradlab.checking.report import CheckReport
from gradlab.common.arrays import Tree
from gradlab.graph import Graph
from gradlab.report import Finding


def name_wrong_node(report: CheckReport, graph: Graph, inputs: tuple[Tree, ...]) -> CheckReport:
    """Return the report of a graph that failed, with the first wrong node on the way back.

    Each node is held against finite differences by itself, at what enters it there.
    """
    probe = copy.copy(graph)  # the user's graph keeps its own values
    probe.forward(*inputs)
    gates = probe.report(checks=True).gates
    wrong = [gate for gate in reversed(gates) if gate.check and gate.check.status == "failed"]
    if not wrong:
        return report
    first, *others = wrong
    line = f", {first.line}" if first.line else ""
    text = f"the first wrong node on the way back is {first.detail} (wire {first.name}{line})"
    if others:
        text += f"; behind it {', '.join(f'{gate.detail} ({gate.name})' for gate in others)}"
    path = report.worst.path if report.worst else ""
    findings = (Finding("node", path, text), *report.findings)
    return dataclasses.replace(report, findings=findings, fixes=report.fixes or first.fixes)
