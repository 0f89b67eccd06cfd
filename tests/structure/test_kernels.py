"""The structure of kernels, proved from the program that Pallas interprets."""

import pytest
from programs.kernels import KERNELS

import gradlab


@pytest.mark.parametrize(
    ("name", "structure"), [("tanh", "diagonal"), ("softmax", "block-diagonal")]
)
def test_the_structure_of_a_kernel_is_proved(name, structure):
    kernel = KERNELS[name]
    report = gradlab.jacobian(kernel.layer(), *kernel.inputs("float32"))
    assert report.structure == structure and report.evidence == "proved"
    assert not report.unknown
