"""A graph as one page: step through values and gradients, click a gate to see what it does.

The page is self-contained: no request leaves it, and all text in it is escaped.
"""

import html
import json
from typing import TYPE_CHECKING, Any

from gradlab.reporting._glance import glance_text
from gradlab.reporting._svg import svg

if TYPE_CHECKING:
    from gradlab.graph.report import Gate, GraphReport

__all__ = ["page"]

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--paper:#fff;--edge:#d0d7de;--accent:#0550ae}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--edge:#30363d;
--accent:#79c0ff}}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
header{position:sticky;top:0;padding:.6rem 1rem;background:var(--paper);
border-bottom:1px solid var(--edge);display:flex;gap:.5rem;align-items:center;flex-wrap:wrap}
h1{font-size:1rem;margin:0 1rem 0 0}button{font:inherit;padding:.1rem .7rem}
#told{min-width:16rem}#picture{overflow:auto}
#about{padding:.5rem 1rem;border-top:1px solid var(--edge);white-space:pre-wrap;
font:13px/1.5 ui-monospace,monospace;min-height:4rem}
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
  document.getElementById("about").textContent = data.gates[gate];
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
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style>"
        f"<header><h1>{title}</h1>{buttons}<span id='told' role='status'></span></header>"
        f"<div id='picture'>{svg(report)}</div>"
        "<div id='about' role='status'>Click a gate to see what it does.</div>"
        f"<script type='application/json' id='data'>{_data(report)}</script>"
        f"<script>{_SCRIPT}</script></html>"
    )


def _data(report: "GraphReport") -> str:
    """Return what the script needs as JSON that cannot end its element."""
    drawn = [wire.name for wire in report.wires if wire.kind != "constant" or wire.value.shape]
    gradients = {wire.name for wire in report.wires if wire.gradient is not None}
    data: dict[str, Any] = {
        "forward": drawn,
        "backward": [name for name in reversed(drawn) if name in gradients],
        "gates": {gate.name: _about(report, gate) for gate in report.gates},
    }
    return json.dumps(data).replace("<", "\\u003c").replace("&", "\\u0026")


def _about(report: "GraphReport", gate: "Gate") -> str:
    """Return what the page says about a gate."""
    views = {wire.name: wire for wire in report.wires}
    lines = [f"{gate.name} = {gate.node}({', '.join(gate.inputs)})"]
    if gate.members:
        lines.append(f"a group of {gate.members} nodes; graph.ungroup({gate.name!r}) opens it")
    else:
        lines.append(gate.detail)
    if gate.line:
        lines.append(f"written at {gate.line}")
    for name in gate.outputs:
        wire = views[name]
        back = glance_text(wire.gradient) or "none"
        lines.append(f"{name}: value {glance_text(wire.value)}; gradient {back}")
        lines += [f"  {mark}" for mark in wire.marks]
    for position, name in enumerate(gate.inputs):
        words = gate.local_gradients[position] if gate.local_gradients else ""
        branch = gate.branches[position] if gate.branches else None
        if words:
            lines.append(f"local gradient in {name}: {words}")
        if branch is not None:
            lines.append(f"sends back to {name}: {glance_text(branch)}, one part of a sum")
    return "\n".join(lines)
