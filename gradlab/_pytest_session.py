"""What one pytest session remembers: its options, the running test, and what was checked in it."""

import contextlib
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gradlab.files import write_whole
from gradlab.formatting import legible
from gradlab.report import STATUSES

if TYPE_CHECKING:
    from gradlab.reporting.session import Record

# name -> (how to read it, default, help); each is an option, an ini value, and a mark's keyword
OPTIONS: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "seed": (int, None, "seed of all random numbers (default 0)"),
    "samples": (int, 1, "number of inputs to check"),
    "dtypes": (
        lambda text: text.replace(",", " ").split() or None,
        None,
        "check in each of these dtypes: float64,float32,...",
    ),
    "device": (str, None, "device that runs the rules: cpu, gpu, or all"),
    "report": (str, None, "write a report to FILE, .html or .json"),
    "durations": (int, 0, "number of the slowest checks to show (default 0)"),
}
PER_TEST = ("seed", "samples", "dtypes", "device")
DEVICES = ("cpu", "gpu", "all")
_PROPERTY = "gradlab"
_reseeded = {"seed": 0}


def reseed(seed: int) -> None:
    """Take the seed of pytest-randomly, which calls this before each test."""
    _reseeded["seed"] = seed % 2**32


def setting(config: pytest.Config, item: pytest.Item | None, name: str) -> Any:
    """Return an option's value: command line, then mark, then ini, then default."""
    read, default, _ = OPTIONS[name]
    given = config.getoption(f"--gradlab-{name}")
    if given is None and item is not None:
        for mark in item.iter_markers("gradcheck"):
            if name in mark.kwargs:
                return mark.kwargs[name]
    text = given if given is not None else config.getini(f"gradlab_{name}")
    if text == "":
        return default
    try:
        value = read(text)
        if name == "device" and value not in DEVICES:
            raise ValueError
    except ValueError:
        expected = f"one of {', '.join(DEVICES)}" if name == "device" else "a whole number"
        raise pytest.UsageError(
            f"--gradlab-{name} (ini gradlab_{name}): {text!r} came, expected {expected}"
        ) from None
    return value


class Session:
    """The running test, and what was checked in it; JSON-plain, so that xdist carries it home."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.item: pytest.Item | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Know the running test: a session-scoped fixture has no other way to."""
        self.item = item
        try:
            return (yield)
        finally:
            self.item = None

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's options: its own, then those of the session and the mark."""
        chosen: dict[str, Any] = {}
        if self.item is not None:
            for mark in reversed(list(self.item.iter_markers("gradcheck"))):
                chosen |= mark.kwargs
        for name in PER_TEST:
            chosen[name] = setting(self.config, self.item, name)
        if chosen["seed"] is None:
            chosen["seed"] = _reseeded["seed"]
        return {**chosen, **given}

    @contextlib.contextmanager
    def recorded(self, kind: str, function: Any) -> Iterator[Callable[..., Any]]:
        """Time what is done inside and enter its report under the running test."""
        start = time.perf_counter()

        def record(report: Any, repeat: str = "", text: str = "") -> tuple[str, str] | None:
            if self.item is None:
                return None
            entry: dict[str, Any] = {
                "kind": kind,
                "function": getattr(function, "__name__", repr(function)),
                "ok": report.ok and not text,
                "seconds": round(time.perf_counter() - start, 3),
                "seed": getattr(report, "seed", None),
                "status": "wrong" if text else status_of(report),
                "grade": getattr(report, "grade", "proved"),
                "repeat": repeat,
                "text": text,
                "nearest": nearest_to_its_limit(report),
                **blamed(report, text),
            }
            failed = not entry["ok"] and not text
            entry["report"] = report.to_dict() if failed else None
            made = (_PROPERTY, json.dumps(entry, default=str))
            self.item.user_properties.append(made)
            return made

        yield record

    def forget(self, made: tuple[str, str] | None) -> None:
        """Take back what was entered: what follows says more."""
        if self.item is not None and made in self.item.user_properties:
            self.item.user_properties.remove(made)

    def repeat(self, seed: int) -> str:
        """Return the command that runs this test again."""
        test = self.item.nodeid if self.item is not None else ""
        return f"pytest {shlex.quote(test)} --gradlab-seed={seed}"

    def on_the_shell(self, function: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> str:
        """Return the command that repeats a check, after writing its inputs beside the cache."""
        name = getattr(function, "__qualname__", "<locals>")
        module = sys.modules.get(getattr(function, "__module__", ""))
        is_found = getattr(module, name, None) is function  # a rule for jnp.sin calls itself so
        saved = self._save(inputs) if is_found and not options.get("backward") else None
        if saved is None:
            return ""
        seed = options["seed"]
        return f"gradlab check {function.__module__}:{name} --inputs {saved} --seed {seed}"

    def _save(self, inputs: tuple[Any, ...]) -> Path | None:
        """Write arrays and numbers to an .npz; None where one cannot be written so."""
        import numpy as np

        cache = getattr(self.config, "cache", None)
        arrays = [np.asarray(x) for x in inputs if hasattr(x, "dtype") or isinstance(x, float)]
        if cache is None or len(arrays) < len(inputs) or any(a.dtype.kind == "V" for a in arrays):
            return None
        test = self.item.nodeid if self.item is not None else "check"
        path = cache.mkdir("gradlab") / f"{re.sub(r'[^A-Za-z0-9]+', '_', test).strip('_')}.npz"
        np.savez(path, *arrays)
        root = self.config.rootpath
        return Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path(path)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was checked, if anything was, and write the report that was asked for."""
        records = list(_records(terminalreporter))
        path = setting(self.config, None, "report")
        if not records and path is None:
            return
        terminalreporter.section("gradlab")
        if not records:
            fixtures = "use the fixtures gradcheck, gradaudit or jacobian"
            terminalreporter.line(f"no test used gradlab, so {path} was not written: {fixtures}")
            return
        verbose = self.config.getoption("verbose") > 0
        durations = setting(self.config, None, "durations")
        for line in _summary(records, durations, verbose, path):
            terminalreporter.line(legible(line))
        if path:
            _write(Path(path), records)


def _records(terminalreporter: Any) -> "Iterator[Record]":
    from gradlab.reporting.session import Record

    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, value in report.user_properties:
                    if name == _PROPERTY:
                        yield Record(report.nodeid, report.outcome, **json.loads(value))


def status_of(report: Any) -> str:
    """Return the verdict of a report in the words of a check; an audit's is its worst rule's."""
    if hasattr(report, "status"):
        return str(report.status)
    seen = [rule.status for rule in getattr(report, "rules", ()) if rule.calls]
    return min(seen, key=STATUSES.index, default="right")


def blamed(report: Any, text: str) -> dict[str, Any]:
    """Return where a failure comes from: the line, the code, and whether a fix was found."""
    found = [r for r in (report, *getattr(report, "rules", ())) if not getattr(r, "ok", True)]
    found += [rule.report for rule in getattr(report, "rules", ()) if hasattr(rule, "report")]
    fixes = [fix for each in found for fix in getattr(each, "fixes", ())]
    causes = [cause for each in found for cause in getattr(each, "findings", ())]
    if fixes:
        line = f"{Path(fixes[0].file).name}:{fixes[0].line}"
        return {"line": line, "code": fixes[0].kind, "fixed": True}
    line = next((cause.line for cause in causes if cause.line), "")
    named = re.search(r"\S+\.py:\d+", text)
    code = next((cause.code for cause in causes if cause.code), "")
    if not code and any(getattr(each, "status", "") == "wrong" for each in found):
        code = "GL900"
    return {"line": line or (named[0] if named else ""), "code": code, "fixed": False}


def nearest_to_its_limit(report: Any) -> float | None:
    """Return the largest error of a law that held, as a share of the error that it allows."""
    laws = getattr(report, "laws", ())
    return max(
        (law.error / 8 for law in laws if law.status == "passed" and law.error), default=None
    )


def _summary(
    records: "list[Record]", durations: int, verbose: bool, path: str | None
) -> Iterator[str]:
    """Yield the lines of the summary: tests as pytest counts them, and each one that failed."""
    from gradlab.reporting.session import counted

    yield ". ".join(filter(None, counted(records)))
    failed = dict.fromkeys(record.test for record in records if record.outcome == "failed")
    rows = [_failed(test, [r for r in records if r.test == test]) for test in failed]
    wide = max((len(test) for _, test, _ in rows), default=0)
    yield from (f"  {word:<9}  {test:<{wide}}  {why}".rstrip() for word, test, why in rows)
    near = max((r for r in records if r.nearest), key=lambda r: r.nearest or 0.0, default=None)
    if verbose and near is not None:
        yield f"closest to its limit: {near.test}, {near.nearest or 0.0:.0%} of it"
    for record in sorted(records, key=lambda r: -r.seconds)[:durations]:
        yield f"{record.seconds:8.2f} s  {record.kind} {record.function}  {record.test}"
    seed = next((r.seed for r in records if r.seed is not None), 0)
    again = f"again: pytest --last-failed --gradlab-seed={seed}" if failed else ""
    yield "      ".join(filter(None, (f"report: {path}" if path else "", again)))


def _failed(test: str, records: "list[Record]") -> tuple[str, str, str]:
    """Return the verdict on a failed test, its name, and why it failed."""
    record = next((r for r in records if not r.ok), None)
    if record is None:
        return "failed", test, "every gradient in it is right"
    word = {"wrong": "WRONG", "loses digits": "digits"}.get(record.status, record.status)
    said = record.text.partition("\n")[0].partition(", but ")[0]
    said = said.removeprefix(f"{record.function} ")
    mended = "with a fix" if record.fixed else "no fix was found" * (record.code == "GL900")
    said = said or ", ".join(filter(None, (record.code, mended)))
    return word, test, "  ".join(filter(None, (record.line, said)))


def _write(path: Path, records: "list[Record]") -> None:
    """Write the records whole or not at all."""
    from gradlab.reporting.session import SessionReport

    report = SessionReport(tuple(records))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(str(path), report.render("html" if path.suffix == ".html" else "json"))
