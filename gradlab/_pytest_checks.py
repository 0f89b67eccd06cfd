"""The callables behind the fixtures: each runs one public function and speaks for the test."""

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from gradlab._pytest_session import Session

if TYPE_CHECKING:
    from gradlab.checking.report import AuditReport, CheckReport

_WIDTH = 92  # pytest puts a failure eight columns to the right


class Gradcheck:
    """The callable behind `gradcheck`; Hypothesis prints its short name."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return "gradcheck"

    def __call__(self, function: Any, *inputs: Any, **options: Any) -> "CheckReport":
        __tracebackhide__ = True
        import gradlab

        options = self._session.options(options)
        for device in _devices(options.pop("device", None)):
            with self._session.recorded("check", function) as record:
                report: CheckReport = gradlab.check(function, *inputs, **options, device=device)
                repeat = self._session.repeat(options["seed"])
                record(report, repeat)
            if not report.ok:
                undecided = report.status == "undecided"
                kind = "GradientUndecided" if undecided else "GradientMismatch"
                shell = self._session.on_the_shell(function, inputs, options)
                text = _told(report, repeat) + (f"\n  or      {shell}" if shell else "")
                raise getattr(gradlab, kind)(text, report)
        return report


class Gradaudit:
    """The callable behind `gradaudit`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return "gradaudit"

    def __call__(
        self, function: Any, *inputs: Any, seed: int | None = None, **options: Any
    ) -> "AuditReport":
        __tracebackhide__ = True
        import gradlab

        given = {} if seed is None else {"seed": seed}
        chosen = self._session.options(given)["seed"]
        with self._session.recorded("audit", function) as record:
            report: AuditReport = gradlab.audit(function, *inputs, **options, seed=chosen)
            repeat = self._session.repeat(chosen)
            record(report, repeat)
        if not report.ok:
            wrong = any(rule.status in ("wrong", "loses digits") for rule in report.rules)
            kind = "GradientMismatch" if wrong else "GradientUndecided"
            raise getattr(gradlab, kind)(_told(report, repeat), report)
        return report


class JacobianInspector:
    """The callable behind `jacobian`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return "jacobian"

    def __call__(self, function: Any, *inputs: Any, wrt: Any = None, **options: Any) -> Any:
        import gradlab

        with self._session.recorded("jacobian", function) as record:
            jacobian = gradlab.jacobian(function, *inputs, wrt=wrt, **options)
            made = record(jacobian.report)
        subject = (function, *inputs)
        return Inspected(self._session, jacobian, subject, {"wrt": wrt, **options}, made)


class Inspected:
    """A Jacobian, with assertions; everything else is the Jacobian's."""

    def __init__(
        self,
        session: Session,
        jacobian: Any,
        subject: tuple[Any, ...],
        options: dict[str, Any],
        made: tuple[str, str] | None,
    ) -> None:
        self._session = session
        self._jacobian = jacobian
        self._subject = subject
        self._options = options
        self._made = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jacobian, name)

    def __str__(self) -> str:
        return str(self._jacobian)

    def _assert(self, **claim: Any) -> "Inspected":
        __tracebackhide__ = True
        import gradlab

        with self._session.recorded("structure", self._subject[0]) as record:
            try:
                gradlab.assert_structure(*self._subject, **{**self._options, **claim})
            except gradlab.StructureMismatch as error:
                repeat = self._session.repeat(0)
                self._session.forget(self._made)  # a test that failed has no right Jacobian, too
                record(self._jacobian.report, repeat, str(error))
                raise gradlab.StructureMismatch(
                    f"{error}\n  repeat    {repeat}", error.report
                ) from None
        return self

    def assert_elementwise(self, **options: Any) -> "Inspected":
        """Assert that output and input have one shape and that the Jacobian is diagonal."""
        __tracebackhide__ = True
        return self._assert(elementwise=True, **options)

    def assert_independent(self, axis: int | tuple[int, int], **options: Any) -> "Inspected":
        """Assert that entries along an axis, or a pair (input, output) of axes, do not mix."""
        __tracebackhide__ = True
        return self._assert(independent=axis, **options)

    def assert_causal(self, axis: int | tuple[int, int], **options: Any) -> "Inspected":
        """Assert that along an axis nothing depends on what comes later."""
        __tracebackhide__ = True
        return self._assert(causal=axis, **options)

    def assert_structure(self, structure: str, **options: Any) -> "Inspected":
        """Assert that the Jacobian has this structure or one contained in it."""
        __tracebackhide__ = True
        return self._assert(structure=structure, **options)


def _told(report: "CheckReport | AuditReport", repeat: str) -> str:
    """Return a failure's text, which says how pytest repeats it."""
    from gradlab.reporting import fitted, repeated_by

    with repeated_by(repeat), fitted(_WIDTH):
        return str(report)


def _devices(device: str | None) -> tuple[str | None, ...]:
    """Return where to run; skip the test where there is no such device.

    Each worker of pytest-xdist takes a GPU of its own, as far as they go.
    """
    if device in (None, "cpu"):
        return (device,)
    import jax

    with contextlib.suppress(RuntimeError):
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        gpu = f"gpu:{worker % len(jax.devices('gpu'))}"
        return ("cpu", gpu) if device == "all" else (gpu,)
    if device == "all":
        return ("cpu",)
    pytest.skip("--gradlab-device gpu: JAX sees no GPU here")
