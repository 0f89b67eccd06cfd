"""What there is to know about each node, as plain data: the list of nodes and their pages."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradlab.nodes._base import Node
from gradlab.nodes._registry import find, registry
from gradlab.report import Report

_ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.M)


@dataclass(frozen=True)
class NodePage:
    """One node.

    Attributes:
        name: the node.
        family: the family that it belongs to.
        inputs: the arrays that it takes.
        parameters: its parameters, with their defaults.
        text: its documentation.
        cases: the inputs that it is verified on.
    """

    name: str
    family: str
    inputs: tuple[str, ...]
    parameters: dict[str, str]
    text: str
    cases: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return self.text.partition("\n")[0]


@dataclass(frozen=True)
class NodesReport(Report):
    """The nodes that were asked for.

    Attributes:
        pages: a page each: formula, structure, cases.
        listed: whether the list is wanted, not the pages.

    Example:
        >>> [page.name for page in node_pages(["tanh"]).pages]
        ['tanh']
    """

    kind: ClassVar[str] = "nodes"
    pages: tuple[NodePage, ...]
    listed: bool

    @property
    def ok(self) -> bool:
        """Always true: there is nothing to hold."""
        return True


def node_pages(names: Sequence[str] = ()) -> NodesReport:
    """Return the pages of these nodes; the list of all of them if none is named."""
    classes = [find(name) for name in names] or list(registry().values())
    return NodesReport(tuple(map(_page, classes)), listed=not names)


def _page(cls: type[Node]) -> NodePage:
    parameters = {f.name: repr(f.default) for f in dataclasses.fields(cls)}
    notes = dict.fromkeys(case.note for case in cls.cases())
    return NodePage(cls.name(), cls.family(), cls.input_names(), parameters, _text(cls), (*notes,))


def _text(cls: type[Node]) -> str:
    """Return the documentation, what all nodes of its kind do and take, and the line of shapes."""
    text, shared = inspect.getdoc(cls) or "", "\nArgs:"
    for base in cls.__mro__[1:]:
        for name, line in _ARGUMENT.findall(inspect.cleandoc(base.__doc__ or "")):
            if name in cls.__dataclass_fields__ and f"\n    {name}: " not in text + shared:
                shared += f"\n    {name}: {line}"
    shared = shared[1:] if ":\n" in shared else ""
    shapes = f"Shapes: {cls.shapes}" if cls.shapes else ""
    return "\n\n".join(filter(None, (text, textwrap.fill(cls._kind, 96), shared, shapes)))
