"""Safe forms: an equal formula that keeps the digits which the one that is written loses.

The forms are those of numerical analysis (Higham 2002, Accuracy and Stability of Numerical
Algorithms, sections 1.7 and 1.14). A line adds one. Like every edit, one counts only when the
gradients that it gives were right at fresh inputs.
"""

import ast
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Final

from gradlab.repair.edits import SAFE, Material, filled, sites
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

_Bound = Mapping[str, ast.expr]  # what stands for a letter, and the module under "."


@functools.cache
def _forms() -> tuple[tuple[ast.expr, ast.expr], ...]:
    texts = dict(_FORMS)
    for form, safe in _FORMS.items():
        top, over, below = form.partition(" / ")
        if over and not top.startswith("1 "):  # upstream * exp(x) / (1 + exp(x))
            after = f"/ {safe[4:]}" if safe.startswith("1 / ") else f"* ({safe})"
            texts[f"c * {top} / {below}"] = f"c {after}"
    return tuple((_parsed(form), _parsed(safe)) for form, safe in texts.items())


def safe_forms(text: Text, code: str) -> Iterator[Edit]:
    """Yield the edits of a function that write a formula in its safe form.

    Args:
        text: the function.
        code: of the mistake that these edits mend.
    """
    known = _assigned(text)
    for site in sites(text):
        for form, safe in _forms():
            for bound in _matches(form, site.node, {}, known):
                new = _Filled(bound).visit(_parsed(ast.unparse(safe)))
                each = Material(ast.unparse(new), precedence(new), ())
                yield dataclasses.replace(filled(text, site, "{m}", each), tier=SAFE, code=code)


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


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


def _matches(
    form: ast.expr, node: ast.expr, bound: _Bound, known: Mapping[str, ast.expr]
) -> Iterator[_Bound]:
    """Yield the ways in which an expression has a form; a sum and a product in either order."""
    if isinstance(form, ast.Name):
        if form.id not in bound or ast.dump(bound[form.id]) == ast.dump(node):
            yield {**bound, form.id: node}
        return
    while isinstance(node, ast.Name) and node.id in known:
        node = known[node.id]
    if isinstance(form, ast.Constant):
        yield from [bound] if isinstance(node, ast.Constant) and node.value == form.value else []
    elif type(getattr(form, "op", 0)) is not type(getattr(node, "op", 0)):
        return
    elif isinstance(form, ast.UnaryOp) and isinstance(node, ast.UnaryOp):
        yield from _matches(form.operand, node.operand, bound, known)
    elif isinstance(form, ast.Call) and isinstance(node, ast.Call):
        called, name = node.func, ast.unparse(form.func)
        given = [*node.args, *node.keywords]
        if isinstance(called, ast.Attribute) and called.attr == name and len(given) == 1:
            yield from _matches(form.args[0], node.args[0], {**bound, ".": called.value}, known)
    elif isinstance(form, ast.BinOp) and isinstance(node, ast.BinOp):
        pairs = [(node.left, node.right)]
        pairs += [(node.right, node.left)] if isinstance(form.op, ast.Add | ast.Mult) else []
        for left, right in pairs:
            for first in _matches(form.left, left, bound, known):
                yield from _matches(form.right, right, first, known)


class _Filled(ast.NodeTransformer):
    """Puts expressions in the place of letters, and functions into their module."""

    def __init__(self, bound: _Bound) -> None:
        self.bound = bound

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.bound[node.id]

    def visit_Call(self, node: ast.Call) -> ast.expr:
        function = ast.Attribute(self.bound["."], ast.unparse(node.func), ast.Load())
        return ast.Call(function, [self.visit(argument) for argument in node.args], [])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        operand = self.visit(node.operand)
        twice = isinstance(operand, ast.UnaryOp) and isinstance(operand.op, ast.USub)
        return operand.operand if twice else ast.UnaryOp(node.op, operand)
