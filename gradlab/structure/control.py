"""Control flow: branches join, loops are closed under their step, scans keep time symbolic.

A scan over T steps is not unrolled. With R the step of the carried values, X what they take from
the inputs of a step and Y what a step puts out, output t reads input t - 1 - d through Y R^d X.
The powers R^d are followed one by one until they repeat, which most do at once; after that the
remaining lags are one relation, `input time < output time`. So an RNN is causal at any length.

Where the body reads a part whose place its counter says, a short loop is followed step by step: the
counter is a number then. A longer loop is read at once: `vmap` makes of its body one program with
an axis for time, in which what the counter moves is a region. How carried values read one another
is a matrix of patterns, whose powers are found by squaring: a loop of a hundred
thousand steps costs seventeen compositions.

A mutable array holds what was last written, and what was written to parts of it before. Reads and
writes of a whole array are exact; of a part, they count as reaching all of it.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.export import is_symbolic_dim

from gradlab.patterns import Pattern, maps
from gradlab.patterns.size import Number, Size, has_number
from gradlab.primitives.facts import FINITE_MASK
from gradlab.primitives.known import Affine, Known, told
from gradlab.primitives.ranges import DEEP, is_deep
from gradlab.structure.infer import CELLS, CONTROL, NOTHING, Dependence, Note, Traced, Walk, union
from gradlab.structure.sizes import in_sizes
from gradlab.tracing.dependence import flow
from gradlab.tracing.jaxprs import as_flat, body, dtype_of, loop_parts
from gradlab.tracing.leaves import is_inexact

Matrix = Mapping[tuple[int, int], Pattern]
"""Patterns by (row, column); a missing block is zero."""

Shape = tuple[int, ...]

_ROUNDS = 64
MASKED = Known(murky=True)


def _may_be_masked(value: Traced) -> bool:
    known = value.known
    return known is not None and (known.murky or is_deep(known.high))


def identity(shapes: Mapping[int, Shape] | Sequence[Shape]) -> Matrix:
    """Return the matrix in which every value reads itself."""
    items = shapes.items() if isinstance(shapes, Mapping) else enumerate(shapes)
    return {(k, k): Pattern.identity(shape) for k, shape in items}


def join(*matrices: Matrix) -> Matrix:
    """Return the union, block by block."""
    parts: dict[tuple[int, int], list[Pattern]] = {}
    for matrix in matrices:
        for place, pattern in matrix.items():
            parts.setdefault(place, []).append(pattern)
    return {place: _union(patterns) for place, patterns in parts.items()}


def times(a: Matrix, b: Matrix) -> Matrix:
    """Return what rows of `a` read through columns that are rows of `b`."""
    parts: dict[tuple[int, int], list[Pattern]] = {}
    for (row, middle), left in a.items():
        for (middle_, column), right in b.items():
            if middle == middle_:
                product = left @ right
                if not product.is_zero:
                    parts.setdefault((row, column), []).append(product)
    return {place: _union(patterns) for place, patterns in parts.items()}


def covers(a: Matrix, b: Matrix) -> bool:
    """Return whether `b` is proved to lie inside `a`."""
    return all(place in a and a[place].covers(pattern) for place, pattern in b.items())


def power(step: Matrix, exponent: Number, shapes: Mapping[int, Shape]) -> Matrix:
    """Return what is read through exactly `exponent` steps."""
    if isinstance(exponent, Size):
        following = times(step, step)
        same = exponent >= 1 and covers(step, following) and covers(following, step)
        return step if same else closure(step, shapes)
    result = identity(shapes)
    square = step
    while exponent:
        if exponent & 1:
            result = times(result, square)
        exponent >>= 1
        if exponent:
            following = times(square, square)
            if covers(square, following) and covers(following, square):
                return times(result, square)  # idempotent: every further power is the same
            square = following
    return result


def closure(step: Matrix, shapes: Mapping[int, Shape]) -> Matrix:
    """Return what is read through any number of steps, none included."""
    reached = join(identity(shapes), step)
    for _ in range(_ROUNDS):
        further = times(reached, reached)
        if covers(reached, further):
            return reached
        reached = join(reached, further)
    return {
        (row, column): Pattern.dense(shapes[row], shapes[column])
        for row in shapes
        for column in shapes
    }


def _union(patterns: Iterable[Pattern]) -> Pattern:
    first, *others = patterns
    return Pattern.union([first, *others]) if others else first


_FOLLOWED_LAGS = 12
_COLUMN = 1 << 18
"""Entries up to which a column of known numbers is looked at."""
_KINDS = 4
"""How many kinds of steps are told apart."""


def _cond(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """Any branch may be taken, so an output reads what it reads in any of them."""
    choice, *rest = operands
    if choice.reads:
        return walk.dense(equation, operands, "a branch is chosen by the derivative")
    results = [walk.run(branch, rest) for branch in equation.params["branches"]]
    made = []
    for outcomes, variable in zip(zip(*results, strict=True), equation.outvars):
        shape = walk.shape(variable)
        same = Pattern.identity(shape)
        made.append(_through(walk, equation, [(same, value) for value in outcomes], shape))
    return made


def _while(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """The carried values after any number of steps."""
    tests, constants = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    test_operands, operands = operands[:tests], operands[tests:]
    jaxpr, carried = equation.params["body_jaxpr"], len(operands) - constants
    first_step, said = len(walk.steps), walk.said
    followed = _counted(walk, equation, test_operands, operands)
    if followed is not None:
        return followed
    del walk.steps[first_step:]
    walk.said = said
    step = _Step(walk, equation, jaxpr, operands, constants, carried)
    seeds = [step.inside(n) for n in step.carries]
    [test] = walk.run(equation.params["cond_jaxpr"], [*test_operands, *seeds])
    if test.reads:
        return walk.dense(equation, operands, "the loop is ended by the derivative")
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


def _counted(
    walk: Walk, equation: Any, tests: list[Traced], operands: list[Traced]
) -> list[Traced] | None:
    """Return what a short loop makes whose every test is known; None where one is not."""
    constants, jaxpr = equation.params["body_nconsts"], equation.params["body_jaxpr"]
    carry = operands[constants:]
    for _ in range(_EQUATIONS // (1 + len(body(jaxpr).equations))):
        if any(map(_is_named, [*tests, *carry])):
            return None  # how often it runs may depend on a size without a number
        [test] = walk.run(equation.params["cond_jaxpr"], [*tests, *carry])
        known = None if test.reads or test.known is None else test.known.value()
        if known is None or known.ndim:
            return None
        if not known:
            return carry
        carry = walk.run(jaxpr, [*operands[:constants], *carry])
    return None


def _scan(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """The carried values after the last step, and the outputs of every step, stacked in time."""
    constants, carried = loop_parts(equation)
    length = in_sizes(equation.params["length"], walk.sizes)
    backwards = equation.params["reverse"]
    said, unclear = walk.said, walk.unclear
    jaxpr = equation.params["jaxpr"]
    phases = _phases(operands, constants + carried, length)
    step = _Step(walk, equation, jaxpr, operands, constants, carried, phases)
    counters = [n >= constants and _is_counter(each) for n, each in enumerate(operands)]
    counts = any(counters) and (walk.unclear > unclear or _decides(jaxpr, operands, counters))
    noted = len(walk.notes) > len(said[0])
    clock = _Clock(length, backwards)
    unrolls = worth_unrolling(equation) and (counts or step.forgets or noted)
    if not unrolls and worth_unrolling(equation, _BRIEF):
        unrolls = step.begins_with_less(clock.first)
    closer, whole = None, False
    if counts and not (unrolls and length * len(body(jaxpr).equations) <= _SHORT):
        closer, whole = _at_all_times(walk, equation, operands, step, clock, said[0])
    if unrolls and not whole:
        walk.said = said
        return unrolled(walk, equation, operands)
    states = dict(enumerate(operand.reads for operand in operands))
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
    shapes = [walk.shape(variable) for variable in equation.outvars[carried:]]
    facts += [_zero(shape) if step.is_zero(k) else step.murk(k) for k, shape in enumerate(shapes)]
    offsets = [step.offsets.get(k) for k in step.carries]
    offsets += [step.offset_of(k) for k in range(len(shapes))]
    reads = [apply(found, states) for found in blocks]
    if closer:
        reads = [_common(*each) for each in zip(reads, closer, strict=True)]
    made = [
        Traced(found, fact, offset)
        for found, fact, offset in zip(reads, facts, offsets, strict=True)
    ]
    for k, variable in enumerate(equation.outvars):
        moved = k >= carried or constants + k in step.reads
        if moved and not made[k].reads and offsets[k] is None:  # too late for it, or forgotten
            made[k] = Traced(known=_zero(walk.shape(variable)))
    return made


def _common(a: Dependence, b: Dependence) -> Dependence:
    """Return what two bounds of one dependence have in common."""
    return {seed: both for seed in a.keys() & b.keys() if not (both := a[seed] & b[seed]).is_zero}


@functools.lru_cache(maxsize=64)
def _over_time(jaxpr: Any, constants: int, length: Any) -> Any:
    """Return the body of a loop as one program for all its steps; None if JAX makes none."""
    invars = body(jaxpr).invars
    axes = [None if n < constants else 0 for n in range(len(invars))]
    leads = [() if axis is None else (length,) for axis in axes]
    try:
        with jax.enable_x64(True):
            avals = [
                v.aval.update(shape=(*lead, *v.aval.shape), weak_type=False)
                for v, lead in zip(invars, leads, strict=True)
            ]
            return jax.make_jaxpr(jax.vmap(as_flat(jaxpr), axes, axis_size=length))(*avals)
    except Exception:  # whatever a library's rule for batches raises
        return None


def _at_all_times(
    walk: Walk,
    equation: Any,
    operands: list[Traced],
    step: "_Step",
    clock: "_Clock",
    noted: Mapping[Note, None],
) -> tuple[list[Dependence] | None, bool]:
    """Return what a scan reads, from one run of its body for all steps, with an axis for time.

    What its counter moves is a region of that axis and others there, however many steps there are.
    Of what is carried, the bounds that hold after the first step are kept if each step keeps them.
    The second result tells whether the body was read without a loss: nothing is noted beyond
    `noted`, what may be masked is bounded from the first step on, and carried values read each
    other alike in all steps.
    """
    constants, carried = loop_parts(equation)
    jaxpr, length = equation.params["jaxpr"], clock.length
    program = _over_time(jaxpr, constants, equation.params["length"])
    if program is None or walk.timed or not length >= 1:
        return None, False
    first = clock.at(0, False)
    given = [
        Traced(known=v.known if n < constants + carried else _entry(v, clock.first))
        for n, v in enumerate(operands)
    ]
    first_step, said, unclear = len(walk.steps), walk.said, walk.unclear
    after = [result.known for result in walk.run(jaxpr, given)[:carried]]
    facts = {
        n: _kept(operands[n].known, known, step.shapes[n], clock, first)
        for n, known in zip(step.carries, after)
    }
    masked = set(step.masked)
    walk.timed = True
    try:
        for _ in range(_ROUNDS):
            del walk.steps[first_step:]
            walk.said = (dict(noted), *said[1:])
            walk.unclear = unclear
            inputs = [_stacked(step, n, v, facts, masked, length) for n, v in enumerate(operands)]
            results = walk.run(program, inputs)
            known = {n: result.known for n, result in zip(step.carries, results)}
            learnt = {n for n, k in known.items() if k is not None and k.masked} - masked
            lost = [n for n in step.carries if not _keeps(facts, n, known[n], clock, first, step)]
            if not learnt and not lost:
                break
            masked |= learnt
        else:
            walk.said = said
            return None, False
    finally:
        walk.timed = False
        del walk.steps[first_step:]
    alike = all(
        k in result.reads and result.reads[k].covers(maps.product(clock.same, step.carried[n, k]))
        for n, result in zip(step.carries, results)
        for k in step.carries
        if (n, k) in step.carried
    )
    loss = [n for n in walk.notes.keys() - noted.keys() if not n.text.endswith(FINITE_MASK)]
    bounded = all(
        known is None
        or not is_deep(known.high)
        or any(mark.region.is_zero and mark.offset < -DEEP for mark in known.low)
        for known in after
    )
    whole = alike and bounded and walk.unclear == unclear and not loss
    if not whole:
        walk.notes |= said[0]
    reached = closure(step.carried, step.carried_shapes)
    taken = {
        (n, source): pattern
        for n, result in zip(step.carries, results)
        for source, pattern in result.reads.items()
        if source not in step.carries
    }
    blocks: list[list[tuple[int, Pattern]]] = [[] for _ in equation.outvars]
    total = Pattern.dense((), (length,))
    for (row, k), pattern in reached.items():
        place = row - constants
        blocks[place].append((k, pattern))
        seen = pattern @ maps.product(total, Pattern.identity(step.shapes[k]))
        blocks[place] += [(source, seen @ local) for (n, source), local in taken.items() if n == k]
    for place, result in enumerate(results[carried:], carried):
        for column, shown in result.reads.items():
            if column not in step.carries:
                blocks[place].append((column, shown))
                continue
            for k, pattern in ((k, p) for (row, k), p in reached.items() if row == column):
                blocks[place].append((k, shown @ maps.product(clock.always, pattern)))
                seen = shown @ maps.product(clock.behind(1, True), pattern)
                blocks[place] += [(s, seen @ local) for (n, s), local in taken.items() if n == k]
    states = dict(enumerate(operand.reads for operand in operands))
    return [apply(found, states) for found in blocks], whole


def _entry(value: Traced, index: Any) -> Known | None:
    """Return what is known of one entry of a stack."""
    array = None if value.known is None else value.known.value()
    if array is not None and array.dtype != object:
        return Known(array=array[index])
    region = value.nonzero
    if region is None:
        return None
    shape = region.output_shape
    return told(_place(index, shape[1:], shape[0]).T @ region)


def _kept(
    start: Known | None, after: Known | None, shape: Shape, clock: "_Clock", first: Pattern
) -> Known | None:
    """Guess what holds of a carried value whenever a step begins, from what the first makes."""
    ends = [known.value() for known in (start, after) if known is not None]
    numbers = [int(end) for end in ends if end is not None and end.dtype.kind in "iu" and not shape]
    if len(numbers) == 2:
        begin, pace = numbers[0], numbers[1] - numbers[0]
        if clock.backwards:
            begin, pace = begin + pace * (clock.length - 1), -pace
        return Known(affine=Affine((clock.length,), (pace,), begin))
    if after is None:
        return None
    sides = [
        tuple(
            replace(mark, region=_from(first, mark.region, clock))
            for mark in marks
            if not mark.region.is_dense
        )
        for marks in (after.upper, after.lower)
    ]
    return Known(upper=sides[0], lower=sides[1]) if any(sides) else None


def _from(first: Pattern, region: Pattern, clock: "_Clock") -> Pattern:
    """Return a region at all times, and all that there is at the first."""
    everywhere = maps.product(first, Pattern.region(region.output_shape))
    return everywhere if region.is_zero else everywhere | maps.product(clock.always, region)


def _stacked(
    step: "_Step", n: int, value: Traced, facts: Any, masked: set[int], length: Any
) -> Traced:
    """Return an input of the body as it is at all times."""
    if n < step.carries.start:
        return step.inside(n)
    shape = (length, *step.shapes[n])
    known = value.known
    if n in step.carries:
        known = _zero(shape) if n in step.zero else facts[n]
        known = replace(known or Known(), murky=True) if n in masked else known
    seed = {n: Pattern.identity(shape)} if n in step.reads else NOTHING
    return Traced(seed, known, step.offsets.get(n))


def _keeps(
    facts: dict[int, Known | None],
    n: int,
    made: Known | None,
    clock: "_Clock",
    first: Pattern,
    step: "_Step",
) -> bool:
    """Whether each step keeps what was guessed of a carried value; what it breaks is dropped."""
    guess = facts[n]
    if guess is None or n in step.zero:
        return True
    if guess.affine is not None:
        pace = -guess.affine.steps[0] if clock.backwards else guess.affine.steps[0]
        expected = replace(guess.affine, offset=guess.affine.offset + pace)
        facts[n] = guess if made is not None and made.affine == expected else None
        return facts[n] is not None
    moved = maps.product(clock.behind(1, False), Pattern.identity(step.shapes[n]))
    start = maps.product(first, Pattern.region(step.shapes[n]))
    sides = []
    for marks, found in ((guess.upper, made and made.upper), (guess.lower, made and made.lower)):
        later = [replace(m, region=start | (moved @ m.region)) for m in found or ()]
        sides.append(tuple(m for m in marks if any(map(m.is_kept_by, later))))
    facts[n] = Known(upper=sides[0], lower=sides[1]) if any(sides) else None
    return sides == [guess.upper, guess.lower]


def _is_counter(operand: Traced) -> bool:
    """Whether a carried value, or what each step takes, is a known integer."""
    value = None if operand.known is None else operand.known.value()
    return value is not None and value.dtype.kind in "iu"


def _is_named(value: Traced) -> bool:
    """Whether a value is known as a size without a number, or as places counted from it."""
    form = None if value.known is None else value.known.affine
    return form is not None and not all(map(has_number, (form.offset, *form.steps)))


def _decides(jaxpr: Any, operands: Sequence[Traced], counters: Sequence[bool]) -> bool:
    """Whether a counter alone chooses between numbers, or a branch, in the body of a loop."""
    clouded: set[int] = set()
    found: set[int] = set()

    def chosen(into: set[int]) -> Callable[[Any, Sequence[bool]], None]:
        def see(equation: Any, flags: Sequence[bool]) -> None:
            numbers = equation.primitive.name == "select_n" and is_inexact(
                dtype_of(equation.outvars[0])
            )
            if flags[0] and (numbers or equation.primitive.name == "cond"):
                into.add(id(equation))

        return see

    others = [not c and each.known is None for c, each in zip(counters, operands, strict=True)]
    flow(jaxpr, others, chosen(clouded))
    flow(jaxpr, counters, chosen(found))
    return bool(found - clouded)


def _linear_solve(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """What AD runs on the right-hand sides is the solver itself."""
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    constants = operands[before : before + lengths.solve]
    sides = operands[sum(lengths) :]
    return walk.run(jaxprs.solve, [*constants, *sides])


@dataclass(frozen=True, eq=False)
class _Phase:
    """Steps of a loop in which the inputs of a step are the same, or zero in the same places.

    Attributes:
        known: what is known of inputs of a step, by their place.
        times: the steps, by their place in the stacked arrays; None for all.
    """

    known: Mapping[int, Known | None] = field(default_factory=dict)
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
        array = _column(operand)
        if array is None or array.dtype.kind in "iuO" or not 0 < array.size <= _COLUMN:
            continue
        rows = array.reshape(length, -1)
        label: Any = np.unique(rows, axis=0, return_inverse=True)[1]
        labels.append(label.reshape(-1) if label.max() < _KINDS else rows.any(axis=1))
        whole = operand.known is not None and array is operand.known.array
        values.append((n, rows, array.shape[1:], whole))
    if not labels:
        return [_ANY]
    kinds = np.unique(np.stack(labels), axis=1, return_inverse=True)[1].reshape(-1)
    found = []
    for kind in range(min(int(kinds.max()) + 1, _KINDS + 1)):
        here = kinds == kind
        known = {n: _one_of(rows[here], shape, whole) for n, rows, shape, whole in values}
        times = None if here.all() else Pattern.explicit(here[:, None], (length,), ())
        found.append(_Phase(known, times))
    return found if len(found) <= _KINDS else [_ANY]


def _column(operand: Traced) -> Any:
    """Return a stacked input of known value, or where it may differ from zero; None: anywhere."""
    if operand.reads or operand.known is None or operand.known.array is not None:
        return None if operand.reads or operand.known is None else operand.known.array
    region = operand.nonzero
    size = _COLUMN + 1 if region is None else math.prod(region.output_shape)
    if region is None or not (has_number(size) and size <= _COLUMN):
        return None
    return region.to_dense().reshape(region.output_shape)


def _one_of(rows: Any, shape: Shape, whole: bool) -> Known | None:
    """Return what is known of an array that is one of these rows: its value, or where it is 0.

    Args:
        rows: values, or where these may differ from zero.
        shape: of one of them.
        whole: whether they are values.
    """
    if whole and (rows == rows[0]).all():
        return Known(array=rows[0].reshape(shape))
    some, failed = rows.any(axis=0), ~rows.all(axis=0)
    support, false = (Pattern.explicit(at[:, None], shape, ()) for at in (some, failed))
    return told(support, false if whole and rows.dtype == bool else None)


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
        self.shapes = [walk.shape(v) for v in body(jaxpr).invars]
        self.carries = range(constants, constants + carried)
        self.reads = {n for n, operand in enumerate(operands) if operand.reads}
        self.offsets: dict[int, Note] = {}
        self._walk, self._equation, self._operands = walk, equation, operands
        self._jaxpr = jaxpr
        self.zero = {n for n in range(constants, len(operands)) if operands[n].is_zero}
        self.masked = {n for n in self.carries if _may_be_masked(operands[n])}
        first_step, said = len(walk.steps), walk.said
        changed = True
        while changed:
            del walk.steps[first_step:]
            walk.said = said
            for n in self.reads.difference(self.offsets):
                if not operands[n].vanishes:
                    self.offsets[n] = walk.offset(equation, [operands[n]])
            runs = []
            for phase in phases:
                inputs = [self.inside(n, phase) for n in range(len(self.shapes))]
                runs.append(walk.run(jaxpr, inputs))
            learnt = [self._learns(n, r) for run in runs for n, r in zip(self.carries, run)]
            changed = any(learnt)
        self.facts = {
            n: operands[n].known if n in self.zero else MASKED if n in self.masked else None
            for n in self.carries
        }
        self.carried_shapes = {n: self.shapes[n] for n in self.carries if n in self.reads}
        self._results = runs[0]
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
        self.forgets = len({frozenset(kept) for kept in own}) > 1  # some steps read fewer carries

    def _learns(self, n: int, result: Traced) -> bool:
        """Note what a carried value is after a step; return whether that was not known."""
        before = self._size
        if result.known is not None and result.known.masked:
            self.masked.add(n)
        if not result.is_zero:
            self.zero.discard(n)
        if result.reads:
            self.reads.add(n)
        if n in self.reads and n not in self.offsets and not result.vanishes:
            self.offsets[n] = self._walk.offset(self._equation, [result])
        return before != self._size

    @property
    def _size(self) -> tuple[int, ...]:
        return len(self.zero), len(self.reads), len(self.offsets), len(self.masked)

    def inside(self, n: int, phase: _Phase = _ANY) -> Traced:
        """Return an input of the body as it is in any step of a phase."""
        known = phase.known.get(n)
        if n in self.zero:
            known = _zero(self.shapes[n])
        elif n < self.carries.start:
            known = self._operands[n].known
        elif n in self.masked:
            known = MASKED
        seed = {n: Pattern.identity(self.shapes[n])} if n in self.reads else NOTHING
        return Traced(seed, known, self.offsets.get(n))

    def begins_with_less(self, place: int) -> bool:
        """Whether the first step reads less than others, since what is carried starts with zeros.

        Args:
            place: of the first step in stacked arrays.
        """
        walk = self._walk
        lost = [n for n in self.carries if n not in self.zero]
        if all(self._operands[n].nonzero is None for n in lost):
            return False
        begin = {n: self._operands[n].known for n in self.carries}
        for n, operand in enumerate(self._operands[self.carries.stop :], self.carries.stop):
            begin[n] = _entry(operand, place)
        first_step, said = len(walk.steps), walk.said
        made = walk.run(
            self._jaxpr, [self.inside(n, _Phase(begin)) for n in range(len(self.shapes))]
        )
        del walk.steps[first_step:]
        walk.said = said
        return any(
            (first.is_zero and not later.is_zero)
            or any(
                source not in first.reads or not first.reads[source].covers(pattern)
                for source, pattern in later.reads.items()
            )
            for first, later in zip(made, self._results)
        )

    def is_zero(self, output: int) -> bool:
        """Whether an output of a step is zero in every step."""
        return all(value.is_zero for value in self.outputs[output])

    def murk(self, output: int) -> Known | None:
        """Say whether an output of a step may be made of masked values."""
        return MASKED if any(map(_may_be_masked, self.outputs[output])) else None

    def offset_of(self, output: int) -> Note | None:
        """Return where an output of a step ceases to be zero though all seeds are."""
        values = self.outputs[output]
        vanish = all(value.vanishes for value in values)
        return None if vanish else self._walk.offset(self._equation, values)


def _lags(step: _Step, length: Number) -> list[tuple[int, bool, Matrix]]:
    """Return (lag d, whether all later lags are meant too, B R^d), B the outputs and the carries.

    Rows from 0 are outputs; carried value n is row -1 - n, seen after the last step.
    """
    ends = {(-1 - n, k): pattern for (n, k), pattern in identity(step.carried_shapes).items()}
    seen: Matrix = {**step.shown, **ends}
    found: list[tuple[int, bool, Matrix]] = []
    for lag in range(_FOLLOWED_LAGS + 1):
        if not seen or lag >= length:
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

    def __init__(self, length: Any, backwards: bool) -> None:
        self.length = length
        self.backwards = backwards
        self.same = Pattern.identity((length,))
        self.first = length - 1 if backwards else 0
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


def _zero(shape: Shape) -> Known:
    return Known(support=Pattern.zero(shape, ()))


CONTROL["cond"] = _cond
CONTROL["while"] = _while
CONTROL["scan"] = _scan
CONTROL["custom_linear_solve"] = _linear_solve


_EQUATIONS = 2048
_BRIEF = 128
"""Equations up to which steps are followed one by one only because the first is another."""
_SHORT = 512
"""Equations up to which steps are followed one by one, before they are read at once."""


def worth_unrolling(equation: Any, most: int = _EQUATIONS) -> bool:
    """Return whether a scan is short enough to be followed step by step."""
    inside = len(body(equation.params["jaxpr"]).equations)
    length = equation.params["length"]
    return not is_symbolic_dim(length) and 0 < length * inside <= most


def unrolled(walk: Walk, equation: Any, operands: list[Traced]) -> list[Traced]:
    """Return what a scan makes, from one run of its body for each step."""
    constants, carried = loop_parts(equation)
    length = equation.params["length"]
    carry = operands[constants : constants + carried]
    stacked: list[list[tuple[int, Traced]]] = [[] for _ in equation.outvars[carried:]]
    shapes = [walk.shape(v) for v in equation.invars[constants + carried :]]
    order = range(length)
    for step in reversed(order) if equation.params["reverse"] else order:
        inputs = [
            _at(value, step, shape)
            for value, shape in zip(operands[constants + carried :], shapes, strict=True)
        ]
        results = walk.run(equation.params["jaxpr"], [*operands[:constants], *carry, *inputs])
        carry = results[:carried]
        for found, value in zip(stacked, results[carried:], strict=True):
            found.append((step, value))
    for found, variable in zip(stacked, equation.outvars[carried:]):
        shape = walk.shape(variable)
        parts = [(_place(step, shape[1:], length), value) for step, value in found]
        carry = [*carry, _through(walk, equation, parts, shape)]
    return carry


def _at(value: Traced, step: int, shape: tuple[int, ...]) -> Traced:
    """Return one step's part of a stacked input."""
    part = _place(step, shape[1:], shape[0]).T
    reads = {seed: part @ pattern for seed, pattern in value.reads.items()}
    return Traced(reads, _entry(value, step), value.offset)


@maps.remembered
def _place(step: int, shape: tuple[int, ...], length: int) -> Pattern:
    """Return how one step's array lies in the stack of all."""
    when = Pattern.from_axes((length,), (), [(0, None, step, step)])
    return maps.product(when, Pattern.identity(shape))


def _access(walk: Walk, equation: Any, operands: list[Traced]) -> tuple[list[Traced], Traced]:
    """Return what an equation on a cell makes, and what the cell holds afterwards."""
    name = equation.primitive.name
    held = operands[0] if operands else Traced()
    if name in ("new_ref", "freeze", "free_ref", "empty_ref"):
        return [held for _ in equation.outvars], held
    shape = walk.shape(equation.invars[0])
    part = walk.shape(equation.outvars[0] if name == "get" else equation.invars[1])
    whole = part == shape
    if not whole:
        walk.note(equation, "a part of a mutable array counts as all of it")
    read = Pattern.identity(shape) if whole else Pattern.dense(part, shape)
    seen = _through(walk, equation, [(read, held)], part)
    if name == "get":
        return [seen], held
    parts = [(read.T, operands[1])]
    if name == "addupdate" or not whole:
        parts.append((Pattern.identity(shape), held))
    made = [seen] if name == "swap" else []
    return made, _through(walk, equation, parts, shape)


def _through(
    walk: Walk, equation: Any, parts: Sequence[tuple[Pattern, Traced]], shape: tuple[int, ...]
) -> Traced:
    """Return what is made of several values, each read through a pattern."""
    found: dict[int, list[Pattern]] = {}
    for local, value in parts:
        for seed, pattern in value.reads.items():
            found.setdefault(seed, []).append(walk.compose(local, pattern))
    values = [value for _, value in parts]
    known = MASKED if any(map(_may_be_masked, values)) else None
    if any(value.nonzero is not None for value in values):
        regions = [
            local.rows() if value.nonzero is None else local @ value.nonzero
            for local, value in parts
        ]
        known = Known(support=Pattern.union(regions), murky=known is MASKED)
    vanishes = all(value.vanishes for value in values)
    return Traced(union(found), known, None if vanishes else walk.offset(equation, values))


for _name in ("new_ref", "empty_ref", "get", "swap", "addupdate", "freeze", "free_ref"):
    CELLS[_name] = _access
