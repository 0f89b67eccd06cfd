"""Control flow: branches join, loops are closed under their step, scans keep time symbolic.

A scan over T steps is not unrolled. With R the step of the carried values, X what they take from
the inputs of a step and Y what a step puts out, output t reads input t - 1 - d through Y R^d X.
The powers R^d are followed one by one until they repeat, which most do at once; after that the
remaining lags are one relation, `input time < output time`. So an RNN is causal at any length.
"""

from collections.abc import Sequence
from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.structure.infer import CONTROL, NOTHING, Dependence, Value, Walk, union
from gradlab.structure.known import Known
from gradlab.structure.matrices import Matrix, closure, covers, identity, power, times
from gradlab.structure.unrolling import unrolled, worth_unrolling
from gradlab.tracing.jaxprs import body, loop_parts

__all__ = ["apply", "dense"]

_FOLLOWED_LAGS = 12

Shape = tuple[int, ...]


def _cond(walk: Walk, equation: Any, operands: list[Value]) -> list[Value]:
    """Any branch may be taken, so an output reads what it reads in any of them."""
    (choice, _), *rest = operands
    if choice:
        return dense(walk, equation, operands, "a branch is chosen by the derivative")
    results = [walk.run(branch, rest) for branch in equation.params["branches"]]
    joined: list[Value] = []
    for outcomes in zip(*results, strict=True):
        parts: dict[int, list[Pattern]] = {}
        for dependence, _ in outcomes:
            for seed, pattern in dependence.items():
                parts.setdefault(seed, []).append(pattern)
        joined.append((union(parts), _common(outcomes)))
    return joined


def _common(outcomes: Sequence[Value]) -> Known | None:
    """Keep what holds in every branch: so far, that all of it is zero."""
    facts = [known for _, known in outcomes]
    zero = all(k is not None and k.nonzero is not None and k.nonzero.is_zero for k in facts)
    return facts[0] if zero else None


def _while(walk: Walk, equation: Any, operands: list[Value]) -> list[Value]:
    """The carried values after any number of steps."""
    tests, constants = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    test_operands, operands = operands[:tests], operands[tests:]
    step = _Step(
        walk, equation.params["body_jaxpr"], operands, constants, len(operands) - constants
    )
    seeds: list[Value] = [
        ({n: Pattern.identity(shape)} if n in step.reads else NOTHING, None)
        for n, shape in enumerate(step.shapes[constants:], constants)
    ]
    [(test, _)] = walk.run(equation.params["cond_jaxpr"], [*test_operands, *seeds])
    if test:
        return dense(walk, equation, operands, "the loop is ended by the derivative")
    reached = closure(step.carried, step.carried_shapes)
    through = times(reached, step.taken)
    states = dict(enumerate(dependence for dependence, _ in operands))
    return [
        (
            apply([*_row(reached, k), *_row(through, k)], states),
            step.facts[k],
        )
        for k in step.carries
    ]


def _scan(walk: Walk, equation: Any, operands: list[Value]) -> list[Value]:
    """The carried values after the last step, and the outputs of every step, stacked in time."""
    constants, carried = loop_parts(equation)
    length, backwards = equation.params["length"], equation.params["reverse"]
    said = dict(walk.notes)
    step = _Step(walk, equation.params["jaxpr"], operands, constants, carried)
    if len(walk.notes) > len(said) and worth_unrolling(equation):
        walk.notes = said
        return unrolled(walk, equation, operands)
    states = dict(enumerate(dependence for dependence, _ in operands))
    clock = _Clock(length, backwards)
    blocks: list[list[tuple[int, Pattern]]] = [[] for _ in range(carried + len(step.outputs))]

    for (row, column), pattern in step.direct.items():  # within one step
        time = clock.same if column >= constants + carried else clock.always
        blocks[carried + row].append((column, maps.product(time, pattern)))
    if step.carried_shapes:
        final = power(step.carried, length, step.carried_shapes)
        for (row, column), pattern in final.items():
            blocks[row - constants].append((column, pattern))
    lags = _lags(step, length)
    if len(lags) > _FOLLOWED_LAGS:
        walk.note(equation, f"lags beyond {_FOLLOWED_LAGS} steps count as one relation")
    for lag, tail, seen in lags:
        through = times(seen, step.taken)
        for (row, column), pattern in seen.items():  # from the initial values
            if row >= 0:
                blocks[carried + row].append((column, maps.product(clock.at(lag, tail), pattern)))
        for (row, column), pattern in through.items():
            if column < constants:
                when = clock.at(lag + 1, True) if row >= 0 else clock.once
            elif row >= 0:
                when = clock.behind(lag + 1, tail)
            else:
                when = clock.at(length - 1 - lag, False, tail).T
            place = carried + row if row >= 0 else -1 - row - constants
            blocks[place].append((column, maps.product(when, pattern)))
    facts = [step.facts[k] for k in step.carries] + [None] * len(step.outputs)
    return [(apply(found, states), fact) for found, fact in zip(blocks, facts, strict=True)]


def _linear_solve(walk: Walk, equation: Any, operands: list[Value]) -> list[Value]:
    """What AD runs on the right-hand sides is the solver itself."""
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    constants = operands[before : before + lengths.solve]
    sides = operands[sum(lengths) :]
    return walk.run(jaxprs.solve, [*constants, *sides])


class _Step:
    """A loop's body as block matrices over its inputs: constants, carried values, inputs of a step.

    Rows of `carried` and `taken` are carried values, by their place among the inputs; rows of
    `direct` and `shown` are the outputs of a step, from 0.
    """

    def __init__(
        self, walk: Walk, jaxpr: Any, operands: list[Value], constants: int, carried: int
    ) -> None:
        self.shapes = [tuple(getattr(v.aval, "shape", ())) for v in body(jaxpr).invars]
        self.carries = range(constants, constants + carried)
        self.reads = {n for n, (dependence, _) in enumerate(operands) if dependence}
        zero = {n for n in self.carries if _is_zero(operands[n])}
        first_step = len(walk.steps)
        while True:
            del walk.steps[first_step:]
            inputs: list[Value] = []
            for n, (shape, (_, known)) in enumerate(zip(self.shapes, operands, strict=True)):
                seed = {n: Pattern.identity(shape)} if n in self.reads else NOTHING
                constant = n < constants or n in zero
                inputs.append((seed, known if constant else None))
            results = walk.run(jaxpr, inputs)
            grown = {n for n, (dependence, _) in zip(self.carries, results) if dependence}
            broken = {
                n for n, result in zip(self.carries, results) if n in zero and not _is_zero(result)
            }
            if grown <= self.reads and not broken:
                break
            self.reads |= grown
            zero -= broken
        self.facts = {n: inputs[n][1] for n in self.carries}
        self.outputs = results[carried:]
        self.carried_shapes = {n: self.shapes[n] for n in self.carries if n in self.reads}
        own: dict[tuple[int, int], Pattern] = {}
        taken: dict[tuple[int, int], Pattern] = {}
        for n, (dependence, _) in zip(self.carries, results):
            for source, pattern in dependence.items():
                (own if source in self.carries else taken)[n, source] = pattern
        shown: dict[tuple[int, int], Pattern] = {}
        direct: dict[tuple[int, int], Pattern] = {}
        for row, (dependence, _) in enumerate(self.outputs):
            for source, pattern in dependence.items():
                (shown if source in self.carries else direct)[row, source] = pattern
        self.carried: Matrix = own
        self.taken: Matrix = taken
        self.shown: Matrix = shown
        self.direct: Matrix = direct


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


def dense(walk: Walk, equation: Any, operands: list[Value], why: str) -> list[Value]:
    """Let every output read every seed that reaches the equation."""
    walk.note(equation, f"{why}: dense on all axes")
    seeds = {seed: p.input_shape for dependence, _ in operands for seed, p in dependence.items()}
    return [
        ({seed: Pattern.dense(tuple(out.aval.shape), shape) for seed, shape in seeds.items()}, None)
        for out in equation.outvars
    ]


def _is_zero(value: Value) -> bool:
    dependence, known = value
    return (
        not dependence and known is not None and known.nonzero is not None and known.nonzero.is_zero
    )


CONTROL["cond"] = _cond
CONTROL["while"] = _while
CONTROL["scan"] = _scan
CONTROL["custom_linear_solve"] = _linear_solve
