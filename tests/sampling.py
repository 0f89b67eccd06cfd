"""Which of many cases run always: all of them run with --slow."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from _pytest.mark.structures import ParameterSet

T = TypeVar("T")


def sampled(
    cases: Iterable[T],
    every: int,
    id_of: Callable[[T], str] | None = None,
    slow: Callable[[T], bool] = lambda case: False,
) -> list[ParameterSet]:
    """Return all cases as parameters; each but the n-th, and those that take long, marked slow."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            id=id_of(case) if id_of else None,
            marks=[pytest.mark.slow] if k % every or slow(case) else [],
        )
        for k, case in enumerate(cases)
    ]
