"""Every hand-written node: what is inferred from its reference against its own local gradient."""

import numpy as np
import pytest

from gradlab.nodes._registry import registry
from gradlab.structure import jacobian

LARGE = 20_000


def blocks(cls):
    """Yield (path, inferred pattern, local gradient) of each input, in the first generic case."""
    case = next(case for case in cls.cases() if case.generic)
    inputs = case.draw(0)
    out, residuals = case.node.forward(*inputs)
    if isinstance(out, tuple):
        return
    report = jacobian(case.node.reference, *inputs)
    assert not report.unknown
    paths = [leaf.path for leaf in report.derivative.program.leaves]
    for (_, path), pattern in report.patterns.items():
        operator = case.node.local_gradient(residuals)[paths.index(path)]
        if operator is not None and np.prod(pattern.shape) <= LARGE:
            yield path, pattern, operator


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(registry()))
def test_no_entry_of_a_local_gradient_is_missed(name):
    for path, pattern, operator in blocks(registry()[name]):
        nonzero = np.asarray(operator.to_dense()) != 0
        assert not (nonzero & ~pattern.to_dense()).any(), path
