"""A graph as one page: step through values and gradients, click a gate to see what it does.

The page is self-contained: no request leaves it, and all text in it is escaped.
"""

import html
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gradlab.reporting._glance import glance_text
from gradlab.reporting._sealed import SEALED
from gradlab.reporting._svg import svg

if TYPE_CHECKING:
    from gradlab.graph.report import Gate, GraphReport, NodeCheck, WireView

__all__ = ["page"]

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--paper:#fff;--edge:#d0d7de;--accent:#0550ae;
--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--edge:#30363d;
--accent:#79c0ff;--bad:#ff7b72}}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
header{position:sticky;top:0;padding:.6rem 1rem;background:var(--paper);
border-bottom:1px solid var(--edge);display:flex;gap:.5rem;align-items:center;flex-wrap:wrap}
h1{font-size:1rem;margin:0 1rem 0 0}button{font:inherit;padding:.1rem .7rem}
#told{min-width:16rem}#picture{overflow:auto}
#about{padding:.5rem 1rem;border-top:1px solid var(--edge);position:sticky;bottom:0;margin:0;
background:var(--paper);max-height:40vh;overflow:auto;display:grid;column-gap:1rem;
grid-template-columns:max-content 1fr;font:13px/1.5 ui-monospace,monospace}
#about dt{color:var(--accent)}#about dd{margin:0;overflow-wrap:anywhere}
#about dd.wrong{color:var(--bad);font-weight:bold}
.hidden{visibility:hidden}.now text{font-weight:bold}g.gate{cursor:pointer}
g.gate:focus .shape,g.gate.chosen .shape{stroke:var(--accent);stroke-width:3}
"""

_SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const shown = (way, wire) => [...document.querySelectorAll("g." + way)]
  .filter(g => g.dataset.wire === wire);
const steps = [...data.forward.map(wire => ["forward", wire]),
               ...data.backward.map(wire => ["backward", wire])];
const see = g => g.scrollIntoView({block: "nearest", inline: "center"});
let at = steps.length;
function show(step) {
  at = Math.max(0, Math.min(steps.length, step));
  for (const g of document.querySelectorAll("g.forward, g.backward")) g.classList.add("hidden");
  for (const g of document.querySelectorAll(".now")) g.classList.remove("now");
  steps.slice(0, at).forEach(([way, wire]) =>
    shown(way, wire).forEach(g => g.classList.remove("hidden")));
  const told = document.getElementById("told");
  if (!at) { told.textContent = "nothing computed yet"; return; }
  const [way, wire] = steps[at - 1];
  shown(way, wire).forEach(g => { g.classList.add("now"); see(g); });
  told.textContent = `${at} of ${steps.length}: ` +
    (way === "forward" ? `value of ${wire}` : `gradient of ${wire}`);
}
function tell(gate) {
  for (const g of document.querySelectorAll("g.gate"))
    g.classList.toggle("chosen", g.dataset.gate === gate);
  document.getElementById("about").replaceChildren(...data.gates[gate].flatMap(row =>
    ["dt", "dd"].map((kind, i) => {
      const part = document.createElement(kind);
      part.textContent = row[i];
      if (kind === "dd" && row[2]) part.className = row[2];
      return part;
    })));
}
for (const g of document.querySelectorAll("g.gate")) {
  g.tabIndex = 0;
  g.addEventListener("click", () => tell(g.dataset.gate));
  g.addEventListener("keydown", e => { if (e.key === "Enter") tell(g.dataset.gate); });
}
const moves = {first: () => 0, back: () => at - 1, on: () => at + 1,
               turn: () => data.forward.length, last: () => steps.length};
for (const [id, to] of Object.entries(moves))
  document.getElementById(id).addEventListener("click", () => show(to()));
document.addEventListener("keydown", e => {
  if (e.key === "ArrowRight") show(at + 1);
  if (e.key === "ArrowLeft") show(at - 1);
});
function follow() {
  const [, step, gate] = location.hash.match(/^#(\\d+)(?:,(.*))?$/) || [];
  show(step === undefined ? steps.length : Number(step));
  if (gate !== undefined) tell(decodeURIComponent(gate));
}
addEventListener("hashchange", follow);
follow();
"""


def page(report: "GraphReport") -> str:
    """Return the page; its address may end in `#STEP` or `#STEP,GATE`."""
    title = html.escape(report.title)
    buttons = "".join(
        f'<button id="{name}" title="{words}">{sign}</button>'
        for name, words, sign in (
            ("first", "before anything is computed", "start"),
            ("back", "one step back (left arrow)", "&larr;"),
            ("on", "one step on (right arrow)", "&rarr;"),
            ("turn", "all values, no gradient yet", "values"),
            ("last", "all values and gradients", "end"),
        )
    )
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'>{SEALED}"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style>"
        f"<header><h1>{title}</h1>{buttons}<span id='told' role='status'></span></header>"
        f"<div id='picture'>{svg(report)}</div>"
        "<dl id='about' role='status'><dt>gates</dt>"
        "<dd>Click one, or go to it with Tab and press Enter, to see what it does.</dd></dl>"
        f"<script type='application/json' id='data'>{_data(report)}</script>"
        f"<script>{_SCRIPT}</script></html>"
    )


def _data(report: "GraphReport") -> str:
    """Return what the script needs as JSON that cannot end its element."""
    drawn = [wire.name for wire in report.wires if wire.kind != "constant" or wire.value.shape]
    views = {wire.name: wire for wire in report.wires}
    data: dict[str, Any] = {
        "forward": drawn,
        "backward": [name for name in reversed(drawn) if views[name].gradient is not None],
        "gates": {gate.name: list(_about(gate, views)) for gate in report.gates},
    }
    return json.dumps(data).replace("<", "\\u003c").replace("&", "\\u0026")


def _about(gate: "Gate", views: dict[str, "WireView"]) -> Iterator[tuple[str, ...]]:
    """Yield what the page says about a gate, as pairs of a word and a text."""
    yield "gate", f"{gate.name} = {gate.node}({', '.join(gate.inputs)})"
    if gate.members:
        yield "group", f"{gate.members} nodes; graph.ungroup({gate.name!r}) opens it"
    else:
        yield "node", gate.detail
    if gate.line:
        yield "written at", gate.line
    for name in gate.outputs:
        wire = views[name]
        here = f" of {name}" if len(gate.outputs) > 1 else ""
        yield f"value{here}", glance_text(wire.value)
        yield f"gradient{here}", glance_text(wire.gradient) or "none"
        yield from (("mark", mark) for mark in wire.marks)
    for position, name in enumerate(gate.inputs):
        words = gate.local_gradients[position] if gate.local_gradients else ""
        branch = gate.branches[position] if gate.branches else None
        if words:
            yield f"local gradient in {name}", words
        if branch is not None:
            yield f"sends back to {name}", f"{glance_text(branch)}, one part of a sum"
    if gate.check is not None:
        yield "check", *_checked(gate.check)


def _checked(check: "NodeCheck") -> tuple[str, str]:
    """Return how a gate's backward stands against finite differences, and a class for it."""
    numbers = f"{check.actual:.6g}, finite differences say {check.expected:.6g} ± {check.error:.1g}"
    if check.status == "failed":
        return f"WRONG: along a random direction backward says {numbers}", "wrong"
    reason = f" ({check.reason})" if check.reason else ""
    if check.status == "skipped":
        return f"not decided{reason}", ""
    return f"right: along a random direction backward says {numbers}{reason}", ""
