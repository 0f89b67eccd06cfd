"""Formulas in which letters stand for any expression: where one is written, and how another is."""

import ast
from collections.abc import Iterator, Mapping

from gradlab.repair.source import ATOM, Text, precedence, symbol

Bound = Mapping[str, ast.expr]  # what stands for a letter, and the module under "."


def parsed(text: str) -> ast.expr:
    """Return an expression's tree."""
    return ast.parse(text, mode="eval").body


def matches(
    form: ast.expr, node: ast.expr, bound: Bound, known: Mapping[str, ast.expr]
) -> Iterator[Bound]:
    """Yield the ways in which an expression has a form; a sum and a product in either order.

    Args:
        form: with letters.
        node: the expression.
        bound: what stands for letters so far.
        known: what names stand for, which are written out.
    """
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
        yield from matches(form.operand, node.operand, bound, known)
    elif isinstance(form, ast.Attribute) and isinstance(node, ast.Attribute):
        if form.attr == node.attr:
            yield from matches(form.value, node.value, bound, known)
    elif isinstance(form, ast.Call) and isinstance(node, ast.Call):
        called, name = node.func, ast.unparse(form.func)
        given = [*node.args, *node.keywords]
        if isinstance(called, ast.Attribute) and called.attr == name and len(given) == 1:
            yield from matches(form.args[0], node.args[0], {**bound, ".": called.value}, known)
    elif isinstance(form, ast.Compare) and isinstance(node, ast.Compare):
        if list(map(type, form.ops)) == list(map(type, node.ops)):
            for first in matches(form.left, node.left, bound, known):
                yield from matches(form.comparators[0], node.comparators[0], first, known)
    elif isinstance(form, ast.BinOp) and isinstance(node, ast.BinOp):
        pairs = [(node.left, node.right)]
        pairs += [(node.right, node.left)] if isinstance(form.op, ast.Add | ast.Mult) else []
        for left, right in pairs:
            for first in matches(form.left, left, bound, known):
                yield from matches(form.right, right, first, known)


def written(form: ast.expr, bound: Bound, text: Text) -> str:
    """Return a form with the source's own text in the place of its letters."""

    def part(node: ast.expr) -> str:
        meant = bound[node.id] if isinstance(node, ast.Name) else node
        made = written(node, bound, text)
        return made if precedence(meant) >= needed(form, node) else f"({made})"

    if isinstance(form, ast.Name):
        return text.of(bound[form.id])
    if isinstance(form, ast.Call):
        called = f"{text.of(bound['.'])}.{ast.unparse(form.func)}"
        return f"{called}({', '.join(written(each, bound, text) for each in form.args)})"
    if isinstance(form, ast.UnaryOp):
        held = bound[form.operand.id] if isinstance(form.operand, ast.Name) else None
        if isinstance(held, ast.UnaryOp) and isinstance(held.op, ast.USub):
            return text.of(held.operand)  # nobody takes the negative of a negative
        return f"-{part(form.operand)}"
    if isinstance(form, ast.Attribute):
        return f"{part(form.value)}.{form.attr}"
    if isinstance(form, ast.Compare):
        return f"{part(form.left)} {symbol(form)} {part(form.comparators[0])}"
    if isinstance(form, ast.BinOp):
        space = "" if isinstance(form.op, ast.Pow) else " "
        return f"{part(form.left)}{space}{symbol(form)}{space}{part(form.right)}"
    return ast.unparse(form)


def needed(parent: ast.AST, node: ast.expr) -> int:
    """Return how tightly an expression must bind at its place."""
    if isinstance(parent, ast.BinOp):
        if isinstance(parent.op, ast.Pow) and node is parent.right:
            return 14  # `x ** -1`
        if isinstance(parent.op, ast.Add):
            return precedence(parent)  # on both sides
        left = isinstance(parent.op, ast.Pow)
        return precedence(parent) + (node is (parent.left if left else parent.right))
    if isinstance(parent, ast.UnaryOp):
        return precedence(parent)
    if isinstance(parent, ast.Compare):
        return 8
    if isinstance(parent, ast.BoolOp | ast.IfExp):
        return 6
    if isinstance(parent, ast.Attribute) or (
        isinstance(parent, ast.Subscript | ast.Call)
        and node is (parent.func if isinstance(parent, ast.Call) else parent.value)
    ):
        return ATOM
    return 1
