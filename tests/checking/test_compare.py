"""What one finite difference says of one claimed slope."""

import numpy as np
import pytest

from gradlab.checking.differences import Answer, answer
from gradlab.references import LIMIT, Slope

NAN, INF = np.nan, np.inf


def slope(value=2.0, error=1e-9, left=2.0, right=2.0, kink=False, noise=1e-16):
    parts = (value, error, left, right)
    return Slope(*(np.array([0.0, part]) for part in parts), np.array([not kink, kink]),
                 np.array([0.0, noise]))  # fmt: skip


def compare(claim, found, i, spread=0.0):
    said = answer(claim, found, i, spread, strict=False)
    kink = "kink" if said == Answer.AT_A_KINK else "right"
    return "wrong" if said.refutes else "inconclusive" if said.is_silent else kink


@pytest.mark.parametrize(
    ("claim", "found", "said"),
    [
        (2.0, slope(), "right"),
        (2.0 + 0.9 * LIMIT * 1e-9, slope(), "right"),
        (2.0 + 1.1 * LIMIT * 1e-9, slope(), "wrong"),
        (2.0 - 1.1 * LIMIT * 1e-9, slope(), "wrong"),
        (NAN, slope(), "inconclusive"),  # told entry by entry, never along a direction
        (INF, slope(), "inconclusive"),
        (2.0, slope(value=NAN), "inconclusive"),
        (NAN, slope(value=NAN), "inconclusive"),
        (2.0, slope(error=INF), "inconclusive"),
        (2.0, slope(error=1.0), "inconclusive"),  # 0 would have passed too
        (0.0, slope(value=0.0, error=1e-12), "right"),  # a zero that is known well
        (0.0, slope(value=0.0, error=1e-3), "inconclusive"),
        (1e-13, slope(value=0.0, error=1e-12), "inconclusive"),  # but not zero, and not seen
        (0.3, slope(value=0.5, left=0.0, right=1.0, kink=True), "kink"),
        (0.3, slope(value=0.5, left=1.0, right=0.0, kink=True), "kink"),
        (1.0, slope(value=0.5, left=0.0, right=1.0, kink=True), "kink"),
        (1.1, slope(value=0.5, left=0.0, right=1.0, kink=True), "wrong"),
        (-0.1, slope(value=0.5, left=0.0, right=1.0, kink=True), "wrong"),
    ],
)
def test_a_claim_is_judged(claim, found, said):
    assert compare(claim, found, 1) == said


def test_a_wider_spread_of_rounding_excuses():
    off = 2.0 + 100 * LIMIT * 1e-9
    assert compare(off, slope(), 1) == "wrong"
    assert compare(off, slope(), 1, spread=2e-7) == "right"
    assert compare(off, slope(), 1, spread=INF) == "inconclusive"
