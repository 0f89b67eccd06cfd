"""How a check looks: one glance for a person, one suite for a machine."""

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from gradlab.formatting import count, shape_text

if TYPE_CHECKING:
    from gradlab.checking.report import CheckReport, Entry, Law

__all__ = ["entry_text", "headline", "junit", "law_lines", "testcases", "text"]

_MARKS = {"passed": "ok", "warned": "warn", "failed": "FAIL", "skipped": "-", "inconclusive": "?"}


def text(report: "CheckReport") -> str:
    """Return the report as a person reads it: verdict, worst entry, diagnosis, then each law."""
    lines = [headline(report), *_what_is_wrong(report), "", *law_lines(report)]
    lines += ["", *_leaf_lines(report), f"oracle: {report.oracle}"]
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def headline(report: "CheckReport") -> str:
    """Return the verdict in one line."""
    if report.failed:
        verdict = "the gradient is WRONG"
    elif report.undecided:
        verdict = f"UNDECIDED: no entry of {', '.join(report.undecided)} could be judged"
    else:
        verdict = "the gradient is right"
    return f"{report.function}: {verdict} ({', '.join(report.dtypes)}, seed {report.seed})"


def _what_is_wrong(report: "CheckReport") -> list[str]:
    lines = []
    if report.worst is not None:
        lines.append(f"  worst entry  {entry_text(report.worst)}")
    if report.findings:
        lines += [f"  diagnosis    {line}" for line in report.diagnosis.split("; ")]
    elif report.failed:
        lines.append("  diagnosis    none of the known mistakes reproduces this gradient")
    return lines


def entry_text(entry: "Entry") -> str:
    """Return one wrong entry: where, both numbers, how far off, and through which output."""
    index = f"[{', '.join(map(str, entry.index))}]" if entry.index else ""
    through = f", through {entry.output}" if entry.output else ""
    return (
        f"{entry.path}{index}: got {entry.actual:.9g}, expected {entry.expected:.9g} "
        f"({entry.error:.3g} times what rounding explains{through})"
    )


def law_lines(report: "CheckReport") -> list[str]:
    """Return one line per law."""
    width = max((len(_name(law)) for law in report.laws), default=0)
    return [_law_line(law, width) for law in report.laws]


def _law_line(law: "Law", width: int) -> str:
    error = f"{law.error:.2g} floors" if law.error is not None and law.status == "passed" else ""
    detail = "; ".join(filter(None, (error, law.reason)))
    return f"  {_MARKS[law.status]:<4}  {_name(law):<{width}}  {detail}".rstrip()


def _name(law: "Law") -> str:
    return f"{law.name} [{law.dtype}]" if law.dtype else law.name


def _leaf_lines(report: "CheckReport") -> list[str]:
    lines = []
    for leaf in report.leaves:
        states = [(leaf.right, "right"), (leaf.wrong, "wrong"), (leaf.inconclusive, "undecided")]
        counts = ", ".join(f"{n:,} {state}" for n, state in states if n)
        seen = report.resolution.get(leaf.path, float("inf"))
        finest = f"; errors from {seen:.1g} on would be seen" if seen < 1 else ""
        size = count(leaf.right + leaf.wrong + leaf.inconclusive, "entry", "entries")
        kind = f"{shape_text(leaf.shape)} {leaf.dtype}"
        lines.append(f"{leaf.path} ({kind}): {size}: {counts or 'none'}{finest}")
    return lines


def junit(report: "CheckReport") -> str:
    """Return the report as a JUnit test suite with one case per law."""
    cases = testcases(report)
    return (
        f"<testsuite name={quoteattr('gradlab check ' + report.function)} tests='{len(cases)}' "
        f"failures='{sum('<failure' in case for case in cases)}'>\n"
        + "\n".join(cases)
        + "\n</testsuite>"
    )


def testcases(report: "CheckReport") -> list[str]:
    """Return one JUnit case per law, and one that says whether all inputs were decided."""
    cases = [_case(report.function, _name(law), law.status, law.reason) for law in report.laws]
    missing = ", ".join(report.undecided)
    reason = f"no entry could be judged of {missing}" if missing else ""
    cases.append(_case(report.function, "decided", "failed" if missing else "passed", reason))
    return cases


def _case(classname: str, name: str, status: str, reason: str) -> str:
    inside = ""
    if status == "failed":
        inside = f"<failure message={quoteattr(reason)}>{escape(reason)}</failure>"
    elif status in ("skipped", "inconclusive"):
        inside = f"<skipped message={quoteattr(reason)}/>"
    elif reason:
        inside = f"<system-out>{escape(reason)}</system-out>"
    return f"<testcase classname={quoteattr(classname)} name={quoteattr(name)}>{inside}</testcase>"
