"""What a rule promises beyond its gradient: batches, transposes, implementations, one by one.

Each part is a function from a bench, which is a rule alone at one point, to nothing where it holds
or to what is wrong. All numbers are computed in NumPy from traced programs, lifted to float64.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.checking.evidence import near, signed
from gradlab.checking.forms import subject_of_program
from gradlab.checking.laws.entries import entry_name
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.errors import GradlabError
from gradlab.references import LIMIT, Slope, finite_differences, inner, known, unit_roundoff
from gradlab.report import Entry, PartStatus, Rule, RulePart
from gradlab.tracing import (
    Meeting,
    NotStrippable,
    Program,
    TooLong,
    iterates,
    rule_inputs,
    run_lifted,
    strip,
)
from gradlab.tracing.jaxprs import Abstract, as_flat, body
from gradlab.tracing.leaves import is_inexact

__all__ = ["judge_parts", "judged_rules"]

Array = np.ndarray[Any, Any]
Flat = Callable[..., Sequence[Any]]

_TURNS, _SLACK, _SETS, _ROWS = 4096, 1e-9, 3, 64


def judged_rules(
    rules: tuple[Rule, ...], program: Program, values: Any, seed: int
) -> tuple[Rule, ...]:
    """Return the rules of a checked program, with a verdict on every part beyond its gradient.

    Args:
        rules: as they were listed.
        program: the program that holds them.
        values: its inputs by name.
        seed: of everything random.
    """
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


class _Bench:
    """A rule alone, at one point: what its parts are held against."""

    def __init__(self, meeting: Meeting, trial: Trial) -> None:
        self.meeting, self.trial, self.program = meeting, trial, meeting.program
        self.arrays = [np.asarray(trial.values[name]) for name in self.program.in_names]
        self.wrt = [self.program.in_names.index(t.path) for t in trial.subject.targets]
        self.floats = [is_inexact(aval.dtype) for aval in self.program.out_avals]

    def run(self, function: Flat, *arrays: Any) -> list[Array]:
        """Return what a function of flat arrays gives in float64, without compiling it."""
        with jax.enable_x64(self.program.x64):
            jaxpr = jax.make_jaxpr(function)(*arrays)
        return run_lifted(jaxpr, arrays, _TURNS)

    def moving(self, function: Flat | None = None) -> Flat:
        """Return the rule as a function of its float operands, with its float outputs."""
        run = self.program.flat if function is None else function

        def moved(*values: Any) -> list[Any]:
            given = list(map(jnp.asarray, self.arrays))
            for position, value in zip(self.wrt, values):
                given[position] = value
            return [y for y, keep in zip(run(*given), self.floats) if keep]

        return moved

    @functools.cached_property
    def moved(self) -> list[Array]:
        """The operands that are differentiated."""
        return [self.arrays[position] for position in self.wrt]

    @functools.cached_property
    def tangents(self) -> list[Array]:
        """One tangent for each of them."""
        paths = [self.program.in_names[position] for position in self.wrt]
        return [np.asarray(self.trial.tangents[path]) for path in paths]

    @functools.cached_property
    def upstreams(self) -> list[Array]:
        """One upstream for each float output."""
        return [np.asarray(value) for value in self.trial.upstreams.values()]

    @functools.cached_property
    def scatter(self) -> float:
        """How far rounding moves the largest number of the rule, in the dtype that it runs in."""
        both = self.trial.drawn(self.trial.draws)[1 if self.trial.subject.opaque else 0]
        found = [known(e.scatter) for estimates in both.values() for e in estimates]
        return max((float(np.max(s, initial=0.0)) for s in found), default=0.0)

    def one(self, i: int) -> Flat:
        """Return the rule as a function of one of its operands."""
        flat = self.moving()
        return lambda v: flat(*(v if k == i else a for k, a in enumerate(self.moved)))

    @functools.cached_property
    def believed(self) -> Flat | None:
        """The expansion as a function of the float operands; None where there is none."""
        found = self.trial.subject.believed
        return None if found is None else self.moving(found.flat)

    def slope(self) -> list[Array]:
        """Return the outputs' slopes along the tangents, by finite differences of the rule."""
        return [np.asarray(s.value) for s in self._slopes]

    @property
    def slope_error(self) -> float:
        """How far these slopes may be off, with a margin."""
        return LIMIT * max(float(np.max(known(np.asarray(s.error)))) for s in self._slopes)

    @functools.cached_property
    def _slopes(self) -> list[Slope]:
        flat, wide = self.moving(), [widen(x) for x in self.moved]

        def at(steps: Sequence[float]) -> list[list[Array]]:
            return [
                self.run(flat, *(x + t * d for x, d in zip(wide, self.tangents))) for t in steps
            ]

        return finite_differences(at)

    def hold(
        self,
        actual: Sequence[Any],
        expected: Sequence[Any],
        says: str,
        name: str,
        slack: float = 0.0,
    ) -> None:
        """Compare arrays, entry by entry; `slack` is allowed beyond rounding.

        Raises:
            _Wrong: they differ by more than rounding; `says` what the expected ones are.
        """
        for k, (mine, other) in enumerate(zip(actual, expected, strict=True)):
            got, right = widen(np.asarray(mine)), widen(np.asarray(other))
            label = f"{name}[{k}]" if len(expected) > 1 else name
            if got.shape != right.shape:
                raise _Wrong(f"{label} has shape {got.shape}, {says} {right.shape}")
            size = float(np.max(np.abs(right[np.isfinite(right)]), initial=0.0))
            coarse = unit_roundoff(np.float32) if self.trial.subject.opaque else _SLACK
            most = slack + 16 * LIMIT * self.scatter + coarse * (np.abs(right) + size * _SLACK)
            off = np.abs(got - right)
            same = (np.isnan(got) & np.isnan(right)) | (got == right)
            wrong = ~(off <= most) & ~same & np.isfinite(right)
            if wrong.any():
                at = np.unravel_index(int(np.argmax(np.where(wrong, off, -1.0))), off.shape)
                index = tuple(map(int, at))
                text = f"{entry_name(label, index)} is {got[index]:.6g}, {says} {right[index]:.6g}"
                relative = float(off[index] / abs(right[index])) if right[index] else np.inf
                entry = Entry(
                    label, index, complex(got[index]), complex(right[index]),
                    float(off[index] / max(float(np.max(most)), 1e-300)), "rules", "", relative,
                )  # fmt: skip
                raise _Wrong(text, entry)


def _judged(name: str, bench: _Bench) -> RulePart:
    status: PartStatus = "right"
    reason, worst = "", None
    try:
        reason = _PARTS[name](bench) or ""
        status = "absent" if reason else "right"
    except _Wrong as error:
        status, reason, worst = "wrong", str(error), error.worst
    except NotImplementedError as error:
        status, reason = "absent", _first_line(error)
    except TooLong:
        status, reason = "undecided", "a loop is too long to be run here"
    except GradlabError as error:
        status, reason = "undecided", str(error)
    except Exception as error:  # whatever the user's rule raises
        status, reason = "cannot run", f"{type(error).__name__}: {_first_line(error)}"
    return RulePart(name, status, reason, worst)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _implementation(bench: _Bench) -> None:
    """Hold the eager result to the compiled one: value, shape, dtype, weak type."""
    eager, compiled = _results(bench)
    unit = max(unit_roundoff(a.dtype) if is_inexact(a.dtype) else 0.0 for a in compiled)
    for k, (mine, other) in enumerate(zip(eager, compiled, strict=True)):
        if _type(mine) != _type(other):
            raise _Wrong(f"output[{k}] is {_type(mine)} eagerly, {_type(other)} compiled")
        a, b = widen(np.asarray(mine)), widen(np.asarray(other))
        size = float(np.max(np.abs(b[np.isfinite(b)]), initial=0.0))
        own = bench.trial.drawn(bench.trial.draws)[1]
        drawn = [known(e.scatter) for e in own.get("rule", [])[k : k + 1]]
        spread = max((float(np.max(s, initial=0.0)) for s in drawn), default=0.0)
        wrong = np.abs(a - b) > 16 * LIMIT * (unit * size + spread)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            where = entry_name("output", at)
            raise _Wrong(f"{where} is {a[at]:.6g} eagerly, {b[at]:.6g} compiled")


def _abstract(bench: _Bench) -> None:
    """Hold the promised shape, dtype and weak type to those of what comes."""
    promised = [_type(aval) for aval in bench.program.out_avals]
    for how, results in zip(("eager", "compiled"), _results(bench)):
        for k, (result, promise) in enumerate(zip(results, promised, strict=True)):
            if _type(result) != promise:
                raise _Wrong(f"it promises {promise}, the {how} output[{k}] is {_type(result)}")


def _results(bench: _Bench) -> tuple[list[Any], list[Any]]:
    with jax.enable_x64(bench.program.x64):
        arrays = [jnp.asarray(a) for a in bench.arrays]
        return bench.program.flat(*arrays), list(jax.jit(bench.program.flat)(*arrays))


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
        expected = [*bench.run(bench.moving(), *bench.moved), *bench.slope()]
    half = len(found) // 2
    bench.hold(found[:half], expected[:half], "the function returns", "the value")
    slack = bench.slope_error if bench.believed is None else 0.0
    bench.hold(found[half:], expected[half:], "expected", "the tangent", slack)


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
    slope = sum(_inner(u, t) for u, t in zip(bench.upstreams, bench.slope()))
    claim = sum(_inner(t, g) for t, g in zip(bench.tangents, found[outputs:]))
    size = sum(float(np.abs(u).sum()) for u in bench.upstreams)
    says = "finite differences give"
    bench.hold([claim], [slope], says, "its product", size * bench.slope_error)


def _transpose(bench: _Bench) -> str:
    """Hold the transpose, for each operand in which the rule is linear, to <A v, u> = <v, A' u>."""
    linear = [i for i in range(len(bench.moved)) if _is_linear(bench, i)]
    for i in linear:
        apply = bench.one(i)

        def transposed(*upstreams: Any, i: int = i, apply: Flat = apply) -> Any:
            like = Abstract(bench.moved[i].shape, bench.moved[i].dtype)
            return jax.linear_transpose(lambda v: list(apply(v)), like)(list(upstreams))

        (found,) = bench.run(transposed, *bench.upstreams)
        if found.shape != bench.moved[i].shape:
            raise _Wrong(f"it has shape {found.shape}, the operand {bench.moved[i].shape}")
        basis = np.eye(found.size, dtype=bench.moved[i].dtype)[:_ROWS].reshape(-1, *found.shape)
        expected = [
            sum(_inner(u, y) for u, y in zip(bench.upstreams, bench.run(apply, row)))
            for row in basis
        ]
        path = bench.program.in_names[bench.wrt[i]]
        mine = found.reshape(-1)[: len(expected)]
        bench.hold([mine], [np.asarray(expected)], "<A v, u> gives", f"the transpose for {path}")
    return "" if linear else "it is linear in no operand"


def _is_linear(bench: _Bench, i: int) -> bool:
    apply, rng = bench.one(i), np.random.default_rng(7)
    like = bench.moved[i]  # sums of float32 would be rounded
    a, b = (widen(signed(rng, like.shape, like.dtype)) for _ in range(2))
    both, first, second = (bench.run(apply, v) for v in (a + 2 * b, a, b))
    try:
        sums = [x + 2 * y for x, y in zip(first, second)]
        bench.hold(both, sums, "", "")
        bench.hold(bench.run(apply, 0 * a), [0 * y for y in sums], "", "")
    except _Wrong:
        return False
    return any(np.any(y) for y in both)


def _batching(bench: _Bench) -> str:
    """Hold batches of the value and of each derivative to a loop."""
    count = len(bench.moved)
    flat = bench.moving()
    _batched(bench, flat, bench.moved, "", (1, 3))
    for what, derivative, further in (
        ("of the forward derivative ", _jvp, bench.tangents),
        ("of the gradient ", _vjp, bench.upstreams),
    ):
        function, given = derivative(flat, count), [*bench.moved, *further]
        try:
            bench.run(function, *given)
        except Exception:  # there is no such derivative, or another part says that it cannot run
            continue
        _batched(bench, function, given, what, (3,))
    return ""


def _batched(
    bench: _Bench, flat: Flat, given: list[Array], what: str, sizes: Sequence[int]
) -> None:
    rng = np.random.default_rng(bench.trial.seed + 5)
    others = [[near(a, rng) for a in given] for _ in range(2)]
    for size, chosen in itertools.product(sizes, _sets(len(given))):
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
                where = f"{what}along {_listed(axes)}, row {k}"
                bench.hold([y[k] for y in batch], expected, "a loop gives", where)


def _listed(axes: Sequence[int]) -> str:
    """Return axes in words."""
    return " and ".join(f"axis {axis}" for axis in dict.fromkeys(axes))


def _sets(count: int) -> Iterator[tuple[int, ...]]:
    """Yield all operands, then each alone, then other sets of few."""
    yield tuple(range(count))
    for size in range(1, count) if count <= _SETS else (1,):
        yield from itertools.combinations(range(count), size)


def _axes(ranks: Sequence[int], full: bool) -> Iterator[tuple[int, ...]]:
    """Yield the axes along which operands of these ranks are batched."""
    several = [sorted({0, min(1, rank), rank}) if full else [0] for rank in ranks]
    if len(ranks) <= _SETS - 1:
        yield from itertools.product(*several)
    else:
        yield from zip(*([*s, *s, *s][:3] for s in several))


def _remat(bench: _Bench) -> None:
    """Hold gradients under `jax.checkpoint`, and with each output unused, to what they are."""
    count, flat = len(bench.moved), bench.moving()
    plain = bench.run(_vjp(flat, count), *bench.moved, *bench.upstreams)
    again = bench.run(_vjp(jax.checkpoint(flat), count), *bench.moved, *bench.upstreams)
    outputs = len(bench.upstreams)
    says = "without it"
    bench.hold(again[outputs:], plain[outputs:], says, "under jax.checkpoint, the gradient")
    for k in range(outputs if outputs > 1 else 0):
        kept = [u for i, u in enumerate(bench.upstreams) if i != k]
        zeros = [0 * u if i == k else u for i, u in enumerate(bench.upstreams)]

        def fewer(*values: Any, k: int = k) -> list[Any]:
            return [y for i, y in enumerate(flat(*values)) if i != k]

        found = bench.run(_vjp(fewer, count), *bench.moved, *kept)[outputs - 1 :]
        expected = bench.run(_vjp(flat, count), *bench.moved, *zeros)[outputs:]
        bench.hold(
            found, expected, "with an upstream of zero", f"with output[{k}] unused, the gradient"
        )


def _solve(bench: _Bench, back: bool = False) -> str:
    """Hold A (solve(b)) to b; `back`: the same for the transpose."""
    maps = _maps(bench)
    forth, inverse = (
        (maps["vecmat"], maps["transpose_solve"]) if back else (maps["matvec"], maps["solve"])
    )
    if forth is None or inverse is None:
        return "there is no transposed solve"
    right = maps["right"]
    found = bench.run(lambda *v: forth(*inverse(*v)), *right)
    size = max(float(np.max(np.abs(b), initial=0.0)) for b in right)
    unit = max(unit_roundoff(b.dtype) for b in right)  # a constant matrix keeps its dtype
    slack = (1e-2 if iterates(bench.program) else 1024 * unit) * size
    name = "vecmat(transpose_solve(b))" if back else "matvec(solve(b))"
    bench.hold(found, right, "b is", name, slack)
    return ""


def _vecmat(bench: _Bench) -> str:
    """Hold vecmat to the transpose of matvec, on unit vectors."""
    maps = _maps(bench)
    forth, back, right = maps["matvec"], maps["vecmat"], maps["right"]
    if back is None:
        return "there is no transposed solve"
    sizes = [b.size for b in right]

    def rows(function: Flat) -> Array:
        columns = []
        for k in range(min(sum(sizes), _ROWS)):
            unit = np.zeros(sum(sizes), right[0].dtype)
            unit[k] = 1
            parts = [
                p.reshape(b.shape) for p, b in zip(np.split(unit, np.cumsum(sizes)[:-1]), right)
            ]
            columns.append(np.concatenate([np.ravel(y) for y in bench.run(function, *parts)]))
        return np.stack(columns)[:, :_ROWS]

    bench.hold([rows(back)], [rows(forth).T], "the transpose of matvec has", "the matrix of vecmat")
    return ""


def _maps(bench: _Bench) -> dict[str, Any]:
    """Return the four maps of a `custom_linear_solve`, and its right-hand side."""
    equation = next(
        e for e in body(bench.program.jaxpr).equations if e.primitive.name == "custom_linear_solve"
    )
    lengths, programs = equation.params["const_lengths"], equation.params["jaxprs"]
    first, found = 0, {}
    for name in ("matvec", "vecmat", "solve", "transpose_solve"):
        count = getattr(lengths, name)
        constants, program = bench.arrays[first : first + count], getattr(programs, name)
        found[name] = None if program is None else functools.partial(as_flat(program), *constants)
        first += count
    return {**found, "right": bench.arrays[first:]}


def _inner(a: Any, b: Any) -> float:
    return inner(widen(np.asarray(a)), widen(np.asarray(b)))


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
