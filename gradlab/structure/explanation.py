"""Why a Jacobian has its structure: the steps as data, and the sentences that are read from them.

The data is made while the program is at hand; the sentences need the report alone.
"""

import linecache
import math
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import count, size_text
from gradlab.patterns import Pattern
from gradlab.patterns.size import has_number, same
from gradlab.primitives import lookup
from gradlab.primitives.facts import FINITE_MASK
from gradlab.structure.conditions import suggested
from gradlab.structure.infer import Step
from gradlab.tracing.jaxprs import Literal as Constant
from gradlab.tracing.jaxprs import body, source_path, source_span
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.linearise import call_body, part_of_jax

if TYPE_CHECKING:
    from gradlab.structure.report import JacobianReport

Kind = Literal["entry by entry", "only moves entries", "mixes entries", "custom rule"]

NOUNS = ("permutation", "selection", "sum", "broadcast")
_VERBS = {
    "reduce_sum": "sums",
    "reduce_prod": "multiplies entries",
    "reduce_max": "takes the largest entry",
    "reduce_min": "takes the smallest entry",
    "dot_general": "sums products",
    "cumsum": "adds up",
    "cumprod": "multiplies up",
    "cummax": "takes the largest entry so far",
    "sort": "sorts",
    "conv_general_dilated": "convolves",
    "scan": "runs a loop",
    "while": "runs a loop",
    "cond": "takes a branch",
    "gather": "picks entries",
    "scatter-add": "adds entries at indices",
}
_MEANS = ("mean", "var", "std", "average")
_SHOWN = 12
_WIDTH, _LINE = 60, 96


@dataclass(frozen=True)
class Line:
    """One equation of the function that its inputs reach.

    Attributes:
        name: of the primitive.
        source: the user's line, such as `layers.py:12`; empty where there is none.
        text: what the equation does.
        kind: what it does to the entries.
        code: the user's line itself; empty where it cannot be read.
    """

    name: str
    source: str
    text: str
    kind: Kind = "mixes entries"
    code: str = ""

    def __str__(self) -> str:
        return f"{self.text} at {self.source}" if self.source else self.text


@dataclass(frozen=True)
class Coupling:
    """An equation that joins what an axis of a leaf kept apart until there.

    Attributes:
        path: the leaf: an input, or an output where the derivative was read backwards.
        axis: the axis of that leaf.
        source: the user's line; empty where there is none.
        text: what the equation does.
        code: the user's line itself.
        span: the columns of the line at which the call begins and ends.
    """

    path: str
    axis: int
    source: str
    text: str
    code: str = ""
    span: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        return f"{self.source}, {self.text}" if self.source else self.text


def equations_of(jaxpr: Any, reached: Sequence[bool]) -> tuple[Line, ...]:
    """List the equations through which the inputs reach the outputs, calls entered.

    Loops count as one equation, and so does a `custom_vjp`, whose backward pass stands for it.
    Values without a derivative (indices, masks) are not followed.
    """
    lines: list[Line] = []
    _follow(jaxpr, reached, "", lines)
    return tuple(lines)


def _follow(jaxpr: Any, reached: Sequence[bool], path: str, lines: list[Line]) -> list[bool]:
    parts = body(jaxpr)
    state: dict[Any, bool] = dict(zip(parts.invars, reached))

    def read(atom: Any) -> bool:
        return not isinstance(atom, Constant) and state.get(atom, False)

    for equation in parts.equations:
        flags = [read(atom) for atom in equation.invars]
        name = equation.primitive.name
        made = [any(flags) and name != "stop_gradient" and _inexact(v) for v in equation.outvars]
        inner = call_body(equation)
        if inner is not None and any(flags) and not name.startswith("custom_vjp"):
            own = path or (source_path(equation) if part_of_jax(inner) else "")
            made = _follow(inner, flags, own, lines)
        elif any(made):
            text = f"{name}{_axes_of(name, equation.params)}"
            kind = _kind(name)
            if inner is not None:
                text, kind = _rule_name(equation), "custom rule"
            here = path or source_path(equation)
            lines.append(Line(name, os.path.basename(here), text, kind, _code(here)))
        state.update(zip(equation.outvars, made))
    return [read(atom) for atom in parts.outvars]


def _kind(name: str) -> Kind:
    record = lookup(name)
    if record.entrywise or name == "select_n":
        return "entry by entry"
    return "mixes entries" if record.moves is None else "only moves entries"


def _code(path: str) -> str:
    """Return the line of source at `/path/layers.py:12`, without blanks around it."""
    file, _, number = path.rpartition(":")
    return linecache.getline(file, int(number)).strip() if number.isdigit() else ""


def _called(origin: Any) -> tuple[str, tuple[int, int]]:
    """Return the user's line behind an equation without its margin, and the columns of the call."""
    code = _code(source_path(origin))
    file, _, number = source_path(origin).rpartition(":")
    margin = linecache.getline(file, int(number or 0)).find(code)
    start, end = (min(max(0, column - margin), len(code)) for column in source_span(origin))
    return code, (start, end)


def _rule_name(equation: Any) -> str:
    rule = equation.params["call_jaxpr"]
    described = getattr(getattr(rule, "jaxpr", rule), "debug_info", None)
    name = getattr(described, "func_src_info", "").partition(" at ")[0]
    return f"custom_vjp {name}".rstrip()


def _inexact(variable: Any) -> bool:
    dtype = getattr(variable.aval, "dtype", None)
    return bool(dtype is not None and is_inexact(dtype))


def couplings_of(
    steps: Sequence[Step], lines: Sequence[Line], seeds: Sequence[tuple[str, tuple[int, ...]]]
) -> tuple[Coupling, ...]:
    """Return the equations that couple an axis of a seed, for each seed and axis.

    Args:
        steps: the equations of the linear program, with what each reads of the seeds.
        lines: the function's own equations.
        seeds: path and shape of each seed.
    """
    apart: dict[tuple[int, int], bool] = {}

    def kept(pattern: Pattern, axis: int) -> bool:
        key = id(pattern), axis  # the steps hold the patterns
        if key not in apart:
            apart[key] = kept_apart(pattern, axis) is not None
        return apart[key]

    found: dict[Coupling, None] = {}
    for step in steps:
        for seed, (path, shape) in enumerate(seeds):
            before = [d[seed] for d in step.reads if seed in d]
            after = [d[seed] for d in step.makes if seed in d]
            if not before:
                continue
            for axis in range(max(1, len(shape))):  # a scalar is coupled where it gets entries
                if all(kept(p, axis) for p in before) and not all(kept(p, axis) for p in after):
                    text = f"{_named_after(step, lines)}{_manner(after, axis)}"
                    code, span = _called(step.origin)
                    found[Coupling(path, axis, step.source, text, code, span)] = None
    return tuple(found)


def kept_apart(pattern: Pattern, axis: int) -> int | None:
    """Return the output axis that equals an input axis in every zone, or None."""
    if not pattern.input_shape:
        return 0 if all(same(size, 1) for size in pattern.output_shape) else None
    for k, size in enumerate(pattern.output_shape):
        if same(size, pattern.input_shape[axis]):
            kind, *_ = pattern.axis_relation(k, axis)
            if kind in ("equal", "zero"):
                return k
    return 0 if pattern.input_shape[axis] == 1 else None


def _named_after(step: Step, lines: Sequence[Line]) -> str:
    """Return the function's own equation behind a step of its derivative, if its line tells."""
    here = [line for line in lines if line.source and line.source == step.source]
    if not here or any(line.name == step.name for line in here):
        return f"{step.name}{_axes_of(step.name, step.params)}"
    kinds = ("mixes entries", "custom rule", "entry by entry", "only moves entries")
    return min(here, key=lambda line: kinds.index(line.kind)).text


def _manner(after: Sequence[Pattern], axis: int) -> str:
    kinds = set()
    for pattern in after:
        for k in range(len(pattern.output_shape) if pattern.input_shape else 0):
            kind, low, _ = pattern.axis_relation(k, axis)
            if kind in ("order", "band"):
                causal = kind == "order" and low is not None and low >= 0
                kinds.add("causally" if causal else "in order" if kind == "order" else "in a band")
    return f" ({', '.join(sorted(kinds))})" if kinds else ""


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


def prove(report: "JacobianReport") -> str:
    """Return the proof of a report's structure: what holds, then one line of source per step."""
    said = []
    for pair, pattern in report.patterns.items():
        labels = report.labels(pair)
        said.append(reads(pattern, labels))
        said += _consequences(report, pair, pattern, labels)
    said += [f"The pattern may be larger than the truth: {note}." for note in report.notes[:_SHOWN]]
    said += [f"{report.unseen}."] * bool(report.unseen)
    accepted = [condition for condition in report.conditions if condition.accepted]
    sizes = " and every ".join(report.sizes[name] for name in report.least)
    said.append(
        f"Proved from the program: true for every {sizes or 'input of this shape'}, for all values "
        f"that are finite{', while:' if accepted else '.'}"
    )
    said += [f"  {condition}" for condition in accepted]
    refused = [condition for condition in report.conditions if not condition.accepted]
    if refused:
        smaller = suggested(report.conditions)
        said.append(f"With conditions={smaller} the pattern is smaller, while:")
        said += [f"  {condition}" for condition in refused]
    return "\n".join([*said, *_shown(report.steps)])


def _shown(steps: Sequence[Line]) -> list[str]:
    """Return the steps, one line of source each."""
    if not steps:
        return ["The function computes nothing: its output is an input or a constant."]
    by_line: dict[str, list[Line]] = {}
    for step in steps:
        by_line.setdefault(step.source, []).append(step)
    rows = []
    for source, here in list(by_line.items())[:_SHOWN]:
        code = here[0].code or ", ".join(dict.fromkeys(step.name for step in here))
        code = code if len(code) <= _WIDTH else code[: _WIDTH - 3] + "..."
        rows.append((source or "inside JAX", code, in_one_line(map(_does, here))))
    left = max(len(row[0]) for row in rows)
    middle = max(len(row[1]) for row in rows)
    lines = []
    for a, b, c in rows:
        head = f"{a:<{left}}  |  {b:<{middle}}  "
        rest = f"{'':<{left}}  |  {'':<{middle}}  "
        wide = max(_LINE, len(head) + 32)
        lines += textwrap.wrap(c, wide, initial_indent=head, subsequent_indent=rest)
    more = len(by_line) - len(rows)
    return [*lines, f"... and {count(more, 'more line')}"] if more else lines


def in_one_line(does: Iterable[str]) -> str:
    """Return what the steps of one line do together: what mixes entries, where something does."""
    told = dict.fromkeys(does)
    quiet = [each for each in ("entry by entry", "only moves entries") if each in told]
    return "; ".join([each for each in told if each not in quiet] or quiet[:1])


def _does(step: Line) -> str:
    if step.kind == "custom rule":
        return f"{step.text}, read backwards"
    return step.kind if step.kind != "mixes entries" else in_words(step.text)


def in_words(text: str) -> str:
    """Return what an equation does, in words; a primitive without words keeps its name."""
    name, space, rest = text.partition(" ")
    return f"{_VERBS[name]}{space}{rest}" if name in _VERBS else f"mixes entries: {text}"


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
    """Return which lines couple an axis of the inputs, input by input."""
    source, target = axis_pair("why", axis)
    inputs = [s for s in report.inputs if -len(s.shape) <= source < len(s.shape)]
    if not inputs:
        raise InputError(
            f"why: axis {source} does not exist; shapes are "
            f"{', '.join(str(side.shape) for side in report.inputs)}"
        )
    lines: list[str] = []
    coupled = False
    for given in inputs:
        position = source % len(given.shape)
        name = f"{report.name}: axis {position} of {given.path}"
        ends = {
            (out.path, given.path): report.patterns[out.path, given.path] for out in report.outputs
        }
        if all(kept_apart(p, position) is not None for p in ends.values()):
            lines.append(f"{name} stays apart: each output depends on one index of it")
            continue
        coupled = True
        said = " and ".join(_reach(p, report.labels(pair), position) for pair, p in ends.items())
        lines.append(f"{name} is coupled: {said}")
        culprits = culprits_of(report, given.path, position, target)
        lines += shown_couplings(culprits)
        others = {s.source for s in report.steps if s.code} - {c.source for c in culprits}
        apart = report.read_in == "jvp" or any(side.shape for side in report.outputs)
        if others and culprits and given is inputs[0] and apart:
            rest, keep = ("line", "keeps") if len(others) == 1 else (f"{len(others)} lines", "keep")
            lines.append(f"  the other {rest} {keep} axis {position} apart")
    if coupled:
        lines += [f"hint: {note}" for note in report.notes if note.endswith(FINITE_MASK)]
    lines += [report.unseen] * bool(report.unseen)
    return "\n".join(lines)


def _reach(pattern: Pattern, labels: tuple[str, str], axis: int) -> str:
    """Return what an output reads of an input along an axis."""
    if not pattern.is_dense:
        return reads(pattern, labels).rstrip(".")
    indices = ["i" if k == axis else ":" for k in range(len(pattern.output_shape))]
    left = f"{labels[0]}[{', '.join(indices)}]" if indices else labels[0]
    nouns = {(1, 0): "entry", (2, 0): "row", (2, 1): "column"}
    noun = nouns.get((len(pattern.input_shape), axis), f"index of axis {axis}")
    return f"{left} depends on every {noun} of {labels[1]}"


def shown_couplings(culprits: Sequence[Coupling]) -> list[str]:
    """Return the lines of source that couple an axis, each with a mark below the call."""
    if not culprits:
        return ["  no single line couples it: the program joins several slices of it"]
    lines: list[str] = []
    left = max(len(c.source or "inside JAX") for c in culprits)
    shown = ""
    for c in dict.fromkeys(culprits):
        where = c.source or "inside JAX"
        start, end = c.span
        mark = f"{' ' * start}{'^' * (end - start)} " if end > start else ""
        if c.code and where != shown:
            lines.append(f"  {where:<{left}}  |  {c.code}")
        head = "" if c.code else where
        lines.append(f"  {head:<{left}}  |  {mark}{_couples(c)}")
        shown = where
    return lines


def _couples(culprit: Coupling) -> str:
    """Return what a coupling does, in words: the sum inside a mean averages."""
    said = in_words(culprit.text)
    name = re.match(r"[\w.]*?(\w+)\(", culprit.code[slice(*culprit.span)])
    averages = said.startswith("sums over") and name and name[1].endswith(_MEANS)
    return f"averages{said.removeprefix('sums')}" if averages else said


def culprits_of(
    report: "JacobianReport", path: str, axis: int, target: int | None = None
) -> list[Coupling]:
    """Return the couplings of an input's axis; read backwards, those of the outputs' axis."""
    if report.read_in == "jvp":
        return [c for c in report.couplings if c.path == path and c.axis == axis]
    wanted = axis if target is None else target
    ranks = {side.path: len(side.shape) for side in report.outputs}
    return [c for c in report.couplings if c.axis == wanted % max(1, ranks[c.path])]


def reads(pattern: Pattern, labels: tuple[str, str]) -> str:
    """Return what an output reads of an input, as a sentence."""
    if pattern.is_zero:
        return f"{labels[0]} does not depend on {labels[1]}."
    alone = "" if pattern.is_dense else " alone"
    zones = pattern.describe(*labels).split("; ")
    said = " and ".join(zone.replace(" <- ", " depends on ") for zone in zones)
    return f"{said}{alone}."


def _consequences(
    report: "JacobianReport", pair: tuple[str, str], pattern: Pattern, labels: tuple[str, str]
) -> list[str]:
    m, n = pattern.shape
    numbers = f"{count(pattern.nnz, 'number')}, not {m * n:,}"
    plan = report.plan
    if pattern.is_zero:
        return ["Its Jacobian is zero; nothing needs to be computed."]
    if pattern.is_diagonal:
        one = "; one JVP with a tangent of ones gives d" if plan.jvps == plan.count == 1 else ""
        return [f"The Jacobian is diag(d): {numbers}; backward = upstream * d{one}."]
    formula = report.formulas.get(pair[1])
    said = [f"It is one product: {formula}."] if formula else []
    alone = len(report.patterns) == 1
    gives = "gives" if plan.count == 1 else "give"
    all_of_them = f"; {passes_text(report)} {gives} all of them" if alone else ""
    sizes = _blocks(pattern)
    if sizes:
        blocks, height, width = sizes
        said.append(
            f"The Jacobian is block-diagonal, {blocks:,} blocks of {height:,} x {width:,}: "
            f"{numbers}{all_of_them}."
        )
    elif pattern.is_dense:
        size = size_text(report.bytes_of({pair: pattern.nnz}))
        said.append(
            f"Every output may read every input: {count(pattern.nnz, 'number')} ({size})"
            f"{all_of_them}."
        )
    else:
        article = "a " if pattern.structure in NOUNS else ""
        said.append(f"The Jacobian is {article}{pattern.structure}: {numbers}{all_of_them}.")
    return said + _causal(pattern, labels)


def passes_text(report: "JacobianReport") -> str:
    """Return how many passes of which mode a report needs, in words."""
    plan = report.plan
    parts = [count(n, mode) for n, mode in ((plan.jvps, "JVP"), (plan.vjps, "VJP")) if n]
    return " and ".join(parts) or "no pass"


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
                size = pattern.output_shape[k]
                name = "" if has_number(size) else f", {size}"
                said.append(
                    f"{labels[0]} is causal along axis {k}{name}: no entry reads a later one of "
                    f"{labels[1]}."
                )
    return said
