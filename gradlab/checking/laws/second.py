"""Order 2: the gradient of the gradient, for those who differentiate twice."""

from typing import Any

import numpy as np

from gradlab.checking.evidence import signed
from gradlab.checking.laws.entries import entry_name
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.references import Evaluation, judge, vjp_program
from gradlab.tracing import Program, derive

__all__ = ["second_order"]


def second_order(trial: Trial) -> Law:
    """Differentiating the rule again gives what differentiating the reference again gives."""
    name, subject = "order 2", trial.subject
    if subject.rule is None or subject.reference is None:
        return Law(name, "skipped", "there is no rule and reference that JAX can trace")
    theirs = _twice(subject.reference, trial)
    if theirs is None:
        return Law(name, "skipped", "the reference cannot be differentiated twice")
    ours = _twice(subject.rule, trial)
    if ours is None:
        return Law(name, "failed", "the rule cannot be differentiated, though the reference can")
    rng = np.random.default_rng([trial.seed, 6])
    point: dict[str, Any] = dict(trial.point)
    for label, aval in zip(ours.in_names, ours.in_avals):
        if label not in point:
            point[label] = signed(rng, tuple(aval.shape), aval.dtype)
    found = Evaluation(rule=ours, reference=theirs).estimates(point, "formula", seed=trial.seed)
    worst, count = 0.0, len(subject.targets)
    for label, mine, other in zip(ours.out_names[count:], *_gradients(found, count)):
        verdict = judge(mine.value, other, mine, np.float64)
        if verdict.wrong.any():
            at = verdict.worst or ()
            return Law(
                name,
                "failed",
                f"second {entry_name(label, at)} is {mine.value[at]:.9g}, "
                f"expected {other.value[at]:.9g}",
                float(verdict.error[at]),
            )
        worst = max(worst, float(np.max(verdict.error, initial=0.0, where=verdict.right)))
    return Law(name, "passed", error=worst)


def _gradients(found: dict[str, Any], count: int) -> tuple[Any, Any]:
    return found["rule"][count:], found["reference"][count:]


def _twice(program: Program, trial: Trial) -> Program | None:
    """Return the VJP of a program's gradients, or None where it cannot be had."""
    outputs = trial.outputs

    def first(program: Program) -> Program:
        return derive(
            program,
            lambda *arrays: program.flat(*arrays)[outputs:],
            program.in_avals,
            program.in_names,
            [name.replace("gradient", "output", 1) for name in program.out_names[outputs:]],
            lambda: None if program.wide is None else first(program.wide),
        )

    paths = {target.path for target in trial.subject.targets} | set(trial.upstreams)
    positions = [i for i, name in enumerate(program.in_names) if name in paths]
    try:
        return vjp_program(first(program), positions)
    except Exception:  # a custom_vjp's backward may hold what cannot be differentiated
        return None
