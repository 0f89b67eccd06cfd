"""The one witness of every dispute: slopes of the lifted forward, asked in groups of entries.

A group of entries has one direction with random signs. A gradient that agrees with the slope along
it is right in the whole group, up to the slope's error; a group that cannot be told as a whole is
split until each entry stands alone. Thousands of entries cost a few dozen slopes.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradlab.checking.differences import Answer, answer, scales, slopes
from gradlab.checking.evidence import Evidence
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import LIMIT, Reason, Slope, State, Verdict
from gradlab.tracing import TooLong

Verdicts = tuple[Verdict, ...]
Tell = Callable[[Slope, int, Array], bool]
"""Whether a slope, the n-th of several, tells of a whole group of entries."""

_SPLITS = 12
_PARTS = 16
_TURNS, _CONVERGED = 40, 1e-13  # for which a loop runs on, and by which it still changes
MOST = 64  # entries that are not finite, and directions of one round of a dispute
REASONS = {
    Answer.AGREES: Reason.SLOPE_CONFIRMS,
    Answer.ZERO: Reason.ZERO,
    Answer.AT_A_KINK: Reason.AT_A_KINK,
    Answer.BESIDE_A_KINK: Reason.BESIDE_A_KINK,
    Answer.DISAGREES: Reason.SLOPE_REFUTES,
    Answer.TOO_COARSE: Reason.SLOPE_UNKNOWN,
    Answer.UNKNOWN: Reason.AT_A_JUMP,
}
STATES = {
    Reason.SLOPE_CONFIRMS: State.RIGHT,
    Reason.ZERO: State.RIGHT,
    Reason.AT_A_KINK: State.RIGHT,
    Reason.SLOPE_REFUTES: State.WRONG,
}


@dataclass(frozen=True, eq=False)
class Entries:
    """Some entries of all gradients, in one row: of which gradient each is, and where in it."""

    owner: Array
    place: Array

    @classmethod
    def where(cls, masks: Sequence[Array]) -> "Entries":
        """Return the entries at which masks are set, one mask for each gradient."""
        places = [np.flatnonzero(mask) for mask in masks]
        owner = np.repeat(np.arange(len(places)), [place.size for place in places])
        return cls(owner, np.concatenate([np.zeros(0, np.int64), *places]))

    def of(self, arrays: Sequence[Array]) -> Array:
        """Return what arrays, one for each gradient, hold at these entries."""
        parts = [np.ravel(a)[self.place[self.owner == i]] for i, a in enumerate(arrays)]
        return np.concatenate([part for part in parts if part.size] or [np.zeros(0)])

    def both(self, verdicts: Verdicts) -> tuple[Array, Array]:
        """Return what came at these entries, and what was expected."""
        return self.of([v.actual for v in verdicts]), self.of([v.expected for v in verdicts])

    def steps(self, evidence: Evidence) -> Array:
        """Return the step over which each entry changes its character."""
        targets = evidence.subject.targets
        return self.of([scales(evidence.values[target.path]) for target in targets])

    def direction(self, evidence: Evidence, weights: Array, group: Array) -> dict[str, Array]:
        """Return the direction that moves a group of the entries by its weights, and no other."""
        ways: dict[str, Array] = {}
        for i in np.unique(self.owner):
            target, mine = evidence.subject.targets[i], group[self.owner[group] == i]
            way = np.zeros(int(np.prod(target.shape, dtype=np.int64)), weights.dtype)
            np.add.at(way, self.place[mine], weights[mine])  # a complex entry has two parts
            part: Array = way if target.kind == "complex" else way.real
            ways[target.path] = part.reshape(target.shape)
        return ways

    def settled(
        self,
        verdicts: Verdicts,
        chosen: Array,
        state: State,
        reason: Reason,
        notes: Sequence[str] = (),
    ) -> Verdicts:
        """Return the verdicts with the chosen of the entries decided; notes go to the first."""
        found = list(verdicts)
        for i in np.unique(self.owner[chosen]):
            mask = np.zeros(found[i].state.size, bool)
            mask[self.place[chosen & (self.owner == i)]] = True
            mask = mask.reshape(found[i].state.shape)
            found[i], notes = found[i].settle(mask, state, reason, notes=notes), ()
        return tuple(found)

    def expecting(self, verdicts: Verdicts, chosen: Array, values: Array) -> Verdicts:
        """Return the verdicts with other values expected at the chosen of the entries."""
        found = list(verdicts)
        for i in np.unique(self.owner[chosen]):
            mine, expected = chosen & (self.owner == i), found[i].expected.copy()
            expected.ravel()[self.place[mine]] = values[mine]
            found[i] = replace(found[i], expected=expected)
        return tuple(found)

    def notes(self, verdicts: Verdicts, confirmed: Array, who: str) -> list[str]:
        """Say where autodiff is off, at the first entry at which the rule is confirmed."""
        rule, reference = self.both(verdicts)
        found = np.flatnonzero(confirmed & (rule != reference))
        if not found.size:
            return []
        n = int(found[0])
        verdict = verdicts[self.owner[n]]
        index = list(map(int, np.unravel_index(self.place[n], verdict.state.shape)))
        return [
            f"at {verdict.path}{index or ''} autodiff gives {reference[n]:.6g}, and the rule gives "
            f"{rule[n]:.6g}. {who} confirm the rule"
        ]


def ask(
    evidence: Evidence,
    entries: Entries,
    weights: Array,
    groups: Sequence[Array],
    tell: Tell,
    most: int = MOST,
) -> None:
    """Ask slopes along groups of entries, and split what is not told, until each stands alone."""
    for _ in range(_SPLITS):
        groups = [group for group in groups if group.size][:most]
        if not groups:
            return
        slope = slopes(evidence, (entries.direction(evidence, weights, g) for g in groups))
        open_ = [g for n, g in enumerate(groups) if not tell(slope, n, g) and g.size > 1]
        parts = (np.array_split(group, min(group.size, _PARTS)) for group in open_)
        groups = list(itertools.chain.from_iterable(parts))


def evidence_of_infinities(evidence: Evidence, i: int) -> Array:
    """Return the entries of a gradient on which outputs depend that are not finite.

    They are those that change, or are not finite, when the upstreams of these outputs are zero.
    """
    shape = evidence.subject.targets[i].shape
    without = evidence.without_infinities
    if without is None:
        return np.zeros(shape, bool)
    gradients = evidence.formula_gradients or ()
    return np.asarray(~(gradients[i].value == without[i]))


def infinities(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Nothing is known of an entry on which an output depends that is not finite itself.

    Where the function has no value, a rule may have none, whatever autodiff gives.
    """
    found = []
    for i, verdict in enumerate(verdicts):
        doubted = verdict.decided_by(Reason.REFERENCE_NOT_FINITE)
        if doubted.any():
            doubted = doubted & evidence_of_infinities(evidence, i)
        if verdict.decided_by(Reason.NOT_FINITE).any() and evidence.without_nan is not None:
            moved = verdict.expected != evidence.without_nan[i]
            doubted = doubted | (verdict.decided_by(Reason.NOT_FINITE) & moved)
        found.append(verdict.settle(doubted, State.UNDECIDED, Reason.OUTPUT_NOT_FINITE))
    return tuple(found)


def disputes(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Settle where rule and reference differ, or are not finite: the slope sides with one of them.

    Where it confirms the rule and refutes the reference, the entry is right. Where both are NaN and
    the function has a slope, it is wrong. Where it confirms neither, or both as far as it can tell,
    the verdict stays. A reference that the user gave is
    believed; at a kink both may be right.
    """
    entries = _real(
        evidence, [v.wrong | v.decided_by(Reason.REFERENCE_NOT_FINITE) for v in verdicts]
    )
    if not entries.owner.size:
        return verdicts
    rule, reference = entries.both(verdicts)
    said, slope = _sides(evidence, entries, rule, reference)
    unknown = (said == Reason.SLOPE_REFUTES.number) & np.isnan(reference)
    verdicts = entries.expecting(verdicts, unknown, slope)
    for reason in (Reason.AT_A_KINK,) if evidence.subject.stated else _TOLD:
        chosen = said == reason.number
        if reason == Reason.SLOPE_REFUTES:
            chosen &= ~entries.of([v.wrong for v in verdicts]).astype(bool)
        confirmed = chosen & (reason == Reason.SLOPE_CONFIRMS)
        notes = entries.notes(verdicts, confirmed, "Finite differences")
        state = STATES.get(reason, State.UNDECIDED)
        verdicts = entries.settled(verdicts, chosen, state, reason, notes)
    return verdicts


_TOLD = (Reason.SLOPE_CONFIRMS, Reason.AT_A_KINK, Reason.BESIDE_A_KINK, Reason.SLOPE_REFUTES)


def _real(evidence: Evidence, masks: Sequence[Array]) -> Entries:
    """Return the entries at which masks are set, of gradients that are real."""
    kinds = (target.kind for target in evidence.subject.targets)
    return Entries.where([mask & (kind == "real") for mask, kind in zip(masks, kinds)])


def _weights(evidence: Evidence, entries: Entries, salt: int) -> Array:
    """Return the step of each entry, with a random sign."""
    signs = np.random.default_rng([evidence.seed, salt]).choice((-1.0, 1.0), entries.owner.size)
    return np.asarray(entries.steps(evidence) * signs)


def _sides(
    evidence: Evidence, entries: Entries, rule: Array, reference: Array
) -> tuple[Array, Array]:
    """Return the number of the reason that slopes give to each entry in dispute, and the slopes.

    It is 0 for none. Slopes are those of entries that were asked alone.
    """
    weights = _weights(evidence, entries, 8)
    finite, every = np.isfinite(rule) & np.isfinite(reference), np.arange(rule.size)
    said, found = np.zeros(rule.size, np.uint8), np.full(rule.size, np.nan)

    def tell(slope: Slope, n: int, group: Array) -> bool:
        ours, theirs = (
            answer(float(np.sum(claim[group] * weights[group])), slope, n)
            for claim in (rule, reference)
        )
        reason = _decided(ours, theirs, finite[group[0]])
        neither = not np.isfinite([rule[group[0]], reference[group[0]]]).any()
        if neither and ours == theirs == Answer.DISAGREES and not np.ravel(slope.kink)[n]:
            reason = Reason.SLOPE_REFUTES  # both are NaN where the function has a slope
        told = reason in (Reason.SLOPE_CONFIRMS, Reason.SLOPE_REFUTES)
        if reason is not None and (told or group.size == 1):
            said[group] = reason.number
        if group.size == 1:
            found[group] = np.ravel(slope.value)[n] / weights[group] + 0.0  # no -0.0
        return told

    groups = [every[finite], *(np.array([n]) for n in every[~finite][:MOST])]
    ask(evidence, entries, weights, groups, tell)
    return said, found


def _decided(ours: Answer, theirs: Answer, finite: bool) -> Reason | None:
    """Return what two answers tell; None where both gradients agree, or neither does."""
    if ours == Answer.AGREES and (theirs == Answer.DISAGREES or not finite):
        return Reason.SLOPE_CONFIRMS
    if ours == Answer.DISAGREES and theirs == Answer.AGREES:
        return Reason.SLOPE_REFUTES
    if ours == Answer.AT_A_KINK:
        return Reason.AT_A_KINK
    if ours == theirs == Answer.BESIDE_A_KINK:
        return Reason.BESIDE_A_KINK
    return None


def zeros(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """An entry whose terms cancel is zero to their rounding; slopes confirm that it is no accident.

    Both sides must be zero as far as their own rounding tells, and no slope be found there.
    """
    moves = [np.zeros(verdict.state.shape) for verdict in verdicts]
    masks = [verdict.decided_by(Reason.TOO_COARSE) for verdict in verdicts]
    for i, verdict in enumerate(verdicts):
        if masks[i].any():
            theirs, ours = (evidence.scatter_here(key, i) for key in ("reference", "rule"))
            moves[i] = np.fmax(theirs, ours) if np.isfinite(ours).all() else theirs
            masks[i] &= np.abs(verdict.expected) <= LIMIT * theirs
            masks[i] &= np.abs(verdict.actual) <= LIMIT * moves[i]
    entries = _real(evidence, masks)
    claims, spreads = entries.of([v.actual for v in verdicts]), entries.of(moves)
    told = _told(evidence, entries, claims, spreads, Answer.ZERO)
    return entries.settled(verdicts, told == Answer.ZERO.value, State.RIGHT, Reason.ZERO)


def _told(
    evidence: Evidence, entries: Entries, claims: Array, spreads: Array, wanted: Answer
) -> Array:
    """Return what slopes say of gradients: one answer for a group, which is split for another."""
    weights = _weights(evidence, entries, 9)
    said = np.zeros(claims.size, np.uint8)

    def tell(slope: Slope, n: int, group: Array) -> bool:
        spread = float(np.linalg.norm(spreads[group] * weights[group]))
        found = answer(float(np.sum(claims[group] * weights[group])), slope, n, spread)
        told = found == wanted or group.size == 1
        if told:
            said[group] = found.value
        return told

    ask(evidence, entries, weights, [np.arange(claims.size)], tell)
    return said


def loops(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Where rule and reference differ and something iterates, both run on until it converges.

    A rule for the exact solution is right there, and another one wrong. What does not converge is
    left as it is.
    """
    entries = _real(evidence, [v.wrong | v.decided_by(Reason.NOT_CONVERGED) for v in verdicts])
    if not (entries.owner.size and evidence.has_rule) or evidence.subject.is_called:
        return verdicts
    try:
        (there, rule), (more, _) = evidence.further(_TURNS), evidence.further(2 * _TURNS)
        here = {t.path: widen(evidence.values[t.path])[None] for t in evidence.subject.targets}
        pairs = zip(there.forward(here), more.forward(here))
        if not all(a is None or np.allclose(a, b, _CONVERGED, 0.0) for a, b in pairs):
            return verdicts
        claims = entries.of(rule)
        told = _told(there, entries, claims, np.zeros(claims.size), Answer.AGREES)
    except TooLong:
        return verdicts
    for said, state, reason in (
        (Answer.AGREES, State.RIGHT, Reason.CONVERGED),
        (Answer.DISAGREES, State.WRONG, Reason.SLOPE_REFUTES),
    ):
        settled = entries.of([v.state == state for v in verdicts]).astype(bool)
        chosen = (told == said.value) & ~settled
        verdicts = entries.settled(verdicts, chosen, state, reason)
    return verdicts
