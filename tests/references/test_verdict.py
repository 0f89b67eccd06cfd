import numpy as np
import pytest

from gradlab.references import LIMIT, Estimate, floor, judge
from gradlab.references.precision import largest, smallest_normal, underflow, unit_roundoff

Q = np.array([1.0, -2.0, 1e-3, 0.0])


def estimate(value=Q, relative=1e-7):
    return Estimate(np.asarray(value), relative * np.abs(value))


def test_the_floor_is_entry_by_entry():
    rule = Estimate(Q, np.array([0.0, 5.0, np.inf, 0.0]))
    np.testing.assert_array_equal(
        floor(estimate(relative=1e-3), rule, 1e-8, 1e-30), [1e-3, 5.0, 1e-6, 1e-30]
    )


def test_right_wrong_and_inconclusive_cover_everything():
    actual = Q * np.array([1 + 1e-7, 1.01, 1.0, 1.0])
    verdict = judge(actual, estimate(), None, "float32")
    assert verdict.right.tolist() == [True, False, True, True]
    assert verdict.wrong.tolist() == [False, True, False, False]
    assert not verdict.ok and verdict.worst == (1,)


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0])
@pytest.mark.parametrize("relative", [1e-7, 1e-2, 0.124])
def test_what_is_called_right_could_have_been_called_wrong(factor, relative):
    right = judge(Q, estimate(relative=relative), None, "float32").right
    bad = judge(factor * Q, estimate(relative=relative), None, "float32")
    assert (bad.wrong | (Q == 0))[right].all()


def test_entries_that_cannot_be_told_are_inconclusive():
    verdict = judge(Q, estimate(relative=0.2), None, "float32")
    assert verdict.inconclusive.tolist() == [True, True, True, False]
    assert verdict.ok and verdict.resolution[0] == pytest.approx(0.2 * LIMIT)


def test_what_is_not_finite():
    reference = Estimate(np.array([np.nan, 1.0, 1.0, 1e39]), np.zeros(4))
    verdict = judge(np.array([1.0, np.nan, np.inf, np.inf]), reference, None, "float32")
    assert verdict.wrong.tolist() == [False, True, True, False]
    assert verdict.inconclusive.tolist() == [True, False, False, True]


def test_a_rule_that_overflows_in_its_dtype_is_not_called_wrong():
    rule = Estimate(Q, np.array([np.inf, 0.0, 0.0, 0.0]))
    actual = np.array([np.inf, np.inf, 1e-3, 0.0])
    verdict = judge(actual, estimate(), rule, "float16")
    assert verdict.inconclusive.tolist() == [True, False, False, False]
    assert verdict.wrong.tolist() == [False, True, False, False]
    assert judge(actual, estimate(), rule, "float64").wrong.tolist()[:2] == [True, True]
    broken = Estimate(np.full(4, np.nan), np.full(4, np.inf))
    assert judge(np.full(4, np.nan), estimate(), broken, "float16").wrong.all()


def test_a_zero_that_does_not_scatter_is_certain():
    zero = Estimate(np.zeros(3), np.array([0.0, 0.0, 1e-3]))
    verdict = judge(np.array([0.0, 1e-20, 1e-3]), zero, None, "float32")
    assert verdict.right.tolist() == [True, False, False]
    assert verdict.wrong.tolist() == [False, True, False]


def test_instability_is_told_in_digits():
    rule = Estimate(Q, np.abs(Q) * 1e-1)
    verdict = judge(Q, estimate(), rule, "float32")
    assert verdict.unstable[:3].all() and 5.9 < np.log10(verdict.instability.max()) < 6.1


def test_failing_like_autodiff_in_the_same_dtype_is_an_excuse():
    peer = judge(Q * [1, 1, 5, 1], estimate(), None, "float32")
    verdict = judge(Q * [1, 5, 5, 1], estimate(), None, "float32").excused_by(peer)
    assert verdict.wrong.tolist() == [False, True, False, False]
    assert verdict.inconclusive.tolist() == [False, False, True, False]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        judge(np.ones(2), estimate(), None, "float32")


def test_empty_gradients():
    verdict = judge(np.ones((0, 3)), Estimate(np.ones((0, 3)), np.ones((0, 3))), None, "float64")
    assert verdict.ok and verdict.worst is None


def test_the_numbers_of_the_dtypes():
    assert unit_roundoff("float32") == 2.0**-24 and unit_roundoff("bfloat16") == 2.0**-8
    assert unit_roundoff("complex64") == 2.0**-24 and unit_roundoff("float16") == 2.0**-11
    assert smallest_normal("float16") == 2.0**-14 and underflow("float16") == 2.0**-24
    assert underflow("float32") == 2.0**-126 and largest("float16") == 65504


def test_at_its_limits():
    edge = Estimate(np.array([1.0, float(largest("float32"))]), np.array([1 / LIMIT, 0.0]))
    verdict = judge(np.array([1.0, np.inf]), edge, None, "float32")
    assert verdict.inconclusive.tolist() == [True, False], "the floor is as large as the entry"
    assert verdict.wrong.tolist() == [False, True], "the dtype can hold its largest number"
    assert judge(Q, estimate(), None, "float32").resolution[3] == 0.0, "a zero is known exactly"


@pytest.mark.parametrize("rule", [None, Estimate(Q, np.array([0.0, 5.0, 0.0, np.inf]))])
def test_judged_in_pieces_it_is_the_same(rule, monkeypatch):
    actual = Q * np.array([1.0, 1.01, 1.01, 1.0])
    whole = judge(actual, estimate(), rule, "float32")
    monkeypatch.setattr("gradlab.references.estimates._BLOCK", 3)
    pieces = judge(actual, estimate(), rule, "float32")
    for name in ("right", "wrong", "error", "resolution", "instability"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
