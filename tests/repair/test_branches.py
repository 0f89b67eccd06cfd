"""A rule that is wrong on a branch alone is mended there, and stays right on all others."""

from typing import Any

import pytest
from checking.test_reach import LAYERS, Layer, rule
from repair.patched import patched

import gradlab

NOT_MENDED = {"clip_norm", "cubic", "row_max", "sort", "while"}  # another formula is needed


@pytest.mark.one_in(3)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_rule_that_is_wrong_on_another_branch_is_mended(layer: Layer) -> None:
    report = gradlab.check(rule(layer.forward, layer.wrong), *layer.inputs)
    assert bool(report.fixes) == (layer.name not in NOT_MENDED), report
    for fix in report.fixes:
        layers: Any = patched(fix)["LAYERS"]
        mended = next(each for each in layers if each.name == layer.name)
        again = gradlab.check(rule(layer.forward, mended.wrong), *layer.inputs)
        assert again.ok, f"{fix.diff}\n{again}"
