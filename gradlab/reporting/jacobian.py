"""How a Jacobian report looks: one screen of text, and a picture of its blocks as SVG."""

import math
import operator
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gradlab.formatting import at_most, count, listed, number_text, shape_text, size_text
from gradlab.patterns.drawing import FEW, draw
from gradlab.reporting._failure import repeat, wrapped
from gradlab.reporting._heat import STYLE as HEAT_STYLE
from gradlab.reporting._heat import heat_map, heat_size
from gradlab.reporting._markup import (
    Markup,
    Part,
    command,
    drawn,
    head,
    join,
    section,
    table,
    tag,
    top,
)
from gradlab.reporting._table import is_detailed
from gradlab.structure.explanation import NOUNS, in_one_line, in_words, passes_text

if TYPE_CHECKING:
    from gradlab.structure.report import JacobianReport

_SIDE = 320
_STYLE = (
    "text{fill:#1f2328;font:13px system-ui,sans-serif}.paper{fill:#fff}.entry{fill:#1f4e9c;"
    "shape-rendering:crispEdges}.frame{fill:#f4f4f4;stroke:#999}.quiet{fill:#59626b}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}.quiet{fill:#a0a9b2}"
    ".frame{fill:#161b22;stroke:#6e7681}.entry{fill:#79a7ff}}"
)
_CORNER = 96.0  # the height of the entries by value: their width, so that cells are squares
_UPSTREAM = (0.5, -1.2, 2.0, 0.3, -0.75, 1.4)  # of the example
Data = dict[str, Any]
_RUNGS = {
    "symbolic": "exact: every axis was followed",
    "explicit": "exact: every axis was followed, some through index arrays",
    "widened": "upper bound: some axes were taken as wider than they may be",
    "unknown": "upper bound: a primitive without a rule counts as dense",
}


def text(report: "JacobianReport") -> str:
    """Return the report as a person reads it in a terminal."""
    if report.refuted:
        again = repeat("")
        return f"StructureMismatch: {report.refuted}" + f"\n  repeat    {again}" * bool(again)
    said, _, steps = report.why().partition(_PROVED)
    accepted = [f"    {each}" for each in report.conditions if each.accepted]
    sizes = " and every ".join(report.sizes[name] for name in report.least)
    proved = f"{report.evidence} for every {sizes or 'input of this shape'}"
    shape = _shape([(b.input, b.structure) for b in report.blocks], len(report.outputs))
    lines = [f"{report.name}: {shape}, {proved}{', while:' if accepted else ''}"]
    lines += accepted
    shown = steps.splitlines()[1 + len(accepted) :]
    m, n = report.shape
    bound = "" if report.exact else "at most "
    dense, stored = size_text(report.dense_bytes), size_text(report.stored_bytes)
    what = "the diagonal d" if report.structure == "diagonal" else "the entries alone"
    rows = [
        (
            "matrix",
            f"{m:,} x {n:,}, and {bound}{count(report.nnz, 'entry', 'entries')} may differ "
            "from zero",
        ),
        ("memory", f"{stored} for {what}; the whole matrix takes {dense}"),
        ("backward", _backward(report)),
        ("axes", _RUNGS[report.rung]),
    ]
    if report.unseen:
        rows.append(("values", report.unseen))
    if report.unknown:
        rows.append(("unknown", f"{', '.join(report.unknown)}: taken as dense"))
    kept = ("The Jacobian is", "Its Jacobian", "Every output may")  # said elsewhere
    told = [line.rstrip(".") for line in said.splitlines() if not line.startswith(kept)]
    lines += [f"  {line}" for line in told if line != report.unseen]
    lines += [f"  {line}" for line in (_picture(report) if is_detailed() else [])]
    lines += [line for name, value in rows for line in wrapped(f"  {name:<9} ", value)]
    first = [" ".join(f"{x:9.4g}" for x in row[:6]) for row in report.corner[:6]]
    lines += [f"  {'' if k else 'entries':<9} {row}" for k, row in enumerate(first)]
    return "\n".join([*lines, *(f"  {line}" for line in shown)])


_DENSE = "each of these outputs may depend on each of these inputs"
_PROVED = "Proved from the program: true for every "


def _backward(report: "JacobianReport") -> str:
    plan = report.plan
    if report.structure == "diagonal":
        one = plan.jvps == plan.count == 1
        return "upstream * d" + "; one forward-mode pass with a tangent of ones gives d" * one
    return f"upstream @ J; {_passes(report)}"


def svg(report: "JacobianReport") -> str:
    """Return a picture of each block, at any size: blue where entries may be nonzero."""
    data = report.to_dict()
    title = f"{report.name}: {report.structure}, {count(report.nnz, 'entry', 'entries')}"
    labels = [textwrap.wrap(block["notation"], _SIDE // 7) for block in data["blocks"]]
    step = _SIDE + 60 + 17 * max(map(len, labels), default=0)
    across = len(report.inputs)
    wide, high = (
        max(60 + across * (_SIDE + 40), 70 + 8 * len(title)),
        50 + len(report.outputs) * step,
    )
    parts = [tag("text", title, x=30, y=24)]
    for number, (block, words) in enumerate(zip(data["blocks"], labels)):
        row, column = divmod(number, across)
        lines = (tag("text", w, x=20, y=_SIDE + 56 + 17 * i) for i, w in enumerate(words))
        place = f"translate({30 + column * (_SIDE + 40)} {44 + row * step})"
        square = _square(data, block, block["levels"][0]) if block["levels"] else ""
        parts.append(tag("g", square, *lines, transform=place))
    return drawn(title, "gradlab-jacobian", _STYLE, wide, high, *parts)


def _square(data: Data, block: Data, level: Data) -> Markup:
    """Draw one level of a block, with the axes of the input above it and the output's beside."""
    cells = level["cells"]
    high, wide = _SIDE / len(cells), _SIDE / len(cells[0])
    parts = [tag("rect", _class="frame", x=20, y=20, width=_SIDE, height=_SIDE)]
    for i, row in enumerate(cells):
        for run in re.finditer("1+", row):
            x, width = 20 + run.start() * wide, (run.end() - run.start()) * wide
            place = {"x": f"{x:.2f}", "y": f"{20 + i * high:.2f}", "width": f"{width:.2f}"}
            parts.append(tag("rect", _class="entry", height=f"{high:.2f}", **place))
    whole = [level["rows"], level["columns"]] == list(block["shape"])
    names = [
        f"{_name(data, block, side)}: {_axes(data, block, side) if whole else n}"
        for side, n in (
            ("input", count(level["columns"], "entry", "entries")),
            ("output", count(level["rows"], "entry", "entries")),
        )
    ]
    places = "translate(20 14)", f"translate(14 {_SIDE + 20}) rotate(-90)"
    for words, moved in zip((f"input {names[0]}", names[1]), places):
        fits: Any = {"textLength": _SIDE} if 7 * len(words) > _SIDE else {}  # squeezed, never cut
        parts.append(tag("text", words, transform=moved, lengthAdjust="spacingAndGlyphs", **fits))
    return join(*parts)


def _name(data: Data, block: Data, side: str) -> str:
    """Return what an input or an output is called; the one output is `out`."""
    return "out" if side == "output" and len(data["outputs"]) == 1 else str(block[side])


def _axes(data: Data, block: Data, side: str) -> str:
    """Return the axes of an input or an output, with their lengths."""
    shape = next(s["shape"] for s in data[f"{side}s"] if s["path"] == block[side])
    if len(shape) > 2:
        return shape_text(shape)
    return ", ".join(f"{number_text(n)} along axis {k}" for k, n in enumerate(shape)) or "a number"


def html(data: Data) -> Markup:
    """Return the body of the page: the matrix, what the backward multiplies, the proof."""
    rows, columns = data["shape"]
    name, nnz = data["name"], data["nnz"]
    seen = [(block["input"], block["structure"]) for block in data["blocks"]]
    shape, diagonal = _shape(seen, len(data["outputs"])), data["structure"] == "diagonal"
    title = (
        f"Each output of {name} depends on one input"
        if diagonal and not data["unseen"]
        else f"The Jacobian of {name} is {'a ' * shape.startswith(NOUNS)}{shape}"
    )
    may = (
        f"The matrix has {number_text(rows)} rows and {number_text(columns)} columns, and "
        f"{count(nnz, 'entry', 'entries')} may differ from zero."
    )
    so = (
        " So the backward is one product per entry, and nobody needs the matrix."
        if diagonal
        else ""
    )
    sides = (
        f"{side['path']} {shape_text(side['shape'])} {side['dtype']}" for side in data["inputs"]
    )
    kinds = [("whole matrix", data["dense_bytes"]), ("the entries alone", data["stored_bytes"])]
    if all(block["operator"] for block in data["blocks"]):
        kinds.append(("the operator", sum(block["operator_bytes"] for block in data["blocks"])))
    answer = head(f"{data['evidence']}: {shape}", "good", title, may + so)
    refuted, _, why = data["refuted"].partition("\n")
    if refuted:
        answer = head("not as asserted", "bad", refuted, may)
    return join(
        top("jacobian", name, *sides),
        answer,
        section("Why", why and tag("pre", re.sub(r"\| +\^+ ", "|  ", textwrap.dedent(why)))),
        section("Repeat this claim", refuted and repeat("") and command(repeat(""))),
        section("Values go further", data["unseen"] and tag("p", f"{data['unseen']}.")),
        *(
            section(f"d {_name(data, block, 'output')} / d {block['input']}", _levels(data, block))
            for block in data["blocks"]
        ),
        section(f"Memory{', on a scale of powers of ten' * _has_bars(kinds)}", _bars(kinds)),
        section("What the backward multiplies", _products(data)),
        section("The first entries, by value", _by_value(data["corner"])),
        section("The proof, beside the source", _proof(data)),
        section("Sizes", *(tag("p", f"{said}.") for said in data["sizes"].values())),
        section("Conditions", *map(_condition, data["conditions"])),
        section("Where the pattern may be too large", *(tag("p", note) for note in data["notes"])),
    )


def _shape(blocks: Sequence[tuple[str, str]], outputs: int) -> str:
    """Return the structure in words; where inputs differ, what it is in each."""
    found = {structure: [p for p, s in blocks if s == structure] for _, structure in blocks}
    if len(found) < 2 or outputs > 1:
        return next(iter(found)) if len(found) == 1 else "made of different blocks"
    return listed([f"{structure} in {listed(paths)}" for structure, paths in found.items()])


def _levels(data: Data, block: Data) -> Markup:
    figures = []
    for level in block["levels"]:
        high, wide = level["height"], level["width"]
        one = (
            f"One square is {high:,} x {wide:,} entries"
            if high * wide > 1
            else "One square is one entry"
        )
        inner = level is not block["levels"][-1]
        said = f"{one}. A blue square may hold entries that are not zero; all others are zero."
        if not any("0" in row for row in level["cells"]):
            whole = "each holds entries that may differ from zero; click to see where"
            said = f"{one}. Every square is blue: {whole if inner else _DENSE}."
        if not all(isinstance(n, int) for n in block["shape"]):
            said += f" The picture takes {FEW} for each size without a number."
        square = _square(data, block, level)
        seen = drawn(one, "gradlab-jacobian", _STYLE, _SIDE + 24, _SIDE + 24, square)
        figures.append(tag("figure", seen, tag("figcaption", said, cls="soft"), cls="level"))
    names = ("all blocks", "one block", "inside it")[: len(figures)]
    buttons = (tag("button", each, data_level=k, type="button") for k, each in enumerate(names))
    how = "Click the picture or press Enter to look inside; Escape goes back."
    tools = tag("div", *buttons, tag("span", how, cls="soft"), cls="tool")
    reads = f"{block['notation'].replace(' <- ', ' depends on ')}: {block['structure']}"
    letters = "Letters are arrays, 1 is a vector of ones, and ' transposes."
    axes = " i, j, k count along axes 0, 1, 2." * (" for each " in block["operator"])
    operator = (
        tag("p", f"as an operator: {block['operator']}", cls="mono"),
        tag(
            "p",
            f"{letters}{axes} The arrays take {size_text(block['operator_bytes'])}.",
            cls="soft",
        ),
    )
    return tag(
        "div",
        tag("p", reads, cls="mono"),
        *(operator if block["operator"] else ()),
        tools if len(figures) > 1 else "",
        tag("div", *figures, cls="levels", tabindex=0),
    )


def _has_bars(kinds: Iterable[tuple[str, int | str]]) -> bool:
    """Return whether any size is a number; a formula has no bar."""
    return any(isinstance(size, int) for _, size in kinds)


def _bars(kinds: Sequence[tuple[str, int | str]]) -> Markup:
    """Return sizes in bytes as bars, each as long as its digits."""
    if not _has_bars(kinds):
        return table(("stored", "bytes"), [(name, f"{size} B") for name, size in kinds])
    rows = [
        (
            name,
            size_text(size) if isinstance(size, int) else f"{size} B",
            tag("span", cls="bar", style=f"width:{100 * math.log10(max(size, 1) + 1) / 15:.0f}%")
            if isinstance(size, int)
            else "",
        )
        for name, size in kinds
    ]
    return table(("stored", "bytes", "length"), rows)


def _products(data: Data) -> Markup:
    """Return `upstream @ J` beside `upstream * d`, with the entries that were evaluated."""
    rows, columns = data["shape"]
    both = isinstance(rows, int) and isinstance(columns, int)
    entries = number_text(data["nnz"])
    every = number_text(rows * columns) if both else f"{rows} x {columns}"
    corner = [row[:6] for row in data["corner"][:6]]
    given = list(_UPSTREAM[: len(corner)])
    d = [row[i] for i, row in enumerate(corner) if i < len(row)]
    sums = [sum(map(operator.mul, given, column)) for column in zip(*corner)]
    with_numbers = " The same with the first rows and columns alone:" if corner else ""
    full = tag(
        "div",
        tag("h3", "upstream @ J = backward"),
        tag("p", f"{every} products with the whole matrix.{with_numbers}", cls="soft"),
        _calc(
            ("upstream", given),
            *(("@ J" if not i else "", row) for i, row in enumerate(corner)),
            ("= backward", sums),
        ),
    )
    if data["structure"] != "diagonal":
        passes = count(data["passes"], "pass", "passes")
        give = "gives" if data["passes"] == 1 else "give"
        few = f"{entries} products; {passes} of autodiff {give} every entry."
        rest = tag("div", tag("h3", "the entries alone"), tag("p", few, cls="soft"))
        return tag("div", full, rest, cls="pair")
    alone = tag(
        "div",
        tag("h3", "upstream * d = backward"),
        tag("p", f"{entries} products with the diagonal d, and the same result.", cls="soft"),
        _calc(("upstream", given), ("* d", d), ("= backward", [u * x for u, x in zip(given, d)])),
    )
    return tag("div", full, alone, cls="pair")


def _by_value(corner: list[list[float]]) -> Part:
    """Return the entries that were evaluated as cells: blue below zero, orange above."""
    if not corner:
        return ""
    wide, high = heat_size(corner, _CORNER)
    cells = Markup(heat_map(corner, 0.0, 0.0, "the Jacobian", _CORNER))
    seen = drawn("entries of the Jacobian", "gradlab-heat", HEAT_STYLE, wide, high, cells)
    size = f"{len(corner)} rows and {len(corner[0])} columns; the deepest colour is the largest"
    legend = tag("p", f"Blue is below zero, orange above. {size}.", cls="soft")
    return tag("div", legend, seen, cls="wide")


def _calc(*rows: tuple[str, list[float]]) -> Markup:
    if not any(numbers for _, numbers in rows):
        return Markup("")
    cells = [[tag("td", f"{x:.2f}", cls="link" if x else "soft") for x in each] for _, each in rows]
    lines = (tag("tr", tag("th", name), *row) for (name, _), row in zip(rows, cells))
    return tag("table", *lines, cls="calc")


def _proof(data: Data) -> Markup:
    steps: dict[tuple[str, str], list[Data]] = {}
    for step in data["steps"]:
        steps.setdefault((step["source"] or "inside JAX", step["code"]), []).append(step)
    rows = [
        (
            tag("span", where, cls="nowrap"),
            tag("code", code or ", ".join(dict.fromkeys(step["name"] for step in here))),
            in_one_line(
                in_words(step["text"]) if step["kind"] == "mixes entries" else step["kind"]
                for step in here
            ),
        )
        for (where, code), here in steps.items()
    ]
    sizes = " and every ".join(data["sizes"].values()) or "input of this shape"
    said = f"{_PROVED}{sizes}, for all values that are finite."
    return join(table(("line", "source", "what it does"), rows), tag("p", said, cls="soft"))


def _condition(condition: Data) -> Markup:
    """Return what has to hold of some values, and whether the proof rests on it."""
    bound = "" if condition["bound"] is None else f", at most {at_most(condition['bound'])}"
    used = "the proof rests on it" if condition["accepted"] else "accept it for a smaller pattern"
    what = f"{condition['what']} ({condition['kind']}{bound}) at {condition['source']}: {used}."
    return tag("p", what)


def _picture(report: "JacobianReport") -> list[str]:
    if len(report.patterns) != 1 or not math.prod(report.shape):
        return []
    return [*draw(report.pattern, 8, 32).splitlines(), ""]


def _passes(report: "JacobianReport") -> str:
    """Return how many passes of autodiff give every entry."""
    plan = report.plan
    give = "gives" if plan.count == 1 else "give"
    mirrored = " of this symmetric matrix" if plan.mirrors is not None else ""
    return f"{passes_text(report)} {give} every entry{mirrored}"
