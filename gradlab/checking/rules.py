"""What a rule promises beyond its gradient: batches, transposes, implementations, one by one.

Each part is a function from a bench, which is a rule alone at one point, to nothing where it holds
or to what is wrong. All numbers are computed in float64, each with the scatter of its rounding.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.checking.differences import along
from gradlab.checking.evidence import near, signed
from gradlab.checking.forms import subject_of_program
from gradlab.checking.laws.behaviour import sets
from gradlab.checking.laws.entries import entry_name, worst_entry
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array
from gradlab.errors import GradlabError
from gradlab.references import Estimate, Evaluation, Slope, finite_differences, judge, known
from gradlab.references.interpreted import Interpreted
from gradlab.references.setting import Setting
from gradlab.report import Entry, PartStatus, Rule, RulePart
from gradlab.tracing import (
    Meeting,
    NotStrippable,
    Program,
    TooLong,
    derive,
    iterates,
    rule_inputs,
    strip,
)
from gradlab.tracing.callbacks import Refused, run_callbacks
from gradlab.tracing.jaxprs import Abstract, as_flat, body
from gradlab.tracing.leaves import in_numpy, is_inexact

Flat = Callable[..., Sequence[Any]]

_FURTHER, _SETS = 40, 3  # turns for which a loop runs on; operands of which all sets are batched


def judged_rules(
    rules: tuple[Rule, ...], program: Program, values: Any, seed: int
) -> tuple[Rule, ...]:
    """Return the rules of a checked program, with a verdict on every part beyond its gradient."""
    if not any(rule.parts for rule in rules):
        return rules
    places = {(rule.name, rule.defined, rule.source): rule for rule in rules}
    judged: dict[tuple[str, str, str], Rule] = {}
    for meeting in rule_inputs(program, [values[name] for name in program.in_names]):
        place = meeting.rule.name, meeting.rule.defined, meeting.rule.source
        differentiated = meeting.rule.parts and meeting.wrt and not meeting.shielded
        new = place in places and place not in judged
        if new and differentiated and not (meeting.bound or meeting.broken):
            parts = judge_parts(meeting, _trial(meeting, seed))
            if len(program.jaxpr.jaxpr.eqns) > 1:
                parts = tuple(map(_not_asked, parts))
            judged[place] = dataclasses.replace(places[place], parts=parts, calls=meeting.calls)
    return tuple(
        judged.get(place, dataclasses.replace(rule, parts=())) for place, rule in places.items()
    )


def _not_asked(part: RulePart) -> RulePart:
    """Excuse a part that cannot run by itself: the function around the rule does without it."""
    if part.status != "cannot run":
        return part
    return dataclasses.replace(part, status="undecided", reason=f"the rule raises {part.reason}")


def judge_parts(meeting: Meeting, trial: Trial) -> tuple[RulePart, ...]:
    """Return the verdict on each part of a rule, at the point of a trial of the rule alone."""
    bench = _Bench(meeting, trial)
    return tuple(_judged(name, bench) for name in meeting.rule.parts)


def _trial(meeting: Meeting, seed: int) -> Trial:
    program = dataclasses.replace(meeting.program, name=meeting.rule.name)
    point = dict(zip(program.in_names, meeting.points[0]))
    try:
        believed: Program | None = strip(program)
    except NotStrippable:
        believed = None
    return Trial(subject_of_program(program, point, believed, "", wrt=meeting.wrt), point, seed)


class _Wrong(Exception):
    """A part is wrong; it holds the reason, and the entry that is furthest off."""

    def __init__(self, reason: str, worst: Entry | None = None) -> None:
        super().__init__(reason)
        self.worst = worst


class _Raises(Exception):
    """The user's rule raises; the cause is what it raised."""


class _Bench:
    """A rule alone, at one point: what its parts are held against."""

    def __init__(self, meeting: Meeting, trial: Trial) -> None:
        self.trial, self.program, self.params = trial, meeting.program, meeting.equation.params
        self.arrays = [in_numpy(trial.values[name]) for name in self.program.in_names]
        self.wrt = [self.program.in_names.index(t.path) for t in trial.subject.targets]
        self.floats = [is_inexact(aval.dtype) for aval in self.program.out_avals]
        self.moved = [self.arrays[position] for position in self.wrt]
        self.tangents = [np.asarray(trial.tangents[t.path]) for t in trial.subject.targets]
        self.upstreams = [np.asarray(value) for value in trial.upstreams.values()]

    def traced(self, function: Flat, arrays: Sequence[Any]) -> Program:
        """Return a function of flat arrays as a program."""
        plain = [np.asarray(array) for array in arrays]
        small = {"f": np.float32, "c": np.complex64}
        dtypes = [
            small.get(a.dtype.kind, a.dtype) if a.dtype.itemsize > 4 and not self.program.x64
            else a.dtype for a in plain
        ]  # fmt: skip
        avals = [Abstract(a.shape, dtype) for a, dtype in zip(plain, dtypes)]
        names = [str(i) for i in range(len(plain))]
        try:
            return derive(self.program, function, avals, names, (), lambda: None)
        except GradlabError:
            raise
        except Exception as error:  # whatever the user's rule raises
            raise _Raises from error

    def run(self, function: Flat, *arrays: Any, further: int = 0) -> list[Estimate]:
        """Return what a function of flat arrays gives in float64, and how rounding moves it.

        `further`: for how many turns loops that end by their numbers run on, without noise.
        """
        program = self.traced(function, arrays)
        given = {name: widen(array) for name, array in zip(program.in_names, arrays)}
        if further:
            values = Interpreted(Setting({"run": program}, {}, None, {}), further).values(given)
            return [Estimate(value, np.zeros(np.shape(value))) for value in values["run"]]
        evaluation, seed = Evaluation(run=program), self.trial.seed
        both = run_callbacks(lambda: evaluation.both(given, seed=seed))
        return both[self.trial.subject.opaque]["run"]

    def moving(self, function: Flat | None = None) -> Flat:
        """Return the rule as a function of its float operands, with its float outputs."""
        run = self.program.flat if function is None else function

        def moved(*values: Any) -> list[Any]:
            given = list(map(jnp.asarray, self.arrays))
            for position, value in zip(self.wrt, values):
                given[position] = value
            return [y for y, keep in zip(run(*given), self.floats) if keep]

        return moved

    def one(self, i: int) -> Flat:
        """Return the rule as a function of one of its operands."""
        flat = self.moving()
        return lambda v: flat(*(v if k == i else a for k, a in enumerate(self.moved)))

    @property
    def believed(self) -> Flat | None:
        """The expansion as a function of the float operands; None where there is none."""
        found = self.trial.subject.believed
        return None if found is None else self.moving(found.flat)

    @functools.cached_property
    def slopes(self) -> list[Estimate]:
        """The outputs' slopes along the tangents, by finite differences of the rule."""
        program, wide = self.traced(self.moving(), self.moved), [widen(x) for x in self.moved]
        evaluation = Evaluation(run=program)

        def at(steps: Sequence[float]) -> list[list[Array]]:
            points = ([x + t * d for x, d in zip(wide, self.tangents)] for t in steps)
            return [evaluation.values(dict(zip(program.in_names, p)))["run"] for p in points]

        found: list[Slope] = run_callbacks(lambda: finite_differences(at))
        return [Estimate(np.asarray(each.value), known(np.asarray(each.error))) for each in found]

    def hold(
        self, actual: Sequence[Estimate], expected: Sequence[Estimate], says: str, name: str
    ) -> None:
        """Compare results, entry by entry, by their rounding."""
        for k, (mine, right) in enumerate(zip(actual, expected, strict=True)):
            label = f"{name}[{k}]" if len(expected) > 1 else name
            if mine.value.shape != right.value.shape:
                raise _Wrong(f"{label} has shape {mine.value.shape}, {says} {right.value.shape}")
            verdict = judge(mine.value, right, mine, np.float64)
            if verdict.wrong.any():
                worst = worst_entry(verdict, "rules", label)
                place, wanted = entry_name(label, worst.index), f"{says} {worst.expected:.6g}"
                raise _Wrong(f"{place} is {worst.actual:.6g}, {wanted}", worst)


def _judged(name: str, bench: _Bench) -> RulePart:
    status: PartStatus
    worst = None
    try:
        reason = _PARTS[name](bench) or ""
        status = "absent" if reason else "right"
    except _Wrong as error:
        status, reason, worst = "wrong", str(error), error.worst
    except _Raises as error:
        cause = error.__cause__
        text = str(cause).partition("\n")[0]
        absent = isinstance(cause, NotImplementedError)
        status = "absent" if absent else "cannot run"
        reason = text if absent else ": ".join(filter(None, (type(cause).__name__, text)))
    except TooLong:
        status, reason = "undecided", "a loop inside is too long to run eagerly"
    except (GradlabError, Refused) as error:
        status, reason = "undecided", str(error)
    return RulePart(name, status, reason, worst)


def _implementation(bench: _Bench) -> None:
    """Hold the eager result to the compiled one: value, shape, dtype, weak type."""
    own = bench.trial.drawn(bench.trial.draws)[1].get("rule", [])
    for k, (mine, other) in enumerate(zip(*_results(bench), strict=True)):
        if _type(mine) != _type(other):
            raise _Wrong(f"output[{k}] is {_type(mine)} eagerly, {_type(other)} compiled")
        spread = own[k].scatter if k < len(own) else np.zeros(np.shape(other))
        compiled, eager = (Estimate(widen(np.asarray(y)), known(spread)) for y in (other, mine))
        verdict = judge(eager.value, compiled, eager, other.dtype)
        if verdict.wrong.any():
            at = verdict.worst or ()
            where, values = entry_name("output", at), (eager.value[at], compiled.value[at])
            raise _Wrong(f"{where} is {values[0]:.6g} eagerly, {values[1]:.6g} compiled")


def _abstract(bench: _Bench) -> None:
    """Hold the promised shape, dtype and weak type to those of what comes."""
    promised = [_type(aval) for aval in bench.program.out_avals]
    for how, results in zip(("eager", "compiled"), _results(bench)):
        for k, (result, promise) in enumerate(zip(results, promised, strict=True)):
            if _type(result) != promise:
                raise _Wrong(f"it promises {promise}, the {how} output[{k}] is {_type(result)}")


def _results(bench: _Bench) -> tuple[list[Any], list[Any]]:
    try:
        with jax.enable_x64(bench.program.x64):
            arrays = [jnp.asarray(a) for a in bench.arrays]
            return bench.program.flat(*arrays), list(jax.jit(bench.program.flat)(*arrays))
    except Exception as error:  # whatever the user's implementation raises
        raise _Raises from error


def _type(value: Any) -> str:
    """Return dtype, shape and weakness, as JAX writes them: float32[3]."""
    weak = ", weak" if getattr(value, "weak_type", False) else ""
    return f"{value.dtype}[{','.join(map(str, value.shape))}]{weak}"


def _jvp(flat: Flat, count: int) -> Flat:
    def pushed(*both: Any) -> list[Any]:
        outputs, tangents = jax.jvp(lambda *x: list(flat(*x)), both[:count], both[count:])
        return [*outputs, *tangents]

    return pushed


def _vjp(flat: Flat, count: int) -> Flat:
    def pulled(*both: Any) -> list[Any]:
        outputs, back = jax.vjp(lambda *x: list(flat(*x)), *both[:count])
        return [*outputs, *back(list(both[count:]))]

    return pulled


def _linearised(flat: Flat, count: int) -> Flat:
    def pushed(*both: Any) -> list[Any]:
        outputs, line = jax.linearize(lambda *x: list(flat(*x)), *both[:count])
        return [*outputs, *line(*both[count:])]

    return pushed


def _forward(bench: _Bench, derivative: Callable[[Flat, int], Flat] = _jvp) -> None:
    """Hold outputs and tangents to autodiff of the expansion; without one, to differences."""
    count, given = len(bench.moved), [*bench.moved, *bench.tangents]
    found = bench.run(derivative(bench.moving(), count), *given)
    if bench.believed is not None:
        expected = bench.run(_jvp(bench.believed, count), *given)
    else:
        expected = [*bench.run(bench.moving(), *bench.moved), *bench.slopes]
    half = len(found) // 2
    bench.hold(found[:half], expected[:half], "the function returns", "the value")
    bench.hold(found[half:], expected[half:], "expected", "the tangent")


def _reverse(bench: _Bench) -> None:
    """Hold outputs and gradients to autodiff of the expansion; without one, to differences."""
    count, given = len(bench.moved), [*bench.moved, *bench.upstreams]
    found = bench.run(_vjp(bench.moving(), count), *given)
    outputs = len(bench.upstreams)
    value = bench.run(bench.believed or bench.moving(), *bench.moved)
    bench.hold(found[:outputs], value, "the function returns", "the value")
    if bench.believed is not None:
        expected = bench.run(_vjp(bench.believed, count), *given)
        bench.hold(found[outputs:], expected[outputs:], "expected", "the gradient")
        return
    slope = _paired(bench.upstreams, bench.slopes)
    claim = _paired(bench.tangents, found[outputs:])
    bench.hold([claim], [slope], "finite differences give", "its product")


def _paired(weights: Sequence[Any], found: Sequence[Estimate]) -> Estimate:
    """Return the sum of products of arrays with results, and its scatter."""
    value, spread, _ = along(weights, found)
    return Estimate(np.asarray(value), np.asarray(spread))


def _transpose(bench: _Bench) -> str:
    """Hold the transpose, for each operand in which the rule is linear, to <A v, u> = <v, A' u>."""
    fixed = bench.params.get("num_callee_consts", 0) + bench.params.get("num_res", 0)
    linear = [i for i, k in enumerate(bench.wrt) if k >= fixed and _is_linear(bench, i)]
    for i in linear:
        apply, like = bench.one(i), Abstract(bench.moved[i].shape, bench.moved[i].dtype)

        def transposed(*upstreams: Any, apply: Flat = apply, like: Any = like) -> Any:
            return jax.linear_transpose(lambda v: list(apply(v)), like)(list(upstreams))

        path = bench.program.in_names[bench.wrt[i]]
        _adjoint(bench, apply, transposed, [bench.moved[i]], f"the transpose for {path}: <A' u, v>")
    return "" if linear else "it is linear in no operand"


def _adjoint(bench: _Bench, forth: Flat, back: Flat, like: Sequence[Array], name: str) -> None:
    """Hold <back u, v> to <u, forth v>, at random v."""
    rng = np.random.default_rng([bench.trial.seed, 7])
    ahead = [signed(rng, each.shape, each.dtype) for each in like]
    onto = bench.run(forth, *ahead)
    above = [signed(rng, y.value.shape, y.value.dtype) for y in onto]
    found = bench.run(back, *above)
    for mine, operand in zip(found, like, strict=True):
        if mine.value.shape != operand.shape:
            raise _Wrong(f"it has shape {mine.value.shape}, the operand {operand.shape}")
    bench.hold([_paired(ahead, found)], [_paired(above, onto)], "<A v, u> is", name)


def _is_linear(bench: _Bench, i: int) -> bool:
    apply, rng = bench.one(i), np.random.default_rng(7)
    like = bench.moved[i]
    a, b = (widen(signed(rng, like.shape, like.dtype)) for _ in range(2))
    both, first, second, none = (bench.run(apply, v) for v in (a + 2 * b, a, b, 0 * a))
    sums = [
        Estimate(x.value + 2 * y.value, np.hypot(x.scatter, 2 * y.scatter))
        for x, y in zip(first, second)
    ]
    try:
        bench.hold(both, sums, "", "")
    except _Wrong:
        return False
    return any(np.any(y.value) for y in both) and not any(np.any(y.value) for y in none)


def _batching(bench: _Bench) -> str:
    """Hold batches of the value and of each derivative to a loop."""
    count, flat = len(bench.moved), bench.moving()
    _batched(bench, flat, bench.moved, "", (1, 3))
    for what, derivative, further in (
        ("of the forward derivative ", _jvp, bench.tangents),
        ("of the gradient ", _vjp, bench.upstreams),
    ):
        function, given = derivative(flat, count), [*bench.moved, *further]
        try:
            bench.traced(function, given)
        except _Raises:  # there is no such derivative, or another part says that it cannot run
            continue
        _batched(bench, function, given, what, (3,))
    return ""


def _batched(
    bench: _Bench, flat: Flat, given: list[Array], what: str, sizes: Sequence[int]
) -> None:
    rng = np.random.default_rng(bench.trial.seed + 5)
    others = [[near(a, rng) for a in given] for _ in range(2)]
    for size, chosen in itertools.product(sizes, sets(range(len(given)))):
        rows = [
            [a if i in chosen else b for i, (a, b) in enumerate(zip(row, given))]
            for row in [given, *others][:size]
        ]
        loop = [bench.run(flat, *row) for row in rows]
        for axes in _axes([np.ndim(given[i]) for i in chosen], full=not what and size > 1):
            places = dict(zip(chosen, axes))
            together = [
                np.stack([row[i] for row in rows], places[i]) if i in places else a
                for i, a in enumerate(given)
            ]
            mapped = jax.vmap(flat, in_axes=[places.get(i) for i in range(len(given))])
            batch = bench.run(mapped, *together)
            for k, expected in enumerate(loop):
                where = " and ".join(f"axis {axis}" for axis in dict.fromkeys(axes))
                row = [Estimate(y.value[k], y.scatter[k]) for y in batch]
                bench.hold(row, expected, "a loop gives", f"{what}along {where}, row {k}")


def _axes(ranks: Sequence[int], full: bool) -> Iterator[tuple[int, ...]]:
    """Yield the axes along which operands of these ranks are batched."""
    several = [sorted({0, min(1, rank), rank}) if full else [0] for rank in ranks]
    if len(ranks) <= _SETS - 1:
        yield from itertools.product(*several)
    else:
        yield from zip(*([*s, *s, *s][:3] for s in several))


def _remat(bench: _Bench) -> None:
    """Hold gradients under `jax.checkpoint`, and with each output unused, to what they are."""
    count, flat, outputs = len(bench.moved), bench.moving(), len(bench.upstreams)

    def gradients(function: Flat, upstreams: Sequence[Any]) -> list[Estimate]:
        found = bench.run(_vjp(function, count), *bench.moved, *upstreams)
        return found[len(upstreams) :]

    again, plain = (gradients(f, bench.upstreams) for f in (jax.checkpoint(flat), flat))
    bench.hold(again, plain, "without it", "under jax.checkpoint, the gradient")
    for k in range(outputs if outputs > 1 else 0):

        def fewer(*values: Any, k: int = k) -> list[Any]:
            return [y for i, y in enumerate(flat(*values)) if i != k]

        found = gradients(fewer, [u for i, u in enumerate(bench.upstreams) if i != k])
        zeros = [0 * u if i == k else u for i, u in enumerate(bench.upstreams)]
        says = "with an upstream of zero"
        bench.hold(found, gradients(flat, zeros), says, f"with output[{k}] unused, the gradient")


def _solve(bench: _Bench, back: bool = False) -> str:
    """Hold A (solve(b)) to b; `back`: the same for the transpose.

    What a loop leaves out is how far the result moves when it runs on.
    """
    maps, right = _maps(bench)
    forth, inverse = (maps[n] for n in (_BACK if back else _FORTH))
    if forth is None or inverse is None:
        return "there is no transposed solve"

    def both(*vectors: Any) -> Sequence[Any]:
        return forth(*inverse(*vectors))

    found = bench.run(both, *right)
    wanted = [Estimate(widen(b), np.zeros(b.shape)) for b in right]
    if iterates(bench.program):
        on = bench.run(both, *right, further=_FURTHER)
        left = (float(np.max(np.abs(a.value - b.value))) for a, b in zip(found, on))
        wanted = [Estimate(b.value, np.full(b.value.shape, off)) for b, off in zip(wanted, left)]
    name = "vecmat(transpose_solve(b))" if back else "matvec(solve(b))"
    bench.hold(found, wanted, "b is", name)
    return ""


def _vecmat(bench: _Bench) -> str:
    """Hold vecmat to the transpose of matvec."""
    maps, right = _maps(bench)
    forth, back = maps["matvec"], maps["vecmat"]
    if forth is None or back is None:
        return "there is no transposed solve"
    _adjoint(bench, forth, back, right, "<vecmat u, v>")
    return ""


_FORTH, _BACK = ("matvec", "solve"), ("vecmat", "transpose_solve")


def _maps(bench: _Bench) -> tuple[dict[str, Flat | None], list[Array]]:
    """Return the four maps of a `custom_linear_solve`, and its right-hand side."""
    equation = next(
        e for e in body(bench.program.jaxpr).equations if e.primitive.name == "custom_linear_solve"
    )
    lengths, programs = equation.params["const_lengths"], equation.params["jaxprs"]
    found: dict[str, Flat | None] = {}
    first = 0
    for name in ("matvec", "vecmat", "solve", "transpose_solve"):
        count = getattr(lengths, name)
        constants, program = bench.arrays[first : first + count], getattr(programs, name)
        found[name] = None if program is None else functools.partial(as_flat(program), *constants)
        first += count
    return found, bench.arrays[first:]


_PARTS: dict[str, Callable[[_Bench], str | None]] = {
    "implementation": _implementation,
    "abstract evaluation": _abstract,
    "forward derivative": _forward,
    "linearisation": lambda bench: _forward(bench, _linearised),
    "reverse": _reverse,
    "transpose": _transpose,
    "batching": _batching,
    "rematerialisation": _remat,
    "solve": _solve,
    "transposed solve": lambda bench: _solve(bench, True),
    "vecmat": _vecmat,
}
