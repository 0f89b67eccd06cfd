// Without this script a page lacks no text, number or picture.
"use strict";
const all = (what, where = document) => [...where.querySelectorAll(what)];
all(".gradlab").forEach(page => page.classList.add("gl-live"));
addEventListener("beforeprint", () => all("details").forEach(each => { each.open = true; }));
document.addEventListener("click", e => {
  const copy = e.target.closest(".gl-copy");
  if (!copy) return;
  const text = copy.previousElementSibling;
  (navigator.clipboard?.writeText(text.textContent) ?? Promise.reject()).then(
    () => { copy.textContent = "Copied"; },
    () => { getSelection().selectAllChildren(text); copy.textContent = "Press Ctrl+C"; });
});
for (const map of all(".gl-cells")) {
  const cells = all("i", map), told = map.closest("section").querySelector("output");
  let at = Math.max(0, cells.findIndex(each => each.classList.contains("gl-at")));
  const show = k => {
    if (!cells[k]) return;
    cells[at].classList.remove("gl-at");
    cells[at = k].classList.add("gl-at");
    told.textContent = cells[k].title;
  };
  const point = e => { if (e.target.tagName === "I") show(cells.indexOf(e.target)); };
  map.addEventListener("pointerover", point);
  map.addEventListener("click", point);
  map.addEventListener("keydown", e => {
    const wide = Number(map.dataset.columns);
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide}[e.key];
    if (step) { e.preventDefault(); show(at + step); }
  });
}
for (const levels of all(".gl-levels")) {
  const each = all(".gl-level", levels), buttons = all("[data-level]", levels.parentElement);
  let at = 0;
  const show = k => {
    at = Math.max(0, Math.min(each.length - 1, k));
    each.forEach((level, i) => level.classList.toggle("gl-shown", i === at));
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === at));
  };
  buttons.forEach((button, i) => button.addEventListener("click", () => show(i)));
  levels.addEventListener("click", () => show(at + 1));
  levels.addEventListener("keydown", e => {
    if (e.key === "Enter") show(at + 1);
    if (e.key === "Escape") show(at - 1);
  });
  show(0);
}
for (const filter of all(".gl-filter")) {
  const rows = all("[data-verdict]"), kinds = all("[data-kind]", filter);
  const words = filter.querySelector("input");
  let kind = "";
  const sift = () => rows.forEach(row => {
    const named = row.dataset.name.toLowerCase().includes(words.value.toLowerCase());
    row.hidden = !named || (kind && row.dataset.verdict !== kind);
  });
  words.addEventListener("input", sift);
  kinds.forEach(button => button.addEventListener("click", () => {
    kind = button.dataset.kind;
    kinds.forEach(other => other.setAttribute("aria-pressed", other === button));
    sift();
  }));
}
for (const graph of all("[data-steps]")) {
  const steps = JSON.parse(graph.dataset.steps), told = graph.querySelector("output");
  const shown = ([way, wire]) => all("g." + way, graph).filter(g => g.dataset.wire === wire);
  let at = steps.length;
  const show = step => {
    at = Math.max(0, Math.min(steps.length, step));
    all("g.forward, g.backward", graph).forEach(g => g.classList.add("gl-hidden"));
    all(".now", graph).forEach(g => g.classList.remove("now"));
    steps.slice(0, at).forEach(each => shown(each).forEach(g => g.classList.remove("gl-hidden")));
    if (!at) { told.textContent = "nothing computed yet"; return; }
    const [way, wire] = steps[at - 1];
    shown(steps[at - 1]).forEach(g => g.classList.add("now"));
    const what = way === "forward" ? "value" : "gradient";
    told.textContent = `${at} of ${steps.length}: ${what} of ${wire}`;
    const works = each => way === "forward" ? each.dataset.gate === wire
      : JSON.parse(each.dataset.takes).includes(wire);
    const gate = all(".gl-gates details", graph).find(works);  // the gate that makes this number
    if (gate) tell(gate.dataset.gate);
  };
  const tell = gate => {
    all("g.gate", graph).forEach(g => g.classList.toggle("chosen", g.dataset.gate === gate));
    all(".gl-gates details", graph).forEach(each => { each.open = each.dataset.gate === gate; });
  };
  all("g.gate", graph).forEach(g => {
    g.tabIndex = 0;
    g.addEventListener("click", () => tell(g.dataset.gate));
    g.addEventListener("keydown", e => { if (e.key === "Enter") tell(g.dataset.gate); });
  });
  const turn = steps.filter(([way]) => way === "forward").length;
  const moves = {
    first: () => 0, back: () => at - 1, on: () => at + 1, turn: () => turn,
    last: () => steps.length,
  };
  for (const button of all("[data-move]", graph))
    button.addEventListener("click", () => show(moves[button.dataset.move]()));
  const groups = graph.querySelector("[data-groups]");
  const fold = () => all(".gl-form", graph).forEach(form => { form.hidden = !form.hidden; });
  groups?.addEventListener("click", fold);
  document.addEventListener("keydown", e => {
    const {top, bottom} = graph.getBoundingClientRect(), middle = innerHeight / 2;
    const far = top > middle || bottom < middle;  // another graph of this page is meant
    if (e.target.matches?.("input") || (far && all("[data-steps]").length > 1)) return;
    if (e.key === "ArrowRight") show(at + 1);
    if (e.key === "ArrowLeft") show(at - 1);
    if (e.key === "g") groups && fold();
  });
  const [, step, gate] = location.hash.match(/^#(\d+)(?:,(.*))?$/) || [];
  show(step === undefined ? steps.length : Number(step));
  if (gate !== undefined) tell(decodeURIComponent(gate));
}
