"""The nodes: a list of all, or a page for each that was named."""

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gradlab.formatting import count, legible
from gradlab.reporting._markup import Markup, document, fold, head, join, section, tag, top

if TYPE_CHECKING:
    from gradlab.nodes._pages import NodePage, NodesReport


def text(report: "NodesReport") -> str:
    """Return one line for each node under its family's name, or the pages one after another."""
    if not report.listed:
        return "\n\n".join(map(_page, report.pages))
    lines: list[str] = []
    width = max(len(page.name) for page in report.pages)
    for family in dict.fromkeys(page.family for page in report.pages):
        lines += ["", family]
        pages = (page for page in report.pages if page.family == family)
        lines += [f"  {page.name:<{width}}  {page.summary}" for page in pages]
    return "\n".join([*lines[1:], "", f"{len(report.pages)} nodes; `gradlab nodes NAME` for one"])


def html(report: "NodesReport") -> Markup:
    """Return the body of the page: each node folds in, under its family."""
    families = dict.fromkeys(page.family for page in report.pages)
    return join(
        top("nodes", count(len(report.pages), "node")),
        head("reference", "link", "The nodes, with forward, local gradient and backward"),
        *(
            section(
                family,
                *(
                    fold(
                        join(tag("b", page.name), f"  {page.summary}"),
                        tag("pre", _page(page)),
                        open=not report.listed,
                    )
                    for page in report.pages
                    if page.family == family
                ),
            )
            for family in families
        ),
    )


def reference(title: str, pages: Iterable[tuple[str, str]]) -> str:
    """Return texts as one page: each folds in under its name, one without a name is open."""
    told = (
        fold(_summary(call, text), tag("pre", f"{call}\n\n{textwrap.dedent(text)}"))
        if call
        else tag("pre", text)
        for call, text in pages
    )
    name = top("explain", "reference")
    body = join(name, head("reference", "link", title), tag("section", *told))
    return legible(document("gradlab explain", body))


def _summary(call: str, text: str) -> Markup:
    return join(tag("code", call.partition("(")[0]), f"  {text.strip().partition(chr(10))[0]}")


def _page(page: "NodePage") -> str:
    parameters = [f"{name}={default}" for name, default in page.parameters.items()]
    call = ", ".join([*page.inputs, *parameters])
    return "\n".join(
        [
            f"gradlab.nodes.{page.name}({call})",
            "",
            page.text,
            "",
            f"verified on: {', '.join(page.cases)}",
        ]
    )
