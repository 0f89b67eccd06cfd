"""What one pytest session remembers: its options, the running test, and what was checked in it."""

import contextlib
import html
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gradlab.files import write_whole
from gradlab.formatting import legible

__all__ = ["OPTIONS", "Session", "reseed", "setting"]

# name -> (how to read it, default, help); each is an option, an ini value, and a mark's keyword
OPTIONS: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "seed": (int, None, "the seed of random upstreams and samples (default 0)"),
    "samples": (int, 1, "how many inputs near the given ones are checked"),
    "dtypes": (lambda text: text.replace(",", " ").split() or None, None, "float64,float32,..."),
    "device": (str, None, "where rules run: cpu, gpu, or all"),
    "report": (str, None, "write what was checked to FILE (.json or .html)"),
    "durations": (int, 3, "how many of the slowest checks the summary shows"),
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
    def recorded(self, kind: str, function: Any) -> Iterator[Callable[[Any], None]]:
        """Time what is done inside and enter its report under the running test."""
        start = time.perf_counter()

        def record(report: Any) -> None:
            entry: dict[str, Any] = {
                "kind": kind,
                "function": getattr(function, "__name__", repr(function)),
            }
            entry |= {"ok": report.ok, "seconds": round(time.perf_counter() - start, 3)}
            for law in getattr(report, "laws", ()):
                entry.setdefault("laws", []).append([law.name, law.status, law.error])
            if hasattr(report, "seed"):
                entry["seed"] = report.seed
            if self.item is not None:
                self.item.user_properties.append((_PROPERTY, json.dumps(entry, default=str)))

        yield record

    def reproduction(self, function: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> str:
        """Return the commands that repeat a failure, after writing its inputs beside the cache."""
        seed = f"--gradlab-seed={options['seed']}"
        test = self.item.nodeid if self.item is not None else ""
        lines = [f"repeat: pytest {shlex.quote(test)} {seed}"]
        name = getattr(function, "__qualname__", "<locals>")
        saved = None if "<" in name or options.get("backward") else self._save(inputs)
        if saved is not None:
            target = f"{function.__module__}:{name}"
            lines.append(
                f"or:     gradlab check {target} --inputs {saved} --seed {options['seed']}"
            )
        return "\n".join(lines)

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
        if records:
            terminalreporter.section("gradlab")
            for line in _summary(records, setting(self.config, None, "durations")):
                terminalreporter.line(legible(line))
        path = setting(self.config, None, "report")
        if path and records:
            _write(Path(path), records)
            terminalreporter.line(f"report: {path}")


def _records(terminalreporter: Any) -> Iterator[dict[str, Any]]:
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, value in report.user_properties:
                    if name == _PROPERTY:
                        yield {"test": report.nodeid, **json.loads(value)}


def _summary(records: list[dict[str, Any]], durations: int) -> Iterator[str]:
    """Yield the lines of the summary: how much, how well, what was slow."""
    wrong = sum(not record["ok"] for record in records)
    laws = [(law, r["test"]) for r in records for law in r.get("laws", [])]
    tally: dict[str, int] = {}
    for (_, status, _), _ in laws:
        tally[status] = tally.get(status, 0) + 1
    kinds = {
        kind: sum(r["kind"] == kind for r in records) for kind in ("check", "audit", "jacobian")
    }
    what = ", ".join(f"{n} {kind}{'s' * (n != 1)}" for kind, n in kinds.items() if n)
    yield f"{what}: {len(records) - wrong} ok, {wrong} not ok"
    if laws:
        held = ", ".join(f"{n} {status}" for status, n in sorted(tally.items()))
        yield f"{len(laws)} laws: {held}"
    errors = [(law[2], law[0], test) for law, test in laws if law[1] == "passed" and law[2]]
    if errors:
        error, name, test = max(errors)
        yield f"worst margin: {error:.1f} floors ({name}) in {test}"
    for record in sorted(records, key=lambda r: -r["seconds"])[:durations]:
        yield f"{record['seconds']:8.2f} s  {record['kind']} {record['function']}  {record['test']}"


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    """Write the records whole or not at all."""
    text = json.dumps({"schema": "gradlab.session/1", "records": records}, indent=2)
    if path.suffix == ".html":
        from gradlab.reporting import page

        text = page("gradlab", f"<pre>{html.escape(text)}</pre>")
    write_whole(str(path), text)
