"""Why a Jacobian has its structure: the proof in sentences, and the line that couples an axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import count, size_text
from gradlab.patterns import Pattern
from gradlab.primitives import lookup
from gradlab.structure.facts import FINITE_MASK
from gradlab.structure.infer import Step
from gradlab.tracing.jaxprs import Literal, body, source
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.linearise import call_body, part_of_jax

if TYPE_CHECKING:
    from gradlab.structure.report import JacobianReport

__all__ = ["Line", "Proof", "accuse", "equations_of", "prove"]

_NOUNS = ("permutation", "selection", "sum", "broadcast")
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
        formulas: for each input path, the entries in a formula, where the function is one product.
    """

    lines: tuple[Line, ...]
    steps: tuple[Step, ...] = field(repr=False)
    seeds: tuple[str, ...] = ()
    mode: str = "jvp"
    formulas: Mapping[str, str] = field(default_factory=dict)


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
        inner = call_body(equation)
        if inner is not None and any(flags) and not name.startswith("custom_vjp"):
            own = line or (source(equation) if part_of_jax(inner) else "")
            made = _follow(inner, flags, own, lines)
        elif any(made):
            text = f"{name}{_axes(equation)}" if inner is None else _rule_name(equation)
            lines.append(Line(name, line or source(equation), text))
        state.update(zip(equation.outvars, made))
    return [read(atom) for atom in parts.outvars]


def _rule_name(equation: Any) -> str:
    rule = equation.params["call_jaxpr"]
    described = getattr(getattr(rule, "jaxpr", rule), "debug_info", None)
    name = getattr(described, "func_src_info", "").partition(" at ")[0]
    return f"custom_vjp {name}".rstrip()


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


def axis_pair(argument: str, axis: Any) -> tuple[int, int]:
    """Return (input axis, output axis) from an axis or from such a pair.

    Raises:
        InputTypeError: it is neither.
    """
    pair = axis if isinstance(axis, tuple) else (axis, axis)
    if len(pair) != 2 or any(isinstance(i, bool) or not isinstance(i, int) for i in pair):
        raise InputTypeError(
            f"{argument}: expected an axis or a pair (input axis, output axis), got {axis!r}"
        )
    return pair


def accuse(report: "JacobianReport", axis: int | tuple[int, int]) -> str:
    """Return which equations couple an axis of the inputs, with file and line."""
    source_axis, _ = axis_pair("why", axis)
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
                culprits[_describe(_named_after(step, proof.lines), step, after, position)] = None
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
    if culprits:
        lines += [f"hint: {note}" for note in report.notes if note.endswith(FINITE_MASK)]
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
    by_entry = [line for line in lines if lookup(line.name).entrywise]
    if not lines:
        return "No equation: the output is an input, or depends on none."
    if len(by_entry) == len(lines):
        return f"{count(len(lines), 'equation')}, each entry by entry ({_listed(lines)})."
    moving = [line for line in lines if lookup(line.name).moves and line not in by_entry]
    ruled = [line for line in lines if line.name.startswith("custom_vjp")]
    mixing = [line for line in lines if line not in [*by_entry, *moving, *ruled]]
    parts = [count(len(lines), "equation")]
    if by_entry:
        parts.append(f"{len(by_entry)} entry by entry ({_listed(by_entry)})")
    if moving:
        parts.append(f"{len(moving)} only move entries ({_listed(moving)})")
    if ruled:
        parts.append(f"{count(len(ruled), 'custom rule')} read backwards ({_listed(ruled)})")
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
    alone = "" if pattern.is_dense else " alone"
    zones = pattern.describe(*labels).split("; ")
    return " and ".join(zone.replace(" <- ", " depends on ") for zone in zones) + f"{alone}."


def _consequences(
    report: "JacobianReport", pair: tuple[str, str], pattern: Pattern, labels: tuple[str, str]
) -> list[str]:
    m, n = pattern.shape
    numbers = f"{count(pattern.nnz, 'number')}, not {m * n:,}"
    colouring = report.colourings[pair]
    passes = count(colouring.count, colouring.mode.upper())
    gives = "gives" if colouring.count == 1 else "give"
    if pattern.is_zero:
        return ["Its Jacobian is zero; nothing needs to be computed."]
    if pattern.is_diagonal:
        return [
            f"The Jacobian is diag(d), and d is one JVP with ones: {numbers}; "
            "backward = upstream * d."
        ]
    formula = report.proof.formulas.get(pair[1])
    said = [f"It is one product: {formula}."] if formula else []
    sizes = _blocks(pattern)
    if sizes:
        blocks, height, width = sizes
        said.append(
            f"The Jacobian is block-diagonal, {blocks:,} blocks of {height:,} x {width:,}: "
            f"{numbers}; {passes} {gives} all of them."
        )
    elif pattern.is_dense:
        said.append(
            f"Every output may read every input: {count(pattern.nnz, 'number')} "
            f"({size_text(report._bytes({pair: pattern.nnz}))}), {passes}."
        )
    else:
        article = "a " if pattern.structure in _NOUNS else ""
        said.append(
            f"The Jacobian is {article}{pattern.structure}: {numbers}; {passes} {gives} all of "
            "them."
        )
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


def _named_after(step: Step, lines: Sequence[Line]) -> str:
    """Return the function's own equation behind a step of its derivative, if its line tells."""
    here = [line for line in lines if line.source and line.source == step.source]
    if not here or any(line.name == step.name for line in here):
        return f"{step.name}{_axes_of(step.name, step.params)}"
    mixing = [line for line in here if lookup(line.name).mixes]
    return (mixing or here)[0].text


def _describe(text: str, step: Step, after: Sequence[Pattern], axis: int) -> str:
    kinds = set()
    for pattern in after:
        for k in range(len(pattern.output_shape)):
            kind, low, _ = pattern.axis_relation(k, axis)
            if kind in ("order", "band"):
                kinds.add("causally" if kind == "order" and low is not None and low >= 0 else kind)
    manner = f" ({', '.join(sorted(kinds))})" if kinds else ""
    return f"{step.source}, {text}{manner}" if step.source else f"{text}{manner}"


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
