"""One subject at one point, measured and judged: what every law is given."""

import functools

from gradlab.checking.evidence import Evidence
from gradlab.checking.steps import (
    accuracy_verdicts,
    formula_verdicts,
    judged_in_own_dtype,
    known_in_own_dtype,
)
from gradlab.checking.witness import Verdicts
from gradlab.common.arrays import Array
from gradlab.references import Estimate, Reason, judge


class Trial(Evidence):
    """Evidence with its verdicts: the formula's, in float64, and the rule's own, in its dtype."""

    @functools.cached_property
    def formula_verdicts(self) -> Verdicts:
        """The verdicts on the mathematics: rule and reference, both in float64."""
        return formula_verdicts(self)

    @functools.cached_property
    def accuracy_verdicts(self) -> Verdicts:
        """The verdicts on the rule as it runs, in its own dtypes."""
        return accuracy_verdicts(self, self.formula_verdicts)

    def expected_in_own_dtype(self, i: int, draws: int) -> Estimate:
        """Return what a gradient should be; at a kink, what the rule's own formula says."""
        return known_in_own_dtype(self, self.formula_verdicts, i, draws)

    def within_rounding(self, i: int, actual: Array) -> bool:
        """Whether a gradient of the i-th target, run again, is as good as rounding lets it be."""
        if self.has_rule:
            return judged_in_own_dtype(self, self.formula_verdicts, i, actual).ok
        expected = (
            self.expected("accuracy", i)
            if self.has_reference
            else self.expected_in_own_dtype(i, self.draws)
        )  # run again and again, it scatters by what changes from call to call
        return judge(actual, expected, None, self.subject.targets[i].dtype).ok

    @property
    def any_wrong(self) -> bool:
        """Whether some entry is wrong."""
        return any(not verdict.ok for verdict in self.formula_verdicts)

    @property
    def only_kinks(self) -> bool:
        """Whether rule and reference differ only where another witness was asked."""
        asked = (*_ASKED, Reason.SLOPE_CONFIRMS) if self.has_reference else _ASKED
        return not self.any_wrong and any(
            verdict.inconclusive.any() or verdict.decided_by(*asked).any()
            for verdict in self.formula_verdicts
        )


_ASKED = (Reason.AT_A_KINK, Reason.POINTS_CONFIRM, Reason.APPROXIMATION)
