"""Everything that was measured about one subject at one point; laws read it, and judge.

Nothing is computed before a law asks, and nothing twice. All lifted programs share one compiled
XLA program, which every law only feeds with other inputs.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.checking.points import Points
from gradlab.checking.probes import Dropped
from gradlab.checking.subject import Arrays, Subject, anywhere
from gradlab.checking.widen import widen
from gradlab.common.arrays import Array, DTypeLike
from gradlab.references import (
    DRAWS,
    Estimate,
    Evaluation,
    Slope,
    blocks,
    numpy_estimate,
    unit_roundoff,
)
from gradlab.references.estimates import hypot
from gradlab.references.interpreted import Interpreted
from gradlab.references.setting import Setting
from gradlab.tracing import opaque, widen_dtype
from gradlab.tracing.leaves import in_words, is_inexact
from gradlab.tracing.running import run_stepwise
from gradlab.tracing.settings import platform_here

Leaves = list[np.ndarray[Any, Any]]
Estimates = dict[str, list[Estimate]]

_LARGE = 1 << 20
_APART = 7919  # seeds of further draws
_FLOAT32 = 23  # binary digits
_ULP = 2.0**-52
_OTHER = 0.32  # relative: an output without half a digit in common is another one


class Evidence:
    """One subject at one point, under one upstream.

    Outputs come first in every list of results, then one gradient per target.
    """

    def __init__(
        self,
        subject: Subject,
        values: Arrays,
        seed: int,
        evaluation: Evaluation | None = None,
        place: Any = None,
    ) -> None:
        self.subject, self.values, self.seed, self.place = subject, values, seed, place
        self.upstreams = draw_upstreams(subject, seed)
        self.tangents = draw_tangents(subject, values, seed)
        self.point: Arrays = {**values, **self.upstreams}
        programs = programs_of(subject)
        if evaluation is None and programs:
            with self.placed():
                evaluation = Evaluation(**programs)
        self.evaluation = evaluation
        self._drawn: tuple[int, tuple[Estimates, Estimates] | None] = 0, None
        self._stepwise: dict[str, list[Any] | None] = {}
        self._crossed: dict[str, list[Any]] = {}
        self.lines: dict[int, tuple[Arrays, Slope]] = {}  # slopes that cost calls, by direction
        self.dropped = Dropped(subject.name)
        self.has_rule = subject.rule is not None
        self.has_reference = subject.reference is not None

    @property
    def runs(self) -> bool:
        """Whether the rule can be run at all."""
        return not any(complaint.kind == "refused" for complaint in self.subject.complaints)

    @property
    def primal(self) -> str:
        """The program that says what the outputs are."""
        return "reference" if self.has_reference else "forward"

    @property
    def outputs(self) -> int:
        """How many results are outputs; the rest are gradients."""
        return len(self.subject.outputs)

    @property
    def wide_point(self) -> Arrays:
        """Inputs and upstreams in float64."""
        return {name: widen(value) for name, value in self.point.items()}

    @functools.cached_property
    def full_point(self) -> Arrays:
        """Inputs, upstreams and tangents: all that the compiled program reads, in their place."""
        tangents = {f"tangent {name}": value for name, value in self.tangents.items()}
        every = {**self.point, **tangents}
        assert self.evaluation is not None
        return self.evaluation.placed(every)

    @property
    def formula(self) -> Estimates:
        """Every program lifted to float64, with the scatter of float64's own rounding."""
        return self.drawn(self.draws)[0]

    @property
    def accuracy(self) -> Estimates:
        """Every program lifted to float64, with the scatter of its own dtypes' rounding."""
        return self.drawn(self.draws)[1]

    @property
    def draws(self) -> int:
        """How often rounding is drawn, unless a verdict is close."""
        return DRAWS[0] if self.evaluation is None else self.evaluation.draws[0]

    @property
    def more_draws(self) -> Sequence[int]:
        """How often rounding is drawn for as long as a verdict is close."""
        return (DRAWS if self.evaluation is None else self.evaluation.draws)[1:]

    def drawn(self, draws: int) -> tuple[Estimates, Estimates]:
        """Return the estimates for both laws, formula and accuracy, from so many draws or more.

        What was drawn before is part of them, and kept nowhere else.
        """
        done, known = self._drawn
        if known is not None and draws <= done:
            return known
        evaluation, seed = self.evaluation, self.seed + _APART * done
        assert evaluation is not None
        elsewhere = known is not None or self.values is not self.subject.values
        if elsewhere and not self._granted(None, 1 + (draws - done) * evaluation.roundings):
            return known or (self._unmeasured,) * 2
        found = (
            self.dropped.attempt(lambda: evaluation.both(self.full_point, draws - done, seed))
            or (self._unmeasured,) * 2
        )
        if known is not None:
            parts = (done / draws) ** 0.5, (1 - done / draws) ** 0.5
            found = _pooled(known[0], found[0], parts), _pooled(known[1], found[1], parts)
        self._drawn = draws, found
        return found

    @functools.cached_property
    def _unmeasured(self) -> Estimates:
        """Every program lifted, where a callback refuses numbers that rounding has moved."""
        assert self.evaluation is not None
        (found,) = self.many([{}])
        return {
            name: [Estimate(array, np.full(np.shape(array), np.inf)) for array in arrays]
            for name, arrays in found.items()
        }

    @functools.cached_property
    def actual(self) -> Leaves:
        """The rule as the user runs it, in its own dtypes."""
        return self.run(self.point)

    @functools.cached_property
    def own_scatter(self) -> list[Estimate]:
        """The scatter of a rule that cannot be traced: its results one ulp away."""
        return self.scatter_of(list(self.point.values()))

    def scatter_of(self, arrays: Sequence[Array]) -> list[Estimate]:
        """Return a rule's results at these arguments, and how they scatter one ulp away."""

        def flat(*moved: Array) -> list[Array]:
            return self.probe(dict(zip(self.point, moved)))

        return numpy_estimate(flat, arrays, seed=self.seed)

    @functools.cached_property
    def wide(self) -> Leaves | None:
        """A rule that cannot be traced, called with float64 inputs; None where it refuses."""
        try:
            return self.run(self.wide_point)
        except Exception:  # a rule may insist on its dtype
            return None

    def run(self, point: Arrays) -> Leaves:
        """Run the rule as the user does, on fresh copies."""
        return self.run_on(copied(point))

    def probe(self, point: Arrays) -> Leaves:
        """Run the rule at a point that gradlab made; all NaN where it refuses, or may not be."""
        return self._probed(point) or list(map(_unknown, self.actual))

    def _probed(self, point: Arrays) -> Leaves | None:
        if not self.legal(point) or not self.subject.calls.grants(1):
            return None
        return self.dropped.attempt(lambda: self.run(point), python=True)

    def run_on(self, point: Arrays) -> Leaves:
        """Run the rule on the very arrays that are given, which it may write into."""
        with self.placed(), np.errstate(all="ignore"):
            return list(map(in_words, self.subject.run(point)))

    @contextlib.contextmanager
    def placed(self) -> Iterator[None]:
        """Enter the context in which the rule runs on the device that was asked for.

        What cannot be traced is not seen to multiply with few digits, and so is given all of them.
        """
        with contextlib.ExitStack() as stack:
            if self.place is not None:
                stack.enter_context(jax.default_device(self.place))
            if self.subject.rule is None:
                stack.enter_context(jax.default_matmul_precision("highest"))
            yield

    @property
    def accelerated(self) -> bool:
        """Whether the rule runs on a device that may add in another order at every call."""
        with self.placed():
            return platform_here() != "cpu"

    def many(self, cases: Sequence[Arrays], only: str | None = None) -> list[dict[str, Leaves]]:
        """Return the lifted programs' results, or one's, at each case: changes to the point.

        They are NaN where the function refuses the case.
        """
        return [found or self._unknown(only) for found in self._tried(cases, only)]

    def _tried(self, cases: Sequence[Arrays], only: str | None) -> list[dict[str, Leaves] | None]:
        """Return the same; None where the function refuses the case, or it may not be run.

        A rule that was read is called itself where it decides otherwise.
        """
        assert self.evaluation is not None
        if only == "rule" and not all(map(self.reads, cases)):
            alone = (self._tried([c], only) if self.reads(c) else [self._called(c)] for c in cases)
            return [each for (each,) in alone]
        legal = [k for k, case in enumerate(cases) if self.legal(case)]
        rows = self._together(self.evaluation, [cases[k] for k in legal], only)
        if rows is None:
            return [self._lifted(self.evaluation, case, only) for case in cases]
        found = dict(zip(legal, rows))
        return [found.get(k) for k in range(len(cases))]

    def reads(self, case: Arrays) -> bool:
        """Whether what was read of the rule holds at a change to the point."""
        holds = self.subject.holds
        return holds is anywhere or holds({**self.point, **case})

    def _called(self, case: Arrays) -> dict[str, Leaves] | None:
        """Return the results of the rule itself, called at a change to the point."""
        from gradlab.reading.lines import few_lines  # reads NumPy, which JAX's rules never need

        with few_lines():  # a loop of the user's Python may never end under another upstream
            found = self._probed({**self.wide_point, **case})
        return None if found is None else {"rule": found}

    def _together(
        self, evaluation: Evaluation, cases: Sequence[Arrays], only: str | None
    ) -> list[dict[str, Leaves]] | None:
        """Return the results at all cases from one pass, or None where they go one by one."""
        if len(cases) < 2:
            return None
        names = dict.fromkeys(name for case in cases for name in case)
        point = self.full_point
        found = self._in_rows(
            evaluation,
            {n: np.stack([case[n] if n in case else point[n] for case in cases]) for n in names},
            only,
        )
        if found is None:
            return None
        return [
            {key: [each[k] for each in outputs] for key, outputs in found.items()}
            for k in range(len(cases))
        ]

    def _in_rows(
        self, evaluation: Evaluation, rows: Arrays, only: str | None
    ) -> dict[str, Leaves] | None:
        """Return the results at all rows from one pass, or None where they go one by one."""
        if self.subject.opaque or not evaluation.interpreted:
            return None
        return self.dropped.attempt(lambda: evaluation.rows(self.full_point, rows, only))

    def _lifted(
        self, evaluation: Evaluation, case: Arrays, only: str | None
    ) -> dict[str, Leaves] | None:
        point = {**self.full_point, **case}
        if not (self.legal(case) and self._granted(only, 1)):
            return None
        return self.dropped.attempt(lambda: evaluation.values(point, only))

    def _granted(self, only: str | None, times: int) -> bool:
        """Whether the programs, or one, may be run so often: some call what cannot be read."""
        return self.subject.grants(self.subject.programs if only is None else [only], times)

    def _unknown(self, only: str | None) -> dict[str, Leaves]:
        programs = programs_of(self.subject)
        chosen = programs if only is None else {only: programs[only]}
        return {key: list(map(_unknown, p.out_avals)) for key, p in chosen.items()}

    def at(self, values: Arrays, upstreams: Arrays) -> "Evidence":
        """Return the same subject elsewhere, with what has been compiled for it."""
        there = Evidence(self.subject, values, self.seed, self.evaluation, self.place)
        there.upstreams, there.point = upstreams, {**values, **upstreams}
        there.dropped = self.dropped
        if "_points" in self.__dict__:
            there.__dict__["_points"] = self._points
        return there

    def further(self, turns: int) -> tuple["Evidence", list[Any]]:
        """Return the same and the rule's gradients, where loops to a fixed point run on."""
        assert self.subject.forward is not None
        there, programs = self.at(self.values, self.upstreams), programs_of(self.subject)
        points = Points(self.subject.forward, programs.values(), self.dropped, turns)
        there.__dict__["_points"] = points
        walk = Interpreted(Setting(programs, {}, None, {}), turns)
        with jax.enable_x64(True):  # what NumPy has no rule for goes to JAX
            return there, self.gradients(walk.values(self.wide_point, "rule")["rule"])

    def legal(self, case: Arrays) -> bool:
        """Whether a change to the point stays among the inputs that `domain=` allows."""
        domain = self.subject.domain
        if domain.everything or self.values.keys().isdisjoint(case):
            return True
        return not domain.broken({name: case.get(name, x) for name, x in self.values.items()})

    @functools.cached_property
    def here(self) -> list[Any]:
        """The lifted forward's outputs at the point itself."""
        path = self.subject.targets[0].path
        rows = self.forward({path: widen(self.values[path])[None]})
        return [None if output is None else output[0] for output in rows]

    def forward(self, rows: Arrays) -> list[Any]:
        """Return the lifted forward's outputs, one row for each row of the inputs that move."""
        found = self._points(self.values, rows)
        outside = [] if self.subject.domain.everything else self._outside(rows)
        for output in found if outside else ():
            if output is not None:
                output[outside] = np.nan
        return found

    def _outside(self, rows: Arrays) -> list[int]:
        count = len(next(iter(rows.values())))
        cases = ({name: each[k] for name, each in rows.items()} for k in range(count))
        return [k for k, case in enumerate(cases) if not self.legal(case)]

    def line(
        self, direction: Arrays, upstreams: Sequence[Array]
    ) -> Callable[[Sequence[float]], list[float]]:
        """Return <upstreams, forward> as a function of several steps along a direction."""
        start = self.values if self.evaluation is None else self.full_point
        line = self._points.line(start, direction, upstreams)
        if self.subject.domain.everything:
            return line

        def inside(steps: Sequence[float]) -> list[float]:
            ways = {name: widen(way) for name, way in direction.items()}
            moved = [{n: widen(self.values[n]) + t * w for n, w in ways.items()} for t in steps]
            return [y if self.legal(c) else np.nan for y, c in zip(line(steps), moved)]

        return inside

    @functools.cached_property
    def _points(self) -> Points:
        assert self.subject.forward is not None
        programs = programs_of(self.subject).values()
        return Points(self.subject.forward, programs, self.dropped)

    @functools.cached_property
    def moves_in_steps(self) -> bool:
        """Whether the forward holds what is not lifted and has fewer digits than float32.

        Its slope is that of a staircase: zero, or a jump.
        """
        programs = (self.subject.forward, self.subject.reference)
        parts = [part for program in programs if program is not None for part in opaque(program)]
        return any(part.digits < _FLOAT32 for part in parts)

    def gradients(self, results: Sequence[Array]) -> list[Array]:
        """Return the gradients among a program's results."""
        return list(results[self.outputs :])

    def expected(self, law: str, i: int) -> Estimate:
        """Return the reference's gradient of the i-th target."""
        estimates: dict[str, list[Estimate]] = getattr(self, law)
        return estimates["reference"][self.outputs + i]

    def own(self, k: int, draws: int) -> Estimate:
        """Return how the k-th result of the rule scatters in its own dtype."""
        return self.drawn(draws)[1]["rule"][k] if self.has_rule else self.own_scatter[k]

    @functools.cached_property
    def peers(self) -> list[Any]:
        """What autodiff of the reference returns in the dtypes of the inputs, or the forward."""
        reference = self.subject.reference or self.subject.forward
        assert reference is not None
        with self.placed():
            return jax.tree.leaves(reference(*(self.point[n] for n in reference.in_names)))

    def stepwise(self, keyword: str) -> list[Any] | None:
        """Return what the rule or the reference gives without a compiler; None where too large."""
        if keyword not in self._stepwise:
            program = programs_of(self.subject).get(keyword)
            self._stepwise[keyword] = None
            if program is not None:
                given = [self.point[name] for name in program.in_names]
                self._stepwise[keyword] = run_stepwise(program, given)
        return self._stepwise[keyword]

    @functools.cached_property
    def formula_gradients(self) -> list[Estimate] | None:
        """The rule's gradients in float64 with their scatter, or None where it refuses."""
        if self.has_rule:
            return list(self.formula["rule"][self.outputs :])
        if self.wide is None:
            return None
        wide = self.scatter_of(list(self.wide_point.values()))[self.outputs :]
        own = self.own_scatter[self.outputs :]
        return list(map(_in_digits_it_has, wide, own))

    @functools.cached_property
    def other_upstreams(self) -> Arrays:
        """Another upstream for every output."""
        return draw_upstreams(self.subject, self.seed + 1)

    def gradients_crossed(self, keyword: str) -> list[Any]:
        """Return the gradients of rule or reference in float64, under the other upstreams."""
        return self.crossed_and_at(keyword, [])[0]

    def crossed_and_at(
        self, keyword: str, cases: Sequence[Arrays]
    ) -> tuple[list[Any], list[list[Any] | None]]:
        """Return the gradients under the other upstreams, and at changes, from one pass.

        None stands for changes that the function refuses.
        """
        other = {name: widen(u) for name, u in self.other_upstreams.items()}
        unknown = [other] if keyword not in self._crossed else []
        found = self._gradients_tried(keyword, [*unknown, *cases])
        for crossed in found[: len(unknown)]:
            self._crossed[keyword] = crossed or self._unknown_gradients
        return self._crossed[keyword], found[len(unknown) :]

    def gradients_here(self, keyword: str) -> list[Array]:
        """Return the gradients of the rule or the reference in float64, at the point."""
        if keyword == "reference":
            return [e.value for e in self.formula["reference"][self.outputs :]]
        return [e.value for e in self.formula_gradients or ()]

    def scatter_here(self, keyword: str, i: int) -> Array:
        """Return how far rounding to float64 moves the i-th gradient of rule or reference."""
        if keyword == "reference":
            return self.expected("formula", i).scatter
        gradients = self.formula_gradients
        return np.zeros(()) if gradients is None else gradients[i].scatter

    @functools.cached_property
    def lifts(self) -> bool:
        """Whether the forward, lifted to float64, returns what it returns in its own dtypes.

        Rounding may leave few digits of an output; where it leaves none, and the output is no
        remainder of larger terms, the dtype is used on purpose: what is lifted is another function.
        """
        wide = {np.dtype(np.float64), np.dtype(np.complex128)}
        if not self.has_rule or all(np.dtype(t.dtype) in wide for t in self.subject.targets):
            return True
        inputs = [np.abs(widen(self.values[t.path])) for t in self.subject.targets]
        largest = max((float(np.max(x, initial=0.0)) for x in inputs), default=0.0)
        unit = max(unit_roundoff(target.dtype) for target in self.subject.targets)
        forward, ran_all = self.subject.forward, None
        if forward is not None:
            ran_all = run_stepwise(forward, [self.values[name] for name in forward.in_names])
        for k in range(self.outputs):
            lifted = self.accuracy["rule"][k].value
            ran = widen((self.actual if ran_all is None else ran_all)[k])
            if lifted.dtype.kind not in "fc":
                continue
            with np.errstate(invalid="ignore"):
                off, size = np.abs(lifted - ran), np.fmax(np.abs(lifted), np.abs(ran))
                least = np.sqrt(unit) * max(largest, float(np.max(size, initial=0.0)))
                other = np.isfinite(off) & (off > _OTHER * size) & (off > least)
            if other.any():
                return False
        return True

    @functools.cached_property
    def input_scatter(self) -> list[Array]:
        """How far each of the rule's gradients moves when the inputs move by their own rounding."""
        here = self.gradients_here("rule")
        rng = np.random.default_rng([self.seed, 10])
        moved = [np.zeros(np.shape(gradient)) for gradient in here]
        for _ in range(2):
            case = {}
            for target in self.subject.targets:
                value = widen(self.values[target.path])
                case[target.path] = value * (1 + _ULP * rng.choice((-1.0, 1.0), value.shape))
            (there,) = self.gradients_at("rule", [case])
            with np.errstate(invalid="ignore"):
                moved = [np.fmax(m, np.abs(a - b)) for m, a, b in zip(moved, there, here)]
        return moved

    @functools.cached_property
    def without_infinities(self) -> list[Any] | None:
        """The rule's gradients under upstreams of zero where an output is not finite, else None."""
        return self._without("rule", np.isfinite)

    @functools.cached_property
    def without_nan(self) -> list[Any] | None:
        """The reference's gradients under upstreams of zero where an output is NaN, else None."""
        return self._without("reference", lambda output: ~np.isnan(output))

    def _without(self, keyword: str, has_value: Callable[[Array], Array]) -> list[Any] | None:
        outputs = [e.value for e in self.formula["rule"]] if self.has_rule else self.wide
        if outputs is None:
            return None
        case = {}
        for upstream in self.subject.upstreams:
            keeps = has_value(outputs[self.subject.outputs.index(upstream.output)])
            if not keeps.all():
                case[upstream.name] = np.where(keeps, widen(self.upstreams[upstream.name]), 0)
        return self.gradients_at(keyword, [case])[0] if case else None

    def gradients_at(self, keyword: str, cases: Sequence[Arrays]) -> list[list[Any]]:
        """Return the gradients of the rule or the reference in float64, at changes to the point.

        They are NaN where the function refuses the changes.
        """
        found = self._gradients_tried(keyword, cases)
        return [each or self._unknown_gradients for each in found]

    def _gradients_tried(self, keyword: str, cases: Sequence[Arrays]) -> list[list[Any] | None]:
        """Return the same; None where the function refuses the changes."""
        if keyword == "rule" and not self.has_rule:
            tried = [self._probed({**self.wide_point, **case}) for case in cases]
        else:
            results = self._tried(cases, keyword)
            tried = [None if found is None else found[keyword] for found in results]
        return [None if found is None else self.gradients(found) for found in tried]

    @property
    def _unknown_gradients(self) -> list[Any]:
        pairs = zip(self.subject.shapes, self.subject.targets)
        return [np.full(shape, np.nan, widen_dtype(target.dtype)) for shape, target in pairs]

    def gradient_rows(self, keyword: str, rows: Arrays) -> list[Any]:
        """Return the same, one row for each row of the inputs that move."""
        if self.has_rule and self.subject.domain.everything and self.evaluation is not None:
            found = self._in_rows(self.evaluation, rows, keyword)
            if found is not None:
                return self.gradients(found[keyword])
        count = len(next(iter(rows.values())))
        cases = [{name: each[k] for name, each in rows.items()} for k in range(count)]
        return list(map(np.stack, zip(*self.gradients_at(keyword, cases))))


def programs_of(subject: Subject) -> dict[str, Any]:
    """Return the programs of a subject that are evaluated together.

    Forward mode is left out where inputs are large: finite differences hold the transpose there.
    """
    entries = sum(int(np.prod(target.shape, dtype=np.int64)) for target in subject.targets)
    forward_mode = entries <= _LARGE
    programs = {
        "rule": subject.rule,
        "reference": subject.reference,
        "tangent": subject.tangent if forward_mode else None,
        "pushforward": subject.pushforward if forward_mode and subject.believed else None,
        "forward": subject.forward if subject.rule is None or subject.reference is None else None,
    }
    return {name: program for name, program in programs.items() if program is not None}


def draw_upstreams(subject: Subject, seed: int) -> Arrays:
    """Return a signed, generic upstream for every output: no ones, no zeros, no two alike."""
    rng = np.random.default_rng([seed, 1])
    return {u.name: signed(rng, u.shape, u.dtype) for u in subject.upstreams}


def draw_tangents(subject: Subject, values: Arrays, seed: int) -> Arrays:
    """Return a tangent for every target: each entry at most as large as the input's own.

    A step along it of less than 1 turns no sign, and so seldom leaves a domain.
    """
    rng = np.random.default_rng([seed, 2])
    tangents = {}
    for target in subject.targets:
        tangent = signed(rng, target.shape, target.dtype)
        value, way = np.ravel(values[target.path]), np.ravel(tangent)
        least = 1e-2 * typical(value) if np.any(value) else 1.0
        for row in blocks(way.size):
            way[row] = widen(way[row]) * np.maximum(np.abs(widen(value[row])), least) / 2
        tangents[target.path] = way.reshape(target.shape)
    return tangents


def nearby(subject: Subject, values: Arrays, seed: int, reach: float = 0.1) -> Arrays:
    """Return inputs close to the given ones: same shapes, dtypes, signs; zeros become small."""
    rng = np.random.default_rng([seed, 5])
    moved = {}
    for target in subject.targets:
        moved[target.path] = near(values[target.path], rng, reach)
    if subject.domain.everything:
        return moved
    moved = subject.domain.clipped(moved)
    if not subject.domain.broken({**values, **moved}):
        return moved
    if reach > 1e-6:  # nearer to the given inputs, which are legal
        return nearby(subject, values, seed + 1, reach / 10)
    return {target.path: values[target.path] for target in subject.targets}


def near(array: Array, rng: np.random.Generator, reach: float = 0.1) -> Any:
    """Return an array close to the given one: same shape, dtype, signs; zeros become small.

    Rows of probabilities and rows of length one stay so, and a symmetric matrix stays symmetric:
    some rules are right for these inputs alone.
    """
    value = np.asarray(array)
    wide = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
    size = typical(wide)
    factor = 1 + reach * rng.uniform(-1, 1, value.shape)
    added = np.where(wide == 0, reach * size * rng.uniform(0.1, 1, value.shape), 0.0)
    return _in_form(wide * factor + added, form_of(value)).astype(value.dtype)


def form_of(value: Array) -> str:
    """Return which special form an array has that `near` keeps; empty where it has none."""
    if value.ndim == 0 or value.shape[-1] < 2 or not value.size:
        return ""
    wide = value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)
    if np.ptp(np.abs(wide)) == 0:
        return ""  # ones and zeros are where layers start
    slack = 8 * value.shape[-1] * unit_roundoff(value.dtype)
    if (np.real(wide) >= 0).all() and np.allclose(wide.sum(-1), 1, rtol=slack, atol=0):
        return "probabilities"
    if np.allclose(np.linalg.norm(wide, axis=-1), 1, rtol=slack, atol=0):
        return "unit vectors"
    square = value.ndim > 1 and value.shape[-1] == value.shape[-2]
    return "symmetric" if square and (np.swapaxes(wide, -1, -2) == wide).all() else ""


def _in_form(moved: Array, form: str) -> Array:
    if form == "probabilities":
        return moved / moved.sum(-1, keepdims=True)
    if form == "unit vectors":
        return moved / np.linalg.norm(moved, axis=-1, keepdims=True)
    return (moved + np.swapaxes(moved, -1, -2)) / 2 if form == "symmetric" else moved


def typical(value: Array) -> float:
    """Return the typical size of an array's entries, of some where they are millions; else 1."""
    some = np.ravel(value)[:: 1 + np.size(value) // _LARGE]
    sizes = np.abs(some.astype(np.complex128))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.median(sizes)) if sizes.size else 1.0


def signed(rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
    """Return signed numbers of order one, none near zero."""

    def real() -> Any:
        number = rng.uniform(-1.5, 1.5, shape)
        return number + np.copysign(0.5, number)

    value = real() + 1j * real() if jnp.issubdtype(dtype, np.complexfloating) else real()
    return np.asarray(value).astype(dtype)


def _unknown(like: Any) -> Any:
    """Return NaN in the shape of an array; zeros where its dtype has none."""
    dtype = widen_dtype(like.dtype)
    return np.full(like.shape, np.nan if is_inexact(dtype) else 0, dtype)


def _pooled(first: Estimates, second: Estimates, parts: tuple[float, float]) -> Estimates:
    """Return estimates with the scatter of both; `parts`: the roots of their shares of draws."""
    one, other = parts
    made: dict[int, Estimate] = {}  # programs share what they both compute

    def pooled(a: Estimate, b: Estimate) -> Estimate:
        if id(b) not in made:
            made[id(b)] = Estimate(b.value, hypot(one * a.scatter, other * b.scatter))
        return made[id(b)]

    return {key: list(map(pooled, first[key], second[key])) for key in first}


def copied(point: Arrays) -> Arrays:
    """Return a point with fresh NumPy arrays; JAX's cannot be written into."""
    return {n: a.copy() if isinstance(a, np.ndarray) else a for n, a in point.items()}


def _in_digits_it_has(wide: Estimate, own: Estimate) -> Estimate:
    """Return a gradient run in float64 with the scatter of the digits that it keeps.

    What a unit of float64 does not move is rounded further inside, to the rule's own dtype.
    """
    still = (wide.scatter == 0) & (wide.value != 0)
    if 2 * np.sum(still) <= np.sum(wide.value != 0):
        return wide
    return Estimate(wide.value, np.fmax(wide.scatter, own.scatter))
