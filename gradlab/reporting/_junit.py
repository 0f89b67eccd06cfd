"""Any report as JUnit's XML, which build servers read: suites of cases that passed or did not."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Case:
    """One thing that was held: what it is, how it ended, and what there is to say."""

    group: str
    name: str
    outcome: Outcome = "passed"
    text: str = ""
    seconds: float | None = None


def junit_document(*suites: tuple[str, Iterable[Case]]) -> str:
    """Return suites, each a name and its cases, as one JUnit document."""
    lists = [(name, list(cases)) for name, cases in suites]
    lines = [f"<testsuites {_counts([case for _, cases in lists for case in cases])}>"]
    for name, cases in lists:
        lines.append(f"<testsuite name={_quoted(name)} {_counts(cases)}>")
        lines += map(_case, cases)
        lines.append("</testsuite>")
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', *lines, "</testsuites>"])


def _counts(cases: list[Case]) -> str:
    failed, skipped = (sum(c.outcome == kind for c in cases) for kind in ("failed", "skipped"))
    return f'tests="{len(cases)}" failures="{failed}" skipped="{skipped}"'


def _case(case: Case) -> str:
    time = "" if case.seconds is None else f' time="{case.seconds:.3f}"'
    opening = f"<testcase classname={_quoted(case.group)} name={_quoted(case.name)}{time}"
    message = _quoted(case.text.partition("\n")[0])
    if case.outcome == "failed":
        inside = f"<failure message={message}>{escape(case.text, quote=False)}</failure>"
    elif case.outcome == "skipped":
        inside = f"<skipped message={message}/>"
    elif case.text:
        inside = f"<system-out>{escape(case.text, quote=False)}</system-out>"
    else:
        return f"{opening}/>"
    return f"{opening}>\n{inside}\n</testcase>"


def _quoted(text: str) -> str:
    """Return an attribute's value; a parser would read a bare line break as a blank.

    `xml.sax.saxutils.quoteattr` does the same, but it loads urllib in every command.
    """
    value = escape(text).replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")
    return f'"{value}"'
