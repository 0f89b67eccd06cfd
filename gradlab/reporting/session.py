"""A session of pytest as a page: failures first, each folds in as its own page shows it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlab.formatting import count
from gradlab.report import STATUSES, Grade, Report, Status, weakest
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

_GRADES: tuple[tuple[Grade, str], ...] = (
    ("proved", "The gradient equals autodiff for every input of this shape."),
    ("every value", "Every finite value of the dtype was tried, one by one."),
    ("every branch", "Inputs were tried on each side of every condition in the code."),
    ("points", "The gradient is right at the inputs that were tried."),
)


@dataclass(frozen=True)
class Record:
    """One check of a test.

    Attributes:
        test: the test.
        outcome: what pytest says of the whole test.
        kind: check, audit, jacobian or structure.
        function: the name of the function.
        ok: whether the check passed.
        seconds: how long it took.
        seed: repeats it; None where nothing is random.
        status: the verdict, in the words of a check.
        grade: how far a right verdict reaches.
        repeat: the command that repeats it.
        text: why a structure was not proved; else empty.
        nearest: the largest error that passed, as a share of what is allowed.
        line: the wrong line of source.
        code: the code that `gradlab explain` knows.
        fixed: whether a fix was found.
        report: the whole report of a failure.
    """

    test: str
    outcome: str
    kind: str
    function: str
    ok: bool
    seconds: float
    seed: int | None
    status: Status
    grade: Grade | None
    repeat: str
    text: str
    nearest: float | None
    line: str
    code: str
    fixed: bool
    report: dict[str, Any] | None


@dataclass(frozen=True)
class SessionReport(Report):
    """What was checked in a session of pytest.

    Attributes:
        records: the checks, in the order in which they ended.
    """

    kind: ClassVar[str] = "session"
    version: ClassVar[int] = 2
    records: tuple[Record, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(record.ok for record in self.records)


def counted(records: Iterable[Record]) -> tuple[str, str]:
    """Return how many tests passed, as pytest counts them, and how far those reach."""
    tests: dict[str, list[Record]] = {}
    for record in records:
        tests.setdefault(record.test, []).append(record)
    passed = [each for each in tests.values() if each[0].outcome != "failed"]
    used = count(len(tests), "test uses", "tests use")
    title = f"{used} gradlab: {len(passed)} passed, {len(tests) - len(passed)} failed"
    grades = Counter(weakest([record.grade for record in each]) for each in passed)
    reach = ", ".join(f"{grades[grade]} {grade}" for grade, _ in _GRADES if grades[grade])
    return title, f"Evidence of the {len(passed)}: {reach}" if reach else ""


def html(report: SessionReport) -> Markup:
    """Return the body of the page."""
    records = sorted(report.records, key=lambda record: STATUSES.index(record.status))
    verdicts = Counter(record.status for record in records)
    title, reach = counted(records)
    seconds = sum(record.seconds for record in records)
    word, tone = STATES[records[0].status]
    kinds = [tag("button", f"{len(records)} all", data_kind="", aria_pressed="true", type="button")]
    kinds += [
        tag("button", f"{n} {STATES[s][0]}", data_kind=s, type="button")
        for s, n in verdicts.items()
    ]
    name = tag("input", placeholder="Filter by name", aria_label="filter by name")
    failing = dict.fromkeys(record.test for record in records if not record.ok)
    return join(
        top("pytest", count(len(records), "check"), f"{seconds:.1f} s of checks"),
        head(word, tone, title, f"{reach}." if reach else ""),
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
    )


def _row(record: Record, first: bool) -> Markup:
    why = " ".join(filter(None, (record.line, record.code, "with a fix" * record.fixed)))
    summary = tag(
        "span",
        status_of(record.status),
        tag("span", tag("b", record.test), f" {record.kind} of {record.function}"),
        tag("span", why, cls="soft"),
        evidence(record.grade if record.ok else None),
        tag("span", f"{record.seconds:.1f} s", cls="soft"),
        cls="row",
    )
    known = {"data_verdict": record.status, "data_name": f"{record.test} {record.function}"}
    inside = [*_inside(record), command(record.repeat) if record.repeat else ""]
    if not any(inside):
        said = tag("p", "Nothing more to say: it is right.", cls="soft")
        return fold(summary, said, open=False, **known)
    return fold(summary, tag("div", *inside), open=first and not record.ok, **known)


def _inside(record: Record) -> list[Part]:
    """Return what a failure's own page shows."""
    if record.text:
        return [tag("pre", record.text)]
    if record.report is None:
        return []
    report: Any = rebuilt(record.report)
    if record.kind == "check":
        return [found(report)]
    open_ = [rule for rule in report.rules if rule.status not in ("right", "right, loses digits")]
    titles = [f"{rule.name} at {rule.source}: {STATES[rule.status][0]}" for rule in open_]
    return [tag("div", tag("h3", t), found(rule.report)) for t, rule in zip(titles, open_)]
