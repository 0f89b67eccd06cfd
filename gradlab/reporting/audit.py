"""How an audit looks: every custom rule with its verdict, wrong ones in full."""

from typing import TYPE_CHECKING

from gradlab.formatting import count
from gradlab.report import STATUSES
from gradlab.reporting._check_page import STATES, found, status_of
from gradlab.reporting._failure import failure, repeat, wrapped
from gradlab.reporting._junit import junit_document
from gradlab.reporting._markup import (
    Markup,
    command,
    evidence,
    fold,
    head,
    join,
    section,
    tag,
    top,
)
from gradlab.reporting._table import is_detailed
from gradlab.reporting.check import cases, headline, law_lines

if TYPE_CHECKING:
    from gradlab.checking.report import AuditedRule, AuditReport


_MANY = 24  # columns of a name


def text(report: "AuditReport") -> str:
    """Return one line per rule, innermost first; wrong ones in full."""
    lines = wrapped("", f"{_headline(report)} ({_how(report)})", hang=2)
    cells = [_cells(rule) for rule in report.rules]
    widths = [min(max(map(len, column)), _MANY) for column in zip(*cells)]
    for rule, row in zip(report.rules, cells):
        lines.append(
            "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip()
        )
        if is_detailed() or rule.status in ("undecided", "loses digits"):
            open_laws = [law for law in rule.report.laws if law.status != "passed"]
            lines += law_lines(open_laws, " " * 8)
    for note in report.notes:
        lines += wrapped("note: ", note)
    told: dict[object, AuditedRule] = {}  # what the same edit mends is told once
    for rule in report.rules:
        if rule.report.status == "wrong":
            told.setdefault(rule.fixes[0].diff if rule.fixes else id(rule), rule)
    for rule in told.values():
        lines += ["", failure(rule.report, headline(rule.report))]
    return "\n".join(lines)


def _headline(report: "AuditReport") -> str:
    if not report.rules:
        return f"{report.function}: no custom rule was met"
    judged = [rule for rule in report.rules if rule.calls]
    seen = {status: sum(rule.status == status for rule in judged) for status in STATUSES}
    rules = count(len(report.rules), "custom rule")
    for status in STATUSES[:3]:
        number = seen[status]
        if number and status == "loses digits":
            return f"{report.function}: {number} of {rules} lose{'s' * (number == 1)} digits"
        if number:
            be = "is" if number == 1 else "are"
            return f"{report.function}: {number} of {rules} {be} {STATES[status][0]}"
    return f"{report.function}: {rules} {'is' if len(report.rules) == 1 else 'are'} right"


def _how(report: "AuditReport") -> str:
    dtypes = dict.fromkeys(dtype for rule in report.rules for dtype in rule.report.dtypes)
    return ", ".join([*dtypes, f"seed {report.seed}"])


def _cells(rule: "AuditedRule") -> tuple[str, ...]:
    """Return a rule's verdict, name, kind, line, how often it was met, and what was seen."""
    worst = rule.report.worst
    said = ", ".join(filter(None, (rule.grade, "as intended" if rule.intended else "")))
    if rule.status == "wrong" and worst is not None:
        off = (
            f"off by a relative {worst.relative:.2g}"
            if worst.expected
            else "not zero, as it should be"
        )
        said = f"{worst.path} is {off}"
    if not rule.calls:
        said = "not used: no derivative passes through it here"
    if rule.inside:
        said = f"{said}, inside {' > '.join(rule.inside)}".lstrip(", ")
    return (
        STATES[rule.status][0],
        rule.name,
        rule.kind,
        rule.source,
        f"met {count(rule.calls, 'time')}",
        said,
    )


def html(report: "AuditReport") -> Markup:
    """Return the body of the audit's page: each rule folds in as a check does, wrong ones first."""
    order = sorted(report.rules, key=lambda rule: STATUSES.index(rule.status))
    word, tone = STATES[order[0].status if order else "right"]
    return join(
        top("audit", report.function, f"seed {report.seed}"),
        head(word, tone, _headline(report)),
        section("Custom rules, where they are met", *map(_folded, order)),
        section("Notes", *(tag("p", note, cls="soft") for note in report.notes)),
        section("Repeat this audit", command(repeat(order[0].report.call)) if order else ""),
    )


def _folded(rule: "AuditedRule") -> Markup:
    inside = f", inside {' > '.join(rule.inside)}" if rule.inside else ""
    where = f"  {rule.name}  {rule.kind} at {rule.source}{inside}  "
    summary = join(status_of(rule.status), where, evidence(rule.grade))
    return fold(summary, tag("div", found(rule.report)), open=rule.status == "wrong")


def junit(report: "AuditReport") -> str:
    """Return the report as JUnit suites, one per rule."""
    return junit_document(
        *((f"{rule.name} at {rule.source}", cases(rule.report)) for rule in report.rules)
    )
