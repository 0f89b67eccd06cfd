"""A function that runs away is stopped by the lines of the user's that it runs."""

import sys

import pytest

from gradlab.reading.lines import RunsAway, few_lines


def turns(count):
    total = 0
    for k in range(count):
        total += k
    return total


@pytest.mark.skipif(sys.gettrace() is not None, reason="lines are watched already")
def test_few_lines_of_the_users_are_run():
    with few_lines(1000):
        assert turns(100) == 4950
    with pytest.raises(RunsAway, match="more than 1,000 lines"), few_lines(1000):
        turns(10_000)
    assert sys.gettrace() is None and turns(10_000)


@pytest.mark.skipif(sys.gettrace() is not None, reason="lines are watched already")
def test_lines_of_libraries_do_not_count():
    import fractions

    with few_lines(100):
        for k in range(20):
            fractions.Fraction(k, 7) + 1
