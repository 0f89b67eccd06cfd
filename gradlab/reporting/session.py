"""A session of pytest as a page: failures first, each folds in as its own page shows it."""

from collections import Counter
from typing import Any

from gradlab.formatting import count
from gradlab.report import STATUSES
from gradlab.reporting._check_page import STATES, found, status_of
from gradlab.reporting._markup import (
    Markup,
    Part,
    command,
    evidence,
    fold,
    head,
    join,
    section,
    tag,
    top,
)
from gradlab.reporting.schema import rebuilt

__all__ = ["html"]

_GRADES = (
    ("proved", "The gradient equals autodiff for every input of this shape."),
    ("every value", "Every finite value of the dtype was tried, one by one."),
    ("every branch", "Inputs were tried on each side of every condition in the code."),
    ("points", "The gradient is right at the inputs that were tried."),
)


def html(data: dict[str, Any]) -> Markup:
    """Return the body of the page."""
    records = sorted(data["records"], key=lambda record: STATUSES.index(record["status"]))
    verdicts = Counter(record["status"] for record in records)
    bad = sum(not record["ok"] for record in records)
    title = (
        f"{bad} of {count(len(records), 'gradient check')} failed"
        if bad
        else f"{count(len(records), 'gradient check')}: all right"
    )
    graded = Counter(record["grade"] for record in records if record["ok"] and record["grade"])
    lead = ", ".join(f"{graded[grade]} {grade}" for grade, _ in _GRADES if graded[grade])
    seconds = sum(record["seconds"] for record in records)
    word, tone = STATES[records[0]["status"]]
    kinds = [tag("button", f"{len(records)} all", data_kind="", aria_pressed="true", type="button")]
    kinds += [
        tag("button", f"{n} {STATES[s][0]}", data_kind=s, type="button")
        for s, n in verdicts.items()
    ]
    name = tag("input", placeholder="Filter by name", aria_label="filter by name")
    failing = dict.fromkeys(record["test"] for record in records if not record["ok"])
    return join(
        [
            top(
                "pytest",
                count(len({r["test"] for r in records}), "test"),
                f"{seconds:.1f} s of checks",
            ),
            head(word, tone, title, f"Evidence of the right ones: {lead}." if lead else ""),
            tag(
                "div",
                tag("div", *kinds, name, cls="tool filter"),
                *(_row(r, r is records[0]) for r in records),
            ),
            section(
                "What evidence means",
                *(tag("p", evidence(g), f". {words}") for g, words in _GRADES),
            ),
            section("Repeat the failures", command("pytest --last-failed") if failing else ""),
        ]
    )


def _row(record: dict[str, Any], first: bool) -> Markup:
    why = " ".join(filter(None, (record["line"], record["code"], "with a fix" * record["fixed"])))
    summary = tag(
        "span",
        status_of(record["status"]),
        tag("span", tag("b", record["test"]), f" {record['kind']} of {record['function']}"),
        tag("span", why, cls="soft"),
        evidence(record["grade"] if record["ok"] else None),
        tag("span", f"{record['seconds']:.1f} s", cls="soft"),
        cls="row",
    )
    known = {
        "data_verdict": record["status"],
        "data_name": f"{record['test']} {record['function']}",
    }
    inside = [*_inside(record), command(record["repeat"]) if record["repeat"] else ""]
    if not any(inside):
        return tag(
            "details",
            tag("summary", summary),
            tag("p", "Nothing more to say: it is right.", cls="soft"),
            **known,
        )
    return fold(summary, tag("div", *inside), open=first and not record["ok"], **known)


def _inside(record: dict[str, Any]) -> list[Part]:
    """Return what a failure's own page shows."""
    if record["text"]:
        return [tag("pre", record["text"])]
    if record["report"] is None:
        return []
    report: Any = rebuilt(record["report"])
    if record["kind"] == "check":
        return [found(report)]
    return [
        tag(
            "div",
            tag("h3", f"{rule.name} at {rule.source}: {STATES[rule.status][0]}"),
            found(rule.report),
        )
        for rule in report.rules
        if rule.status not in ("right", "right, loses digits")
    ]
