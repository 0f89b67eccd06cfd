"""Every code has a page, whose wrong example is found wrong and whose right one is right."""

import re

import numpy as np
import pytest

import gradlab
from gradlab._codes import CODES, explanation
from gradlab.cli import main

RUN = [c for c in CODES if c not in ("GL411", "GL412", "GL413")]


def functions(code: str, which: str):
    """The forward of a page, and its wrong or right backward."""
    text = explanation(code)
    parts = re.split(r"\n(wrong|right)\n", text.split("How gradlab")[0])
    forward, backward = parts[0].partition("\n\n")[2], parts[parts.index(which) + 1]
    space = {"np": np}
    for part in (forward, backward):
        exec("\n".join(line[4:] for line in part.splitlines()), space)
    return space["forward"], space["backward"]


def given(code: str) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    arrays = []
    for shape in CODES[code].shapes.split():
        sizes, _, dtype = shape.partition(":")
        array = 0.5 + rng.uniform(size=tuple(map(int, sizes.split("x"))))
        array *= rng.choice([-1, 1], size=array.shape) if code in ("GL332", "GL333", "GL409") else 1
        arrays.append(array.astype(dtype or "float64"))
    return arrays


@pytest.mark.parametrize("code", [pytest.param(c, id=c) for c in RUN[::4]])
def test_the_examples_are_wrong_and_right(code: str) -> None:
    for which in ("wrong", "right"):
        forward, backward = functions(code, which)
        report = gradlab.check(forward, *given(code), backward=backward)
        assert report.ok == (which == "right"), (which, str(report))


@pytest.mark.slow
@pytest.mark.parametrize("code", RUN)
def test_all_examples_are_wrong_and_right(code: str) -> None:
    test_the_examples_are_wrong_and_right(code)


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "gl103"]) == 0
    assert "a sum stands where a mean belongs" in capsys.readouterr().out
    assert main(["explain", "GL000"]) == 2
    assert "Try: gradlab explain GL" in capsys.readouterr().err
