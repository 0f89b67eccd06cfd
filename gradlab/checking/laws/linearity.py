"""Laws of the backward as a linear map: it is the transpose of forward mode, linear, and complete.

Catches clips, |g| and g * g, small upstreams that are dropped, rules that are wrong only where a
part of the upstream is zero, and `dx = p - onehot` without g.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradlab.checking.differences import directional
from gradlab.checking.forms import jvp_or_none, vjp_or_none
from gradlab.checking.laws.entries import entry_name, not_exact
from gradlab.checking.subject import Arrays, Upstream
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.common.arrays import Array
from gradlab.references import LIMIT, LOST, Evaluation, Verdict, blocks, known
from gradlab.report import Law
from gradlab.tracing import Program, ends_by, restricted, symbolic_zeros

_UNIT = 2.0**-53
_A, _B = 896.0, -320.0  # large: some rules clip
_SCALES = {2.0**-20: "u / 1048576", 2.0**20: "1048576 u", 2.0**-10: "u / 1024"}  # exact in binary
_LARGE = 1 << 20
_SLACK, _COARSE = 1e-9, 2e-3  # lifted programs; NumPy, which may round to float16 on its way
_SUBNORMAL = 2.0**-23  # by how much of an upstream of 1 float16 may be off near zero
_SPREAD = 16.0 * LIMIT  # scatters: of three gradients, two of them under other upstreams
_UNDERFLOW = 2.0**-1000  # what is smaller loses its digits, or is flushed to zero on the way
_OUTPUTS = 8  # of many outputs, some are asked alone


def adjoint(trial: Trial) -> Law:
    """Hold <J t, u> to <t, J' u>: the transpose is held against forward mode, not itself.

    An entry counts with the error that the formula's law allows it, if rounding explains less.
    """
    subject = trial.subject
    directions = [trial.tangents[t.path] for t in subject.targets]
    left, above = _product([trial.upstreams[u.name] for u in subject.upstreams], trial, "tangent")
    right, below = _product(directions, trial, "rule")
    floor = max(above + below, _allowed(directions, trial.formula_verdicts), LOST)
    if not np.isfinite(left - right) or not np.isfinite(floor):
        return Law("adjoint", "inconclusive", "the products are not finite")
    error = abs(left - right) / floor
    text = f"the forward rises by {left:.9g} along a direction; the gradient predicts {right:.9g}"
    if error <= 4 * LIMIT:
        return Law("adjoint", "passed", error=error, judged=1)
    if subject.loops and not trial.any_wrong:
        return not_exact("adjoint", text, error)
    if trial.only_kinks:
        reason = f"{text}; other witnesses judged these entries, so this law does not"
        return Law("adjoint", "inconclusive", reason, error)
    return Law("adjoint", "failed", text, error)


def linear(trial: Trial) -> Law:
    """Hold R to R(a u + b v) = a R(u) + b R(v), at scales of 1e-6 to 1e6, and to its parts.

    Of millions of entries fewer claims are asked: each costs a gradient.
    """
    found = nonlinearity(trial, "rule")
    if not found:
        found = _wrong_alone(trial)
        return Law("linear", "failed" if found else "passed", found, judged=1)
    if trial.subject.stated and trial.has_reference and nonlinearity(trial, "reference"):
        return Law("linear", "skipped", "the given reference is not linear either")
    if trial.subject.rule is not None and ends_by(trial.subject.rule, list(trial.upstreams)):
        reason = f"{found}; a loop of the backward ends by the upstream: linear to its tolerance"
        return Law("linear", "inconclusive", reason)
    return Law("linear", "failed", found)


def used(trial: Trial) -> Law:
    """Hold the gradients to change with an output's upstream, where that output has a slope."""
    ignored = ignored_outputs(trial)
    names = ", ".join(ignored)
    if ignored and trial.only_kinks:
        reason = f"the upstream of {names} changes nothing here, where the gradient was found right"
        return Law("used", "inconclusive", reason)
    if ignored:
        return Law("used", "failed", f"the upstream of {names} is ignored")
    return Law("used", "passed", judged=len(trial.subject.upstreams))


class _Claim(NamedTuple):
    """That R(upstream) is a sum of multiples of other gradients, which cancel no more than told."""

    upstream: Arrays
    factors: tuple[float, float]  # of R(u) and of R(v)
    less: tuple[Arrays, ...]  # upstreams whose gradients are taken away from that
    text: str


def nonlinearity(trial: Trial, keyword: str) -> str:
    """Return in words how a rule fails to be linear; empty where it is."""
    lifted = keyword == "reference" or (trial.has_rule and trial.reads(trial.other_upstreams))
    claims = list(_claims(trial))
    cases = [[claim.upstream, *claim.less] for claim in claims]
    here = trial.gradients_here(keyword)
    crossed, found = trial.crossed_and_at(keyword, list(itertools.chain(*cases)))
    together = iter(found)
    for claim, each in zip(claims, cases):
        moved = [found for found in itertools.islice(together, len(each)) if found is not None]
        if len(moved) < len(each):
            continue  # the rule refuses this upstream, which gradlab made
        for i, target in enumerate(trial.subject.targets):
            if trial.subject.odd[i]:
                continue
            scatter = trial.scatter_here(keyword, i)  # where it is infinite, nothing is told
            parts = [(claim.factors[0], here[i]), (claim.factors[1], crossed[i])]
            parts += [(-1.0, gradients[i]) for gradients in moved[1:]]
            known_here = np.isfinite(here[i]) & np.isfinite(crossed[i])
            read = lifted and (keyword == "reference" or all(map(trial.reads, each)))
            coarse = None if read else _halves(claim)
            at = _differs(
                np.where(known_here, moved[0][i], 0),
                [(f, np.where(known_here, g, 0)) for f, g in parts],
                scatter,
                coarse,
            )
            if at is not None:
                entry = entry_name(target.path, at)
                value, expected = moved[0][i][at], sum(f * g[at] for f, g in parts if f)
                return (
                    f"not linear in the upstream: {claim.text}: the gradient of {entry} is "
                    f"{value:.9g}, not {expected:.9g}"
                )
    return ""


def _claims(trial: Trial) -> Iterator[_Claim]:
    """Yield what a linear rule obeys; of millions of entries, what costs two gradients."""
    u = {name: widen(value) for name, value in trial.upstreams.items()}
    v = {name: widen(value) for name, value in trial.other_upstreams.items()}
    large = sum(np.size(trial.values[t.path]) for t in trial.subject.targets) > _LARGE
    for scale, text in list(_SCALES.items())[: 1 if large else None]:
        scaled = {n: scale * x for n, x in u.items()}
        yield _Claim(
            scaled,
            (scale, 0.0),
            (),
            f"the gradient for {text} is not that for u, scaled in the same way",
        )
    both = {n: _A * u[n] + _B * v[n] for n in u}
    yield _Claim(
        both,
        (_A, _B),
        (),
        "the gradient for a sum of two upstreams is not the sum of their gradients",
    )
    if large:
        return
    zero = {n: 0 * x for n, x in u.items()}
    yield _Claim(zero, (0.0, 0.0), (), "an upstream of zero does not give zero")
    rng = np.random.default_rng([trial.seed, 8])
    halves = {n: rng.random(np.shape(x)) < 0.5 for n, x in u.items()}
    first = {n: np.where(halves[n], x, 0) for n, x in u.items()}
    rest = {n: np.where(halves[n], 0, x) for n, x in u.items()}
    text = "the gradients for two parts of the upstream do not add up"
    yield _Claim(first, (1.0, 0.0), (rest,), text)
    for upstream in trial.subject.upstreams[:_OUTPUTS] if len(u) > 1 else ():
        alone = {n: x if n == upstream.name else 0 * x for n, x in u.items()}
        others = {n: 0 * x if n == upstream.name else x for n, x in u.items()}
        text = f"the gradients for {upstream.output} alone and for the other outputs do not add up"
        yield _Claim(alone, (1.0, 0.0), (others,), text)


def _halves(claim: _Claim) -> float:
    """Return by how much of its largest terms a rule may be off that rounds to float16 inside."""
    scale = abs(claim.factors[0]) if not any((claim.factors[1], claim.less)) else 0.0
    return _SLACK + _SUBNORMAL / scale if scale > 0 else _COARSE


def _differs(
    actual: Array, parts: Sequence[tuple[float, Any]], scatter: Array, coarse: float | None
) -> tuple[int, ...] | None:
    """Return where a gradient is not a sum of multiples of others, entry by entry; None: nowhere.

    `coarse`: what is not lifted may be off by so much of the largest term of all entries, and
    overflow under a large upstream.
    """
    flat, spread = np.ravel(actual), np.ravel(scatter)
    chosen = [(factor, np.ravel(gradient)) for factor, gradient in parts if factor]
    largest = max([1.0, *(abs(factor) for factor, _ in chosen)])
    everywhere = 0.0
    if coarse is not None:
        sizes = (abs(f) * np.max(np.abs(g), initial=0.0) for f, g in chosen)
        everywhere = coarse * float(max(sizes, default=0.0))
    for row in blocks(flat.size):
        terms = [factor * part[row] for factor, part in chosen]
        size = sum((np.abs(term) for term in terms), np.zeros(1))
        own = spread[row] if spread.size == flat.size else spread
        most = _SLACK * size + _SPREAD * largest * own + everywhere + _UNDERFLOW * largest
        off = np.abs(flat[row] - sum(terms, np.zeros(1)))
        if coarse is None or largest <= 1 or np.isfinite(flat[row]).all():
            wrong = np.isfinite(most) & ~(off <= most)
            if wrong.any():
                k = row.start + int(np.argmax(wrong))
                return tuple(int(i) for i in np.unravel_index(k, np.shape(actual)))
    return None


def _wrong_alone(trial: Trial) -> str:
    """Say where a rule that is told of symbolic zeros is wrong for some; empty: nowhere.

    Such a rule may take another way where an input has no tangent, or an output no upstream.
    """
    forward = trial.subject.forward
    if forward is None or not trial.has_rule or not symbolic_zeros(forward):
        return ""
    paths = [target.path for target in trial.subject.targets]
    sets = trial.subject.together or tuple((path,) for path in paths)
    some = {" and ".join(each): each for each in sets if len(each) < len(paths)}
    made: dict[str, Program | None] = {}  # None: JAX does not differentiate it by that alone
    for name, chosen in some.items():
        positions = tuple(forward.in_names.index(path) for path in chosen)
        made[f"alone {name}"] = vjp_or_none(forward, positions)
        if trial.subject.pushforward is not None:
            made[f"pushed {name}"] = jvp_or_none(forward, positions)
    several = [u.output for u in trial.subject.upstreams] if len(trial.upstreams) > 1 else []
    for output in several:
        part = restricted(forward, [forward.out_names.index(output)])
        positions = tuple(forward.in_names.index(path) for path in paths)
        made[f"through {output}"] = vjp_or_none(part, positions)
    programs = {name: program for name, program in made.items() if program is not None}
    if not programs:
        return ""
    names = dict.fromkeys(name for program in programs.values() for name in program.in_names)
    found = Evaluation(**programs).values({name: trial.full_point[name] for name in names})
    for name, chosen in some.items():
        fixed = [path for path in paths if path not in chosen]
        others = " and ".join(fixed)
        for path, mine in zip(chosen, found.get(f"alone {name}", ())[-len(chosen) :]):
            i = paths.index(path)
            if _apart(mine, trial.gradients_here("rule")[i], trial.scatter_here("rule", i)):
                return f"the gradient of {path} changes if {others} needs no gradient"
        if f"pushed {name}" in found and "pushforward" in trial.formula:
            still = {f"tangent {p}": 0 * widen(trial.tangents[p]) for p in fixed}
            moved = trial.many([still])[0]["pushforward"][trial.outputs :]
            ours = found[f"pushed {name}"][trial.outputs :]
            if any(_apart(a, b, np.zeros(1)) for a, b in zip(ours, moved)):
                return f"wrong where {others} has no tangent: the tangent along {name} differs"
    for upstream in trial.subject.upstreams:
        if f"through {upstream.output}" not in found:
            continue
        rest = {n: 0 * widen(u) for n, u in trial.upstreams.items() if n != upstream.name}
        pairs = zip(found[f"through {upstream.output}"][1:], trial.gradients_at("rule", [rest])[0])
        for i, (mine, expected) in enumerate(pairs):
            if _apart(mine, expected, trial.scatter_here("rule", i)):
                where = f"if {upstream.output} alone has an upstream"
                return f"{where}, the gradient of {paths[i]} changes"
    return ""


def _apart(actual: Array, expected: Array, scatter: Array) -> bool:
    return _differs(actual, [(1.0, expected)], known(scatter), None) is not None


def ignored_outputs(trial: Trial) -> list[str]:
    """Return the outputs whose upstream changes nothing, though it should."""
    upstreams = [u for u in trial.subject.upstreams if 0 not in u.shape]
    return [
        upstream.output
        for upstream, crossed in zip(upstreams, _crossed(trial, upstreams, "rule"))
        if not _moves(trial, crossed, "rule")
        if (
            any(_moves(trial, c, "reference") for c in _crossed(trial, [upstream], "reference"))
            if trial.has_reference
            else _has_slope(trial, upstream)
        )
    ]


def _crossed(trial: Trial, upstreams: Sequence[Upstream], keyword: str) -> Iterable[Any]:
    """Return the gradients under another upstream of one output alone, for each of some outputs.

    What NumPy evaluates goes through in one pass.
    """
    if len(trial.subject.upstreams) == 1:
        return [trial.gradients_crossed(keyword)] if upstreams else []
    cases = [{u.name: widen(trial.other_upstreams[u.name])} for u in upstreams]
    if trial.evaluation is not None and trial.evaluation.interpreted:
        return trial.gradients_at(keyword, cases)
    return (trial.gradients_at(keyword, [case])[0] for case in cases)


def _moves(trial: Trial, crossed: Sequence[Any], keyword: str) -> bool:
    """Whether gradients under other upstreams differ from those here.

    A reference may be zero but for rounding, where the rule is zero itself.
    """
    pairs = enumerate(zip(trial.gradients_here(keyword), crossed))
    for i, (a, b) in pairs:
        if keyword == "rule":
            if a.shape != b.shape or not np.array_equal(a, b, equal_nan=True):
                return True
        else:
            finite = np.isfinite(a) & np.isfinite(b)
            scatter = trial.scatter_here(keyword, i)
            if _apart(np.where(finite, b, 0), np.where(finite, a, 0), scatter):
                return True
    return False


def _has_slope(trial: Trial, upstream: Upstream) -> bool:
    """Whether finite differences show that one output changes with the inputs: no sign or count."""
    ours = {n: u if n == upstream.name else 0 * u for n, u in trial.upstreams.items()}
    slope = directional(trial.at(trial.values, ours), trial.tangents)
    value, error = float(slope.value[0]), float(slope.error[0])
    return bool(np.isfinite(error) and abs(value) > LIMIT * error)


def _allowed(directions: list[Array], verdicts: Sequence[Verdict]) -> float:
    """Return how far a product with directions moves if each right entry is off by its floor."""
    spread = 0.0
    for direction, verdict in zip(directions, verdicts):
        judged = verdict.right & np.isfinite(verdict.resolution)
        moves = (direction * verdict.actual)[judged] * verdict.resolution[judged] / LIMIT
        spread = float(np.hypot.reduce(np.abs(moves), initial=spread))
    return spread


def _product(directions: list[Array], trial: Trial, keyword: str) -> tuple[float, float]:
    """Return a program's product with directions, and how far rounding may move it."""
    product = spread = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for direction, estimate in zip(directions, trial.formula[keyword][trial.outputs :]):
            product += float(np.sum(np.real(direction * estimate.value)))
            moves = np.ravel(np.abs(direction) * estimate.scatter)
            spread = float(np.hypot.reduce(moves, initial=spread))
            spread += _UNIT * float(np.sum(np.abs(direction * estimate.value)))
    return product, spread
