"""Control flow: branches join, loops are closed under their step, scans keep time symbolic.

A scan over T steps is not unrolled. With R the step of the carried values, X what they take from
the inputs of a step and Y what a step puts out, output t reads input t - 1 - d through Y R^d X.
The powers R^d are followed one by one until they repeat, which most do at once; after that the
remaining lags are one relation, `input time < output time`. So an RNN is causal at any length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlab.patterns import Pattern, maps
from gradlab.primitives.known import Known
from gradlab.structure.infer import CONTROL, NOTHING, Dependence, Note, Traced, Walk, union
from gradlab.structure.matrices import Matrix, closure, covers, identity, join, power, times
from gradlab.structure.unrolling import unrolled, worth_unrolling
from gradlab.tracing.jaxprs import body, loop_parts

__all__ = ["apply", "dense"]

_FOLLOWED_LAGS = 12
_COLUMN = 1 << 22
"""Entries up to which a column of known numbers is looked at."""
_KINDS = 4
"""How many kinds of steps are told apart."""

Shape = tuple[int, ...]


def _cond(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """Any branch may be taken, so an output reads what it reads in any of them."""
    choice, *rest = operands
    if choice.reads:
        return dense(walk, equation, operands, "a branch is chosen by the derivative")
    results = [walk.run(branch, rest) for branch in equation.params["branches"]]
    joined: list[Traced] = []
    for outcomes in zip(*results, strict=True):
        parts: dict[int, list[Pattern]] = {}
        for outcome in outcomes:
            for seed, pattern in outcome.reads.items():
                parts.setdefault(seed, []).append(pattern)
        zero = all(outcome.is_zero for outcome in outcomes)
        vanishes = all(outcome.vanishes for outcome in outcomes)
        offset = None if vanishes else walk.offset(equation, outcomes)
        joined.append(Traced(union(parts), outcomes[0].known if zero else None, offset))
    return joined


def _while(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """The carried values after any number of steps."""
    tests, constants = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    test_operands, operands = operands[:tests], operands[tests:]
    jaxpr, carried = equation.params["body_jaxpr"], len(operands) - constants
    step = _Step(walk, equation, jaxpr, operands, constants, carried)
    seeds = [step.inside(n) for n in step.carries]
    [test] = walk.run(equation.params["cond_jaxpr"], [*test_operands, *seeds])
    if test.reads:
        return dense(walk, equation, operands, "the loop is ended by the derivative")
    reached = closure(step.carried, step.carried_shapes)
    through = times(reached, step.taken)
    states = dict(enumerate(operand.reads for operand in operands))
    return [
        Traced(
            apply([*_row(reached, k), *_row(through, k)], states),
            step.facts[k],
            step.offsets.get(k),
        )
        for k in step.carries
    ]


def _scan(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """The carried values after the last step, and the outputs of every step, stacked in time."""
    constants, carried = loop_parts(equation)
    length, backwards = equation.params["length"], equation.params["reverse"]
    said = dict(walk.notes)
    jaxpr = equation.params["jaxpr"]
    phases = _phases(operands, constants + carried, length)
    step = _Step(walk, equation, jaxpr, operands, constants, carried, phases)
    if len(walk.notes) > len(said) and worth_unrolling(equation):
        walk.notes = said
        return unrolled(walk, equation, operands)
    states = dict(enumerate(operand.reads for operand in operands))
    clock = _Clock(length, backwards)
    blocks: list[list[tuple[int, Pattern]]] = [[] for _ in equation.outvars]

    def add(row: int, column: int, when: Pattern, local: Pattern) -> None:
        """Note what an output, or a carried value at the end, reads of an operand, and when."""
        phase, column = divmod(column, len(operands))
        during = phases[phase].times
        if column >= constants + carried and during is not None:
            when = when.T.where(during).T
        if row >= 0:
            phase, row = divmod(row, len(step.outputs))
            during = phases[phase].times
            when = when if during is None else when.where(during)
        place = carried + row if row >= 0 else -1 - row - constants
        blocks[place].append((column, maps.product(when, local)))

    for (row, column), pattern in step.direct.items():  # within one step
        timed = column % len(operands) >= constants + carried
        add(row, column, clock.same if timed else clock.always, pattern)
    if step.carried_shapes:
        final = power(step.carried, length, step.carried_shapes)
        for (row, column), pattern in final.items():
            blocks[row - constants].append((column, pattern))
    lags = _lags(step, length)
    if len(lags) > _FOLLOWED_LAGS:
        walk.note(equation, f"lags beyond {_FOLLOWED_LAGS} steps count as one relation")
    for lag, tail, seen in lags:
        for (row, column), pattern in seen.items():  # from the initial values
            if row >= 0:
                add(row, column, clock.at(lag, tail), pattern)
        for (row, column), pattern in times(seen, step.taken).items():
            if column % len(operands) < constants:
                when = clock.at(lag + 1, True) if row >= 0 else clock.once
            elif row >= 0:
                when = clock.behind(lag + 1, tail)
            else:
                when = clock.at(length - 1 - lag, False, tail).T
            add(row, column, when, pattern)
    facts = [step.facts[k] for k in step.carries]
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars[carried:]]
    facts += [_zero(shape) if step.is_zero(k) else None for k, shape in enumerate(shapes)]
    offsets = [step.offsets.get(k) for k in step.carries]
    offsets += [step.offset_of(k) for k in range(len(shapes))]
    return [
        Traced(apply(found, states), fact, offset)
        for found, fact, offset in zip(blocks, facts, offsets, strict=True)
    ]


def _linear_solve(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """What AD runs on the right-hand sides is the solver itself."""
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    constants = operands[before : before + lengths.solve]
    sides = operands[sum(lengths) :]
    return walk.run(jaxprs.solve, [*constants, *sides])


@dataclass(frozen=True, eq=False)
class _Phase:
    """Steps of a loop in which the inputs of a step are known to be the same.

    Attributes:
        known: what is known of inputs of a step, by their place.
        times: the steps, by their place in the stacked arrays; None for all.
    """

    known: Mapping[int, Known] = field(default_factory=dict)
    times: Pattern | None = None


_ANY = _Phase()


def _phases(operands: list[Traced], first: int, length: int) -> list[_Phase]:
    """Divide a scan's steps by the masks and weights that its columns hold: zeros, and the rest.

    Args:
        operands: of the scan.
        first: the place of the first column.
        length: the number of steps.
    """
    labels, values = [], []
    for n, operand in enumerate(operands[first:], first):
        array = None if operand.reads or operand.known is None else operand.known.array
        if array is None or array.dtype.kind in "iuO" or not 0 < array.size <= _COLUMN:
            continue
        rows = array.reshape(length, -1)
        label: Any = np.unique(rows, axis=0, return_inverse=True)[1]
        labels.append(label.reshape(-1) if label.max() < _KINDS else rows.any(axis=1))
        values.append((n, rows, array.shape[1:]))
    if not labels:
        return [_ANY]
    kinds = np.unique(np.stack(labels), axis=1, return_inverse=True)[1].reshape(-1)
    found = []
    for kind in range(min(int(kinds.max()) + 1, _KINDS + 1)):
        here = kinds == kind
        known = {
            n: Known(array=rows[here][0].reshape(shape))
            for n, rows, shape in values
            if (rows[here] == rows[here][0]).all()
        }
        times = None if here.all() else Pattern.explicit(here[:, None], (length,), ())
        found.append(_Phase(known, times))
    return found if len(found) <= _KINDS else [_ANY]


class _Step:
    """A loop's body as block matrices over its inputs: constants, carried values, inputs of a step.

    Rows of `carried` and `taken` are carried values, by their place among the inputs; rows of
    `direct` and `shown` are the outputs of a step, from 0. Where steps differ, each phase has rows
    of outputs and columns of inputs of its own, one after the other.
    """

    def __init__(
        self,
        walk: Walk,
        equation: Any,
        jaxpr: Any,
        operands: list[Traced],
        constants: int,
        carried: int,
        phases: Sequence[_Phase] = (_ANY,),
    ) -> None:
        self.shapes = [tuple(getattr(v.aval, "shape", ())) for v in body(jaxpr).invars]
        self.carries = range(constants, constants + carried)
        self.reads = {n for n, operand in enumerate(operands) if operand.reads}
        self.offsets: dict[int, Note] = {}
        self._walk, self._equation, self._operands = walk, equation, operands
        self._zero = {n for n in range(constants, len(operands)) if operands[n].is_zero}
        first_step = len(walk.steps)
        changed = True
        while changed:
            del walk.steps[first_step:]
            for n in self.reads.difference(self.offsets):
                if not operands[n].vanishes:
                    self.offsets[n] = walk.offset(equation, [operands[n]])
            runs = []
            for phase in phases:
                inputs = [self.inside(n, phase) for n in range(len(self.shapes))]
                runs.append(walk.run(jaxpr, inputs))
            learnt = [self._learns(n, r) for run in runs for n, r in zip(self.carries, run)]
            changed = any(learnt)
        self.facts = {n: operands[n].known if n in self._zero else None for n in self.carries}
        self.carried_shapes = {n: self.shapes[n] for n in self.carries if n in self.reads}
        self.outputs = list(zip(*(run[carried:] for run in runs)))
        self.taken: dict[tuple[int, int], Pattern] = {}
        self.shown: dict[tuple[int, int], Pattern] = {}
        self.direct: dict[tuple[int, int], Pattern] = {}
        own: list[Matrix] = []
        for number, run in enumerate(runs):
            column, row = number * len(operands), number * len(self.outputs)
            kept: dict[tuple[int, int], Pattern] = {}
            for n, result in zip(self.carries, run):
                for source, pattern in result.reads.items():
                    if source in self.carries:
                        kept[n, source] = pattern
                    else:
                        self.taken[n, column + source] = pattern
            for n, output in enumerate(run[carried:], row):
                for source, pattern in output.reads.items():
                    if source in self.carries:
                        self.shown[n, source] = pattern
                    else:
                        self.direct[n, column + source] = pattern
            own.append(kept)
        self.carried: Matrix = own[0] if len(own) == 1 else join(*own)

    def _learns(self, n: int, result: Traced) -> bool:
        """Note what a carried value is after a step; return whether that was not known."""
        before = (len(self._zero), len(self.reads), len(self.offsets))
        if not result.is_zero:
            self._zero.discard(n)
        if result.reads:
            self.reads.add(n)
        if n in self.reads and n not in self.offsets and not result.vanishes:
            self.offsets[n] = self._walk.offset(self._equation, [result])
        return before != (len(self._zero), len(self.reads), len(self.offsets))

    def inside(self, n: int, phase: _Phase = _ANY) -> Traced:
        """Return an input of the body as it is in any step of a phase."""
        known = phase.known.get(n)
        if n in self._zero:
            known = _zero(self.shapes[n])
        elif n < self.carries.start:
            known = self._operands[n].known
        seed = {n: Pattern.identity(self.shapes[n])} if n in self.reads else NOTHING
        return Traced(seed, known, self.offsets.get(n))

    def is_zero(self, output: int) -> bool:
        """Whether an output of a step is zero in every step."""
        return all(value.is_zero for value in self.outputs[output])

    def offset_of(self, output: int) -> Note | None:
        """Return where an output of a step ceases to be zero though all seeds are."""
        values = self.outputs[output]
        vanish = all(value.vanishes for value in values)
        return None if vanish else self._walk.offset(self._equation, values)


def _lags(step: _Step, length: int) -> list[tuple[int, bool, Matrix]]:
    """Return (lag d, whether all later lags are meant too, B R^d), B the outputs and the carries.

    Rows from 0 are outputs; carried value n is row -1 - n, seen after the last step.
    """
    ends = {(-1 - n, k): pattern for (n, k), pattern in identity(step.carried_shapes).items()}
    seen: Matrix = {**step.shown, **ends}
    found: list[tuple[int, bool, Matrix]] = []
    for lag in range(length):
        if not seen:
            return found
        following = times(seen, step.carried)
        if covers(seen, following) and covers(following, seen):
            return [*found, (lag, True, seen)]
        if lag == _FOLLOWED_LAGS:
            return [*found, (lag, True, times(seen, closure(step.carried, step.carried_shapes)))]
        found.append((lag, False, seen))
        seen = following
    return found


class _Clock:
    """Relations of the time axis; iteration i is at time i, or counted from the end."""

    def __init__(self, length: int, backwards: bool) -> None:
        self.length = length
        self.backwards = backwards
        self.same = Pattern.identity((length,))
        self.always = Pattern.dense((length,), ())
        self.once = Pattern.dense((), ())

    def behind(self, lag: int, tail: bool) -> Pattern:
        """Output at iteration i reads input at iteration i - lag, or at any before it."""
        offset = -lag if self.backwards else lag
        least = None if tail and self.backwards else offset
        most = None if tail and not self.backwards else offset
        return Pattern.from_axes((self.length,), (self.length,), [(0, ~0, least, most)])

    def at(self, iteration: int, onwards: bool, before: bool = False) -> Pattern:
        """Output at one iteration, or from it onwards, or up to it."""
        low = 0 if before else iteration
        high = self.length - 1 if onwards else iteration
        if self.backwards:
            low, high = self.length - 1 - high, self.length - 1 - low
        if low > high:
            return Pattern.zero((self.length,), ())
        return Pattern.from_axes((self.length,), (), [(0, None, low, high)])


def _row(matrix: Matrix, row: int) -> list[tuple[int, Pattern]]:
    return [(column, pattern) for (r, column), pattern in matrix.items() if r == row]


def apply(blocks: list[tuple[int, Pattern]], states: dict[int, Dependence]) -> Dependence:
    """Compose what a result reads of the operands with what the operands read of the seeds."""
    parts: dict[int, list[Pattern]] = {}
    for column, local in blocks:
        for seed, pattern in states[column].items():
            parts.setdefault(seed, []).append(local @ pattern)
    return union(parts)


def dense(walk: Walk, equation: Any, operands: list[Traced], why: str) -> list[Traced]:
    """Let every output read every seed that reaches the equation."""
    text = f"{why}: dense on all axes"
    walk.note(equation, text)
    seeds = {n: p.input_shape for operand in operands for n, p in operand.reads.items()}
    offset = Note(text, equation.primitive.name, walk.source(equation))
    return [
        Traced({n: Pattern.dense(shape, given) for n, given in seeds.items()}, None, offset)
        for shape in (tuple(variable.aval.shape) for variable in equation.outvars)
    ]


def _zero(shape: Shape) -> Known:
    return Known(support=Pattern.zero(shape, ()))


CONTROL["cond"] = _cond
CONTROL["while"] = _while
CONTROL["scan"] = _scan
CONTROL["custom_linear_solve"] = _linear_solve
