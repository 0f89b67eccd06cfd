"""Several nodes as one: grouped, replaced by a hand-written node that does the same, and opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gradlab.common.arrays import Array
from gradlab.errors import InputError
from gradlab.graph._plan import Plan, Run, Step
from gradlab.nodes import Node
from gradlab.nodes._base import Outputs, Pulled
from gradlab.operators import Identity, Operator

if TYPE_CHECKING:
    from gradlab.references import Estimate


@dataclass(frozen=True, eq=False)
class Group(Node):
    """Several steps as one node: their forward, their backward, their local gradients composed."""

    label: str
    plan: Plan = field(repr=False)
    several: bool = field(repr=False)

    def forward(self, *inputs: Array) -> tuple[Outputs, Run]:
        run = self.plan.forward(inputs)
        outputs = tuple([run.values[wire] for wire in self.plan.outputs])
        return outputs if self.several else outputs[0], run

    def local_gradient(self, residuals: Run) -> tuple[Pulled, ...]:
        rows = tuple(self._row(residuals, wire) for wire in self.plan.outputs)
        return rows if self.several else rows[0]

    def _row(self, run: Run, output: int) -> tuple[Operator | None, ...]:
        value = run.values[output]
        arrived: dict[int, Operator] = {output: Identity(value.shape, dtype=value.dtype)}
        for step, residuals in zip(reversed(self.plan.steps), reversed(run.residuals)):
            if arrived.keys().isdisjoint(step.outputs):
                continue
            gradients = step.node.local_gradient(residuals)
            for wire, row in zip(step.outputs, gradients if step.several else (gradients,)):
                for position, source in step.differentiable() if wire in arrived else ():
                    if row[position] is not None:
                        path = arrived[wire] @ row[position]
                        arrived[source] = arrived[source] + path if source in arrived else path
        return tuple(arrived.get(wire) for wire in self.plan.inputs)

    def backward_to(
        self, wanted: tuple[bool, ...] | None, upstream: Outputs, residuals: Run
    ) -> tuple[Pulled, ...]:
        inputs = self.plan.inputs
        asked = frozenset(w for i, w in enumerate(inputs) if wanted is None or wanted[i])
        upstreams = upstream if self.several else (upstream,)
        gradients = self.plan.backward(residuals, upstreams, asked)
        return tuple(gradients[wire] if wire in asked else None for wire in inputs)

    def reference(self, *inputs: Array) -> Outputs:
        values = self.plan.reference(inputs)
        outputs = tuple(values[wire] for wire in self.plan.outputs)
        return outputs if self.several else outputs[0]


def grouped(
    steps: Sequence[Step],
    members: Sequence[Step],
    outputs: Sequence[int],
    constants: dict[int, Array],
    label: str,
) -> tuple[Step, ...]:
    """Return the steps with `members` as one of them."""
    chosen = set(members)
    others = [step for step in steps if step not in chosen]
    _require_convex(steps, members, label)
    used = {wire for step in others for wire in step.inputs} | set(outputs)
    step = as_step(members, used, constants, label)
    after = set(step.outputs)  # what depends on the group has to follow it
    first: list[Step] = []
    last: list[Step] = []
    for other in others:
        follows = not after.isdisjoint(other.inputs)
        if follows:
            after.update(other.outputs)
        (last if follows else first).append(other)
    return (*first, step, *last)


def as_step(
    members: Sequence[Step], used: set[int], constants: dict[int, Array], label: str
) -> Step:
    """Return steps as one whose outputs are the wires that others use."""
    made = [wire for step in members for wire in step.outputs]
    taken = dict.fromkeys(wire for step in members for wire in step.inputs)
    inputs = tuple(w for w in taken if w not in made and (w not in constants or w in used))
    outputs = tuple(wire for wire in made if wire in used)
    places = {wire: i for i, wire in enumerate(dict.fromkeys([*inputs, *taken, *made]))}
    plan = Plan(
        len(places),
        tuple(places[wire] for wire in inputs),
        {places[w]: constants[w] for w in taken if w in constants and w not in inputs},
        tuple(_moved(step, places) for step in members),
        tuple(places[wire] for wire in outputs),
    )
    several = len(outputs) != 1
    touched = {wire for step in members for _, wire in step.differentiable()}
    gradless = frozenset(p for p, wire in enumerate(inputs) if wire not in touched)
    lines = {step.line for step in members}
    return Step(
        Group(label, plan, several),
        inputs,
        outputs,
        several,
        line=lines.pop() if len(lines) == 1 else "",
        label=label,
        gradless=gradless,
        inside=tuple(members),
    )


def opened(steps: Sequence[Step], group: Step) -> tuple[Step, ...]:
    """Return the steps with those of a group in its place, each marked with the group's name."""
    found: list[Step] = []
    for step in steps:
        if step is group:
            frame = (*group.frame, group.title)
            found += [replace(inner, frame=frame) for inner in group.inside]
        else:
            found.append(step)
    return tuple(found)


def _moved(step: Step, places: dict[int, int]) -> Step:
    """Return the step between other wires."""
    inputs = tuple(places[wire] for wire in step.inputs)
    return replace(step, inputs=inputs, outputs=tuple(places[wire] for wire in step.outputs))


def _require_convex(steps: Sequence[Step], members: Sequence[Step], label: str) -> None:
    """Raise an InputError if what depends on the group also feeds it."""
    chosen = set(members)
    made = {wire for step in members for wire in step.outputs}
    behind: dict[int, Step] = {}  # wires that depend on the group, by who is outside it
    for step in steps:
        detour = next((behind[wire] for wire in step.inputs if wire in behind), None)
        if step in chosen:
            if detour is not None:
                raise InputError(
                    f"group {label!r}: {detour.title} at {detour.line or 'its place'} depends on "
                    "the group and feeds it; take it into the group too"
                )
        elif detour is not None or not made.isdisjoint(step.inputs):
            behind.update(dict.fromkeys(step.outputs, detour or step))


def require_same(group: Step, node: Node, inputs: Sequence[Array]) -> None:
    """Raise an InputError unless a node computes what a group does, and with the same gradient.

    Both references are evaluated in float64, at the inputs at hand and at others from the node's
    domain, and held against each other by the floors of `gradlab.references`.
    """
    from gradlab.references import Evaluation, vjp_program
    from gradlab.tracing import trace

    low, high = node.arity()
    if group.several or not low <= len(inputs) <= high:
        raise InputError(
            f"as_node: {node!r} does not fit the group, which has {len(inputs)} input(s) and "
            f"{len(group.outputs)} output(s)"
        )
    wide = [_wide(x) for x in inputs]
    names = [f"x{i}" for i in range(len(wide))]
    programs = {
        "reference": trace(group.node.reference, *wide, names=names),
        "node": trace(node.reference, *wide, names=names),
    }
    (here,), (there,) = (program.out_avals for program in programs.values())
    if here.shape != there.shape:
        raise InputError(
            f"as_node: the group has an output of shape {tuple(here.shape)}, {node!r} one of "
            f"shape {tuple(there.shape)}"
        )
    lab = Evaluation(**{key: vjp_program(program) for key, program in programs.items()})
    rng = np.random.default_rng(0)
    for _ in range(3):
        upstream = rng.standard_normal(here.shape)
        estimates = lab.estimates({**dict(zip(names, wide)), "upstream": upstream})
        for what, ours, theirs in zip(
            ("output", *(f"gradient of input {i}" for i in range(len(wide)))),
            estimates["reference"],
            estimates["node"],
        ):
            _require_right(node, what, ours, theirs)
        wide = [node.domain(i).draw(rng, x.shape) for i, x in enumerate(wide)]


def _require_right(node: Node, what: str, ours: "Estimate", theirs: "Estimate") -> None:
    from gradlab.references import judge

    verdict = judge(theirs.value, ours, theirs, np.float64)
    if verdict.wrong.any():
        index = verdict.worst
        raise InputError(
            f"as_node: {node!r} is not the same function as the group: "
            f"{what}{list(index or ())} is {theirs.value[index]:.6g}, "
            f"and should be {ours.value[index]:.6g}"
        )


def _wide(x: Array) -> Array:
    x = np.asarray(x)
    return x if x.dtype.kind in "iub" else x.astype(float)
