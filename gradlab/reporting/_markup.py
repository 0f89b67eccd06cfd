"""Markup that is escaped by construction, and the parts that pages are made of."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from gradlab.report import GRADES

_RULE = re.compile(r"([^{}@]+)(?=\{[^{}]*\})")  # the selectors of a rule, inside `@media` too


def renamed(markup: str) -> str:
    """Return markup whose classes all begin with `gl-`, in elements and in styles."""

    def named(found: re.Match[str]) -> str:
        names = (n if n.startswith("g") and "-" in n else f"gl-{n}" for n in found[1].split())
        return f'class="{" ".join(names)}"'

    styled = re.sub(
        "<style>.*?</style>",
        lambda found: re.sub(r"(?<= )\.(?!gl-)(?=[a-z])", ".gl-", found[0]),
        markup,
        flags=re.DOTALL,
    )
    return re.sub('class="([^"]*)"', named, styled)


def scoped(css: str, root: str) -> str:
    """Return style whose rules hold below an element of class `root`, and nowhere else."""
    return _RULE.sub(
        lambda found: ",".join(f".{root} {each.strip()}" for each in found[1].split(",")), css
    )


_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")

_SEALED = (
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
)
_SCALE = (
    *["rounding", "1e-6", "1e-5", "1e-4", "1e-3", "0.01", "0.1", "1"],
    "more than 1",
    "undecided",
)


class Markup(str):  # noqa: SLOT000  (it holds nothing more)
    """Text in which everything that a browser would read as markup is meant as markup."""


Part: TypeAlias = "Markup | str | int | None"


def tag(name: str, *inside: Part, cls: str = "", **attributes: str | int) -> Markup:
    """Return an element; text inside is escaped, markup is not.

    `cls` stands without the `gl-` that keeps classes apart from a notebook's.
    """
    classes = " ".join(f"gl-{each}" for each in cls.split())
    given: dict[str, str | int] = {**({"class": classes} if classes else {}), **attributes}
    words = "".join(
        f' {key.strip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in given.items()
    )
    body = "".join(
        x if isinstance(x, Markup) else html.escape(str(x)) for x in inside if x not in ("", None)
    )
    return Markup(f"<{name}{words}>" + ("" if name in ("input",) else f"{body}</{name}>"))


def drawn(title: str, cls: str, style: str, width: float, height: float, *parts: Part) -> Markup:
    """Return a picture as SVG; its style holds for elements of this class alone."""
    box = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    rules = Markup(f"<style>{scoped(style, cls)}</style>")
    paper = tag("rect", _class="paper", width="100%", height="100%")
    named = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "_class": cls}
    return tag("svg", tag("title", title), rules, paper, *parts, **named, **box)


def join(*parts: Part) -> Markup:
    """Return parts one after another."""
    return Markup("".join(x if isinstance(x, Markup) else html.escape(str(x)) for x in parts))


def fragment(body: Markup) -> Markup:
    """Return a body with its style, for a page that is somebody else's: no script."""
    return Markup(
        f"<div class='gradlab'><style>{_STYLE}</style>{tag('div', body, cls='main')}</div>"
    )


def document(title: str, body: Markup) -> str:
    """Return a whole page: it fetches nothing, and reads in light and dark."""
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'>{_SEALED}"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>body{{margin:0}}html{{background:#fbfbf9}}"
        "@media(prefers-color-scheme:dark){html{background:#14171a}}</style>"
        f"<body>{fragment(body)}<script>{_SCRIPT}</script></body></html>"
    )


def top(kind: str, name: str, *more: str) -> Markup:
    """Return the line above a page: what made it, of what, and how."""
    return tag(
        "div", tag("b", f"gradlab {kind}"), *(tag("span", x) for x in (name, *more) if x), cls="top"
    )


def head(word: str, tone: str, title: str, *lead: str) -> Markup:
    """Return the answer: one word, one headline, a sentence or two."""
    return join(
        tag("span", word, cls=f"word {tone}"),
        tag("h1", title),
        *(tag("p", each, cls="lead") for each in lead if each),
    )


def section(title: str, *inside: Part) -> Markup:
    """Return a part of a page under its title; nothing where nothing is inside."""
    return tag("section", tag("h2", title), *inside) if any(inside) else Markup("")


def facts(rows: Iterable[tuple[str, Part]]) -> Markup:
    """Return a few numbers, each below its name."""
    return tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows), cls="facts"
    )


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Part]], numbers: Sequence[str] = ()
) -> Markup:
    """Return a table that stacks on a phone; the columns named in `numbers` are aligned right."""
    sides = ["num" if header in numbers else "" for header in headers]
    top = tag("tr", *(tag("th", h, cls=side) for h, side in zip(headers, sides)))
    body = [
        tag(
            "tr",
            *(
                tag("td", cell, cls=side, data_label=h)
                for h, side, cell in zip(headers, sides, row)
            ),
        )
        for row in rows
    ]
    return tag("table", tag("thead", top), tag("tbody", *body), cls="stack") if body else Markup("")


def fold(summary: Part, *inside: Part, open: bool = False, **attributes: str) -> Markup:
    """Return what opens on a click."""
    opened: dict[str, str] = {"open": ""} if open else {}
    return tag("details", tag("summary", summary), *inside, **opened, **attributes)


def lines(title: Part, rows: Iterable[tuple[Part, str]], *under: Part) -> Markup:
    """Return lines of source in a card; each row is a line and its class: hit, add or nothing."""
    code = tag("pre", *(tag("span", text or " ", cls=kind) for text, kind in rows))
    return tag(
        "figure", tag("figcaption", title), code, *(tag("p", x) for x in under if x), cls="card"
    )


def command(text: str) -> Markup:
    """Return a command with a button that copies it."""
    button = tag("button", "Copy", cls="copy tool", type="button")
    return tag("div", tag("code", text), button, cls="command")


def evidence(grade: str | None) -> Markup:
    """Return a grade as four marks and a word."""
    reached = GRADES.index(grade) + 1 if grade in GRADES else 0
    marks = (tag("b", cls="on" if k < reached else "") for k in range(4))
    return tag("span", *marks, f" {grade or 'none'}", cls="ev")


def level(relative: float, state: str) -> int:
    """Return the colour of an entry: 0 within rounding, then one for each power of ten of error."""
    if state in ("right", "undecided"):
        return 0 if state == "right" else 9
    if not math.isfinite(relative):
        return 8
    return max(1, min(8, math.ceil(math.log10(relative)) + 7)) if relative > 0 else 0


def map_of(
    title: str, columns: int, cells: Sequence[tuple[int, str]], labels: Sequence[str], worst: int
) -> Markup:
    """Return a map of errors: a square for each entry, or for the worst of a block of entries."""
    made: list[Part] = []
    for k, (colour, words) in enumerate(cells):
        if k % columns == 0:
            made.append(tag("b", labels[k // columns]))
        made.append(tag("i", cls=f"h{colour}{' at' if k == worst else ''}", title=words))
    style = f"grid-template-columns:max-content repeat({columns},minmax(4px,24px))"
    attributes = {"role": "img", "tabindex": "0", "aria_label": title, "data_columns": str(columns)}
    grid = tag("div", *made, cls="cells", style=style, **attributes)
    return join(tag("div", grid, cls="map"), tag("output", cells[worst][1]))


def scale() -> Markup:
    """Return what the colours of maps stand for."""
    steps = (tag("span", tag("i", cls=f"h{k}"), words) for k, words in enumerate(_SCALE))
    return tag("div", tag("span", "relative error up to"), *steps, cls="scale")
