"""A short version of the trial that sets the limit (tests/benchmarks/bench_floors.py)."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from gradlab.references import LIMIT

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(
            "bench_floors", BENCHMARKS / "bench_floors.py"
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench_floors"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("bench_floors", None)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_correct_rules_stay_far_below_the_limit_and_wrong_ones_above(bench, dtype):
    names = ("gelu", "softmax", "layer norm", "embedding", "divide")
    cases = [case for case in bench.CASES if case.name in names]
    with np.errstate(all="ignore"):
        rows = bench.run(cases, (dtype,), ("1", "mixed"), seeds=1)
    correct = [row for row in rows if not row.wrong]
    wrong = [row for row in rows if row.wrong and row.shows]
    assert max(row.worst for row in correct) < 0.75 * LIMIT
    missed = [row for row in wrong if not row.verdict.wrong.any()]
    assert not [row for row in missed if row.law == "formula"]
    assert len(missed) < 0.1 * len(wrong)
