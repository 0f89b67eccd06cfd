"""Laws that compare what the rule computes with what the reference does, entry by entry."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from gradlab.checking.differences import Answer, ahead, along, answer, pairings
from gradlab.checking.evidence import signed
from gradlab.checking.forms import jvp_or_none, subject_of_program, vjp_or_none
from gradlab.checking.laws.entries import entry_name, from_verdicts, not_exact
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.common.arrays import Array
from gradlab.references import (
    LIMIT,
    Estimate,
    Evaluation,
    Slope,
    Verdict,
    finite_differences,
    judge,
)
from gradlab.report import Law
from gradlab.tracing import Program
from gradlab.tracing.jaxprs import with_outputs
from gradlab.tracing.leaves import is_inexact

_ENTRIES = 64  # entries that are differentiated one by one
_AT_ONCE = 1 << 20  # numbers of moved inputs that are held at once


def form(trial: Trial) -> Law:
    """Hold each gradient to its input's shape, dtype and structure."""
    complaints = [c for c in trial.subject.complaints if c.kind != "modifies"]
    texts = "; ".join(complaint.text for complaint in complaints)
    if any(complaint.fault for complaint in complaints):
        return Law("form", "failed", texts)
    if complaints:
        return Law("form", "inconclusive", f"reverse mode cannot run: {texts}")
    return Law("form", "passed", judged=len(trial.subject.targets))


def value(trial: Trial) -> Law:
    """Hold the outputs of the rule, as it runs and in float64, to those of the reference."""
    worst, judged = 0.0, 0
    for k, name in enumerate(trial.subject.outputs):
        for verdict, mine, other in _compared(trial, k):
            if verdict.wrong.any():
                at = verdict.worst or ()
                text = (
                    f"{entry_name(name, at)} is {_number(mine[at])} under differentiation; "
                    f"the reference returns {_number(other[at])}"
                )
                return Law("value", "failed", text, float(verdict.error[at]))
            finite = verdict.error[np.isfinite(verdict.error)]
            worst = max(worst, float(finite.max(initial=0.0)))
            judged += int(verdict.right.sum())
    undefined = [name for k, name in enumerate(trial.subject.outputs) if _undefined(trial, k)]
    if undefined:
        reason = f"{' and '.join(undefined)} is NaN at these inputs, and so is the reference"
        return Law("value", "inconclusive", reason, worst, judged=judged)
    return Law("value", "passed", error=worst, judged=judged)


def formula(trial: Trial) -> Law:
    """Hold every entry of the rule, in float64, to the reference's."""
    narrow = bool(trial.subject.opaque)  # rounds in its own dtype here too: accuracy judges that
    return from_verdicts("formula", trial.formula_verdicts, stable=not narrow)


def accuracy(trial: Trial) -> Law:
    """Hold every entry of the rule, in its own dtype, to the reference's."""
    # finite differences do not tell which digits another way to compute would keep
    return from_verdicts("accuracy", trial.accuracy_verdicts, stable=trial.has_reference)


def pushforward(trial: Trial) -> Law:
    """Hold every entry of the rule's JVP to the reference's."""
    ours = trial.formula["pushforward"][trial.outputs :]
    theirs = trial.formula["tangent"][trial.outputs :]
    worst, judged = 0.0, 0
    right = all(verdict.right.all() for verdict in trial.formula_verdicts)
    for upstream, mine, other in zip(trial.subject.upstreams, ours, theirs):
        verdict = judge(mine.value, other, mine, np.float64)
        if right and not np.isfinite(mine.value).all():
            at = tuple(np.argwhere(~np.isfinite(mine.value))[0])
            text = f"the tangent of {entry_name(upstream.output, at)} is {_number(mine.value[at])}"
            return Law("pushforward", "warned", f"{text}, though reverse mode is right and finite")
        if verdict.wrong.any():
            at = verdict.worst or ()
            text = (
                f"the tangent of {entry_name(upstream.output, at)} is {_number(mine.value[at])}, "
                f"expected {_number(other.value[at])}"
            )
            if _approximates(trial, mine.value[verdict.wrong], other.value[verdict.wrong]):
                return Law("pushforward", "warned", f"{text}; float32 holds fewer digits")
            if trial.only_kinks:
                return Law("pushforward", "inconclusive", f"{text}; the gradient is right there")
            return Law("pushforward", "failed", text, float(verdict.error[at]))
        finite = verdict.error[np.isfinite(verdict.error)]
        worst = max(worst, float(finite.max(initial=0.0)))
        judged += int(verdict.right.sum())
    return Law("pushforward", "passed", error=worst, judged=judged)


def of_gradient(trial: Trial) -> Trial:
    """Return the trial of the gradient: what the law of the next order differentiates again."""
    subject, outputs = trial.subject, trial.outputs
    assert subject.rule is not None
    program, paths = _gradients(subject.rule, outputs), {target.path for target in subject.targets}
    made = subject_of_program(
        program,
        trial.point,
        None if subject.reference is None else _gradients(subject.reference, outputs),
        subject.oracle,
        wrt=tuple(i for i, name in enumerate(program.in_names) if name in paths),
        stated=subject.stated,
    )
    made = replace(made, intended=subject.intended, approximate=subject.approximate)
    made = replace(made, domain=subject.domain)
    return Trial(made, trial.point, trial.seed, place=trial.place)


def higher_order(trial: Trial, name: str) -> Law:
    """Hold the gradient of the gradient to autodiff of the reference, and to three witnesses.

    Forward over reverse and reverse over reverse are each other's transposes, and the slope of the
    gradient along a direction is what both say. Entries that no reference judged are asked of
    finite differences one by one.
    """
    rule, reference, word = trial.subject.rule, trial.subject.reference, name.split()[0]
    assert rule is not None
    theirs = None if reference is None else _differentiated(vjp_or_none, reference, trial)
    ours = _differentiated(vjp_or_none, rule, trial)
    if ours is None:
        reason = "the rule cannot be differentiated"
        if theirs is None:
            return Law(name, "inconclusive", f"{reason} again, nor can the reference")
        return Law(name, "failed", f"{reason}, though the reference can")
    programs = {"rule": ours, "reference": theirs}
    programs["forward"] = _differentiated(jvp_or_none, rule, trial)
    evaluation = Evaluation(**{key: p for key, p in programs.items() if p is not None})
    rng = np.random.default_rng([trial.seed, 6])
    point: dict[str, Array] = dict(trial.point)
    for label, aval in evaluation.inputs.items():
        if label not in point:
            point[label] = signed(rng, tuple(aval.shape), aval.dtype)
    found = evaluation.estimates(point, "formula", seed=trial.seed)
    count = len(trial.subject.targets)
    mine = found["rule"][count:]
    worst, unknown, judged = 0.0, [np.ones(e.value.shape, bool) for e in mine[:count]], 0
    disputed = [np.zeros(e.value.shape, bool) for e in mine[:count]]
    dispute: Law | None = None
    for k, other in enumerate(found["reference"][count:] if theirs is not None else ()):
        verdict = judge(mine[k].value, other, mine[k], np.float64)
        if verdict.wrong.any():
            at = verdict.worst or ()
            text = (
                f"{word} {entry_name(ours.out_names[count + k], at)} is "
                f"{_number(mine[k].value[at])}, expected {_number(other.value[at])}"
            )
            failure = Law(name, "failed", text, float(verdict.error[at]))
            if k < count:
                disputed[k], dispute = verdict.wrong, dispute or failure
            elif not (trial.only_kinks and _is_its_own(trial, ours, point, mine, count)):
                return failure
        worst = max(worst, float(np.max(verdict.error, initial=0.0, where=verdict.right)))
        judged += int(verdict.right.sum())
        if k < count:
            unknown[k] = ~verdict.right
    texts = []
    if "forward" in found:
        texts.append(_transposed(trial, ours, point, found, count))
    told, faults, settled = _by_slopes(trial, word, point, ours, mine[:count], unknown, disputed)
    if dispute is not None and not settled:
        return dispute
    faults = [text for text in (*texts, *faults) if text]
    if faults:
        if trial.subject.intended and judged:
            return Law(name, "passed", "as intended", worst, judged=judged)
        if trial.subject.stated:
            return Law(name, "warned", f"{faults[0]}; the given reference has the same fault")
        if trial.subject.approximate:
            return not_exact(name, faults[0])
        return Law(name, "failed", faults[0])
    if not judged + told:
        return Law(name, "inconclusive", f"no entry of the {word} gradient could be judged")
    return Law(name, "passed", error=worst, judged=judged + told)


def _compared(trial: Trial, k: int) -> list[tuple[Verdict, Any, Any]]:
    """Judge the k-th output, lifted and as it runs: the verdict, and both values."""
    subject = trial.subject
    known = trial.accuracy if subject.opaque or not trial.has_rule else trial.formula
    other = known[trial.primal][k]
    actual = np.asarray(trial.actual[k])
    if not is_inexact(actual.dtype):
        exact = Estimate(np.asarray(other.value, np.float64), np.zeros(other.value.shape))
        numbers = actual.astype(np.float64)
        return [(judge(numbers, exact, None, np.float64), numbers, exact.value)]
    dtype = (
        next(u.dtype for u in subject.upstreams if u.output == subject.outputs[k])
        if (subject.upstreams)
        else actual.dtype
    )
    found = []
    if trial.has_rule:
        mine, finest = known["rule"][k], dtype if subject.opaque else np.float64
        found.append((judge(mine.value, other, mine, finest), mine.value, other.value))
    verdict = judge(actual, trial.accuracy[trial.primal][k], trial.own(k, trial.draws), dtype)
    for draws in trial.more_draws if verdict.wrong.any() else ():
        expected = trial.drawn(draws)[1][trial.primal][k]
        verdict = judge(actual, expected, trial.own(k, draws), dtype)
    if verdict.wrong.any():  # where the reference fails too in this dtype, the dtype is to blame
        peer = judge(trial.peers[k], trial.accuracy[trial.primal][k], None, dtype)
        verdict = verdict.excused_by(peer)
    return [*found, (verdict, widen(actual), trial.accuracy[trial.primal][k].value)]


def _undefined(trial: Trial, k: int) -> bool:
    """Whether an output is NaN in every way of computing it."""
    value = np.asarray(trial.actual[k])
    if not is_inexact(value.dtype) or not np.isnan(widen(value)).any():
        return False
    return bool((np.isnan(widen(value)) & np.isnan(trial.formula[trial.primal][k].value)).any())


def _number(value: Array) -> str:
    return f"{value:.9g}"


def _approximates(trial: Trial, mine: Array, other: Array) -> bool:
    """Whether a difference is one that the formula's law forgives in these dtypes."""
    forgiven = max((each.forgiven for each in trial.formula_verdicts), default=0.0)
    return not trial.any_wrong and bool(np.all(np.abs(mine - other) <= forgiven * np.abs(other)))


def _differentiated(
    derivative: Callable[[Program, tuple[int, ...]], Program | None], program: Program, trial: Trial
) -> Program | None:
    """Return a derivative of a program's gradients, or None where it cannot be had."""
    paths = {target.path for target in trial.subject.targets} | set(trial.upstreams)
    positions = tuple(i for i, name in enumerate(program.in_names) if name in paths)
    return derivative(_gradients(program, trial.outputs), positions)


def _gradients(program: Program, outputs: int) -> Program:
    """Return a rule's gradients as a program of their own; its outputs have names not yet used.

    They do not depend on how the rule was said: upstreams of equal names are the same upstream.
    """
    fresh = f"output {len(program.in_names)}"
    names = [f"{fresh} {k}" for k in range(len(program.out_names) - outputs)]
    return replace(
        program,
        jaxpr=with_outputs(program.jaxpr, slice(outputs, None)),
        out_names=tuple(names),
        out_tree=jax.tree.structure(names),
        trace_wide=lambda: None if program.wide is None else _gradients(program.wide, outputs),
    )


def _transposed(
    trial: Trial, ours: Program, point: dict[str, Array], found: dict[str, Any], count: int
) -> str:
    """Say how forward over reverse and reverse over reverse disagree; nothing where they agree."""
    first = [name.replace("output", "upstream", 1) for name in ours.out_names[:count]]
    paths = [name.removeprefix("gradient ") for name in ours.out_names[count:]]
    left = along([point[name] for name in first], found["forward"][count:])
    right = along([point[f"tangent {path}"] for path in paths], found["rule"][count:])
    slope, error = left[0] - right[0], float(np.hypot(left[1], right[1]))
    if not np.isfinite(slope) or abs(slope) <= 64 * max(error, 2.0**-40 * left[2]):
        return ""
    return (
        f"along a direction, forward over reverse gives {left[0]:.9g}, "
        f"and reverse over reverse gives {right[0]:.9g}"
    )


def _by_slopes(
    trial: Trial,
    word: str,
    point: dict[str, Array],
    ours: Program,
    mine: Sequence[Estimate],
    unknown: Sequence[Any],
    disputed: Sequence[Any],
) -> tuple[int, list[str], bool]:
    """Hold gradients of gradients to their slopes.

    Return how many were told, what was wrong, and whether slopes side with all that are disputed:
    at a kink of the gradient the reference is one of many that are right.
    """
    count, targets = len(trial.subject.targets), trial.subject.targets
    labels = [name.replace("output", "upstream", 1) for name in ours.out_names[:count]]
    cotangents = [widen(point[label]) for label in labels]
    directions = [("along a direction", {t.path: widen(trial.tangents[t.path]) for t in targets})]
    asked = set()
    for target, mask, doubt in zip(targets, unknown, disputed):
        for index in np.argwhere(mask)[:_ENTRIES] if len(mask.ravel()) <= _ENTRIES else ():
            if doubt[tuple(index)]:
                asked.add(len(directions))
            step = np.zeros(mask.shape)
            step[tuple(index)] = max(abs(widen(trial.values[target.path])[tuple(index)]), 1.0)
            directions.append((f"along {entry_name(target.path, index)}", {target.path: step}))
    still = {target.path: np.zeros(np.shape(trial.values[target.path])) for target in targets}
    ways = [{**still, **direction} for _, direction in directions]
    together = max(1, _AT_ONCE // max(len(ways) * sum(map(np.size, still.values())), 1))

    def pulled(steps: Sequence[float]) -> list[list[Array]]:
        sums = []
        for first in range(0, len(steps), together):
            rows = ahead(trial.values, ways, steps[first : first + together])
            sums.append(pairings(cotangents, trial.gradient_rows("rule", rows)))
        return [[row] for row in np.reshape(np.concatenate(sums), (len(steps), len(ways)))]

    (slope,) = finite_differences(pulled)
    told, faults, settled = 0, [], len(asked) == sum(int(mask.sum()) for mask in disputed)
    for at, (text, direction) in enumerate(directions):
        moved = [e for t, e in zip(targets, mine) if t.path in direction]
        claim, spread, _ = along(list(direction.values()), moved)
        said = answer(claim, slope, at, spread, strict=at in asked)
        agrees = not (said.refutes or said.is_silent)
        told += agrees
        settled &= agrees or said == Answer.UNKNOWN or at not in asked  # a gradient may jump
        if said.refutes or (np.isnan(claim) and _known(slope, at)):
            faults.append(
                f"{text}, the {word} gradient predicts a change of {claim:.9g}, "
                f"and it is {float(slope.value[at]):.9g}"
            )
    return told, faults, settled


def _is_its_own(
    trial: Trial,
    ours: Program,
    point: dict[str, Array],
    mine: Sequence[Estimate],
    count: int,
) -> bool:
    """Whether gradients by the upstreams are those of the rule, which is linear in them."""
    labels = [name.replace("output", "upstream", 1) for name in ours.out_names[:count]]
    by = [name.removeprefix("gradient ") for name in ours.out_names[count:]]
    other = {n: widen(v) for n, v in trial.other_upstreams.items()}
    if not set(by[count:]) <= set(other):
        return False
    (there,) = trial.gradients_at("rule", [other])
    left = [np.sum(widen(point[label]) * each) for label, each in zip(labels, there)]
    right = [np.sum(e.value * other[name]) for name, e in zip(by[count:], mine[count:])]
    return bool(abs(sum(left) - sum(right)) <= 1e-9 * sum(map(abs, (*left, *right))))


def _known(slope: Slope, at: int) -> bool:
    """Whether a slope is a number told to some digits, at no kink: a NaN is not its place."""
    value, error = float(slope.value[at]), float(slope.error[at])
    sure = np.isfinite(value) and np.isfinite(error) and LIMIT * error < abs(value)
    return bool(sure and not slope.kink[at])
