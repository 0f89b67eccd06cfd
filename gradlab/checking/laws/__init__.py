"""The laws of a correct gradient: one function each, from a trial to what the law says of it."""

from collections.abc import Callable

from gradlab.checking.laws.accuracy import accuracy
from gradlab.checking.laws.adjoint import adjoint
from gradlab.checking.laws.finite_differences import finite_differences
from gradlab.checking.laws.form import form
from gradlab.checking.laws.formula import formula
from gradlab.checking.laws.linear import linear
from gradlab.checking.laws.pure import pure
from gradlab.checking.laws.pushforward import pushforward
from gradlab.checking.laws.reuse import reuse
from gradlab.checking.laws.second import second_order
from gradlab.checking.laws.special import special
from gradlab.checking.laws.transforms import transforms
from gradlab.checking.laws.used import used
from gradlab.checking.laws.value import value
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.progress import tracked

__all__ = ["hold_laws"]

_LAWS: tuple[Callable[[Trial], Law], ...] = (
    form,
    value,
    formula,
    accuracy,
    pushforward,
    adjoint,
    linear,
    used,
    finite_differences,
    pure,
    reuse,
    transforms,
    special,
)


def hold_laws(trial: Trial, order: int) -> list[Law]:
    """Hold a trial to every law; a rule that cannot be run is held to its form alone."""
    laws = (*_LAWS, second_order) if order == 2 else _LAWS
    if trial.runs:
        return [law(trial) for law in tracked(laws, _name)]
    names = list(map(_name, laws[1:]))
    return [form(trial), *(Law(name, "skipped", "the rule cannot be run") for name in names)]


def _name(law: Callable[[Trial], Law]) -> str:
    return law.__name__.replace("_", " ")
