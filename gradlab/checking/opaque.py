"""A forward that can be called but not read: a bounded number of calls judges all gradients.

First all gradients together are held to slopes along directions with random signs. What these do
not tell is asked entry by entry, at two calls each: a step to both sides gives both slopes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradlab.checking.by_slopes import Sheet
from gradlab.checking.calls import noise_of, slopes_by_calls
from gradlab.checking.differences import LINE, NOTHING, Answer, slopes
from gradlab.checking.evidence import Evidence
from gradlab.checking.kinks import ties_of
from gradlab.checking.widen import widen
from gradlab.checking.witness import REASONS, STATES
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import LIMIT, Estimate, Reason, Verdict, norm

_ALONE = 3  # entries that are asked with all care
_LEAST = 2.0**-3  # of its step, by which a number moves in a direction at least
_LATER, _TIED = 40, 3  # calls that the other laws need, and those for each value of tied entries
_LESS = 0.5  # of its step, by which a number moves in a group at least
_FINE = 2.0**-10  # of a number: the error up to which a direction over all numbers tells of it
_VAGUE = 10**-0.5  # of a number: a larger error leaves it less than half a digit
_SMALL = 0.01  # of a typical number: a smaller error hides nothing of size
_AGREE = {Answer.AGREES, Answer.ZERO, Answer.TOO_COARSE}


def judge_by_calls(
    evidence: Evidence, gradients: Sequence[Estimate], chosen: Sequence[int]
) -> dict[int, Verdict]:
    """Judge the chosen gradients by slopes of a forward that is called as often as it may be."""
    sheet = Sheet(evidence, gradients, chosen, Reason.NOT_ASKED)
    refuted = _together(sheet)
    for k in np.flatnonzero(~sheet.finite)[:_ALONE]:
        sheet.ask_alone(k)
    _each(sheet, refuted)
    if not refuted:
        _confirm(sheet)
    elif not sheet.told(Reason.SLOPE_REFUTES).any():
        _search(sheet)
    vague = sheet.told(Reason.SLOPE_CONFIRMS) & ~sheet.known_well(_VAGUE, _SMALL)
    sheet.put(vague, Reason.SLOPE_UNKNOWN, np.nan, np.inf)
    return {i: sheet.verdict(i) for i in chosen}


def _together(sheet: Sheet) -> bool:
    """Hold all numbers together to slopes, and return whether one refutes them.

    Where they agree, the large ones are confirmed, and the small ones may be zero.
    """
    said, error, noise = [], 0.0, noise_of(sheet.evidence)
    for direction, steps in _directions(sheet) if sheet.finite.any() else ():
        slope = slopes(sheet.evidence, [direction])
        said.append(sheet.answer(slope, 0, np.flatnonzero(sheet.finite), steps, strict=False))
        spread = norm(sheet.spread[sheet.finite], steps[sheet.finite])
        error, noise = max(error, float(slope.error[0]), spread), noise_of(sheet.evidence)
        if said[-1] not in _AGREE:  # another direction tells no more
            break
    if set(said) <= _AGREE and np.isfinite(error):
        seen = sheet.finite & (_LEAST * np.abs(sheet.claim) > LIMIT * error)
        sheet.put(seen, Reason.SLOPE_CONFIRMS, sheet.claim[seen], error / _LEAST)
        if error <= NOTHING * noise:
            zero = sheet.finite & ~seen & (np.abs(sheet.claim) <= LIMIT * sheet.spread)
            sheet.put(zero, Reason.ZERO, 0.0, error)
    return Answer.DISAGREES in said


def _directions(sheet: Sheet) -> Iterator[tuple[dict[str, Any], Array]]:
    """Yield two directions over all entries, and by how many of its steps each number moves.

    The first is that of the law of finite differences, so that it costs no more calls.
    """
    tangents, size = sheet.evidence.tangents, sheet.claim.size
    rng = np.random.default_rng([sheet.evidence.seed, 3])
    if sheet.finite.all() and sheet.weight.dtype.kind == "f":
        targets = sheet.evidence.subject.targets
        steps = sheet.entries.of([widen(tangents[t.path]) for t in targets]) / sheet.weight
        if (np.abs(steps) >= _LEAST).all():
            yield tangents, steps
    steps = np.where(sheet.finite, rng.choice((-1.0, 1.0), size), 0.0)
    yield sheet.direction(np.arange(size), steps), steps


def _each(sheet: Sheet, refuted: bool) -> None:
    """Ask for what is not told, or but roughly: the largest claims first.

    Some calls are left for later, and where something is wrong, for a search: of half of what was
    not asked, and half of these.
    """
    calls, later = sheet.evidence.subject.calls, _LATER + _TIED * ties_of(sheet.evidence)
    waiting = np.flatnonzero(sheet.told(Reason.NOT_ASKED) & sheet.finite)
    rough = np.flatnonzero(sheet.told(Reason.SLOPE_CONFIRMS) & ~sheet.known_well(_FINE))
    search = LINE * (waiting.size.bit_length() + 2)
    left = calls.allowed - calls.made - later
    later += search if refuted and 2 * waiting.size > left >= search else 0
    _ask(sheet, waiting, later + LINE, alone=refuted)
    _ask(sheet, rough, later + LINE)


def _ask(sheet: Sheet, numbers: Array, later: int, alone: bool = False) -> None:
    """Ask for numbers in groups of like size, for which there are calls; or for some `alone`.

    A group that is refuted is asked for number by number: calls for a few of them are kept. Those
    for which no calls are left do not count as judged, even if a direction confirmed them.
    """
    calls = sheet.evidence.subject.calls
    rng = np.random.default_rng([sheet.evidence.seed, 10])
    steps = rng.choice((-1.0, 1.0), sheet.claim.size) * rng.uniform(_LESS, 1.0, sheet.claim.size)
    order = numbers[np.argsort(-np.abs(sheet.claim[numbers]), kind="stable")]
    count = calls.share(order.size, 2, later)
    if not alone and 0 < count < order.size:
        count = calls.share(order.size, 2, later + 2 * _ALONE * -(-order.size // count))
    chosen = order[:count] if alone else order
    groups = np.array_split(chosen, count) if count else []
    while groups:
        steps[np.concatenate([order[:0], *(group for group in groups if group.size == 1)])] = 1.0

        def direction(n: int, groups: Sequence[Array] = groups) -> dict[str, Any]:
            return sheet.direction(groups[n], steps)

        slope, untold = slopes_by_calls(sheet.evidence, direction, len(groups), later)
        split: list[Array] = []
        for n, group in enumerate(groups):
            said = sheet.answer(slope, n, group, steps, strict=group.size == 1)
            if group.size == 1:
                reason = Reason.NOT_ASKED if untold[n] else REASONS[said]
                if reason in STATES or sheet.told(Reason.NOT_ASKED)[group].any():
                    sheet.put(group, reason, slope.value[n], slope.error[n])
            elif said.refutes:
                sheet.put(group, Reason.NOT_ASKED, np.nan, np.inf)
                split += [np.array([k]) for k in group]
            elif said == Answer.AGREES and not untold[n]:
                sheet.put(group, REASONS[said], sheet.claim[group], slope.error[n] / _LESS)
        groups = split[: calls.share(len(split), 2, later)]


def _search(sheet: Sheet) -> None:
    """Look for a wrong entry among those that nobody asked for: half of them, and half of these.

    What is left when few are is asked number by number. If no wrong one is found, no
    entry counts as right.
    """
    suspects = np.flatnonzero(sheet.told(Reason.NOT_ASKED) & sheet.finite)
    rng, calls = np.random.default_rng([sheet.evidence.seed, 9]), sheet.evidence.subject.calls
    steps = rng.choice((-1.0, 1.0), sheet.claim.size)
    while 2 * suspects.size > LINE and calls.grants(2 * LINE):
        half = rng.permutation(suspects)[: suspects.size // 2]
        slope = slopes(sheet.evidence, [sheet.direction(half, steps)])
        said = sheet.answer(slope, 0, half, steps, strict=False)
        suspects = half if said.refutes else np.setdiff1d(suspects, half)
    _ask(sheet, suspects, _LATER, alone=True)
    if suspects.size and not sheet.told(Reason.SLOPE_REFUTES).any():
        sheet.put(sheet.finite, Reason.NOT_ASKED, np.nan, np.inf)


def _confirm(sheet: Sheet) -> None:
    """Ask once more for what two calls refute, where no direction over all entries does."""
    wrong = np.flatnonzero(sheet.told(Reason.SLOPE_REFUTES) & sheet.finite)
    if not wrong.size:
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.abs(sheet.claim - sheet.value)[wrong] / sheet.error[wrong]
    asked = []
    for k in wrong[np.argsort(-excess)[:_ALONE]]:
        if sheet.evidence.subject.calls.grants(LINE):
            sheet.ask_alone(k)
            asked.append(k)
    if not asked:  # two calls refute it, and none are left to be sure
        sheet.put(sheet.finite, Reason.NOT_ASKED, np.nan, np.inf)
    elif not sheet.told(Reason.SLOPE_REFUTES)[asked].any():
        rest = np.flatnonzero(sheet.told(Reason.SLOPE_REFUTES))
        sheet.put(rest, Reason.SLOPE_UNKNOWN, sheet.value[rest], np.inf)
