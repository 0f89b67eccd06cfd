"""From a graph to its report: what is on every wire, what each gate does, what is odd."""

import inspect
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from gradlab.common.arrays import Array
from gradlab.errors import GradlabError
from gradlab.graph._glance import Glance, glance
from gradlab.graph._plan import Step
from gradlab.graph.report import Gate, GraphReport, NodeCheck, WireView
from gradlab.nodes._base import Outputs
from gradlab.operators import Operator
from gradlab.report import Fix

if TYPE_CHECKING:
    from gradlab.graph.graph import Graph

_FAR = 1e6  # a gradient so many times smaller or larger than 1 is worth a word
_FEW = 40  # in a graph of so few nodes, arrays are drawn as heat maps where they are small
_SMALL = 4096  # entries
_HEAVY = 10**7  # bytes; of an operator that is larger, the pattern is not worked out


def graph_report(
    graph: "Graph",
    local_gradients: bool = False,
    decimals: int = 3,
    heat_maps: bool | None = False,
    checks: bool = False,
) -> GraphReport:
    """Return a graph as plain data; `Graph.report` says what can be asked for."""
    plan = graph.plan
    users = Counter(wire for step in plan.steps for wire in set(step.inputs))
    few = len(plan.steps) <= _FEW
    most = 0 if heat_maps is False else None if heat_maps else _SMALL if few else 0
    gates = []
    with np.errstate(all="ignore"):  # NumPy has warned already, when the graph was run
        wires = tuple(_wire(graph, name, users, most) for name in graph.names)
        noted = graph.branches() if any(number > 1 for number in users.values()) else {}
        for index, step in enumerate(plan.steps):
            sent = (noted.get((index, position)) for position in range(len(step.inputs)))
            branches = tuple(
                glance(gradient) if users[wire] > 1 and gradient is not None else None
                for wire, gradient in zip(step.inputs, sent)
            )
            gate = _gate(graph, step, branches)
            if local_gradients:
                gate = replace(gate, local_gradients=_local_gradients(graph, step))
            if checks:
                gate = replace(gate, check=_check(graph, step))
            gates.append(gate)
    for k in reversed(range(len(gates))):  # the first wrong gate on the way back
        check = gates[k].check
        if check is not None and check.status == "failed":
            gates[k] = replace(gates[k], fixes=_fixes(graph, plan.steps[k]))
            break
    outputs = tuple(graph.labels[wire] for wire in plan.outputs)
    found = findings(wires, gates)
    return GraphReport(graph.title, wires, tuple(gates), outputs, found, decimals)


def _wire(graph: "Graph", name: str, users: Counter[int], most: int | None) -> WireView:
    """Return a wire at a glance, seen from far too if it has at most so many entries."""
    wire, plan = graph.wire(name), graph.plan
    gradient = graph.gradient(wire)
    kind: Literal["input", "constant", "node"] = "node"
    if wire in plan.constants:
        kind = "constant"
    elif wire in plan.inputs:
        kind = "input"
    held = graph.run.values[wire]
    heat = most is None or getattr(held, "size", 1) <= most
    value = glance(held, heat)
    back = None if gradient is None else glance(gradient, heat)
    used = bool(users[wire]) or wire in plan.outputs
    return WireView(name, kind, value, back, marks(value, back, used))


def _gate(graph: "Graph", step: Step, branches: tuple[Glance | None, ...]) -> Gate:
    labels = graph.labels
    return Gate(
        labels[step.outputs[0]],
        step.title,
        repr(step.node),
        tuple(labels[wire] for wire in step.inputs),
        tuple(labels[wire] for wire in step.outputs),
        step.line,
        step.frame,
        _count(step),
        branches,
        about="" if step.inside else _about(type(step.node)),
    )


def _about(node: type) -> str:
    """Return the sentences of a node's documentation that say what it does."""
    text = inspect.cleandoc(node.__dict__.get("__doc__") or "")
    parts = [part for part in text.split("\n\n") if not part.startswith(("Args:", "Example:"))]
    return "\n".join(" ".join(part.split()) for part in parts[:2])


def _check(graph: "Graph", step: Step) -> NodeCheck:
    from gradlab.graph._differences import check_step  # the one reason to load JAX

    try:
        with graph.plan.context():
            return check_step(step, [graph.run.values[wire] for wire in step.inputs])
    except GradlabError as error:  # such as a loop that JAX has no gradient for
        return NodeCheck("skipped", str(error))


def _fixes(graph: "Graph", step: Step) -> tuple[Fix, ...]:
    """Return the edits of a node's source that make its gradients right, at what enters it here."""
    from gradlab.repair import repair, rule_of_node  # a search that right nodes never need

    def forward(*inputs: Array) -> Outputs:
        return step.node.forward(*inputs)[0]

    if type(step.node).__module__.startswith("gradlab.graph"):  # a group, or JAX's own equation
        return ()
    inputs = tuple(np.asarray(graph.run.values[wire]) for wire in step.inputs)
    wrt = tuple(position for position, _ in step.differentiable())
    return repair([rule_of_node(step.node, forward, inputs, wrt)], 0)[0]


def _count(step: Step) -> int:
    """Return how many nodes a step stands for; 0 if it is no group."""
    return sum(_count(inner) or 1 for inner in step.inside)


def _local_gradients(graph: "Graph", step: Step) -> tuple[str, ...]:
    """Return the Jacobian of a step's first output in each of its inputs, in words."""
    differentiable = {position for position, _ in step.differentiable()}
    name = graph.labels[step.outputs[0]]
    return tuple(
        _in_words(graph.local_gradients[name, position], graph.labels[wire])
        if position in differentiable
        else ""
        for position, wire in enumerate(step.inputs)
    )


def _in_words(operator: Operator | None, name: str) -> str:
    """Return a number; else what the output reads of the named input, and how it is stored."""
    if operator is None:
        return ""
    if operator.shape == (1, 1):
        return f"{complex(operator.to_dense().item()).real:.4g}"
    if getattr(operator, "opaque", False) or operator.stored_bytes > _HEAVY:
        return repr(operator)
    pattern = operator.pattern
    reads = pattern.describe("out", name).replace(" <- ", " depends on ")
    return f"{pattern.structure}: {reads}; stored as {operator!r}"


def marks(value: Glance, gradient: Glance | None, used: bool) -> tuple[str, ...]:
    """Return what is odd about a wire."""
    found = [] if used else ["unused"]
    if not value.finite:
        found.append("NaN" if value.nans else "infinite")
    if gradient is None or not used:
        return tuple(found)
    if not gradient.finite:
        found.append("gradient is NaN" if gradient.nans else "gradient is infinite")
    elif gradient.size == 0 and 0 not in gradient.shape:
        found.append("gradient is zero")
    elif 0 < gradient.size < 1 / _FAR:
        found.append("gradient vanishes")
    elif gradient.size > _FAR:
        found.append("gradient explodes")
    return tuple(found)


def findings(wires: Sequence[WireView], gates: Sequence[Gate]) -> tuple[str, ...]:
    """Return where the first NaN or infinity appears, forward and backward.

    Constants do not count: a mask is often made of infinities.
    """
    back = {wire.name: wire.gradient for wire in wires}
    made = {name: gate for gate in gates for name in gate.outputs}
    found = []
    for kind, count in (("NaN", "nans"), ("infinity", "infinities")):
        odd = (w.name for w in wires if w.kind != "constant" and getattr(w.value, count))
        for name in itertools.islice(odd, 1):
            place = f"{name} ({_place(made[name])})" if name in made else f"in the input {name}"
            found.append(f"forward, the first {kind} is {place}")
    for gate in reversed(gates):
        if not all(_finite(back[name]) for name in gate.outputs):
            found.append(f"backward, it is not finite from the output {gate.name} on")
            break
        first = next((name for name in gate.inputs if not _finite(back[name])), None)
        if first is not None:
            gradient = back[first]
            kind = "NaN" if gradient is not None and gradient.nans else "infinity"
            found.append(
                f"backward, the first {kind} is in the gradient of {first}, "
                f"sent by {gate.name} ({_place(gate)})"
            )
            break
    return tuple(found)


def _finite(glance: Glance | None) -> bool:
    return glance is None or glance.finite


def _place(gate: Gate) -> str:
    return f"{gate.node}, {gate.line}" if gate.line else gate.node
