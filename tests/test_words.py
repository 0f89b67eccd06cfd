"""What people read: every text in the code, held to the rules of plain English that count.

`python tests/test_words.py` lists all of these texts, to be read.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradlab

PACKAGE = Path(gradlab.__file__).parent
MOST_WORDS = 20  # in a sentence
FORBIDDEN = r"\b(thereof|of which|whereby|hence|e\.g\.|i\.e\.|resp\.)"
PROSE = re.compile(r"\b(the|a|an|is|are|of|to|in|not|no|it|for|with|by|as|at|and)\b", re.I)
NOT_PROSE = re.compile(r"[<{]|\w+:\w+ |->|\n {4}")  # markup, tables of names, code


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of each text; values that are filled in stand as X."""
    inside = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "X" for v in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and id(node) not in inside | documentation:
            yield from [(node.lineno, node.value)] * isinstance(node.value, str)


def messages(module: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of each text of a module that is prose."""
    for line, text in texts(ast.parse((PACKAGE / module).read_text())):
        if PROSE.search(text) and not NOT_PROSE.search(text):
            yield line, text


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.;:!?])\s|\n", text)


MODULES = sorted(str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("nodes/")])
def test_messages_are_short_and_plain(module):
    """One idea to a sentence, at most 20 words, no words of lawyers."""
    for line, text in messages(module):
        for sentence in sentences(text):
            words = re.findall(r"[\w'.()\[\]=-]+", sentence)
            assert len(words) <= MOST_WORDS, f"{module}:{line}: {len(words)} words: {sentence}"
        assert not re.search(FORBIDDEN, text), f"{module}:{line}: {text}"


if __name__ == "__main__":
    for name in MODULES:
        for number, words in messages(name):
            print(f"{name}:{number}: {' '.join(words.split())}")
