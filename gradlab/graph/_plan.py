"""A graph as the loop that runs it: nodes in topological order, wires as places in a list.

Forward fills the list of values from the front, backward the list of gradients from the back. The
order is fixed when the graph is built, so that a run costs little more than the arithmetic.

Source: reverse accumulation; S. Linnainmaa, Taylor expansion of the accumulated rounding error,
BIT 16 (1976).
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from gradlab.common.arrays import Array, namespace
from gradlab.errors import InputError
from gradlab.formatting import count
from gradlab.nodes import Node
from gradlab.nodes._base import Kept

# what each step sends back to each input, by the number of the step and the input's position
Branches: TypeAlias = dict[tuple[int, int], Array | None]


@dataclass(frozen=True, eq=False)
class Step:
    """One node at work."""

    node: Node  # the node
    inputs: tuple[int, ...]  # the wires that enter it
    outputs: tuple[int, ...]  # the wires that leave it
    several: bool = False  # whether the node returns a tuple, if only of one
    line: str = ""  # the user's line that it is from
    label: str = ""  # what to call it where not by the node's name
    # positions of inputs that have no gradient here, beside those of the node's domain
    gradless: frozenset[int] = frozenset()
    inside: "tuple[Step, ...]" = ()  # the steps that this one stands for, if it is a group
    # the groups that it was in before they were opened, outermost first
    frame: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What to call it."""
        return self.label or self.node.name()

    def differentiable(self) -> list[tuple[int, int]]:
        """Return the inputs that have a gradient, as (position, wire)."""
        domain = self.node.domain
        pairs = enumerate(self.inputs)
        return [(p, w) for p, w in pairs if p not in self.gradless and domain(p).differentiable]


class Recording:
    """The wires and steps of a graph to be, as they are collected."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.inputs: list[int] = []
        self.constants: dict[int, Array] = {}
        self.steps: list[Step] = []
        self._taken: dict[str, int] = {}

    def new(self, name: str) -> int:
        """Return a new wire under a name that is not taken."""
        self.names.append("")
        self.rename(len(self.names) - 1, name)
        return len(self.names) - 1

    def rename(self, wire: int, name: str) -> None:
        """Give a wire this name, or `name_1`, `name_2`, ... where it is taken."""
        unique = name
        while unique in self._taken:
            self._taken[name] += 1
            unique = f"{name}_{self._taken[name]}"
        self._taken.setdefault(unique, 0)
        self.names[wire] = unique


class Run(NamedTuple):
    """What one forward pass leaves: a value for every wire, the residuals of every step."""

    values: list[Array]
    residuals: list[Kept]


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps of a graph in an order in which they can run."""

    size: int
    inputs: tuple[int, ...]
    constants: dict[int, Array]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    _blank: list[Array] = field(init=False, repr=False)
    _forward: list[Any] = field(init=False, repr=False)
    _backward: dict[frozenset[int], list[Any]] = field(default_factory=dict, repr=False)
    _between: dict[frozenset[int], set[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        blank = [self.constants.get(wire) for wire in range(self.size)]
        forward = [
            (step.node.forward, step.inputs, step.outputs if step.several else step.outputs[0])
            for step in self.steps
        ]
        object.__setattr__(self, "_blank", blank)
        object.__setattr__(self, "_forward", forward)

    def forward(self, inputs: Iterable[Array], residuals: list[Kept] | None = None) -> Run:
        """Return the values and residuals of all nodes at these inputs.

        If a node raises, the length of `residuals`, which is filled, tells which one.
        """
        values = self._blank.copy()
        for wire, value in zip(self.inputs, inputs, strict=True):
            values[wire] = value
        residuals = [] if residuals is None else residuals
        for forward, sources, target in self._forward:
            value, kept = forward(*[values[wire] for wire in sources])
            residuals.append(kept)
            if target.__class__ is int:
                values[target] = value
            else:
                for wire, part in zip(target, value):
                    values[wire] = part
        return Run(values, residuals)

    def context(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which a single node of this plan has to run."""
        return contextlib.nullcontext()

    def reference(self, inputs: Iterable[Array]) -> list[Array]:
        """Return the value of every wire as JAX computes it, by each node's reference."""
        values = self._blank.copy()
        for wire, value in zip(self.inputs, inputs, strict=True):
            values[wire] = value
        for step in self.steps:
            value = step.node.reference(*[values[wire] for wire in step.inputs])
            for wire, part in zip(step.outputs, value if step.several else (value,)):
                values[wire] = part
        return values

    def backward(
        self,
        run: Run,
        upstreams: Iterable[Array],
        wanted: frozenset[int],
        branches: Branches | None = None,
    ) -> list[Array]:
        """Return a gradient for every wire that lies between `wanted` and the outputs, else None.

        A wire that feeds several nodes receives the sum of what they send back.

        `branches`, if given, is filled with what each step sends back to each of its inputs.
        """
        steps = self._backward.get(wanted)
        if steps is None:
            steps = self._backward[wanted] = self._compile(wanted)
        values, residuals = run.values, run.residuals
        gradients: list[Array] = [None] * self.size
        for wire, upstream in zip(self.outputs, upstreams, strict=True):
            held = gradients[wire]
            gradients[wire] = upstream if held is None else held + upstream
        for backward, asked, step, target, sources in steps:
            if target.__class__ is int:
                upstream = gradients[target]
                if upstream is None:
                    continue
            else:
                upstream = _together([gradients[t] for t in target], [values[t] for t in target])
            results = backward(asked, upstream, residuals[step])
            if len(results) != len(asked):
                raise InputError(_miscounted(self.steps[step], len(results)))
            for position, wire in sources:
                gradient = results[position]
                if branches is not None:
                    branches[step, position] = gradient
                if gradient is not None:
                    held = gradients[wire]
                    gradients[wire] = gradient if held is None else held + gradient
        return gradients

    def between(self, wanted: frozenset[int]) -> set[int]:
        """Return the wires that depend on `wanted` by differentiable inputs, `wanted` included."""
        if wanted in self._between:
            return self._between[wanted]
        touched = self._between[wanted] = set(wanted)
        for step in self.steps:
            if any(wire in touched for _, wire in step.differentiable()):
                touched.update(step.outputs)
        return touched

    def _compile(self, wires: frozenset[int]) -> list[Any]:
        """Return the backward steps that lead to these wires, last node first, and no others."""
        touched = self.between(wires)
        reached = set(self.outputs)
        compiled = []
        for index in reversed(range(len(self.steps))):
            step = self.steps[index]
            sources = [(p, wire) for p, wire in step.differentiable() if wire in touched]
            if not sources or reached.isdisjoint(step.outputs):
                continue
            reached.update(wire for _, wire in sources)
            positions = {position for position, _ in sources}
            wanted = tuple(p in positions for p in range(len(step.inputs)))
            target = step.outputs if step.several else step.outputs[0]
            compiled.append((step.node.backward_to, wanted, index, target, sources))
        return compiled


def _miscounted(step: Step, found: int) -> str:
    inputs = count(len(step.inputs), "input")
    return (
        f"{step.node}.backward: returned {count(found, 'gradient')} for {inputs}; return one each"
    )


def _together(upstreams: list[Array], outputs: list[Array]) -> tuple[Array, ...]:
    """Return the upstream of a node with several outputs: zeros for those that nobody uses."""
    return tuple(zeros_like(y) if u is None else u for u, y in zip(upstreams, outputs))


def zeros_like(x: Array) -> Array:
    """Return zeros with the shape and dtype of `x`, in its namespace."""
    return namespace(x).zeros_like(x)
