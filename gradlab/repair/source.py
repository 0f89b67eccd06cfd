"""The text of a user's function: its statements and expressions by position, and edits of them.

Positions are byte offsets into the function's own lines, so that an edit leaves comments, quotes,
blanks and line ends of everything else as they are.
"""

import ast
import bisect
import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Final

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
ATOM: Final = 20
_BINDS: Final = {"|": 8, "^": 9, "&": 10, "<<": 11, ">>": 11, "+": 12, "-": 12, "**": 15}


@dataclass(frozen=True)
class Edit:
    """A piece of a function's text, and what it becomes.

    `tier` says how far the search must look to find it. `statement` is the index of the innermost
    statement that holds the piece. `code` is set where no mistake is mended, but digits are kept.
    """

    start: int
    end: int
    old: str
    new: str
    tier: int
    statement: int
    cost: int = 0
    code: str = ""


@dataclass(frozen=True)
class Text:
    """A function's text as it stands in its file, or after edits.

    `segment` holds its whole lines from `def` on; `before` and `after` are the rest of the file;
    `line` is the number of the first line of the segment.
    """

    path: str
    segment: bytes
    before: bytes
    after: bytes
    line: int
    name: str
    which: int = 0  # of several lambdas on a line
    edits: tuple[Edit, ...] = ()

    @functools.cached_property
    def _starts(self) -> list[int]:
        starts, at = [0], self.segment.find(b"\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.segment.find(b"\n", at + 1)
        return starts

    @functools.cached_property
    def tree(self) -> Definition:
        """The definition, parsed; line numbers count from 2, after one line put before it."""
        return self.parsed()

    def parsed(self) -> Definition:
        """Parse the definition anew, so that the tree may be changed."""
        tree = ast.parse(b"if 1:\n" + self._indented)
        block = tree.body[0]
        first = block.body[0] if isinstance(block, ast.If) else block
        if isinstance(first, ast.FunctionDef) and first.name == self.name and not self.which:
            return first
        return _definitions(tree)[self.name][self.which]

    @property
    def _indented(self) -> bytes:
        return self.segment if self.segment[:1] in b" \t" else b" " + self.segment

    @property
    def _shift(self) -> int:
        return len(self._indented) - len(self.segment)

    @functools.cached_property
    def statements(self) -> list[ast.stmt]:
        """Every statement inside, outer before inner, in the order of the text."""
        body = self.tree.body
        if not isinstance(body, list):
            return [ast.copy_location(ast.Return(body), body)]
        return [node for node in inside(body) if not is_docstring(node)]

    def span(self, node: ast.expr | ast.stmt | ast.keyword | ast.arg) -> tuple[int, int]:
        """Return where a node stands in the segment."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        ends = ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
        first, last = (
            self._starts[line - 2] + column - (self._shift if line == 2 else 0)
            for line, column in ends
        )
        return first, last

    def of(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        """Return the text of a node."""
        start, end = self.span(node)
        return self.segment[start:end].decode()

    def line_of(self, offset: int) -> int:
        """Return the line of the file at an offset of the segment."""
        return self.line + bisect.bisect_right(self._starts, offset) - 1

    @property
    def file(self) -> bytes:
        """The whole file, with the function as it stands here."""
        return self.before + self.segment + self.after


def edited(text: Text, edit: Edit) -> Text:
    """Return the function after one more edit."""
    segment = text.segment[: edit.start] + edit.new.encode() + text.segment[edit.end :]
    rest = text.before, text.after, text.line, text.name, text.which
    return Text(text.path, segment, *rest, (*text.edits, edit))


def alike(one: str, two: str) -> tuple[int, int]:
    """Return how many characters two texts begin with, and end with, in common."""
    least = min(len(one), len(two))
    start = next((k for k in range(least) if one[k] != two[k]), least)
    end = next((k for k in range(least - start) if one[-1 - k] != two[-1 - k]), least - start)
    return start, end


def symbol(node: ast.BinOp | ast.Compare) -> str:
    """Return an operator, or the first of a comparison, as it is written."""
    a = ast.Name("a")
    if isinstance(node, ast.BinOp):
        return ast.unparse(ast.BinOp(a, node.op, a))[2:-2]
    return ast.unparse(ast.Compare(a, node.ops[:1], [a]))[2:-2]


def precedence(node: ast.expr) -> int:
    """Return how tightly an expression binds, as written: larger binds tighter."""
    if isinstance(node, ast.BinOp):
        return _BINDS.get(symbol(node), 13)
    if isinstance(node, ast.UnaryOp):
        return 6 if isinstance(node.op, ast.Not) else 14
    kinds: dict[type[ast.expr], int] = {
        ast.Lambda: 2,
        ast.IfExp: 3,
        ast.BoolOp: 5,
        ast.Compare: 7,
        ast.Tuple: 0,
        ast.Starred: 0,
        ast.NamedExpr: 0,
        ast.GeneratorExp: 0,
    }
    return kinds.get(type(node), ATOM)


@functools.lru_cache(maxsize=32)
def _parsed(path: str, stamp: tuple[int, int]) -> tuple[bytes, dict[str, list[Definition]]]:
    """Return a file, and what it defines, by name."""
    with open(path, "rb") as file:
        data = file.read()
    data.decode("utf-8")
    return data, _definitions(ast.parse(data))


def read(code: CodeType) -> Text | None:
    """Return the text of the function that has this code; None where it has no file."""
    try:
        status = os.stat(code.co_filename)
    except (OSError, ValueError):
        return None
    arguments = code.co_varnames[: code.co_argcount]
    stamp = status.st_mtime_ns, status.st_size
    return _read(code.co_filename, stamp, code.co_name, code.co_firstlineno, arguments)


@functools.lru_cache(maxsize=4096)
def _read(
    path: str, stamp: tuple[int, int], name: str, line: int, arguments: tuple[str, ...]
) -> Text | None:
    try:
        data, defined = _parsed(path, stamp)
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError):
        return None
    same = [d for d in defined.get(name, []) if _names(d) == arguments]
    found = [d for d in same if _first_line(d) == line]
    if len(found) != 1:
        return None
    lines = data.split(b"\n")
    first, last = found[0].lineno - 1, found[0].end_lineno or found[0].lineno
    segment = b"\n".join(lines[first:last]) + (b"\n" if last < len(lines) else b"")
    before = b"".join(line + b"\n" for line in lines[:first])
    text = Text(path, segment, before, data[len(before) + len(segment) :], first + 1, name)
    try:
        inside = _definitions(ast.parse(b"if 1:\n" + text._indented)).get(name, [])
    except SyntaxError:  # a lambda within an expression of several lines
        return None
    which = next((k for k, d in enumerate(inside) if _names(d) == arguments), None)
    return None if which is None else dataclasses.replace(text, which=which)


def _definitions(module: ast.AST) -> dict[str, list[Definition]]:
    found: dict[str, list[Definition]] = {}
    for node in ast.walk(module):
        if isinstance(node, Definition):
            found.setdefault(getattr(node, "name", "<lambda>"), []).append(node)
    return found


def _names(node: Definition) -> tuple[str, ...]:
    return tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args))


def unified(old: Text, new: Text, shown: str) -> str:
    """Return the unified diff between two states of a file, without lines around it.

    Line ends are kept; `shown` is the file's name in the diff.
    """
    ours, theirs = (re.split("(?<=\n)", text.file.decode()) for text in (old, new))
    lines = difflib.unified_diff(ours, theirs, f"a/{shown}", f"b/{shown}", n=0)
    unended = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else line + unended for line in lines)


def _first_line(node: Definition) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def inside(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield every statement of a body, outer before inner, in the order of the text."""
    for node in body:
        yield node
        for name in ("body", "orelse", "handlers", "finalbody"):
            inner = getattr(node, name, [])
            for each in inner:
                yield from inside(each.body if isinstance(each, ast.ExceptHandler) else [each])


def is_docstring(node: ast.stmt) -> bool:
    """Whether a statement is a constant that nobody reads."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
