"""One subject at one point, measured and judged: what every law is given."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab.checking.differences import judge_by_differences, settle_by_slopes
from gradlab.checking.evidence import Evidence, draw_upstreams, nearby
from gradlab.checking.judged import Judged
from gradlab.checking.kinks import settle_kinks
from gradlab.checking.shared_kinks import settle_shared_kinks
from gradlab.checking.subject import Arrays
from gradlab.checking.widen import widen
from gradlab.references import LIMIT, Estimate, Verdict, blocks, judge, unit_roundoff

__all__ = ["Trial"]

_FLOAT32 = unit_roundoff("float32")
_ROUNDED = 2 * LIMIT * _FLOAT32  # constants of a primal may be float32 numbers
_APPROXIMATE = 2.0**6 * _FLOAT32  # slopes of polynomials fitted to float32 err more
_CLOSE = 1e4  # floors; what is further off is wrong however often rounding is drawn


class Trial(Evidence):
    """Evidence with its verdicts: the formula's, in float64, and the rule's own, in its dtype."""

    @functools.cached_property
    def formula_verdicts(self) -> list[Judged]:
        """Judge the mathematics: rule and reference, both in float64."""
        gradients = self.formula_gradients
        if gradients is None:
            return []
        judged = []
        for i, target in enumerate(self.subject.targets):
            if self.subject.odd[i]:
                judged.append(Judged.empty(target, np.full(target.shape, np.nan)))
            elif self.has_reference:
                finest = target.dtype if self.subject.opaque else np.float64
                verdict, expected = self._settled(gradients[i].value, "formula", i, finest)
                judged.append(Judged.of(target, gradients[i].value, expected, verdict))
            else:
                judged.append(judge_by_differences(self, target, gradients[i]))
        if not self.has_reference:
            settle_shared_kinks(self, judged)
        else:
            references = [self.expected("formula", i).value for i in range(len(judged))]
            self._settle_zeros(judged, references)
            settle_kinks(self, judged, references)
            if not self.subject.stated:
                settle_by_slopes(self, judged, references)
            if self.subject.approximate:
                self._forgive_convergence(judged)
        self._forgive_approximation(judged)
        return judged

    @functools.cached_property
    def accuracy_verdicts(self) -> list[Judged]:
        """Judge the rule as it runs, in its own dtypes, against the lifted reference."""
        actual = self.gradients(self.actual)
        judged = []
        for i, target in enumerate(self.subject.targets):
            if self.subject.odd[i]:
                judged.append(Judged.empty(target, np.full(target.shape, np.nan)))
                continue
            verdict, expected = self._settled(actual[i], "accuracy", i, target.dtype)
            if verdict.wrong.any() and not self.any_wrong and self.has_reference:
                verdict = verdict.excused_by(self._peer(i))
            judged.append(Judged.of(target, actual[i], expected, verdict))
        return judged

    def expected(self, law: str, i: int) -> Estimate:
        """Return the reference's gradient of the i-th target."""
        estimates: dict[str, list[Estimate]] = getattr(self, law)
        return estimates["reference"][self.outputs + i]

    def expected_in_own_dtype(self, i: int, draws: int) -> Estimate:
        """Return what the gradient should be; at a kink, what the rule's own formula says."""
        formula = self.formula_verdicts[i] if self.formula_verdicts else None
        if not self.has_reference:
            assert formula is not None
            error = np.where(np.isfinite(formula.resolution), formula.resolution / LIMIT, 0.0)
            known = np.where(formula.wrong, formula.expected, np.nan)
            value = np.where(formula.right, formula.actual, known)
            return Estimate(value, error * np.abs(value))
        expected = self.drawn(draws)[1]["reference"][self.outputs + i]
        if formula is None:
            return expected
        moved = formula.right & _apart(formula.actual, expected.value)
        if not moved.any():
            return expected
        own = self._own(self.outputs + i, draws)
        value = np.where(moved, formula.actual, expected.value)
        return Estimate(value, np.where(moved, own.scatter, expected.scatter))

    def _settled(self, actual: Any, law: str, i: int, dtype: Any) -> tuple[Verdict, Any]:
        """Judge a gradient, and return what it should be beside the verdict.

        A verdict of wrong that is close is not left to a few draws.
        """
        expected, own = self._estimated(law, i, self.draws)
        verdict = judge(actual, expected, own, dtype)
        for draws in self.more_draws if self.has_rule else ():
            if verdict.ok or not np.any(verdict.wrong & (verdict.error < _CLOSE)):
                break
            expected, own = self._estimated(law, i, draws)
            verdict = judge(actual, expected, own, dtype)
        return verdict, expected.value

    def within_rounding(self, i: int, actual: Any) -> bool:
        """Whether a gradient of the i-th target, run again, is as good as rounding lets it be."""
        expected, own = self._estimated("accuracy", i, self.draws)
        if not self.has_rule:  # run again and again, it scatters by what changes from call to call
            expected, own = self.expected("accuracy", i) if self.has_reference else expected, None
        return judge(actual, expected, own, self.subject.targets[i].dtype).ok

    def _estimated(self, law: str, i: int, draws: int) -> tuple[Estimate, Estimate | None]:
        """Return what is known of the i-th gradient: the reference's, and the rule's own."""
        k = self.outputs + i
        if law == "formula":
            known = self.drawn(draws)[self.subject.opaque]  # what is not lifted rounds as it runs
            gradients = self.formula_gradients
            own = None if gradients is None else gradients[i]
            return known["reference"][k], known["rule"][k] if self.has_rule else own
        return self.expected_in_own_dtype(i, draws), self._own(k, draws)

    def _own(self, k: int, draws: int) -> Estimate:
        """Return how the k-th result of the rule scatters in its own dtype."""
        return self.drawn(draws)[1]["rule"][k] if self.has_rule else self.own_scatter[k]

    def _peer(self, i: int) -> Verdict:
        """Judge plain autodiff, run in the same dtype as the rule."""
        expected, dtype = self.expected("accuracy", i), self.subject.targets[i].dtype
        return judge(self._peers[self.outputs + i], expected, None, dtype)

    @functools.cached_property
    def _peers(self) -> list[Any]:
        reference = self.subject.reference
        assert reference is not None
        with self.placed():
            return list(reference(*(self.point[name] for name in reference.in_names)))

    @functools.cached_property
    def formula_gradients(self) -> list[Estimate] | None:
        """The rule's gradients in float64 with their scatter, or None where it refuses."""
        if self.has_rule:
            return list(self.formula["rule"][self.outputs :])
        if self.wide is None:
            return None
        arrays = [widen(value) for value in self.point.values()]
        wide, own = self.scatter_of(arrays)[self.outputs :], self.own_scatter[self.outputs :]
        return list(map(_in_digits_it_has, wide, own))

    @functools.cached_property
    def other_upstreams(self) -> Arrays:
        """Another upstream for every output."""
        return draw_upstreams(self.subject, self.seed + 1)

    def gradients_crossed(self, keyword: str) -> list[Any]:
        """Return the gradients of rule or reference in float64, under the other upstreams."""
        if keyword not in self._crossed:
            case = {name: widen(u) for name, u in self.other_upstreams.items()}
            self._crossed.update(self.gradients_under(case, keyword))
        return self._crossed[keyword]

    @functools.cached_property
    def _crossed(self) -> dict[str, list[Any]]:
        return {}

    def gradients_here(self, keyword: str) -> list[Any]:
        """Return the gradients of the rule or the reference in float64, at the point."""
        if keyword == "reference":
            return [e.value for e in self.formula["reference"][self.outputs :]]
        return [e.value for e in self.formula_gradients or ()]

    def scatter_here(self, keyword: str, i: int) -> Any:
        """Return how far rounding to float64 moves the i-th gradient of rule or reference."""
        if keyword == "reference":
            return self.expected("formula", i).scatter
        gradients = self.formula_gradients
        return np.zeros(()) if gradients is None else gradients[i].scatter

    def gradients_under(self, case: Arrays, keyword: str | None = None) -> dict[str, list[Any]]:
        """Return the gradients in float64, by program, at a change to the point.

        Where one keyword is given, others may be missing.
        """
        found = {}
        if self.evaluation is not None and (self.has_rule or keyword != "rule"):
            results = self.many([case], keyword)[0]
            found = {key: self.gradients(values) for key, values in results.items()}
        if not self.has_rule and keyword != "reference":
            point = {name: widen(value) for name, value in self.point.items()}
            found["rule"] = self.gradients(self.probe({**point, **case}))
        return found

    def gradients_at(self, keyword: str, cases: Sequence[Arrays]) -> list[list[Any]]:
        """Return the gradients of the rule or the reference in float64, at changes to the point."""
        if keyword == "rule" and not self.has_rule:
            point = {name: widen(value) for name, value in self.point.items()}
            return [self.gradients(self.probe({**point, **case})) for case in cases]
        return [self.gradients(result[keyword]) for result in self.many(cases, keyword)]

    @property
    def any_wrong(self) -> bool:
        """Whether some entry is wrong."""
        return any(each.wrong.any() for each in self.formula_verdicts)

    @property
    def only_kinks(self) -> bool:
        """Whether rule and reference differ only where another witness was asked."""
        return not self.any_wrong and any(
            each.kinks or each.notes or each.warnings or each.inconclusive.any()
            for each in self.formula_verdicts
        )

    def _settle_zeros(self, judged: list[Judged], references: list[Any]) -> None:
        """Zero against zero says nothing where it is chance: such entries are judged elsewhere.

        A converged loss has a zero gradient under a wrong rule too.
        """
        zero = [j.right & (np.asarray(q) == 0) for j, q in zip(judged, references)]
        if not any(mask.any() for mask in zero):
            return
        moved = {**self.values, **nearby(self.subject, self.values, self.seed)}
        there = Trial(self.subject, moved, self.seed, self.evaluation, self.place)
        gradients = self.gradients(there.many([{}])[0]["reference"])
        chance = [mask & (g != 0) for mask, g in zip(zero, gradients)]
        if not any(mask.any() for mask in chance):
            return
        ours = there.formula_gradients
        for i, (each, mask) in enumerate(zip(judged, chance)):
            if ours is None or not mask.any():
                each.doubt(mask)
                continue
            verdict = judge(ours[i].value, there.expected("formula", i), ours[i], np.float64)
            each.doubt(mask & ~verdict.right)

    def _forgive_approximation(self, judged: list[Judged]) -> None:
        """A primal may approximate its function to float32, where its rule is exact.

        Such a difference is below what float32 holds, so it is a warning there. Where the terms of
        an entry cancel, it is small beside what the entry is under other upstreams. It is not the
        same at different inputs: one factor for all is a mistake, as n - 1 for n is in a mean.
        """
        for i, each in enumerate(judged):
            if unit_roundoff(each.target.dtype) < _FLOAT32:
                continue
            each.forgiven = _APPROXIMATE
            if not each.wrong.any():
                continue
            size = np.abs(each.expected)
            if self.has_reference and self.subject.linear:
                size = np.fmax(size, np.abs(self.gradients_crossed("reference")[i]))
            with np.errstate(invalid="ignore"):
                off = np.abs(each.actual - each.expected)
                value = widen(self.values[each.target.path])
                alike = np.any(value != value.flat[0]) and _is_factor(each.actual, each.expected)
                most = _ROUNDED if alike else each.forgiven
                close = each.wrong & (off <= most * size)
            if close.any():
                relative = np.max(off[close] / size[close])
                each.accept(close)
                each.warnings.append(
                    f"the gradient of {each.target.path} is {relative:.1g} off the reference, "
                    "which float32 cannot hold: one of them approximates"
                )

    def _forgive_convergence(self, judged: list[Judged]) -> None:
        """A primal that iterates is right only up to its convergence; ask finite differences."""
        for each in judged:
            if each.wrong.any():
                actual = Estimate(each.actual, np.zeros(each.actual.shape))
                witness = judge_by_differences(self, each.target, actual)
                each.accept(each.wrong & witness.right)
                each.doubt(each.wrong & ~witness.wrong)


def _is_factor(actual: Any, expected: Any) -> bool:
    """Whether all of several entries are off by the same factor."""
    with np.errstate(all="ignore"):
        ratio = np.ravel(actual / expected)
    ratio = ratio[np.isfinite(ratio)]
    if ratio.size < 2:
        return False
    mean = np.mean(ratio)
    return bool(np.max(np.abs(ratio - mean)) <= 1e-2 * np.abs(mean - 1))


def _in_digits_it_has(wide: Estimate, own: Estimate) -> Estimate:
    """Return a gradient run in float64 with the scatter of the digits that it keeps.

    What a unit of float64 does not move is rounded further inside, to the rule's own dtype.
    """
    still = (wide.scatter == 0) & (wide.value != 0)
    if 2 * np.sum(still) <= np.sum(wide.value != 0):
        return wide
    return Estimate(wide.value, np.fmax(wide.scatter, own.scatter))


def _apart(a: Any, b: Any) -> Any:
    """Return where two arrays differ by more than a millionth."""
    flat, other, apart = np.ravel(a), np.ravel(b), np.empty(np.size(a), bool)
    with np.errstate(invalid="ignore"):
        for row in blocks(flat.size):
            apart[row] = ~(np.abs(flat[row] - other[row]) <= 1e-6 * np.abs(other[row]))
    return apart.reshape(np.shape(a))
