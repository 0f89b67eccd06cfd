"""The law book: what a correct gradient obeys, one row for each law.

A law is a function from a trial to what it found. What a law needs stands in its row, so that no
law says for itself why it was skipped. To add one, write the function and add a row.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from gradlab.checking.laws.behaviour import pure, reuse, transforms
from gradlab.checking.laws.comparisons import (
    accuracy,
    form,
    formula,
    higher_order,
    of_gradient,
    pushforward,
    value,
)
from gradlab.checking.laws.linearity import adjoint, linear, used
from gradlab.checking.laws.witnesses import finite_differences, special
from gradlab.checking.trial import Trial
from gradlab.progress import tracked
from gradlab.report import Law


class Need(NamedTuple):
    """What a law cannot do without, and what is said where it is missing."""

    met: Callable[[Trial], bool]
    otherwise: str


class LawRow(NamedTuple):
    """One law: its name in reports, what it needs, who holds it and says what it is."""

    name: str
    needs: tuple[Need, ...]
    hold: Callable[[Trial], Law]


_LARGE = 1 << 20

_DERIVATIVE = Need(lambda t: t.subject.intended != "any", "not judged: intended")
_A_SLOPE = Need(
    lambda t: not t.subject.intended, "the intended gradient is not the slope of the forward"
)
_RUNS = Need(lambda t: t.runs, "the rule cannot be run")
_SHAPES = Need(lambda t: not any(t.subject.odd), "a gradient has a wrong shape")
_UPSTREAM = Need(
    lambda t: t.subject.linear, "there is no upstream: the loss returns its own gradient"
)
_IN_FLOAT64 = Need(lambda t: t.formula_gradients is not None, "the rule cannot be run in float64")
_TRACED = Need(lambda t: t.has_rule, "JAX cannot trace the rule")
_REFERENCE = Need(lambda t: t.has_reference, "there is no second function to compare with")
_PRIMAL = Need(
    lambda t: t.has_reference or (t.has_rule and t.subject.forward is not None),
    "there is no second function to compare with",
)
_SOMETHING = Need(
    lambda t: t.has_reference or bool(t.formula_verdicts), "there is no reference to compare with"
)
_FORWARD_MODE = Need(lambda t: t.subject.pushforward is not None, "the rule has no JVP")
_ITS_REFERENCE = Need(
    lambda t: t.has_reference and t.subject.tangent is not None,
    "the adjoint law compares the gradient with this JVP",
)
_TANGENT = Need(lambda t: t.subject.tangent is not None, "the reference has no JVP to compare with")
_PUSHED = Need(
    lambda t: "tangent" in t.formula, "the inputs are large, so finite differences check this"
)
_PYTHON = Need(
    lambda t: t.subject.eager, "not needed: JAX traces this rule, so it cannot keep state"
)
_ENDS = Need(lambda t: not t.subject.loops, "a loop inside might never end at other inputs")
_SMALL = Need(
    lambda t: sum(math.prod(target.shape) for target in t.subject.targets) <= _LARGE,
    "the inputs are large; check smaller inputs too",
)

LAWS: tuple[LawRow, ...] = (
    LawRow("form", (), form),
    LawRow("value", (_RUNS, _PRIMAL), value),
    LawRow("formula", (_RUNS, _DERIVATIVE, _IN_FLOAT64), formula),
    LawRow("accuracy", (_RUNS, _DERIVATIVE, _SOMETHING), accuracy),
    LawRow(
        "pushforward", (_RUNS, _DERIVATIVE, _FORWARD_MODE, _ITS_REFERENCE, _PUSHED), pushforward
    ),
    LawRow(
        "adjoint", (_RUNS, _DERIVATIVE, _TRACED, _TANGENT, _SHAPES, _UPSTREAM, _PUSHED), adjoint
    ),
    LawRow("linear", (_RUNS, _UPSTREAM, _IN_FLOAT64), linear),
    LawRow("used", (_RUNS, _DERIVATIVE, _UPSTREAM, _IN_FLOAT64), used),
    LawRow("finite differences", (_RUNS, _A_SLOPE, _IN_FLOAT64, _SHAPES), finite_differences),
    LawRow("pure", (_RUNS,), pure),
    LawRow("reuse", (_RUNS, _PYTHON), reuse),
    LawRow("transforms", (_RUNS, _TRACED), transforms),
    LawRow("special", (_RUNS, _TRACED, _REFERENCE, _ENDS, _SMALL), special),
)

_ORDERS = ("second order", "third order", "fourth order")


def hold_laws(trial: Trial, order: int) -> list[Law]:
    """Hold a trial to every law; one whose needs are not met is skipped, and says why."""
    laws = [_held(row, trial) for row in tracked(LAWS, lambda row: row.name)]
    below = ""
    for name in tracked(_ORDERS[: order - 1], str):
        if below and laws[-1].status not in ("passed", "warned"):
            laws.append(Law(name, "skipped", f"the {below} was not passed"))
            continue
        trial = of_gradient(trial) if below else trial
        needs = _RUNS, _DERIVATIVE, _TRACED, _SHAPES
        laws.append(_held(LawRow(name, needs, partial(higher_order, name=name)), trial))
        below = name
    return laws


def _held(row: LawRow, trial: Trial) -> Law:
    for need in row.needs:
        if not need.met(trial):
            return Law(row.name, "skipped", need.otherwise)
    return row.hold(trial)
