"""Mutation score: would these tests notice a wrong gradient?

Single mistakes are put into a function, one at a time, and only the tests that reach it run again.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import Any

import pytest

from gradlab._pytest_session import Session, setting

_COUNT = 20


@dataclass
class _Target:
    """A function to put mistakes into, the tests that reach it, and what came of each mutant."""

    name: str
    function: FunctionType
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    items: dict[str, pytest.Item] = field(default_factory=dict)
    caught: int = 0
    total: int = 0
    same: int = 0
    survived: list[tuple[str, int, str, str]] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""


class Mutation:
    """Runs the tests again, once for every mutant of the functions that were named."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self._config, self._session = config, session
        self._targets: list[_Target] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        """Note which tests reach the functions; then run these with each mutant."""
        from gradlab._targets import load

        for name in self._config.getoption("--gradlab-mutate"):
            self._targets.append(_Target(name, _function(load(name, "--gradlab-mutate"))))
        watched = [(target, target.function.__code__) for target in self._targets]
        for target, _ in watched:
            self._watch(target)
        try:
            result = yield
        finally:
            for target, code in watched:
                target.function.__code__ = code
                target.function.__globals__.pop(_keeper(target), None)
        for target in self._targets:
            if session.testsfailed:
                target.note = "the tests must pass without a mutant first"
            elif not target.items:
                target.note = "no test reaches it"
            else:
                self._mutate(target)
        return result

    def _watch(self, target: _Target) -> None:
        """Let the function tell which test calls it, and with what."""
        from gradlab.repair import compiled, read, watched

        function, session = target.function, self._session
        text = read(function.__code__)
        if text is None:
            raise pytest.UsageError(f"--gradlab-mutate: {target.name} has no source in a file")
        count = function.__code__.co_argcount
        names = function.__code__.co_varnames[:count]

        def keep(index: int, found: dict[str, Any]) -> None:
            if index == 0 and session.item is not None:
                target.items[session.item.nodeid] = session.item
                if len(target.calls) < 4:
                    target.calls.append(tuple(found[name] for name in names))

        function.__globals__[_keeper(target)] = keep
        mark = partial(watched, keeper=_keeper(target))
        function.__code__ = compiled(text, function.__code__, mark, counts=False)

    def _mutate(self, target: _Target) -> None:
        import jax

        from gradlab.checking.summary import explaining
        from gradlab.repair import mutants, written_by_the_user

        start, seed = time.perf_counter(), setting(self._config, None, "seed") or 0
        function, original = target.function, target.function.__code__
        made = mutants(function, target.calls, _COUNT, seed, written_by_the_user)
        target.same = sum(mutant.same for mutant in made)
        token = explaining.set(False)
        try:
            for mutant in made:
                if mutant.same:
                    continue
                function.__code__ = mutant.code
                jax.clear_caches()  # type: ignore[no-untyped-call]
                caught = any(self._fails(item) for item in target.items.values())
                target.total += 1
                target.caught += caught
                if not caught:
                    target.survived.append((mutant.text.path, *mutant.lines))
        finally:
            explaining.reset(token)
            function.__code__ = original
            jax.clear_caches()  # type: ignore[no-untyped-call]
        target.seconds = time.perf_counter() - start

    def _fails(self, item: pytest.Item) -> bool:
        """Run a test once more, and tell no one but the caller."""
        from _pytest.runner import runtestprotocol

        if hasattr(item, "_initrequest"):
            item._initrequest()
        self._session.item = item
        try:
            reports = runtestprotocol(item, log=False, nextitem=None)
        finally:
            self._session.item = None
        return any(report.failed for report in reports)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many mutants were caught, and which survived."""
        seed = setting(self._config, None, "seed") or 0
        for target in self._targets:
            head = f"mutation score of {target.name}"
            if target.note:
                terminalreporter.write_line(f"{head}: none, since {target.note}")
                continue
            share = f" ({round(100 * target.caught / target.total)} %)" if target.total else ""
            terminalreporter.write_line(
                f"{head}   {target.caught} of {target.total} caught{share}; {target.same} not told "
                f"apart, left out; {target.seconds:.1f} s; seed {seed}"
            )
            for path, line, before, after in target.survived:
                name = path.rpartition("/")[2]
                terminalreporter.write_line(f"  survived {name}:{line}  -  {before}     + {after}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session where too few mutants were caught."""
        least = self._config.getoption("--gradlab-mutate-min")
        for target in self._targets:
            reached = 100 * target.caught >= (least or 0) * target.total and not target.note
            if least is not None and not reached:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _keeper(target: _Target) -> str:
    """Return the name by which a function tells its calls: each its own, within a module too."""
    return f"__keep_{target.function.__name__}__"


def _function(value: Any) -> FunctionType:
    """Return the function whose text holds the gradient: a rule's `bwd` or `jvp`, else itself."""
    own = vars(value) if hasattr(value, "__dict__") else {}
    found = own.get("bwd") or own.get("jvp") or getattr(value, "__func__", value)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    if not isinstance(found, FunctionType):
        raise pytest.UsageError("--gradlab-mutate: name a function that is written in Python")
    return found
