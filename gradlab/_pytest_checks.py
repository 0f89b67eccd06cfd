"""The callables behind the fixtures: each runs one public function and speaks for the test."""

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from gradlab._pytest_session import Session

if TYPE_CHECKING:
    from gradlab.checking import AuditReport, CheckReport

__all__ = ["Gradaudit", "Gradcheck", "Inspected", "JacobianInspector"]


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
                record(report)
            if not report.ok:
                undecided = report.status == "undecided"
                kind = "GradientUndecided" if undecided else "GradientMismatch"
                text = f"{report}\n\n{self._session.reproduction(function, inputs, options)}"
                raise getattr(gradlab, kind)(text, report)
        return report


class Gradaudit:
    """The callable behind `gradaudit`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return "gradaudit"

    def __call__(self, function: Any, *inputs: Any, seed: int | None = None) -> "AuditReport":
        __tracebackhide__ = True
        import gradlab

        given = {} if seed is None else {"seed": seed}
        chosen = self._session.options(given)["seed"]
        with self._session.recorded("audit", function) as record:
            report: AuditReport = gradlab.audit(function, *inputs, seed=chosen)
            record(report)
        if not report.ok:
            wrong = any(rule.status in ("wrong", "loses digits") for rule in report.rules)
            kind = "GradientMismatch" if wrong else "GradientUndecided"
            raise getattr(gradlab, kind)(str(report), report)
        return report


class JacobianInspector:
    """The callable behind `jacobian`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return "jacobian"

    def __call__(self, function: Any, *inputs: Any, wrt: Any = None, conditions: Any = None) -> Any:
        import gradlab

        with self._session.recorded("jacobian", function) as record:
            jacobian = gradlab.jacobian(function, *inputs, wrt=wrt, conditions=conditions)
            record(jacobian.report)
        return Inspected(jacobian, function, inputs, wrt)


class Inspected:
    """A Jacobian, with assertions; everything else is the Jacobian's."""

    def __init__(self, jacobian: Any, function: Any, inputs: tuple[Any, ...], wrt: Any) -> None:
        self._jacobian = jacobian
        self._subject = (function, *inputs)
        self._wrt = wrt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jacobian, name)

    def __str__(self) -> str:
        return str(self._jacobian)

    def _assert(self, **claim: Any) -> "Inspected":
        __tracebackhide__ = True
        import gradlab

        gradlab.assert_structure(*self._subject, **claim, wrt=self._wrt)
        return self

    def assert_elementwise(self, conditions: Any = None) -> "Inspected":
        """Assert that output and input have one shape and that the Jacobian is diagonal."""
        __tracebackhide__ = True
        return self._assert(elementwise=True, conditions=conditions)

    def assert_independent(
        self, axis: int | tuple[int, int], conditions: Any = None
    ) -> "Inspected":
        """Assert that entries along an axis, or a pair (input, output) of axes, do not mix."""
        __tracebackhide__ = True
        return self._assert(independent=axis, conditions=conditions)

    def assert_causal(self, axis: int | tuple[int, int], conditions: Any = None) -> "Inspected":
        """Assert that along an axis nothing depends on what comes later."""
        __tracebackhide__ = True
        return self._assert(causal=axis, conditions=conditions)

    def assert_structure(self, structure: str, conditions: Any = None) -> "Inspected":
        """Assert that the Jacobian has this structure or one contained in it."""
        __tracebackhide__ = True
        return self._assert(structure=structure, conditions=conditions)


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
