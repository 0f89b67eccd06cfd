"""A fix in one sentence, in the words of the source."""

import ast
import dataclasses
import re

from gradlab.repair.search import Mended
from gradlab.repair.source import Edit, Text, edited

_SAID = {
    "GL101": "a sign is wrong",
    "GL102": "a constant factor is wrong",
    "GL103": "a size is missing",
    "GL201": "a factor is missing",
    "GL202": "there is a factor too many",
    "GL203": "a power is wrong",
    "GL204": "an operator or a function is wrong",
    "GL211": "a term is missing",
    "GL212": "there is a term too many",
    "GL213": "a constant is wrong",
    "GL221": "the derivative of an activation is missing",
    "GL222": "the derivative of an inner function is missing",
    "GL223": "the upstream is missing",
    "GL301": "a matrix is transposed",
    "GL302": "the axis is wrong",
    "GL303": "the gradient is not summed over a broadcast axis",
    "GL304": "keepdims is wrong",
    "GL311": "another variable is read",
    "GL312": "the gradients of two inputs are exchanged",
    "GL313": "arguments or parts are in another order",
    "GL321": "an index or a slice is shifted",
    "GL322": "the direction is reversed, or should be",
    "GL323": "a value is from before or after its update",
    "GL331": "values are overwritten, not accumulated",
    "GL332": "a condition or a branch is wrong",
    "GL333": "a mask is not applied",
}
_LONG = 70
_ADDED = re.compile(r"(.*) [*/] (\S+|\(.*\))", re.DOTALL)


def explained(mended: Mended, upstream: str) -> tuple[str, str]:
    """Return the code of the mistake, and the sentence that says what to change.

    Args:
        mended: the text before and after.
        upstream: the name of the upstream in the function that was searched from.
    """
    parts = []
    text = mended.old
    for edit in mended.new.edits:
        factor = _ADDED.fullmatch(edit.new)
        if factor and upstream and upstream in (factor[1], factor[2]) and edit.code == "GL201":
            edit = dataclasses.replace(edit, code="GL223")
        parts.append((edit.code, _sentence(edit, text)))
        text = edited(text, edit)
    return parts[0][0], "; ".join(sentence for _, sentence in parts)


def _sentence(edit: Edit, old: Text) -> str:
    code, before, after = edit.code, *_around(edit, old)
    added = _ADDED.fullmatch(edit.new)
    said = _SAID.get(code, "the source is wrong")
    if code in ("GL201", "GL221", "GL333") and added and added[1] == edit.old:
        said = f"the factor `{added[2]}` is missing"
    term = re.fullmatch(r"(.*) [+-] (.+)", edit.new, re.DOTALL)
    if code == "GL211" and term and term[1] == edit.old:
        said = f"the term `{term[2]}` is missing"
    if code == "GL103":
        said = f"this {edit.old} should be a {edit.new}"
    if code == "GL311" and edit.old.isidentifier():
        said = f"`{edit.old}` is read instead of `{edit.new}`"
    if code == "GL323" and (name := re.match(r"(\w+) [-+*/]?= ", edit.old)):
        first = edit.old.split("\n")[0].strip()
        return f"{name[1]} is updated too early: `{first}` must come after what follows it"
    return f"{said}: `{before}` should be `{after}`"


def _around(edit: Edit, text: Text) -> tuple[str, str]:
    """Return the statement, or the piece of it, that an edit changes, and what it becomes."""
    pieces = []
    for statement in text.statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.expr | ast.stmt):
                start, end = text.span(node)
                if start <= edit.start and edit.end <= end:
                    pieces.append((start, end))
    fitting = [p for p in pieces if p[1] - p[0] <= _LONG] or [(edit.start, edit.end)]
    start, end = max(fitting, key=lambda p: p[1] - p[0])
    before = text.segment[start:end]
    after = before[: edit.start - start] + edit.new.encode() + before[edit.end - start :]
    return " ".join(before.decode().split()), " ".join(after.decode().split())
