"""A fix holds for other settings, not only for the numbers that stand in the user's source."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab

DIVIDED = "    return g * {k} / (1 + np.abs(x)) ** 2\n"
REPEATED = (
    "def forward(x, times=2):\n"
    "    return np.repeat(x, times, axis=0) ** 2, (x, times)\n\n\n"
    "def backward(g, kept):\n"
    "    x, times = kept\n"
    "    d = (2 * g * np.repeat(x, times, axis=0)).reshape(len(x), times, -1)\n"
    "    return d[:, 0]\n"
)
HELPER = (
    "class Layer:\n"
    "    def __init__(self, times=2):\n        self.times = times\n\n"
    "    def forward(self, q, k):\n"
    "        self.q, self.k = q, np.repeat(k, self.times, axis=0)\n"
    "        return (self.q * self.k).sum(axis=2)\n\n"
    "    def fold(self, a):\n"
    "        return a.reshape(-1, self.times, *a.shape[1:])[:, 0]\n\n"
    "    def backward(self, g):\n"
    "        return g[..., None] * self.k, self.fold(g[..., None] * self.q)\n\n\n"
    "forward, backward = Layer(), None\n"
)
ATTRIBUTE = (
    "class Layer:\n"
    "    {of_class}\n"
    "    def __init__(self):\n        {own}\n\n"
    "    def forward(self, x):\n"
    "        self.x = x\n"
    "        return 0.5 * (self.c + 2) * np.log1p(x**2 / self.c)\n\n"
    "    def backward(self, g):\n"
    "        return g * self.x * (self.c + 2) / (1 + self.x**2)\n\n\n"
    "forward, backward = Layer(), None\n"
)
CASES = {
    "default": (
        "def forward(x, k=5.0):\n    return x / (k + np.abs(x)), (x, k)\n\n\n"
        "def backward(g, kept):\n    x, k = kept\n" + DIVIDED.format(k="k"),
        [(6,)],
        "    return g * k / (k + np.abs(x)) ** 2",
    ),
    "constant of the module": (
        "K = 5.0\n\n\n"
        "def forward(x):\n    return x / (K + np.abs(x)), x\n\n\n"
        "def backward(g, x):\n" + DIVIDED.format(k="K"),
        [(6,)],
        "    return g * K / (K + np.abs(x)) ** 2",
    ),
    "attribute": (
        ATTRIBUTE.format(own="self.c = 4.0", of_class="b = 1"),
        [(5, 2)],
        "        return g * self.x * (self.c + 2) / (self.c + self.x**2)",
    ),
    "attribute of the class": (
        ATTRIBUTE.format(own="pass", of_class="c = 4.0"),
        [(5, 2)],
        "        return g * self.x * (self.c + 2) / (self.c + self.x**2)",
    ),
    "copies": (REPEATED, [(3, 2)], "    return d.sum(axis=1)"),
    "copies in a helper": (
        HELPER,
        [(4, 3, 2), (2, 3, 2)],
        "        return a.reshape(-1, self.times, *a.shape[1:]).sum(axis=1)",
    ),
}


def checked(text: str, shapes: list[tuple[int, ...]], folder: Path) -> gradlab.CheckReport:
    module = load(folder / "layer.py", f"import numpy as np\n\n\n{text}")
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=s) for s in shapes]
    if module.backward is None:
        return gradlab.check(module.forward, *inputs)
    options = {"backward": module.backward, "returns": "output+residuals"}
    return gradlab.check(module.forward, *inputs, **options)


@pytest.mark.parametrize("case", CASES)
def test_a_setting_is_written_by_its_name(case: str, tmp_path: Path) -> None:
    text, shapes, meant = CASES[case]
    report = checked(text, shapes, tmp_path)
    assert report.fixes, report
    assert all(f"+{meant}" in fix.diff.splitlines() for fix in report.fixes), report.fixes
    assert not any("not at every value" in fix.reaches for fix in report.fixes if case != "copies")


def test_a_fix_says_for_which_settings_it_holds(tmp_path: Path) -> None:
    text = (
        "def forward(x, k=4.0):\n    return np.sin(x) / k, x\n\n\n"
        "def backward(g, x):\n    return -g * np.cos(x) / 4.0\n"
    )
    report = checked(text, [(5,)], tmp_path)
    assert report.fixes[0].after == ("    return g * np.cos(x) / 4.0",)
    assert report.fixes[0].reaches == "right at k = 4, but not at every value"


def test_no_fix_divides_by_what_may_be_zero(tmp_path: Path) -> None:
    text = (
        "def forward(x, w):\n    return np.sin(x) * np.tanh(w), (x, w)\n\n\n"
        "def backward(g, kept):\n    x, w = kept\n    t = np.tanh(w)\n"
        "    slope = 1 / t\n    dx = g * np.cos(x) * t\n"
        "    return dx, g * np.sin(x) * t * (1 - t)\n"
    )
    report = checked(text, [(4,), (4,)], tmp_path)
    assert report.fixes and not any(
        "slope" in line or "/ t" in line for f in report.fixes for line in f.after
    )


HELD = {
    "a tuple": ("LIMITS = (5.0, 2.0)", "LIMITS[0]", "LIMITS[1]"),
    "a named tuple": (
        "import typing\n\n\nclass C(typing.NamedTuple):\n    bias: float\n    gain: float\n\n\n"
        "S = C(5.0, 2.0)",
        "S.bias",
        "S.gain",
    ),
    "an array": ("S = np.array([5.0, 2.0])", "S[0]", "S[1]"),
    "a dict": ('S = {"bias": 5.0, "gain": 2.0}', 'S["bias"]', 'S["gain"]'),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("held", HELD)
def test_no_number_stands_for_a_setting_that_something_holds(held: str, tmp_path: Path) -> None:
    made, bias, gain = HELD[held]
    text = (
        f"import numpy as np\n\n{made}\n\n\n"
        f"def forward(x):\n    return {gain} * np.tanh(x) + {bias} * x, x\n\n\n"
        f"def backward(g, x):\n    return g * ((1 - np.tanh(x) ** 2) + {bias})\n"
    )
    path = tmp_path / f"layer_{held.replace(' ', '_')}.py"
    path.write_text(text)
    space = runpy.run_path(str(path))
    x = np.random.default_rng(0).normal(size=5)
    kept = {"backward": space["backward"], "returns": "output+residuals"}
    report = gradlab.check(space["forward"], x, **kept)
    assert report.status == "wrong"
    for fix in report.fixes:  # none is better than one that is right by chance
        assert gain in fix.diff.split("\n+")[-1] or "not at every value" in fix.reaches, fix


def test_a_crop_holds_without_padding(tmp_path: Path) -> None:
    """`d[p:-p]` is empty where p is 0."""
    text = (
        "import numpy as np\n\n\n"
        "def forward(x, p=1):\n    y = np.pad(x, p)\n"
        "    return y[:-1] * y[1:], (y, p, len(x))\n\n\n"
        "def backward(g, kept):\n    y, p, n = kept\n    d = np.zeros_like(y)\n"
        "    d[:-1] += g * y[1:]\n    d[1:] += g * y[:-1]\n    return d[:n]\n"
    )
    path = tmp_path / "crop.py"
    path.write_text(text)
    space = runpy.run_path(str(path))
    x = np.random.default_rng(0).normal(size=6)
    kept = {"backward": space["backward"], "returns": "output+residuals"}
    report = gradlab.check(space["forward"], x, **kept)
    assert report.fixes and "+    return d[p:p + n]" in report.fixes[0].diff
    assert not any("d[p:-p]" in fix.diff for fix in report.fixes)


def test_what_a_function_raises_at_other_settings_ends_no_check() -> None:
    """A guard of calls is a number that the function reads, too: at 0 it ends all."""

    class TooMany(BaseException):
        pass

    def guarded(limit: int) -> Callable[..., Any]:
        calls = [0]

        def forward(x: Any) -> Any:
            calls[0] += 1
            if calls[0] > limit:
                raise TooMany
            return np.tanh(x), x

        return forward

    def backward(g: Any, x: Any) -> Any:
        return g * (1 - np.tanh(x))

    x = np.linspace(-1, 1, 5)
    report = gradlab.check(guarded(400), x, backward=backward, returns="output+residuals")
    assert report.status == "wrong" and report.fixes
