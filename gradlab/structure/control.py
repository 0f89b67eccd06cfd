"""Control flow: branches join, loops are closed under their step, scans keep time symbolic.

A scan over T steps is not unrolled. With R the step of the carried values, X what they take from
the inputs of a step and Y what a step puts out, output t reads input t - 1 - d through Y R^d X.
The powers R^d are followed one by one until they repeat, which most do at once; after that the
remaining lags are one relation, `input time < output time`. So an RNN is causal at any length.
"""

from typing import Any

from gradlab.patterns import Pattern, maps
from gradlab.primitives.known import Known
from gradlab.structure.infer import CONTROL, NOTHING, Dependence, Note, Traced, Walk, union
from gradlab.structure.matrices import Matrix, closure, covers, identity, power, times
from gradlab.structure.unrolling import unrolled, worth_unrolling
from gradlab.tracing.jaxprs import body, loop_parts

__all__ = ["apply", "dense"]

_FOLLOWED_LAGS = 12

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
    step = _Step(walk, equation, equation.params["jaxpr"], operands, constants, carried)
    if len(walk.notes) > len(said) and worth_unrolling(equation):
        walk.notes = said
        return unrolled(walk, equation, operands)
    states = dict(enumerate(operand.reads for operand in operands))
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
    facts = [step.facts[k] for k in step.carries]
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars[carried:]]
    facts += [_zero(shape) if out.is_zero else None for out, shape in zip(step.outputs, shapes)]
    offsets = [step.offsets.get(k) for k in step.carries] + [out.offset for out in step.outputs]
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


class _Step:
    """A loop's body as block matrices over its inputs: constants, carried values, inputs of a step.

    Rows of `carried` and `taken` are carried values, by their place among the inputs; rows of
    `direct` and `shown` are the outputs of a step, from 0.
    """

    def __init__(
        self,
        walk: Walk,
        equation: Any,
        jaxpr: Any,
        operands: list[Traced],
        constants: int,
        carried: int,
    ) -> None:
        self.shapes = [tuple(getattr(v.aval, "shape", ())) for v in body(jaxpr).invars]
        self.carries = range(constants, constants + carried)
        self.reads = {n for n, operand in enumerate(operands) if operand.reads}
        self.offsets: dict[int, Note] = {}
        self._operands = operands
        self._zero = {n for n in range(constants, len(operands)) if operands[n].is_zero}
        first_step = len(walk.steps)
        changed = True
        while changed:
            changed = False
            del walk.steps[first_step:]
            for n in self.reads.difference(self.offsets):
                if not operands[n].vanishes:
                    self.offsets[n] = walk.offset(equation, [operands[n]])
            results = walk.run(jaxpr, [self.inside(n) for n in range(len(self.shapes))])
            for n, result in zip(self.carries, results):
                if n in self._zero and not result.is_zero:
                    self._zero.remove(n)
                    changed = True
                if result.reads and n not in self.reads:
                    self.reads.add(n)
                    changed = True
                if n in self.reads and n not in self.offsets and not result.vanishes:
                    self.offsets[n] = walk.offset(equation, [result])
                    changed = True
        self.facts = {n: operands[n].known if n in self._zero else None for n in self.carries}
        self.outputs = results[carried:]
        self.carried_shapes = {n: self.shapes[n] for n in self.carries if n in self.reads}
        own: dict[tuple[int, int], Pattern] = {}
        taken: dict[tuple[int, int], Pattern] = {}
        for n, result in zip(self.carries, results):
            for source, pattern in result.reads.items():
                (own if source in self.carries else taken)[n, source] = pattern
        shown: dict[tuple[int, int], Pattern] = {}
        direct: dict[tuple[int, int], Pattern] = {}
        for row, output in enumerate(self.outputs):
            for source, pattern in output.reads.items():
                (shown if source in self.carries else direct)[row, source] = pattern
        self.carried: Matrix = own
        self.taken: Matrix = taken
        self.shown: Matrix = shown
        self.direct: Matrix = direct

    def inside(self, n: int) -> Traced:
        """Return an input of the body as it is in any step."""
        known = None
        if n in self._zero:
            known = _zero(self.shapes[n])
        elif n < self.carries.start:
            known = self._operands[n].known
        seed = {n: Pattern.identity(self.shapes[n])} if n in self.reads else NOTHING
        return Traced(seed, known, self.offsets.get(n))


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
