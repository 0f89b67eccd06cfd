"""A graph as a page: step through values and gradients, choose a gate to see what it does."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from gradlab.formatting import listed
from gradlab.reporting._glance import glance_text
from gradlab.reporting._markup import Markup, Part, fold, head, join, table, tag, top
from gradlab.reporting._svg import drawing
from gradlab.reporting._things import picture

if TYPE_CHECKING:
    from gradlab.graph.report import Gate, GraphReport, NodeCheck, WireView

_WIDEST = 1350.0  # in a page's column, the smallest letters of a wider picture are hard to read
_MOVES = (
    ("first", "start", "before anything is computed"),
    ("back", "\N{LEFTWARDS ARROW} back", "one step back (left arrow)"),
    ("on", "next \N{RIGHTWARDS ARROW}", "one step on (right arrow)"),
    ("turn", "values", "all values, no gradient yet"),
    ("last", "end", "all values and gradients"),
)
_FAMOUS = {
    "add": "Add distributes: each input gets the upstream, because each local gradient is 1.",
    "multiply": "Multiply swaps: the local gradient of each input is the other input.",
    "maximum": "Max routes: the larger input gets the whole upstream, and the smaller one 0. "
    "At a tie each gets half, as in JAX.",
    "copy": "Copy adds: the gradients of all uses are summed.",
}


def html(report: "GraphReport") -> Markup:
    """Return the body of the page; a page's address may end in `#STEP` or `#STEP,GATE`."""
    groups = any(gate.frame for gate in report.gates)
    forms = [report, _closed(report)] if groups else [report]
    drawn = [
        tag("div", *_pictures(form), cls="form", **({"hidden": ""} if k else {}))
        for k, form in enumerate(forms)
    ]
    keys = (
        "Keys: left and right arrow step; Tab and Enter choose a gate"
        + "; g opens and closes groups" * groups
    )
    word, tone = ("right", "good") if report.ok else ("WRONG", "bad")
    checked = sum(gate.check is not None for gate in report.gates)
    return join(
        top("graph", report.title, f"{len(report.gates)} gates"),
        head(
            word if checked or not report.ok else "graph",
            tone,
            f"{report.title}, gate by gate",
            _LEAD,
            *report.findings,
        ),
        tag(
            "section",
            *drawn,
            _buttons(groups),
            tag("output", f"{len(_steps(report))} steps: all values and gradients are shown"),
            tag("p", f"{keys}.", cls="soft tool"),
            tag("div", *_gates(forms), cls="gates"),
            data_steps=json.dumps(_steps(report)),
        ),
        tag("section", fold("Every wire", _wires(report))),
    )


_LEAD = (
    "Values stand in green, gradients in red. Each gate multiplies its upstream by its local "
    "gradient, and passes the product on."
)


def _pictures(report: "GraphReport") -> Iterator[Markup]:
    """Yield the graph from left to right, and downwards for a narrow screen."""
    wide, narrow = picture(report), picture(report, True, narrow=True)
    if wide.size.width > _WIDEST:
        wide = picture(report, True)
    yield tag("div", Markup(drawing(report, wide)), cls="across")
    yield tag("div", Markup(drawing(report, narrow)), cls="down")


def _steps(report: "GraphReport") -> list[tuple[str, str]]:
    """Return the values in the order in which they are computed, then the gradients."""
    shown = [wire for wire in report.wires if wire.kind != "constant" or wire.value.shape]
    back = [("backward", wire.name) for wire in reversed(shown) if wire.gradient is not None]
    return [*(("forward", wire.name) for wire in shown), *back]


def _buttons(groups: bool) -> Markup:
    moves = [
        tag("button", sign, title=words, data_move=move, type="button")
        for move, sign, words in _MOVES
    ]
    folds = [tag("button", "open or close groups", data_groups="", type="button")] * groups
    return tag("div", *moves, *folds, cls="tool")


def _gates(forms: "list[GraphReport]") -> Iterator[Markup]:
    """Yield what there is to say about each gate, and about each closed group."""
    seen: set[str] = set()
    for form in forms:
        views = {wire.name: wire for wire in form.wires}
        for gate in form.gates:
            if gate.name not in seen or gate.members:
                seen.add(gate.name)
                named = f"{gate.name} = {gate.node}({', '.join(gate.inputs)})"
                takes = json.dumps(gate.inputs)
                yield fold(named, *_about(gate, views), data_gate=gate.name, data_takes=takes)


def _about(gate: "Gate", views: "dict[str, WireView]") -> Iterator[Part]:
    """Yield what a gate does: its formula, and for each input upstream times local gradient."""
    told = [_FAMOUS[gate.node]] if gate.node in _FAMOUS else gate.about.splitlines()
    if gate.members:
        told.append(f"A group of {gate.members} nodes.")
    told += [f"Written at {gate.line}."] * bool(gate.line)
    yield from (tag("p", line) for line in told if line)
    upstreams = [glance_text(views[name].gradient) or "none" for name in gate.outputs]
    rows = []
    for k, name in enumerate(gate.inputs):
        branch = gate.branches[k] if gate.branches else None
        sent = branch or views[name].gradient
        local = gate.local_gradients[k] if gate.local_gradients else ""
        part = " (one part of a sum)" if branch is not None else ""
        rows.append(
            (
                name,
                tag("span", glance_text(views[name].value), cls="good"),
                local or "-",
                tag("span", listed(upstreams), cls="bad"),
                tag("span", f"{glance_text(sent) or 'none'}{part}", cls="bad"),
            )
        )
    yield table(
        ("input", "value", "local gradient", "\N{MULTIPLICATION SIGN} upstream", "= gradient"), rows
    )
    for name in gate.outputs:
        back = glance_text(views[name].gradient) or "none"
        yield tag("p", f"{name} is {glance_text(views[name].value)}; its gradient is {back}.")
        yield from (tag("p", mark, cls="warn") for mark in views[name].marks)
    if gate.check is not None:
        yield _checked(gate.check)


def _checked(check: "NodeCheck") -> Markup:
    """Return how a gate's backward stands against finite differences."""
    differences = f"finite differences say {check.expected:.6g} ± {check.error:.1g}"
    numbers = f"backward says {check.actual:.6g}, {differences}"
    reason = f" ({check.reason})" if check.reason else ""
    if check.status == "failed":
        return tag("p", f"WRONG: along a random direction {numbers}.", cls="bad")
    if check.status == "skipped":
        return tag("p", f"Not decided{reason}.", cls="soft")
    return tag("p", f"Right: along a random direction {numbers}{reason}.", cls="good")


def _wires(report: "GraphReport") -> Markup:
    rows = [
        (wire.name, wire.kind, glance_text(wire.value), glance_text(wire.gradient) or "none")
        for wire in report.wires
    ]
    return table(("wire", "kind", "value", "gradient"), rows)


def _closed(report: "GraphReport") -> "GraphReport":
    """Return a graph whose opened groups are one gate each again."""
    members: dict[str, list[Gate]] = {}
    for gate in report.gates:
        if gate.frame:
            members.setdefault(gate.frame[0], []).append(gate)
    gates: list[Gate] = []
    for gate in report.gates:
        inside = members.get(gate.frame[0], []) if gate.frame else [gate]
        if gate is inside[-1]:
            gates.append(_joined(report, gate.frame[0], inside) if gate.frame else gate)
    kept = {name for gate in gates for name in (*gate.inputs, *gate.outputs)} | set(report.outputs)
    made = {name for gate in report.gates for name in gate.outputs}
    wires = tuple(wire for wire in report.wires if wire.name in kept or wire.name not in made)
    return replace(report, gates=tuple(gates), wires=wires)


def _joined(report: "GraphReport", name: str, inside: "list[Gate]") -> "Gate":
    """Return one gate in place of those of a group."""
    made = [wire for gate in inside for wire in gate.outputs]
    taken = dict.fromkeys(wire for gate in inside for wire in gate.inputs if wire not in made)
    others = {wire for gate in report.gates if gate not in inside for wire in gate.inputs}
    out = tuple(wire for wire in made if wire in others or wire in report.outputs) or (made[-1],)
    last = inside[-1]
    return replace(
        last,
        name=out[0],
        node=name,
        detail=name,
        inputs=tuple(taken),
        outputs=out,
        frame=(),
        members=len(inside),
        branches=(),
        local_gradients=(),
        check=None,
        about="",
    )
