"""One summand missing, doubled or with its sign turned: which step of the reference was it?

Every operand and every result of the reference's program gets a gate that multiplies the gradient
through it and leaves the value alone. Closing one gate (0), turning its sign (-1), doubling it (2):
if that turns the reference's gradient into the one that came, the step is named with its line.
A maximum that is only subtracted for safety may be held constant besides: its gradient cancels.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding
from gradlab.checking.widen import widen
from gradlab.tracing import Lifter, Program, Value, source, without_checks
from gradlab.tracing.leaves import is_inexact

__all__ = ["terms"]

_GATES = 150
_ENTRIES = 1 << 20
_SETTINGS = (
    (0.0, "is missing"),
    (-1.0, "has the wrong sign"),
    (2.0, "is counted twice"),
    (0.5, "is halved"),
)
_CLIPS = ("clamp", "max", "min")
_REDUCTIONS = ("reduce_sum", "reduce_max")


class _Gate(NamedTuple):
    """Where a gate stands: the operation, its line, which operand (None: the result)."""

    name: str
    source: str
    operand: int | None
    passes: bool = False


def terms(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield the step of the reference whose share of the gradient is missing or wrong."""
    program = symptom.subject.believed
    if not symptom.subject.stated:
        program = symptom.subject.forward  # its rules are opened here too, and it knows its lines
    if program is None or not symptom.trial.has_reference:
        return
    gated = _Gated(symptom, program)
    if not 0 < len(gated.gates) <= _GATES:
        return
    size = sum(int(np.prod(t.shape, dtype=np.int64)) for t in symptom.subject.targets)
    if size * len(gated.gates) > _ENTRIES:
        return
    path = symptom.subject.targets[target].path
    shifts = np.array([gate.name == "reduce_max" for gate in gated.gates])
    for setting, text in _SETTINGS:
        for still in (shifts & False, shifts) if shifts.any() else (shifts,):
            rows = np.tile(np.where(still, 0.0, 1.0), (len(gated.gates), 1))
            np.fill_diagonal(rows, setting)
            for k in gated.explaining(target, rows):
                term = _words(gated.gates[k])
                yield Finding("term", path, f"in the gradient of {path}, the term {term} {text}")
                return
    yield from _saturated(gated, target, path)
    held = np.array([gate.name in _REDUCTIONS for gate in gated.gates])
    if held.any() and gated.explaining(target, np.where(held, 0.0, 1.0)[None]):
        text = f"the gradient of {path} holds the sums (mean, variance, normaliser) constant"
        yield Finding("term", path, text)


def _saturated(gated: "_Gated", target: int, path: str) -> Iterator[Finding]:
    """Yield that the upstream passes where a clip, a maximum or a minimum saturates."""
    passing = np.array([gate.passes for gate in gated.gates])
    if passing.any() and gated.explaining(target, np.where(passing, 0.0, 1.0)[None]):
        gate = next(gate for gate in gated.gates if gate.passes)
        line = f" at {gate.source}" if gate.source else ""
        text = f"the gradient of {path} passes the upstream where the clip{line} saturates"
        yield Finding("condition", path, text, code="GL333")


def _words(gate: _Gate) -> str:
    line = f" at {gate.source}" if gate.source else ""
    if gate.operand is None:
        return f"through {gate.name}{line}"
    return f"through operand {gate.operand} of {gate.name}{line}"


class _Gated:
    """The reference's gradient as a function of its gates."""

    def __init__(self, symptom: Symptom, program: Program) -> None:
        self._symptom, self._program = symptom, program
        self.gates: list[_Gate] = []
        with without_checks():
            jax.eval_shape(self._gradients, np.ones(_GATES + 1), *self._arguments(0))
        self._compiled = jax.jit(jax.vmap(self._gradients, in_axes=(0, None, None)))

    def explaining(self, target: int, rows: np.ndarray[Any, Any]) -> list[int]:
        """Return the rows of gate settings that give the gradient that came, in every case."""
        alive = np.arange(len(rows))
        for case in range(len(self._symptom.cases)):
            if not alive.size:
                break
            padded = np.pad(rows[alive], ((0, 0), (0, _GATES + 1 - rows.shape[1])))
            with without_checks():
                found = np.asarray(self._compiled(padded, *self._arguments(case))[target])
            alive = alive[[self._symptom.explains(case, target, each) for each in found]]
        return [int(k) for k in alive]

    def _arguments(self, case: int) -> tuple[list[Any], list[Any]]:
        here, point = self._symptom.cases[case], self._symptom.trial.point
        values = {**point, **here.values}
        inputs = [widen(values[name]) for name in self._program.in_names]
        upstreams = [here.upstreams[u.name] for u in self._symptom.subject.upstreams]
        return inputs, upstreams or [np.float64(1.0)]

    def _gradients(self, settings: Any, inputs: Sequence[Any], upstreams: Sequence[Any]) -> Any:
        paths = [target.path for target in self._symptom.subject.targets]
        chosen = [self._program.in_names.index(path) for path in paths]
        self.gates = []

        def outputs(*values: Any) -> list[Any]:
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
        if equation.primitive.name in _CLIPS and len(moving) == 1 and len(self._gates) < _GATES:
            setting = self._settings[len(self._gates)]
            gate = _Gate(equation.primitive.name, source(equation), None, True)
            self._gates.append(gate)
            return [_passed(outputs[0], moving[0], setting)]
        return [self._gate(equation, array, None) for array in outputs]

    def _gate(self, equation: Any, array: Any, operand: int | None) -> Any:
        if not isinstance(array, jax.Array) or not is_inexact(array.dtype):
            return array
        if len(self._gates) >= _GATES:
            return array
        setting = self._settings[len(self._gates)]
        self._gates.append(_Gate(equation.primitive.name, source(equation), operand))
        return _gated(array, setting)


@jax.custom_jvp
def _gated(array: Any, setting: Any) -> Any:
    return array


@_gated.defjvp
def _gated_jvp(primals: Any, tangents: Any) -> Any:
    array, setting = primals
    return array, setting * tangents[0]


@jax.custom_jvp
def _passed(array: Any, operand: Any, setting: Any) -> Any:
    return array


@_passed.defjvp
def _passed_jvp(primals: Any, tangents: Any) -> Any:
    array, _, setting = primals
    return array, setting * tangents[0] + (1 - setting) * tangents[1]
