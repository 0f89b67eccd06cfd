"""How far a right verdict reaches: beyond the points that were tried, to branches and formulas."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from gradlab.checking.evidence import form_of, nearby
from gradlab.checking.laws.comparisons import value as output_value
from gradlab.checking.laws.entries import entry_name
from gradlab.checking.subject import Arrays, Subject
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.errors import GradlabError, InputError
from gradlab.formatting import count
from gradlab.proof import BUDGET, LONG, STOPPED, Proof, prove
from gradlab.proof.branches import Place, Side, Walked, outcomes, walk_branches
from gradlab.references import judge
from gradlab.report import GRADES, Evidence, Grade, Law, Leaf
from gradlab.tracing import Program, as_function, remember
from gradlab.tracing.leaves import is_inexact, is_key

Prove = Literal[False, True, "long"]
Anew = Callable[[Mapping[str, Any]], Subject]  # from arrays, by path, to the same rule there

_HALF = ("bfloat16", "float16")
_DIAGONAL = ("zero", "identity", "diagonal")
_SAME = 1e-10  # relative; gradients that differ by less need no verdict
_GROSSLY = 1e-3  # relative; a slip of rounding or of a series in JAX is smaller


def anywhere(inputs: Mapping[str, Any]) -> bool:
    """Return that every input is legal, where the user states no domain."""
    return True


@dataclass(frozen=True)
class Settings:
    """What of it the user asked for, and which inputs are legal."""

    branches: bool = True
    prove: Prove = True
    legal: Callable[[Mapping[str, Any]], bool] = anywhere
    anew: Anew | None = None  # makes the subject at other inputs


@dataclass(frozen=True)
class Reach:
    """What looking further found."""

    law: Law
    wrong: tuple[Trial, ...] = ()  # at inputs that gradlab made
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def look_further(trials: Sequence[Trial], leaves: Sequence[Leaf], settings: Settings) -> Reach:
    """Judge the sides of conditions that the inputs do not take, and try to prove the rest."""
    trial, skipped = trials[0], Law("branches", "skipped")
    right = [leaf for leaf in leaves if leaf.status in ("right", "right, loses digits")]
    points = {leaf.path: Evidence(grade="points", tried={"points": len(trials)}) for leaf in right}
    if not right or any(leaf.status == "wrong" for leaf in leaves):
        return Reach(_because(skipped, "a gradient is not right at the given inputs"), (), points)
    if not (trial.has_rule and trial.has_reference):
        lacking = "the forward cannot be differentiated; pass reference="
        if not trial.has_rule:
            lacking = "the rule cannot be read as a program"
        elif trial.subject.believed is None:
            lacking = "there is no second function to compare with"
        return Reach(_because(skipped, lacking), (), points)
    if any(is_key(getattr(array, "dtype", np.float64)) for array in trial.point.values()):
        reason = "an input is a random key, so only the given inputs were tried"
        return Reach(_because(skipped, reason), (), points)
    programs = [p for p in (trial.subject.forward, trial.subject.rule) if p is not None]
    programs += trial.subject.asked
    known, chosen = _known(trial, settings, programs)
    here: list[Proof] = []
    if settings.prove:  # before the branches: how far they are proved depends on it
        here = remember(chosen, lambda: _proved(trial, len(leaves), settings))
    proved = sum(proof.proved for proof in here)
    tried = len(leaves) if proved else 0
    moves = proved < len(leaves)
    found = remember(
        None if known is None else (known, tried, moves),
        lambda: _beyond(trial, tried, moves, settings, programs),
        lambda made: not made.wrong and not trial.dropped.notes,
    )
    if found.wrong:
        return Reach(found.law, found.wrong, {}, (_outside(found.wrong[0], trial),))
    evidence = {
        leaf.path: _graded(points[leaf.path], found, here[k] if here else None, k)
        for k, leaf in enumerate(leaves)
        if leaf in right
    }
    return Reach(found.law, (), evidence, _stopped(here, settings))


@dataclass(frozen=True)
class _Beyond:
    """What is known of a rule elsewhere: it holds at all inputs that decide as the given ones."""

    law: Law
    unreached: tuple[Side, ...]
    places: int
    values: int = 0  # of the dtype, all of which are right
    proofs: Mapping[str, list[Proof]] = field(default_factory=dict)  # by the sides of a place
    wrong: tuple[Trial, ...] = ()


def _known(
    trial: Trial, settings: Settings, programs: Sequence[Program]
) -> tuple[Hashable | None, Hashable | None]:
    """Return keys of the sides that the inputs take, and of all that is chosen by their values.

    What was found for a key holds for every check with it. None where it cannot be told.
    """
    subject, reference = trial.subject, trial.subject.reference
    assert reference is not None
    every = [*programs, reference]
    unknown = subject.opaque or subject.is_called or not subject.domain.everything
    if unknown or any(program.computes is None for program in every):
        return None, None
    point = {name: np.asarray(array) for name, array in trial.point.items()}
    taken = outcomes(programs, point)
    if taken is None:
        return None, None
    known = (
        *("beyond", *((p.computes, p.place, p.in_names, p.out_names) for p in every)),
        *(subject.targets, subject.intended, subject.stated, subject.constant, str(trial.place)),
        *(settings.branches, settings.prove, settings.anew is None, taken.sides),
        tuple(form_of(a) for a in point.values() if is_inexact(a.dtype)),  # which moves keep
    )
    whole = tuple(a.tobytes() for a in point.values() if not is_inexact(a.dtype))
    return known, ("proof", known, taken.chosen, whole)


def _beyond(
    trial: Trial, leaves: int, moves: bool, settings: Settings, programs: Sequence[Program]
) -> _Beyond:
    """Walk to the other sides, judge the rule there and, for so many leaves, try to prove it.

    `moves`: judge it near the given inputs, too. Ones, zeros and the like hide what is forgotten.
    """
    walked = _walked(trial, settings, programs)
    law, wrong = Law("branches", "skipped", "branches=False"), tuple[Trial, ...]()
    places = list(walked.places)
    if moves and not walked.reason:
        point = {name: np.asarray(array) for name, array in trial.point.items()}
        places.append(Place({**point, **nearby(trial.subject, trial.values, trial.seed)}, ()))
    there = {place: _there(trial, place, settings.anew) for place in places}
    if settings.branches:
        law, wrong = _judged(walked, trial, there)
    values, doubt = every_value(trial, settings.anew) if settings.anew and not wrong else (0, None)
    if doubt is not None and doubt.any_wrong:
        filled = _filled(trial, doubt)
        if any(verdict.wrong.any() for verdict in filled.formula_verdicts):
            reason = "wrong at an input that gradlab made, another finite value of the dtype"
            law, wrong = Law("branches", "failed", reason, judged=law.judged), (filled,)
        values = 0
    proofs = {}
    for place in walked.places if leaves and not wrong else ():
        other = there[place]
        sides = "; ".join(s.other for s in place.sides)
        unread = [Proof(False, reason="it cannot be read there")] * leaves
        proofs[sides] = unread if other is None else _proved(other, leaves, settings)
    return _Beyond(
        law=law,
        unreached=walked.unreached,
        places=len(walked.places),
        values=values,
        proofs=proofs,
        wrong=wrong,
    )


def _proved(trial: Trial, leaves: int, settings: Settings) -> list[Proof]:
    """Return what came of proving each leaf's gradient at the point of a trial."""
    rule, reference = trial.subject.rule, trial.subject.reference
    assert rule is not None and reference is not None
    inputs = {name: np.asarray(array) for name, array in trial.point.items()}
    outputs = [trial.outputs + k for k in range(leaves)]
    budget = LONG if settings.prove == "long" else BUDGET
    return prove(rule, reference, inputs, outputs, trial.seed, budget)


def _because(law: Law, reason: str) -> Law:
    return Law(law.name, law.status, reason)


def _walked(trial: Trial, settings: Settings, programs: Sequence[Program]) -> Walked:
    subject, point = trial.subject, trial.point
    assert subject.rule is not None and subject.reference is not None
    return walk_branches(
        programs,
        {name: np.asarray(point[name]) for program in programs for name in program.in_names},
        [name for name in trial.values if settings.branches and name not in subject.constant],
        lambda inputs: settings.legal({name: inputs[name] for name in trial.values}),
        _symmetric({name: np.asarray(point[name]) for name in trial.values}),
        trial.seed,
        len(subject.asked),
        (programs.index(subject.rule), subject.reference, trial.outputs),
    )


def _symmetric(given: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what keeps symmetric those matrices that are given so, as `nearby` does.

    Some rules are right for these inputs alone: that of a solver for symmetric systems.
    """
    floats = {name: array for name, array in given.items() if is_inexact(array.dtype)}
    names = [name for name, array in floats.items() if form_of(array) == "symmetric"]

    def kept(inputs: Mapping[str, Any]) -> dict[str, Any]:
        halves = {name: (inputs[name] + np.swapaxes(inputs[name], -1, -2)) / 2 for name in names}
        return {**inputs, **halves}

    return kept


def _there(trial: Trial, place: Place, anew: Anew | None) -> Trial | None:
    """Return the trial at a place; read again where what was read decides otherwise, if it can."""
    there = _at(trial, place)
    if trial.subject.holds(place.inputs):
        return there
    try:
        subject = None if anew is None else anew(there.values)
    except GradlabError:  # the function refuses such inputs
        return None
    if subject is None or subject.rule is None or subject.reference is None:
        return None
    return Trial(subject, subject.values, trial.seed, place=trial.place)


def _judged(
    walked: Walked, trial: Trial, trials: Mapping[Place, Trial | None]
) -> tuple[Law, tuple[Trial, ...]]:
    """Judge the rule at every place: at once where the gradients agree, else as at any input."""
    if walked.reason:
        return Law("branches", "skipped", walked.reason), ()
    judged = 0
    here = [there for there in trials.values() if there and there.subject is trial.subject]
    known = dict(zip(map(id, here), trial.many([there.values for there in here])))
    for place, there in trials.items():
        if there is None:
            continue
        found = known[id(there)] if id(there) in known else there.many([{}])[0]
        first, second = found["rule"][there.outputs :], found["reference"][there.outputs :]
        judged += sum(int(np.isfinite(a).sum()) for a in second)
        if all(map(_same, first, second)):
            continue
        each = zip(there.formula_verdicts, first, second)
        wrong = any((v.wrong & _in_question(v.wrong, a, b)).any() for v, a, b in each)
        if wrong and _is_itself(there, trial):
            sides = "; ".join(map(str, place.sides))
            where = f"where {sides}" if sides else "near the given ones"
            reason = f"wrong at an input that gradlab made, {where}"
            return Law("branches", "failed", reason, judged=judged), (there,)
    missed = (
        f"{count(len(walked.unreached), 'side')} of conditions not reached: "
        if walked.unreached
        else ""
    )
    reason = missed + "; ".join(map(str, walked.unreached[:3]))
    if not judged and walked.places:
        return Law("branches", "inconclusive", "no gradient is finite there", judged=0), ()
    return Law("branches", "passed", reason, judged=judged), ()


def _is_itself(there: Trial, trial: Trial) -> bool:
    """Whether the function runs there, in its domain, and what was read of it computes the same."""
    actual = there.dropped.attempt(lambda: there.actual, python=True)
    if actual is None:
        return False
    for made, given in zip(actual[: there.outputs], trial.actual[: there.outputs]):
        if (~np.isfinite(widen(made)) & np.isfinite(widen(given))).any():
            return False  # it has no value there
    if not there.subject.read:
        return True
    pairs = zip(there.wide or (), there.formula["reference"][: there.outputs])
    same = all(
        judge(widen(mine), other, None, np.float64).ok
        for mine, other in pairs
        if is_inexact(np.asarray(mine).dtype)
    )
    both = zip(there.formula_gradients or (), there.formula_verdicts)
    grossly = any(
        (v.wrong & (np.abs(g.value - v.expected) > _GROSSLY * np.abs(v.expected))).any()
        for g, v in both
    )
    return (same or grossly) and output_value(there).status != "failed"


def _at(trial: Trial, place: Place) -> Trial:
    values: Arrays = {
        name: np.asarray(place.inputs[name]).astype(np.asarray(value).dtype)
        if name in place.inputs
        else value
        for name, value in trial.values.items()
    }
    there = Trial(trial.subject, values, trial.seed, trial.evaluation, trial.place)
    there.dropped = trial.dropped
    return there


def _filled(trial: Trial, every: Trial) -> Trial:
    """Return the trial at values, of all those that were tried, whose gradient is wrong."""
    (name,) = trial.values
    (values,), (verdict,) = every.values.values(), every.formula_verdicts
    wrong = np.asarray(values)[verdict.wrong]
    point = {**trial.point, name: np.resize(wrong, np.shape(trial.values[name]))}
    return _at(trial, Place(point, ()))


def _same(first: Any, second: Any) -> bool:
    with np.errstate(all="ignore"):
        return bool((np.abs(first - second) <= _SAME * np.abs(second)).all())


def _in_question(like: Any, first: Any, second: Any) -> Any:
    """Return where the rule's gradient or that of autodiff is finite.

    Where neither is, nothing is held against a rule at an input that nobody gave.
    """
    return (np.isfinite(first) | np.isfinite(second)).reshape(np.shape(like))


def _graded(points: Evidence, found: _Beyond, here: Proof | None, leaf: int) -> Evidence:
    """Return the evidence for one right gradient."""
    reached: list[Grade] = ["points"]
    unreached = tuple(map(str, found.unreached))
    tried = {**points.tried, "branches": found.places}
    if found.law.status == "passed" and not unreached:
        reached.append("every branch")
    if found.values:
        reached.append("every value")
        tried["values"] = found.values
    where: list[str] = []
    bound, assumes = None, tuple[str, ...]()
    if here is not None and here.proved:
        reached.append("proved")
        beyond = {sides: proofs[leaf] for sides, proofs in found.proofs.items()}
        where = [s.other for s in found.unreached]
        where += [sides for sides, proof in beyond.items() if not proof.proved]
        bound = max(p.bound for p in (here, *beyond.values()) if p.proved)
        assumes = here.assumes
    best = max(reached, key=GRADES.index)
    return Evidence(
        grade=best,
        also=tuple(grade for grade in reached if grade != best),
        where=tuple(dict.fromkeys(where)),
        unreached=unreached,
        bound=bound,
        assumes=assumes,
        tried=tried,
    )


def _stopped(proofs: Sequence[Proof], settings: Settings) -> tuple[str, ...]:
    """Return the note on a proof that came to no end."""
    if all(proof.reason != STOPPED for proof in proofs):
        return ()
    more = 'pass prove="long" to give it seven times the time'
    if settings.prove == "long":
        more = "check smaller inputs"
    return (f"gradlab stopped the proof, which takes too long; {more}",)


def _outside(there: Trial, given: Trial) -> str:
    """Return the note on a failure at inputs that nobody gave: an entry that gradlab changed."""
    moved = {
        path: there.values[path] != value
        for path, value in given.values.items()
        if np.any(there.values[path] != value)
    }
    wrong = {
        target.path: verdict.wrong.reshape(np.shape(there.values[target.path]))
        for target, verdict in zip(there.subject.targets, there.formula_verdicts)
    }
    path, made = there.subject.targets[0].path, "these inputs"
    if moved:  # an entry that is wrong, if one of those is among them
        path = min(moved, key=lambda p: not np.any(wrong.get(p, False) & moved[p]))
        both = wrong.get(path, False) & moved[path]
        index = np.argwhere(both if np.any(both) else moved[path])[0]
        value = np.asarray(there.values[path])[tuple(index)].item()
        made = f"{entry_name(path, index)} = {value:.6g}"
    return (
        f"gradlab made {made}; if this cannot occur, state the legal inputs: "
        f"domain={{{path!r}: (low, high)}}"
    )


def finite_values(dtype: str) -> Any:
    """Return all finite numbers of a dtype of 16 bits, as one array."""
    values = np.arange(1 << 16, dtype=np.uint16).view(jnp.dtype(dtype))
    return jnp.asarray(values[np.isfinite(values.astype(np.float32))])


def every_value(trial: Trial, anew: Anew) -> tuple[int, Trial | None]:
    """Return at how many values of its dtype a rule was tried, and the rule where it is in doubt.

    It is tried at all that are finite, where it has one input, in half precision, and is proved
    elementwise: then an entry of the gradient depends on its own input and upstream alone.
    """
    subject = trial.subject
    if len(subject.values) != 1 or len(subject.targets) != 1 or len(subject.upstreams) != 1:
        return 0, None
    dtype = str(subject.targets[0].dtype)
    programs = subject.forward, subject.rule
    if dtype not in _HALF or any(p is None or not _elementwise(p, trial) for p in programs):
        return 0, None
    values = finite_values(dtype)
    there = _anew_at(values, trial, anew)
    if there is None:
        return 0, None
    found = there.many([{}])[0]
    first, second = (np.asarray(found[name][-1]) for name in ("rule", "reference"))
    with np.errstate(all="ignore"):
        same = np.abs(first - second) <= _SAME * np.abs(second)
    doubt = ~same & (np.isfinite(first) | np.isfinite(second))
    other = _anew_at(values[doubt], trial, anew) if doubt.any() else None
    return (0 if doubt.any() and other is None else values.size), other


def _anew_at(values: Any, trial: Trial, anew: Anew) -> Trial | None:
    """Return the rule at some values; None where the function takes one shape alone."""
    subject = trial.subject
    try:
        there = anew({subject.targets[0].path: values})
    except GradlabError:
        return None
    if there.rule is None or there.reference is None or there.outputs != subject.outputs:
        return None
    return Trial(there, there.values, trial.seed, place=trial.place)


def _elementwise(program: Program | None, trial: Trial) -> bool:
    """Whether no output of a program depends on an entry elsewhere, proved from the program."""
    assert program is not None
    inputs = [jnp.asarray(trial.point[name]) for name in program.in_names]
    from gradlab.structure.jacobian import jacobian  # with SciPy, for half precision alone

    try:
        report = jacobian(as_function(program), *inputs)
    except InputError:  # JAX differentiates it in no way, as a callback without a rule
        return False
    return all(pattern.structure in _DIAGONAL for pattern in report.patterns.values())
