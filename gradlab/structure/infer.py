"""Inference: which seeds each value of a linear program may read, equation by equation.

The state of a value is one pattern per seed. An equation composes its rule with the states of its
operands; calls are entered, control flow is in `control`. Nothing here knows array sizes: an
elementwise program over ten million entries costs what one over ten costs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlab.patterns import Pattern
from gradlab.structure.facts import facts
from gradlab.structure.known import Known, of_array
from gradlab.structure.linear import respects_zero
from gradlab.structure.rules import rule_for
from gradlab.structure.sites import Site
from gradlab.tracing.jaxprs import Literal, body, source
from gradlab.tracing.linearise import call_body, part_of_jax

__all__ = ["Dependence", "Note", "Step", "Walk"]

Dependence = Mapping[int, Pattern]
"""For each seed that a value may read, the pattern value <- seed."""

Value = tuple[Dependence, Known | None]
NOTHING: Dependence = {}


@dataclass(frozen=True)
class Note:
    """A place where the pattern may be larger than the truth, and why."""

    text: str
    primitive: str
    source: str

    def __str__(self) -> str:
        at = f" at {self.source}" if self.source else ""
        return f"{self.primitive}{at}: {self.text}"


@dataclass(frozen=True, eq=False)
class Step:
    """One equation that carries seeds: what its operands read, and what its outputs read."""

    name: str
    source: str
    params: Mapping[str, Any]
    reads: tuple[Dependence, ...]
    makes: tuple[Dependence, ...]
    inner: tuple["Step", ...] = ()


@dataclass(eq=False)
class Walk:
    """One pass over a program, with the steps and notes that it leaves behind."""

    steps: list[Step] = field(default_factory=list)
    notes: dict[Note, None] = field(default_factory=dict)
    unknown: dict[str, None] = field(default_factory=dict)
    line: str = ""
    composed: dict[tuple[int, int], tuple[Pattern, Pattern, Pattern]] = field(default_factory=dict)

    def run(self, jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
        """Return what each output of a jaxpr reads, given what each input reads.

        Every run has its own environment: a jaxpr that is called twice shares its variables
        between the calls, and nothing learned in one may reach the other.
        """
        parts = body(jaxpr)
        values: dict[Any, Value] = dict.fromkeys(parts.constvars, (NOTHING, None))
        for variable, constant in zip(parts.constvars, parts.constants):
            values[variable] = (NOTHING, of_array(constant))
        values.update(zip(parts.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            return (NOTHING, of_array(atom.val)) if isinstance(atom, Literal) else values[atom]

        for equation in parts.equations:
            operands = [read(atom) for atom in equation.invars]
            if equation.primitive.name in CELLS:
                results, values[_cell(equation)] = CELLS[equation.primitive.name](
                    self, equation, operands
                )
            else:
                results = self.equation(equation, operands)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in parts.outvars]

    def equation(self, equation: Any, operands: list[Value]) -> list[Value]:
        """Return what each output of an equation reads."""
        inner = call_body(equation)
        if inner is not None:
            return self.call(equation, inner, operands)
        if not any(dependence for dependence, _ in operands):
            site = site_of(equation, operands)
            known = facts(site, tuple(_dtype(out) for out in equation.outvars))
            self.remark(equation, site)
            return [(NOTHING, fact) for fact in known]
        flow = CONTROL.get(equation.primitive.name)
        first_step = len(self.steps)
        made = flow(self, equation, operands) if flow else self.primitive(equation, operands)
        inside = tuple(self.steps[first_step:]) if flow else ()
        del self.steps[first_step:]
        self.steps.append(
            Step(
                equation.primitive.name,
                self.source(equation),
                equation.params,
                tuple(dependence for dependence, _ in operands),
                tuple(dependence for dependence, _ in made),
                inside,
            )
        )
        return made

    def call(self, equation: Any, inner: Any, operands: list[Value]) -> list[Value]:
        """Run a called jaxpr; what JAX's own functions do inside counts as done by the caller."""
        line = self.line
        if not line and part_of_jax(inner):
            self.line = source(equation)
        results = self.run(inner, operands)
        self.line = line
        return results

    def source(self, equation: Any) -> str:
        """Return the user's line behind an equation."""
        return self.line or source(equation)

    def primitive(self, equation: Any, operands: list[Value]) -> list[Value]:
        """Compose an equation's rule with what its operands read."""
        site = site_of(equation, operands)
        known = facts(site, tuple(_dtype(out) for out in equation.outvars))
        rule = rule_for(site.name)
        if rule is None:
            self.unknown[site.name] = None
            self.note(equation, "no rule for this primitive: dense on all axes")
        problem = respects_zero(site)
        if problem and rule is not None:
            self.note(equation, f"{problem}: dense on all axes")
            rule = None
        parts: list[dict[int, list[Pattern]]] = [{} for _ in site.out_shapes]
        for k, (dependence, _) in enumerate(operands):
            if not dependence:
                continue
            local = site.dense(k) if rule is None else rule(site, k)
            steps = local if isinstance(local, tuple) else (local,)
            if len(steps) != len(parts):  # a form of the primitive that its rule does not know
                self.note(equation, "several outputs: dense on all axes")
                steps = site.dense(k)
            for found, step in zip(parts, steps, strict=True):
                if step is None:
                    continue
                for seed, pattern in dependence.items():
                    found.setdefault(seed, []).append(self.compose(step, pattern))
        self.remark(equation, site)
        joined = [union(found) for found in parts]
        if joined == [{}] and site.name != "tie":  # seeds reach it through zeros alone
            return [(NOTHING, Known(support=Pattern.zero(site.shape, ())))]
        return list(zip(joined, known, strict=True))

    def compose(self, after: Pattern, before: Pattern) -> Pattern:
        """Return `after @ before`, remembered, since most equations repeat a few compositions."""
        key = id(after), id(before)
        if key not in self.composed:
            self.composed[key] = after, before, after @ before
        return self.composed[key][2]

    def remark(self, equation: Any, site: Site) -> None:
        """Record what rules and facts have noted of an equation."""
        for text in dict.fromkeys(site.notes):
            self.note(equation, text)

    def note(self, equation: Any, text: str) -> None:
        """Record that the pattern may be too large because of an equation."""
        self.notes[Note(text, equation.primitive.name, self.source(equation))] = None


Flow = Callable[[Walk, Any, list[Value]], list[Value]]
CONTROL: dict[str, Flow] = {}
Access = Callable[[Walk, Any, list[Value]], tuple[list[Value], Value]]
CELLS: dict[str, Access] = {}


def union(parts: Mapping[int, Iterable[Pattern]]) -> Dependence:
    """Join what several operands contribute, seed by seed; drop what is empty."""
    joined = {}
    for seed, patterns in parts.items():
        first, *others = {id(pattern): pattern for pattern in patterns}.values()
        pattern = Pattern.union([first, *others]) if others else first
        if not pattern.is_zero:
            joined[seed] = pattern
    return joined


def _cell(equation: Any) -> Any:
    """Return the variable that names the mutable array of an equation."""
    return (equation.invars or equation.outvars)[0]


def site_of(equation: Any, operands: Sequence[Value]) -> Site:
    """Return an equation as the rules see it."""
    return Site(
        equation.primitive.name,
        equation.params,
        tuple(_shape(atom) for atom in equation.invars),
        tuple(_shape(variable) for variable in equation.outvars),
        tuple(bool(dependence) for dependence, _ in operands),
        tuple(known for _, known in operands),
    )


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(getattr(atom.aval, "shape", ()))


def _dtype(variable: Any) -> Any:
    dtype = getattr(variable.aval, "dtype", None)
    return dtype if isinstance(dtype, np.dtype) else np.dtype(object)
