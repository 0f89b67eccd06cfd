"""The inputs at which a program meets its custom rules, so that each can be audited there.

The program is run once, in NumPy: a loop that holds a rule runs as often as it does, and a branch
is taken as it is. A rule that another rule's primal calls is shielded: nothing differentiates it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array, Tree
from gradlab.primitives import lookup
from gradlab.tracing.arithmetic import NumPy
from gradlab.tracing.dependence import call_jaxpr, through
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.interpreter import Step
from gradlab.tracing.jaxprs import Literal, bind, contains, dtype_of, inner_jaxprs
from gradlab.tracing.kinds import expansion_of, is_rule, kind_of
from gradlab.tracing.leaves import in_numpy, is_inexact, is_key
from gradlab.tracing.program import Program, derive
from gradlab.tracing.rules import CustomRule, rule_of

_LOOPS = ("scan", "while")
_POINTS = 8  # of a rule in a loop: the first, the last, and some between


@dataclass(frozen=True, eq=False)
class Meeting:
    """A custom rule where a program meets it."""

    rule: CustomRule  # what is known of it
    equation: Any  # the call of it
    program: Program  # the decorated function alone; its inputs are all operands
    # the positions of those that depend on the inputs of the whole; others are constant
    wrt: tuple[int, ...]
    points: tuple[tuple[Any, ...], ...]  # the operands' values, each time that they were kept
    calls: int  # how often it was met
    shielded: str = ""  # the outermost rule around it that has a derivative of its own; or empty
    made_up: bool = False  # the branch that holds it was not taken, so that its inputs were made up
    broken: str = ""  # how what it returns differs from what it promises; empty: nowhere
    # an operand moves with the inputs behind a `stop_gradient`, as a factorisation beside its
    # matrix does: the rule need not be right where operands move by themselves
    bound: bool = False


def rule_inputs(program: Program, inputs: Sequence[Array]) -> list[Meeting]:
    """Return every custom rule of a program with the inputs that it meets, innermost first."""
    meeter = _Meeter()
    with jax.enable_x64(program.x64):
        arrays = list(map(in_numpy, inputs))
        avals = [aval.dtype for aval in program.in_avals]
        typed = [x if is_key(x.dtype) else x.astype(dtype) for x, dtype in zip(arrays, avals)]
        meeter(program.jaxpr, [Value(x, is_inexact(dtype_of(x))) for x in typed])
        return [_meeting(program, met) for met in meeter.met.values()]


@dataclass
class _Met:
    """One equation that calls a rule, and the values of its operands."""

    equation: Any
    rule: CustomRule
    depends: list[bool]
    points: list[list[Any]]
    calls: int = 0
    shielded: str = ""
    made_up: bool = False
    broken: str = ""
    bound: bool = False

    def add(self, arrays: list[Array]) -> None:
        """Keep the first and the last, and some between."""
        self.calls += 1
        if len(self.points) >= 2 * _POINTS:
            self.points[1:-1] = self.points[2:-1:2]
        self.points.append(arrays)

    def kept(self) -> list[list[Any]]:
        """Return a few of the points, evenly spaced."""
        if len(self.points) <= _POINTS:
            return self.points
        places = np.linspace(0, len(self.points) - 1, _POINTS).round().astype(int)
        return [self.points[k] for k in places]


class _Meeter(Evaluator):
    """Evaluates as traced, in NumPy, and notes the inputs of every rule on the way."""

    staged = False

    def __init__(self) -> None:
        self.met: dict[Any, _Met] = {}
        self._arithmetic = NumPy()
        self._around: list[str] = []
        self._shields: list[str] = []
        self._made_up = False

    def hold(self, values: Iterable[Value]) -> None:
        """Note that values are kept: none of them may be written into."""
        self._arithmetic.hold(value.array for value in values)

    def release(self, values: Iterable[Value]) -> None:
        """Note that values are no longer kept."""
        self._arithmetic.release(value.array for value in values)

    def keeps(self, equation: Any) -> bool:
        return is_rule(equation) or (
            equation.primitive.name in _LOOPS and not _holds_rules(equation)
        )

    def _open(self, step: Step, inputs: list[Value]) -> list[Value]:
        self._around.append(_place(step.equation))
        outputs = super()._open(step, inputs)
        self._around.pop()
        return outputs

    def equation(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        stops = equation.primitive.name == "stop_gradient"  # nothing differentiates what follows
        flags = through(equation, [value.depends and not stops for value in inputs])
        if is_rule(equation):
            outputs = self._rule(equation, inputs)
        elif equation.primitive.name in _LOOPS:
            found = bind(equation, [value.array for value in inputs])
            outputs = list(map(in_numpy, found))
        else:
            outputs = self._arithmetic.bind(equation, [value.array for value in inputs])
        hidden = any(v.rough or (stops and v.depends) for v in inputs)
        return [Value(array, flag, hidden) for array, flag in zip(outputs, flags)]

    def cond(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Run the branch that is taken, and look for rules in the others, too."""
        taken = int(np.clip(self.concrete(inputs[0]), 0, len(equation.params["branches"]) - 1))
        for k, branch in enumerate(equation.params["branches"]):
            if k != taken and not self._made_up and contains(branch, is_rule):
                self._made_up = True
                try:
                    self(branch, inputs[1:])
                except Exception:  # this branch was not meant for these inputs
                    pass
                finally:
                    self._made_up = False
        return super().cond(equation, inputs)

    def _rule(self, equation: Any, inputs: Sequence[Value]) -> list[Any]:
        rule, kind = rule_of(equation), kind_of(equation)
        assert kind is not None
        shields = kind.shields and rule.user
        self._shields += [rule.name] if shields else []
        outputs = self._run(equation, inputs)
        self._shields = self._shields[:-1] if shields else self._shields
        inside = tuple(filter(None, self._around[:-1]))
        shielded = self._shields[0] if self._shields else ""
        depends = [value.depends for value in inputs]
        key = id(equation), inside, tuple(depends), bool(shielded), self._made_up
        met = self.met.get(key)
        if met is None:
            known = replace(rule, inside=inside)
            met = _Met(equation, known, depends, [], shielded=shielded, made_up=self._made_up)
            self.met[key] = met
        met.bound |= bool(kind.parts) and any(v.rough and not v.depends for v in inputs)
        self.hold(inputs)
        met.add([value.array for value in inputs])
        results = []
        for variable, value in zip(equation.outvars, outputs, strict=True):
            promised, came = map(_type, (variable.aval, value.array))
            if promised != came:  # what follows was traced for what is promised
                met.broken = f"it promises {promised}, and returns {came}"
                results.append(np.zeros(variable.aval.shape, dtype_of(variable)))
            else:
                results.append(value.array)
        return results

    def _run(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        """Run a rule's primal, and meet the rules inside it."""
        if equation.primitive.name == "custom_linear_solve":
            return self.linear_solve(equation, list(inputs))
        primal = expansion_of(equation)
        if primal is not None:
            return self(primal, inputs)
        arrays = bind(equation, [value.array for value in inputs])
        return [Value(in_numpy(a), True) for a in arrays]


def _type(value: Any) -> str:
    return f"{value.dtype}[{', '.join(map(str, np.shape(value)))}]"


def _place(equation: Any) -> str:
    """Return what encloses a rule in words: a rule by its name; a plain call is no place."""
    if is_rule(equation):
        return rule_of(equation).name
    name: str = equation.primitive.name
    record = lookup(name)
    if name not in (*_LOOPS, "cond") and call_jaxpr(equation) is None:
        return ""
    return "" if record.plain else record.words or name


def _holds_rules(equation: Any) -> bool:
    return any(contains(jaxpr, is_rule) for _, jaxpr in inner_jaxprs(equation))


def _meeting(program: Program, met: _Met) -> Meeting:
    """Return a rule alone, as a program of its operands.

    The solver and the residual of a `custom_root` close over the same arrays: what counts is the
    sum of both gradients, so that operands which are one array are one input.
    """
    equation, rule, points = met.equation, met.rule, met.kept()
    count = len(equation.invars)
    same = list(range(count))
    if rule.kind == "custom_root":
        for i, atom in enumerate(equation.invars):
            alike = (j for j in range(i) if _one(atom, equation.invars[j], points, i, j))
            same[i] = same[next(alike, i)]
    inputs = [i for i in range(count) if same[i] == i]

    def flat_function(*values: Tree) -> list[Any]:
        found = dict(zip(inputs, values))
        return bind(equation, [found[same[i]] for i in range(count)])

    outputs = [f"output[{i}]" for i in range(len(equation.outvars))]
    alone = derive(
        program,
        flat_function,
        [equation.invars[i].aval for i in inputs],
        [rule.operands[i] for i in inputs],
        outputs if len(outputs) > 1 else ["output"],
        lambda: None,
    )
    moved = [any(met.depends[j] for j in range(count) if same[j] == i) for i in inputs]
    wrt = [k for k, i in enumerate(inputs) if moved[k] and is_inexact(dtype_of(equation.invars[i]))]
    values = tuple(tuple(point[i] for i in inputs) for point in points)
    told = met.calls, met.shielded, met.made_up, met.broken, met.bound
    return Meeting(rule, equation, alone, tuple(wrt), values, *told)


def _one(a: Array, b: Array, points: Sequence[Sequence[Any]], i: int, j: int) -> bool:
    """Whether two operands are one array, by name or at every point."""
    if a is b and not isinstance(a, Literal):
        return True
    pairs = [(np.asarray(point[i]), np.asarray(point[j])) for point in points]
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)
