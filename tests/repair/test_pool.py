"""The words that edits are made of."""

import numpy as np

from gradlab.repair.pool import spoken
from gradlab.repair.source import Text


def text(source: str) -> Text:
    name = source.split("(")[0].removeprefix("def ")
    return Text("layer.py", source.encode(), b"", b"", 1, name)


def test_no_word_of_a_helper_calls_what_calls_it() -> None:
    """A helper that called itself would take the stack, and arrays that grow with each turn."""
    helper = text("def pairs(x):\n    d = x[:, None] - x[None]\n    return d, np.sqrt(d)\n")
    forward = text("def forward(x):\n    d, r = pairs(x)\n    return other(r)\n")
    other = text("def other(x):\n    return np.sum(x)\n")
    rule = text("def backward(x, g):\n    y = forward(x)\n    return g * pairs(x)[1] * other(y)\n")
    texts = [helper, forward, other, rule]
    names = "pairs", "forward", "other", "backward"
    scope = {"np": np, **dict.fromkeys(names, np.tanh)}
    helpers = [f"{name}({{}})" for name in names]

    def called(own: Text) -> set[str]:
        words = spoken(own, texts, scope, helpers, "")
        every = " ".join((*words.calls, *words.written))
        return {name for name in names if f"{name}(" in every}

    assert called(helper) == {"other"}
    assert called(other) == {"pairs"}
    assert called(rule) == {"pairs", "forward", "other"}
