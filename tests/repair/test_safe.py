"""Safe forms are equal to what they replace, and are found however that is written."""

import re
import types

import numpy as np
import pytest

from gradlab.repair import safe
from gradlab.repair.source import Text, edited


def written(body: str) -> Text:
    lines = "".join(f"    {line}\n" for line in body.split("; "))
    return Text("layer.py", f"def f(x, y):\n{lines}".encode(), b"", b"", 1, "f")


def value(text: Text) -> float:
    space = {"np": NUMPY}
    exec(text.segment, space)
    return space["f"](0.3, 0.2)


NUMPY = types.SimpleNamespace(
    **{name: getattr(np, name) for name in dir(np) if not name.startswith("_")},
    sigmoid=lambda x: 1 / (1 + np.exp(-x)),
    log_sigmoid=lambda x: -np.logaddexp(0, -x),
)


@pytest.mark.parametrize("form", safe._FORMS)
def test_a_form_and_its_safe_form_have_the_same_value(form: str) -> None:
    text = written("a = x; b = y; return " + re.sub(r"(\w+)\(", r"np.\1(", form))
    edits = list(safe.safe_forms(text, "GL204"))
    assert edits
    for edit in edits:
        np.testing.assert_allclose(value(edited(text, edit)), value(text), rtol=1e-12)


@pytest.mark.parametrize(
    ("body", "new"),
    [
        ("return y * np.exp(x) / (1 + np.exp(x))", "y / (1 + np.exp(-x))"),
        ("e = np.exp(x); return e * y / (e + 1)", "y / (1 + np.exp(-x))"),
        ("t = np.tanh(x); return y * (1 - t**2)", "1 / np.cosh(x)**2"),
        ("return np.log(np.exp(-x) + 1)", "np.logaddexp(0, -x)"),
        ("return 1 - 1 / (1 + np.exp(-x))", "1 / (1 + np.exp(x))"),
    ],
)
def test_a_safe_form_is_found_as_people_write_it(body: str, new: str) -> None:
    assert new in [edit.new for edit in safe.safe_forms(written(body), "GL204")]


@pytest.mark.parametrize("body", ["return np.exp(x) / (1 + np.exp(y))", "return 1 - np.sin(x)"])
def test_what_only_looks_like_a_form_stays(body: str) -> None:
    assert not list(safe.safe_forms(written(body), "GL204"))
