"""Safe forms: an equal formula that keeps the digits which the one that is written loses.

The forms are those of numerical analysis (Higham 2002, Accuracy and Stability of Numerical
Algorithms, sections 1.7 and 1.14). A line adds one. Like every edit, one counts only when the
gradients that it gives were right at fresh inputs.
"""

import ast
import dataclasses
import functools
from collections.abc import Iterator
from typing import Final

from gradlab.repair.edits import SAFE, Material, filled, sites
from gradlab.repair.forms import matches, parsed, written
from gradlab.repair.source import Edit, Text, precedence

_FORMS: Final = {
    "exp(a) / (1 + exp(a))": "1 / (1 + exp(-a))",
    "exp(a) / (1 + exp(a)) ** 2": "1 / ((1 + exp(a)) * (1 + exp(-a)))",
    "1 - 1 / (1 + exp(a))": "1 / (1 + exp(-a))",
    "1 - sigmoid(a)": "sigmoid(-a)",
    "log(sigmoid(a))": "log_sigmoid(a)",
    "log(1 + exp(a))": "logaddexp(0, a)",
    "log1p(exp(a))": "logaddexp(0, a)",
    "log(1 + a)": "log1p(a)",
    "log(1 - a)": "log1p(-a)",
    "exp(a) - 1": "expm1(a)",
    "1 - exp(a)": "-expm1(a)",
    "1 - cos(a)": "2 * sin(a / 2) ** 2",
    "1 - cos(a) ** 2": "sin(a) ** 2",
    "1 - tanh(a) ** 2": "1 / cosh(a) ** 2",
    "(exp(a) - exp(-a)) / (exp(a) + exp(-a))": "tanh(a)",
    "sqrt(a ** 2 + b ** 2)": "hypot(a, b)",
    "sqrt(a + b) - sqrt(a)": "b / (sqrt(a + b) + sqrt(a))",
    "a ** 2 - b ** 2": "(a - b) * (a + b)",
    "a * b / b": "a",
    "a + b - b": "a",
    "a - b + b": "a",
}  # as it is written, and as it keeps its digits; single letters stand for any expression


@functools.cache
def _forms() -> tuple[tuple[ast.expr, ast.expr], ...]:
    texts = dict(_FORMS)
    for form, safe in _FORMS.items():
        top, over, below = form.partition(" / ")
        if over and not top.startswith("1 "):  # upstream * exp(x) / (1 + exp(x))
            after = f"/ {safe[4:]}" if safe.startswith("1 / ") else f"* ({safe})"
            texts[f"c * {top} / {below}"] = f"c {after}"
    return tuple((parsed(form), parsed(safe)) for form, safe in texts.items())


def safe_forms(text: Text, code: str) -> Iterator[Edit]:
    """Yield the edits of a function that write a formula in its safe form.

    Args:
        text: the function.
        code: of the mistake that these edits mend.
    """
    known = _assigned(text)
    for site in sites(text):
        for form, safe in _forms():
            for bound in matches(form, site.node, {}, known):
                new = written(safe, bound, text)
                each = Material(new, precedence(parsed(new)), ())
                yield dataclasses.replace(filled(text, site, "{m}", each), tier=SAFE, code=code)


def _assigned(text: Text) -> dict[str, ast.expr]:
    """Return what the names of a function hold that are assigned once."""
    found: dict[str, list[ast.expr]] = {}
    for statement in text.statements:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
            both = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                both = list(zip(target.elts, value.elts))
            for name, held in both:
                if isinstance(name, ast.Name):
                    found.setdefault(name.id, []).append(held)
    return {name: held[0] for name, held in found.items() if len(held) == 1}
