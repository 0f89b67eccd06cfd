"""A check as a page: the answer, the line and its fix, a map of the errors, inputs, laws."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gradlab.formatting import scientific, shape_text
from gradlab.reporting._failure import Mistake, mistakes, no_fix, place, repeat, rounding, verified
from gradlab.reporting._markup import (
    Markup,
    Part,
    command,
    evidence,
    facts,
    fold,
    head,
    join,
    level,
    lines,
    map_of,
    scale,
    section,
    table,
    tag,
    top,
)

if TYPE_CHECKING:
    from gradlab.checking.report import CheckReport
    from gradlab.report import Cell, ErrorMap, Fix, Law, Rule

STATES = {
    "wrong": ("WRONG", "bad"),
    "loses digits": ("loses digits", "warn"),
    "undecided": ("undecided", "open"),
    "right, loses digits": ("right, loses digits", "warn"),
    "right": ("right", "good"),
    "failed": ("WRONG", "bad"),
    "warned": ("right, warned", "warn"),
    "inconclusive": ("undecided", "open"),
    "skipped": ("skipped", "soft"),
    "passed": ("right", "good"),
    "absent": ("absent", "soft"),
    "cannot run": ("cannot run", "open"),
}


def status_of(status: str) -> Markup:
    """Return a verdict as a word in its colour."""
    word, tone = STATES[status]
    return tag("b", word, cls=tone)


def html(report: "CheckReport", verdict: str, told: Sequence[str]) -> Markup:
    """Return the body of the page; `verdict` is the headline, `told` says why, and what is next."""
    word, tone = STATES[report.status]
    return join(
        top("check", report.function, ", ".join(report.dtypes), f"seed {report.seed}"),
        head(word, tone, f"{report.function}: {verdict}", _sentence(report, told)),
        section("More about this verdict", *(tag("p", _sentence_of(each)) for each in told[1:])),
        found(report),
        section("Repeat this check", *_commands(report)),
        tag("p", f"Reference: {report.oracle}.", cls="soft"),
    )


def _sentence(report: "CheckReport", told: Sequence[str]) -> str:
    """Return what a person wants to know next."""
    if report.status == "wrong" and report.fixes:
        return f"{_said(report.fixes[0])} With the edit below, every gradient is right."
    if report.findings:
        return _sentence_of(report.findings[0].text)
    if report.status == "wrong":
        return f"{no_fix(report)}."
    return _sentence_of(told[0]) if told else ""


def _sentence_of(said: str) -> str:
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."


def found(report: "CheckReport") -> Markup:
    """Return what a check found, without its headline: for this page, an audit's and a suite's."""
    return join(
        _worst(report),
        section("The mistake and its fix", *(_fix(report, fix) for fix in report.fixes[:1]))
        or section(
            "The cause", *(tag("p", _sentence_of(each.text)) for each in report.findings[1:])
        ),
        *(_map(report, path, seen) for path, seen in report.maps.items()),
        scale() if report.maps else "",
        section(
            "Inputs",
            _inputs(report),
            *(tag("p", _sentence_of(each.reason), cls="soft") for each in report.unchecked),
        ),
        section("Derivative rules", *map(_rule, report.rules)),
        section("What was checked", *(_law(report, law) for law in report.laws)),
        section("Notes", *(tag("p", note, cls="soft") for note in report.notes)),
    )


def _said(fix: "Fix") -> str:
    return " ".join(_sentence_of(each.said) for each in mistakes(fix) if each.said)


def _worst(report: "CheckReport") -> Part:
    entry = report.worst
    if entry is None:
        return ""
    index = f"[{', '.join(map(str, entry.index))}]" if entry.index else ""
    rows = [
        ("worst entry", f"{entry.path}{index}"),
        ("the backward gives", f"{entry.actual:.8g}"),
        ("the right value", f"{entry.expected:.8g}"),
    ]
    if entry.expected:
        rows += [("off by a relative", f"{entry.relative:.2g}")]
        rows += [("rounding explains", rounding(report, entry))]
    return facts(rows)


def _fix(report: "CheckReport", fix: "Fix") -> Markup:
    """Return the wrong line beside the edit that mends it."""
    code, where = place(report, fix)
    wrong = [marked(each) for each in mistakes(fix)]
    diff = [
        (line, {"-": "hit", "+": "add"}.get(line[:1], "")) for line in fix.diff.splitlines()[2:]
    ]
    before = lines(join(tag("b", where), f"  {code}"), wrong, _said(fix))
    return tag(
        "div", before, lines(tag("b", "Fix"), diff, f"Verified: {verified(fix)}."), cls="pair"
    )


def marked(wrong: Mistake) -> tuple[Markup, str]:
    """Return a line of source with its number; what is wrong in it is marked."""
    number, text, start, end, _ = wrong
    mark = tag("mark", text[start:end]) if text[start:end] else ""
    return join(f"{number:>4}  {text[:start]}", mark, text[end:]), "hit"


def _map(report: "CheckReport", path: str, seen: "ErrorMap") -> Markup:
    """Return the map of one input's errors."""
    leaf = next(each for each in report.leaves if each.path == path)
    labels = [_span(row, seen.height) for row in range(seen.rows)]
    cells = [(level(c.relative, c.state), _cell_text(path, c)) for c in seen.cells]
    worst = report.worst.index if report.worst and report.worst.path == path else None
    ranked = [
        (c.at == worst, c.state == "wrong", c.relative == c.relative, c.relative)
        for c in seen.cells
    ]
    axes = len(leaf.shape)
    rows = f"rows: ax{'i' if axes == 2 else 'e'}s {'0' if axes == 2 else f'0 to {axes - 2}'}; " * (
        axes > 1
    )
    note = (
        f"{shape_text(leaf.shape)} {leaf.dtype}; {rows}columns: axis {axes - 1}"
        if axes
        else leaf.dtype
    )
    size = f"{seen.height} x {seen.width} entries, and shows the worst of them"
    note += f"; one square is {size if seen.height * seen.width > 1 else 'one entry'}"
    title = f"Relative errors of the gradient of {path}"
    grid = map_of(title, seen.columns, cells, labels, ranked.index(max(ranked)))
    keys = tag("span", "Point at a square, or use the arrow keys, to read its numbers.", cls="tool")
    about = tag("p", f"{note}. ", keys, cls="soft")
    return tag("section", tag("h2", title), about, grid)


def _span(block: int, size: int) -> str:
    first = block * size
    return str(first) if size == 1 else f"{first}-{first + size - 1}"


def _cell_text(path: str, cell: "Cell") -> str:
    index = f"[{', '.join(map(str, cell.at))}]" if cell.at else ""
    known = "the reference gives" if cell.state == "undecided" else "the right value is"
    numbers = f"the backward gives {cell.actual:.8g}, {known} {cell.expected:.8g}"
    ratio = f"; off by a relative {cell.relative:.2g}" * math.isfinite(cell.relative)
    return (
        f"{path}{index} is {cell.state}: {numbers}{ratio if cell.relative else '; no difference'}"
    )


def _inputs(report: "CheckReport") -> Markup:
    headers = (
        "input",
        "shape",
        "verdict",
        "wrong entries",
        "finds errors from",
        "digits right",
        "evidence",
    )
    rows = []
    for leaf in report.leaves:
        digits, held = report.digits.get(leaf.path), report.evidence.get(leaf.path)
        finest = report.resolution.get(leaf.path, float("inf"))
        rows.append(
            (
                tag("b", leaf.path, cls="mono"),
                f"{shape_text(leaf.shape)} {leaf.dtype}",
                status_of(leaf.status),
                f"{leaf.wrong:,} of {leaf.right + leaf.wrong + leaf.inconclusive:,}",
                scientific(finest) if 0 < finest < 1 else "-",
                f"{digits.least:.1f} of {digits.full:.1f}"
                if digits and digits.least == digits.least
                else "-",
                evidence(held.grade if held else None),
            )
        )
    return table(headers, rows, headers[3:6])


def _rule(rule: "Rule") -> Markup:
    said = [
        f"{p.part}: {STATES[p.status][0]}{'. ' + p.reason if p.reason else ''}" for p in rule.parts
    ]
    return fold(f"{rule.name}  {rule.kind}  {rule.defined}", *(tag("p", each) for each in said))


def _law(report: "CheckReport", law: "Law") -> Markup:
    error = "" if law.error is None else f"; the largest error is {law.error:.2g} floors"
    measured = f"{law.judged:,} entries judged{error if law.status == 'passed' else ''}."
    name = f"{law.name} ({law.dtype})" if law.dtype else law.name
    said = [law.reason or "", measured if law.judged else ""]
    head = join(status_of(law.status), f"  {name}")
    return fold(
        head, *(tag("p", each, cls="soft") for each in said if each), open=law.status == "failed"
    )


def _commands(report: "CheckReport") -> Iterator[Markup]:
    yield command(repeat(report.call))
    if report.fixes:
        yield tag(
            "p", "Add --patch fix.diff to write the fix to a file. Then apply it:", cls="soft"
        )
        yield command("patch -p1 < fix.diff")
