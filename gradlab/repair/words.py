"""A fix in one sentence, in the words of the source."""

import ast
import dataclasses
import re
from collections.abc import Iterable

from gradlab._codes import CODES
from gradlab.repair.edits import SAFE
from gradlab.repair.problem import Mended
from gradlab.repair.source import Edit, Text, edited

_LONG, _SHORT = 70, 40
_ADDED = re.compile(r"(.*) ([*/]) (\S+|\(.*\))", re.DOTALL)


def explained(mended: Mended, upstream: str) -> tuple[str, str]:
    """Return the code of the mistake, and the sentence that says what to change.

    Args:
        mended: the text before and after.
        upstream: the name of the upstream in the function that was searched from.
    """
    parts = []
    text = mended.old
    for edit in _joined(mended.new.edits):
        factor = _ADDED.fullmatch(edit.new)
        lacking = factor and (factor[3] if factor[1] == edit.old else factor[1])
        if upstream and lacking == upstream and edit.code == "GL201":
            edit = dataclasses.replace(edit, code="GL223")
        parts.append((edit.code, _sentence(edit, text)))
        text = edited(text, edit)
    return parts[0][0], "; ".join(sentence for _, sentence in parts)


def _joined(edits: Iterable[Edit]) -> list[Edit]:
    """Return the edits; one that replaces what the one before it wrote, as one with that."""
    found: list[Edit] = []
    for edit in edits:
        last = found[-1] if found else None
        if last and (edit.start, edit.end) == (last.start, last.start + len(last.new.encode())):
            edit = dataclasses.replace(edit, end=last.end, old=found.pop().old)
        found.append(edit)
    return found


def _sentence(edit: Edit, old: Text) -> str:
    code, before, after = edit.code, *_around(edit, old)
    added = _ADDED.fullmatch(edit.new)
    mistake = re.split("[:,.]", CODES[code].mistake)[0]
    said = mistake[0].lower() + mistake[1:]
    if code in ("GL201", "GL221", "GL333") and added and added[1] == edit.old:
        said = f"the {'factor' if added[2] == '*' else 'division by'} `{added[3]}` is missing"
    term = re.fullmatch(r"(.*) [+-] (.+)", edit.new, re.DOTALL)
    if code == "GL211" and term and term[1] == edit.old:
        said = f"the term `{term[2]}` is missing"
    if edit.tier == SAFE:
        said = "this form loses digits"
    if code == "GL103":
        said = f"this {edit.old} should be a {edit.new}"
    if code == "GL311" and edit.old.isidentifier():
        said = f"`{edit.old}` is read instead of `{edit.new}`"
    elif code == "GL311" and len(edit.old) + len(edit.new) < _SHORT:
        said = f"`{edit.old}` stands where `{edit.new}` should"
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
