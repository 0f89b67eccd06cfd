"""One summand missing, doubled or with its sign turned: which step of the reference was it?

A gradient is a sum over paths. Every operand and every result of the reference's program gets a
gate that multiplies the gradient through it and leaves the value alone; with one gate closed, what
is gone is the share of its paths. Where a share, some number of times, is what came beyond what
was expected, the step is named with its line.
"""

import ast
import contextlib
import linecache
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.common.arrays import NumPyArray as Array
from gradlab.common.arrays import Tree
from gradlab.references import as_read
from gradlab.report import Finding
from gradlab.tracing import (
    Lifter,
    Program,
    Value,
    iterates,
    run_lifted,
    source,
    source_path,
    without_checks,
)
from gradlab.tracing.jaxprs import source_span
from gradlab.tracing.leaves import is_inexact

_SHORT = 60  # characters
_GATES, _ENTRIES = 150, 1 << 20
_TIMES = {
    -1.0: "is missing",
    -2.0: "has the wrong sign",
    1.0: "is counted twice",
    -0.5: "is halved",
}
_NAMES = {
    "mul": "product",
    "add": "sum",
    "add_any": "sum",
    "sub": "difference",
    "div": "quotient",
    "integer_pow": "power",
    "pow": "power",
    "dot_general": "matrix product",
    "reduce_sum": "sum over axes",
    "concatenate": "concatenation",
}
_CLIPS = ("clamp", "max", "min")
_REDUCTIONS = ("reduce_sum", "reduce_max")


class _Gate(NamedTuple):
    """Where a gate stands: the operation, its line and text, which operand (None: the result)."""

    name: str
    source: str
    written: str
    operand: int | None
    passes: bool = False

    @property
    def line(self) -> str:
        return f" at {self.source}" if self.source else ""

    @property
    def vague(self) -> tuple[bool, bool]:
        """What makes a gate hard to name: no line, or no operand that is written."""
        return not self.source, self.name not in _NAMES or self.operand is None

    @property
    def words(self) -> str:
        """What the gradient passes, as the source has it where that is short."""
        shown, node, whole = self.written, None, ""
        with contextlib.suppress(SyntaxError):
            node = ast.parse(shown, mode="eval").body
        if isinstance(node, ast.BinOp) and self.name in _NAMES and self.operand in (0, 1):
            whole = f" in `{shown}`" if len(shown) <= _SHORT else ""
            shown = ast.get_source_segment(shown, (node.left, node.right)[self.operand]) or ""
        if shown and node is not None and len(shown) <= _SHORT:
            return f"the term through `{shown}`{whole}{self.line}"
        if self.name not in _NAMES:
            return f"the term through {self.source}" if self.source else "one term"
        which = (
            ""
            if self.operand is None
            else ("the first", "the second", "another")[min(self.operand, 2)] + " operand of "
        )
        return f"the term through {which}the {_NAMES[self.name]}{self.line}"


def terms(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield the step of the reference whose share of the gradient is missing or wrong."""
    subject = symptom.subject
    program = subject.believed if subject.stated else subject.forward  # which knows its lines
    if program is None or not symptom.trial.has_reference or iterates(program):
        return  # JAX differentiates a loop that ends by numbers through a rule alone, if at all
    try:
        gated = _Gated(symptom, program)
    except ValueError:  # a loop that JAX differentiates forwards alone
        return
    gates, path = gated.gates, subject.targets[target].path
    if not 0 < len(gates) <= _GATES or symptom.entries * len(gates) > _ENTRIES:
        return
    passing = np.array([gate.passes for gate in gates])
    if passing.any() and gated.explains(target, np.where(passing, 0.0, 1.0)):
        line = next(gate.line for gate in gates if gate.passes)
        text = f"the gradient of {path} passes the upstream where the clip{line} saturates"
        yield Finding("condition", path, text, code="GL333")
        return
    maxima = np.array([gate.name == "reduce_max" for gate in gates])
    alone = np.where(np.eye(len(gates), dtype=bool), 0.0, 1.0)
    for rest in (1.0, np.where(maxima, 0.0, 1.0)) if maxima.any() else (1.0,):
        # a maximum that is only subtracted for safety may be held constant besides
        base, rows = np.broadcast_to(rest, len(gates)), alone * rest
        found = [(k, t) for k, t in gated.shares(target, base, rows) if t in _TIMES]
        if found:  # one of two equal factors, with its sign turned, is what both of them lack
            order = list(_TIMES)  # and where the path joins the others, its name says most
            k, times = min(found, key=lambda e: (order.index(e[1]), *gates[e[0]].vague, -e[0]))
            text = f"in the gradient of {path}, {gates[k].words} {_TIMES[times]}"
            yield Finding("term", path, text)
            return
    held = np.array([gate.name in _REDUCTIONS for gate in gates])
    if held.any() and gated.explains(target, np.where(held, 0.0, 1.0)):
        text = f"the gradient of {path} holds the sums (mean, variance, normaliser) constant"
        yield Finding("term", path, text)


class _Gated:
    """The reference's gradient as a function of its gates."""

    def __init__(self, symptom: Symptom, program: Program) -> None:
        self._symptom, self._program = symptom, program
        self.gates: list[_Gate] = []
        self._traced: dict[tuple[int, ...], Any] = {}
        with without_checks():
            jax.eval_shape(self._gradients, np.ones(_GATES + 1), *self._arguments(0))

    def shares(self, target: int, base: Array, rows: Array) -> Iterator[tuple[int, float]]:
        """Yield the rows whose share explains what came, and how many times it is there."""
        times: Array | None = None
        for case, here in enumerate(self._symptom.cases):
            whole, *closed = self._at(case, target, np.stack([base, *rows]))
            share = np.stack([(whole - each).ravel() for each in closed])
            lacking = np.ravel(here.actual[target] - whole)
            with np.errstate(all="ignore"):
                fit = share.conj() @ lacking / np.sum(np.abs(share) ** 2, axis=1)
            fit = np.round(2 * fit.real) / 2
            found = [
                self._symptom.explains(case, target, whole + t * (whole - each))
                for t, each in zip(fit, closed)
            ]
            fit = np.where(found, fit, np.nan)
            times = fit if times is None else np.where(times == fit, fit, np.nan)
        assert times is not None
        yield from ((int(k), float(times[k])) for k in np.flatnonzero(np.isfinite(times)))

    def explains(self, target: int, settings: Array) -> bool:
        """Whether these settings of the gates give the gradient that came, in every case."""
        cases = range(len(self._symptom.cases))
        made = ((k, self._at(k, target, settings[None])[0]) for k in cases)
        return all(self._symptom.explains(k, target, claim) for k, claim in made)

    def _at(self, case: int, target: int, rows: Array) -> Array:
        """Return a gradient at rows of settings, evaluated in NumPy: nothing is compiled for it."""
        padded = np.pad(rows, ((0, 0), (0, _GATES + 1 - rows.shape[1])))
        given = padded, *self._arguments(case)
        with without_checks():
            if rows.shape not in self._traced:
                every = jax.vmap(self._gradients, in_axes=(0, None, None))
                self._traced[rows.shape] = jax.make_jaxpr(every)(*given)
            results = run_lifted(self._traced[rows.shape], jax.tree.leaves(given))
            return np.asarray(results[target])

    def _arguments(self, case: int) -> tuple[list[Array], list[Array]]:
        values, upstreams = self._symptom.cases[case].point
        values = {**self._symptom.trial.point, **values}
        named = zip(self._program.in_names, self._program.in_avals)
        inputs = [as_read(values[name], aval.dtype) for name, aval in named]
        given = [upstreams[u.name] for u in self._symptom.subject.upstreams]
        return inputs, given or [np.float64(1.0)]

    def _gradients(self, settings: Any, inputs: Sequence[Array], upstreams: Sequence[Array]) -> Any:
        paths = [target.path for target in self._symptom.subject.targets]
        chosen = [self._program.in_names.index(path) for path in paths]
        self.gates = []

        def outputs(*values: Array) -> list[Any]:
            full = list(inputs)
            for position, value in zip(chosen, values):
                full[position] = value
            lifter = _GateKeeper(settings, self.gates)
            arguments = [
                Value(value, is_inexact(aval.dtype))
                for value, aval in zip(full, self._program.in_avals)
            ]
            results = [lifter.wide(v) for v in lifter(self._program.jaxpr, arguments)]
            return [result for result in results if is_inexact(result.dtype)]

        return jax.vjp(outputs, *(inputs[i] for i in chosen))[1](list(upstreams))


class _GateKeeper(Lifter):
    """Lifts, and puts a gate at every operand and result that carries a gradient."""

    def __init__(self, settings: Any, gates: list[_Gate]) -> None:
        super().__init__()
        self._settings, self._gates = settings, gates

    def enter(self, turn: Any = None) -> Self:
        return self

    def before(self, equation: Any, arrays: list[Any]) -> list[Any]:
        if len(arrays) < 2:
            return arrays
        return [self._gate(equation, array, k) for k, array in enumerate(arrays)]

    def after(self, equation: Any, inputs: Any, arrays: list[Any], outputs: list[Any]) -> list[Any]:
        moving = [a for v, a in zip(inputs, arrays) if v.depends]
        if equation.primitive.name in _CLIPS and len(moving) == 1:
            return [self._gate(equation, outputs[0], None, moving[0])]
        return [self._gate(equation, array, None) for array in outputs]

    def _gate(self, equation: Any, array: Any, operand: int | None, passed: Any = None) -> Any:
        """Put a gate at a value; where it is closed, the gradient goes to what is `passed`."""
        real = isinstance(array, jax.Array) and is_inexact(array.dtype)
        if not real or len(self._gates) >= _GATES:
            return array
        setting = self._settings[len(self._gates)]
        where = equation.primitive.name, source(equation), _written(equation), operand
        self._gates.append(_Gate(*where, passed is not None))
        return _gated(array, jax.numpy.zeros_like(array) if passed is None else passed, setting)


def _written(equation: Any) -> str:
    """Return the piece of the user's source that made an equation, "" where it is not known."""
    path, _, line = source_path(equation).rpartition(":")
    start, end = source_span(equation) if path else (0, 0)
    text = linecache.getline(path, int(line)) if end else ""
    return text.encode()[start:end].decode(errors="ignore").strip()


@jax.custom_jvp
def _gated(array: Any, passed: Any, setting: Any) -> Any:
    return array


@_gated.defjvp
def _gated_jvp(primals: Tree, tangents: Tree) -> Any:
    array, _, setting = primals
    return array, setting * tangents[0] + (1 - setting) * tangents[1]
