"""How an audit looks: every custom rule with its verdict, wrong ones in full."""

from typing import TYPE_CHECKING

from gradlab.formatting import count
from gradlab.reporting._failure import failure
from gradlab.reporting._junit import junit_document
from gradlab.reporting._table import columns, is_detailed
from gradlab.reporting.check import cases, headline, law_lines, what_is_wrong, wrapped

if TYPE_CHECKING:
    from gradlab.checking.report import AuditedRule, AuditReport

__all__ = ["junit", "text"]


def text(report: "AuditReport") -> str:
    """Return one line per rule, innermost first; wrong ones with their laws."""
    wrong = sum(not rule.report.ok for rule in report.rules)
    verdict = f"{wrong} not right" if wrong else "all right"
    number = count(len(report.rules), "custom rule")
    lines = [f"{report.function}: {number} met, {verdict}" if report.rules else _none(report)]
    for rule in report.rules:
        lines += _rule_lines(rule)
    for note in report.notes:
        lines += wrapped("note: ", note)
    for rule in [rule for rule in report.rules if rule.report.status == "wrong"]:
        lines += ["", failure(rule.report, headline(rule.report), columns() or 100)]
    return "\n".join(lines)


def _none(report: "AuditReport") -> str:
    return f"{report.function}: no custom rule was met"


def _rule_lines(rule: "AuditedRule") -> list[str]:
    checked = rule.report
    mark = "ok" if checked.ok else "?" if checked.status == "undecided" else "FAIL"
    inside = f" inside {' > '.join(rule.inside)}" if rule.inside else ""
    place = f"{rule.name} ({rule.kind}) at {rule.source}{inside}"
    lines = wrapped(f"  {mark:<4}  ", place)
    if checked.ok or (checked.status == "wrong" and not is_detailed()):
        return lines
    margin = " " * 8
    told = [law for law in checked.laws if law.status != "passed"]
    return [*lines, *what_is_wrong(checked, margin), *law_lines(told, margin)]


def junit(report: "AuditReport") -> str:
    """Return the report as JUnit suites, one per rule."""
    return junit_document(
        *((f"{rule.name} at {rule.source}", cases(rule.report)) for rule in report.rules)
    )
