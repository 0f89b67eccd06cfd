"""Why a Jacobian has its structure: the proof in sentences, and the line that couples an axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradlab.errors import InputError
from gradlab.formatting import count, size_text
from gradlab.patterns import Pattern
from gradlab.structure.infer import Step
from gradlab.structure.rules.elementwise import ELEMENTWISE
from gradlab.tracing.jaxprs import Literal, body, source
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.linearise import call_body, part_of_jax

if TYPE_CHECKING:
    from gradlab.structure.report import JacobianReport

__all__ = ["Line", "Proof", "accuse", "equations_of", "prove"]

_MOVING = frozenset({
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "rev", "slice", "pad",
    "concatenate", "split", "stack", "unstack", "tile", "gather", "scatter", "dynamic_slice",
    "dynamic_update_slice",
})  # fmt: skip
_SHOWN = 4


@dataclass(frozen=True)
class Line:
    """One equation of the function that its inputs reach."""

    name: str
    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} at {self.source}" if self.source else self.text


@dataclass(frozen=True)
class Proof:
    """The equations behind a report.

    Attributes:
        lines: the function's own equations that the inputs reach, calls entered.
        steps: the equations of the linear program, with what each reads of the seeds.
        seeds: the seeds' paths: input paths for JVPs, output paths for VJPs.
        mode: which program was read, "jvp" or "vjp".
    """

    lines: tuple[Line, ...]
    steps: tuple[Step, ...] = field(repr=False)
    seeds: tuple[str, ...] = ()
    mode: str = "jvp"


def equations_of(jaxpr: Any, reached: Sequence[bool], line: str = "") -> tuple[Line, ...]:
    """List the equations through which the inputs reach the outputs, calls entered.

    Loops count as one equation, and so does a `custom_vjp`, whose backward pass stands for it.
    Values without a derivative (indices, masks) are not followed.
    """
    lines: list[Line] = []
    _follow(jaxpr, reached, line, lines)
    return tuple(lines)


def _follow(jaxpr: Any, reached: Sequence[bool], line: str, lines: list[Line]) -> list[bool]:
    parts = body(jaxpr)
    state: dict[Any, bool] = dict(zip(parts.invars, reached))

    def read(atom: Any) -> bool:
        return not isinstance(atom, Literal) and state.get(atom, False)

    for equation in parts.equations:
        flags = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        made = [any(flags) and name != "stop_gradient" and _inexact(v) for v in equation.outvars]
        inner = None if name.startswith("custom_vjp") else call_body(equation)
        if inner is not None and any(flags):
            own = line or (source(equation) if part_of_jax(inner) else "")
            made = _follow(inner, flags, own, lines)
        elif any(made):
            lines.append(Line(name, line or source(equation), f"{name}{_axes(equation)}"))
        state.update(zip(equation.outvars, made))
    return [read(atom) for atom in parts.outvars]


def _inexact(variable: Any) -> bool:
    dtype = getattr(variable.aval, "dtype", None)
    return bool(dtype is not None and is_inexact(dtype))


def prove(report: "JacobianReport") -> str:
    """Return the proof of a report's structure, sentence by sentence."""
    sentences = [_equations(report.proof.lines)]
    for (out, given), pattern in report.patterns.items():
        labels = report._labels((out, given))
        sentences.append(_reads(pattern, labels))
        sentences += _consequences(report, (out, given), pattern, labels)
    for note in report.notes[:_SHOWN]:
        sentences.append(f"The pattern may be larger than the truth: {note}.")
    sentences.append(
        "Proved: read from the program of the derivative, so it holds at every input at which "
        "the values are finite."
    )
    return "\n".join(sentences)


def accuse(report: "JacobianReport", axis: int | tuple[int, int]) -> str:
    """Return which equations couple an axis of the inputs, with file and line."""
    source_axis = axis[0] if isinstance(axis, tuple) else axis
    proof = report.proof
    sides = report.inputs if proof.mode == "jvp" else report.outputs
    ranks = {n: len(side.shape) for n, side in enumerate(sides)}
    seeds = {n: source_axis % rank for n, rank in ranks.items() if -rank <= source_axis < rank}
    if not seeds:
        raise InputError(
            f"why: axis {source_axis} does not exist; shapes are "
            f"{', '.join(str(side.shape) for side in sides)}"
        )
    culprits: dict[str, None] = {}
    for step in proof.steps:
        for seed, position in seeds.items():
            before = [d[seed] for d in step.reads if seed in d]
            after = [d[seed] for d in step.makes if seed in d]
            apart = all(kept_apart(p, position) is not None for p in before)
            if before and apart and not all(kept_apart(p, position) is not None for p in after):
                culprits[_describe(step, after, position)] = None
    lines = []
    for n, position in seeds.items():
        ends = [p for pair, p in report.patterns.items() if sides[n].path in pair]
        if proof.mode == "vjp":
            ends = [p.T for p in ends]
        if all(kept_apart(p, position) is not None for p in ends):
            label = sides[n].path
            lines.append(
                f"axis {position} of {label} stays apart: each output reads one index of it"
            )
    if not culprits and not lines:
        culprits["no single equation; several slices of it are joined"] = None
    lines += [f"axis {source_axis} is coupled at {text}" for text in culprits]
    return "\n".join(lines)


def kept_apart(pattern: Pattern, axis: int) -> int | None:
    """Return the output axis that equals an input axis in every zone, or None."""
    for k, size in enumerate(pattern.output_shape):
        if size == pattern.input_shape[axis]:
            kind, *_ = pattern.axis_relation(k, axis)
            if kind in ("equal", "zero"):
                return k
    return 0 if pattern.input_shape[axis] == 1 else None


def _equations(lines: Sequence[Line]) -> str:
    by_entry = [line for line in lines if line.name in ELEMENTWISE or line.name == "select_n"]
    if not lines:
        return "No equation: the output is an input, or depends on none."
    if len(by_entry) == len(lines):
        return f"{count(len(lines), 'equation')}, each entry by entry ({_listed(lines)})."
    moving = [line for line in lines if line.name in _MOVING]
    mixing = [line for line in lines if line not in by_entry and line not in moving]
    parts = [count(len(lines), "equation")]
    if by_entry:
        parts.append(f"{len(by_entry)} entry by entry ({_listed(by_entry)})")
    if moving:
        parts.append(f"{len(moving)} only move entries ({_listed(moving)})")
    if mixing:
        verb = "mixes" if len(mixing) == 1 else "mix"
        parts.append(f"{len(mixing)} {verb} entries ({_listed(mixing)})")
    return f"{parts[0]}: {'; '.join(parts[1:])}."


def _listed(lines: Sequence[Line]) -> str:
    distinct = list(dict.fromkeys(map(str, lines)))
    shown = ", ".join(distinct[:_SHOWN])
    return shown + (", ..." if len(distinct) > _SHOWN else "")


def _reads(pattern: Pattern, labels: tuple[str, str]) -> str:
    if pattern.is_zero:
        return f"{labels[0]} does not depend on {labels[1]}."
    left, _, right = pattern.describe(*labels).partition(" <- ")
    alone = "" if pattern.is_dense else " alone"
    return f"{left} depends on {right}{alone}."


def _consequences(
    report: "JacobianReport", pair: tuple[str, str], pattern: Pattern, labels: tuple[str, str]
) -> list[str]:
    m, n = pattern.shape
    numbers = f"{count(pattern.nnz, 'number')}, not {m * n:,}"
    colouring = report.colourings[pair]
    passes = count(colouring.count, colouring.mode.upper())
    if pattern.is_zero:
        return ["Its Jacobian is zero; nothing needs to be computed."]
    if pattern.is_diagonal:
        return [
            f"The Jacobian is diag(d), and d is one JVP with ones: {numbers}; "
            "backward = upstream * d."
        ]
    product = _product(report, pair, pattern, labels)
    said = [product] if product else []
    sizes = _blocks(pattern)
    if sizes:
        blocks, height, width = sizes
        said.append(
            f"The Jacobian is block-diagonal, {blocks:,} blocks of {height:,} x {width:,}: "
            f"{numbers}; {passes} give all of them."
        )
    elif pattern.is_dense:
        said.append(
            f"Every output may read every input: {count(pattern.nnz, 'number')} "
            f"({size_text(report._bytes({pair: pattern.nnz}))}), {passes}."
        )
    else:
        said.append(f"The Jacobian is {pattern.structure}: {numbers}; {passes} give all of them.")
    said += _causal(pattern, labels)
    return said


def _blocks(pattern: Pattern) -> tuple[int, int, int] | None:
    """Return (number, height, width) of the dense blocks that a pattern of one zone consists of."""
    pairs = []
    for i, size in enumerate(pattern.input_shape):
        k = kept_apart(pattern, i)
        if k is not None and size > 1:
            pairs.append((k, i))
    number = math.prod(pattern.input_shape[i] for _, i in pairs)
    m, n = pattern.shape
    if number <= 1 or pattern.nnz * number != m * n:
        return None
    return number, m // number, n // number


def _causal(pattern: Pattern, labels: tuple[str, str]) -> list[str]:
    said = []
    for i in range(len(pattern.input_shape)):
        for k in range(len(pattern.output_shape)):
            kind, low, _ = pattern.axis_relation(k, i)
            if kind in ("order", "band") and low is not None and low >= 0:
                said.append(
                    f"{labels[0]} is causal along axis {k}: no entry reads a later one of "
                    f"{labels[1]}."
                )
    return said


def _product(
    report: "JacobianReport", pair: tuple[str, str], pattern: Pattern, labels: tuple[str, str]
) -> str:
    """Say what the entries are where the function is one product: d q[k] / d W[k, i] = x[i]."""
    lines = [line for line in report.proof.lines if line.name not in _MOVING]
    if len(lines) != 1 or lines[0].name != "dot_general" or not report.proof.steps:
        return ""
    left, _, right = pattern.describe(*labels).partition(" <- ")
    others = [side.path for side in report.inputs if side.path != pair[1]]
    factor = f"an entry of {others[0]}" if len(others) == 1 else "an entry of the other factor"
    return (
        f"It is one product: the derivative of {left} by {right} is {factor} where the indices "
        "that both share agree, and 0 elsewhere."
    )


def _describe(step: Step, after: Sequence[Pattern], axis: int) -> str:
    kinds = set()
    for pattern in after:
        for k in range(len(pattern.output_shape)):
            kind, low, _ = pattern.axis_relation(k, axis)
            if kind in ("order", "band"):
                kinds.add("causally" if kind == "order" and low is not None and low >= 0 else kind)
    manner = f" ({', '.join(sorted(kinds))})" if kinds else ""
    at = f"{step.source}, " if step.source else ""
    return f"{at}{step.name}{_axes_of(step.name, step.params)}{manner}"


def _axes(equation: Any) -> str:
    return _axes_of(equation.primitive.name, equation.params)


def _axes_of(name: str, params: Mapping[str, Any]) -> str:
    """Return the axes that an equation works on, as text."""
    axes = params.get("axes", params.get("axis", params.get("dimension")))
    if name.startswith(("reduce", "cum", "arg", "sort")) and axes is not None:
        listed = axes if isinstance(axes, tuple | list) else (axes,)
        return f" over axis {', '.join(str(int(a)) for a in listed)}"
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return f" over axis {', '.join(str(int(a)) for a in contracted)}" if contracted else ""
    return ""
