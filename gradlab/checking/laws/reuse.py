"""Reuse: a rule may be called twice, on other upstreams and other layouts of the same numbers."""

from typing import Any

import numpy as np

from gradlab.checking.evidence import draw_upstreams
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["reuse"]


def reuse(trial: Trial) -> Law:
    """Another call in between, or upstreams that are not contiguous, change nothing."""
    if not trial.subject.eager:
        return Law("reuse", "skipped", "a traced rule keeps no state and sees no layout")
    trial.probe({**trial.point, **draw_upstreams(trial.subject, trial.seed + 1)})
    again = trial.gradients(trial.run(trial.point))
    strided = {n: _strided(trial.point[n]) for n in trial.upstreams}
    across = trial.gradients(trial.run_on({**trial.point, **strided}))
    for target, first, second, other in zip(
        trial.subject.targets, trial.gradients(trial.actual), again, across
    ):
        if not np.array_equal(first, second, equal_nan=True):
            return Law(
                "reuse", "failed", f"the gradient of {target.path} changes after another call"
            )
        if not _close(first, other):
            return Law(
                "reuse",
                "failed",
                f"wrong where the upstream is not contiguous, in the gradient of {target.path}",
            )
    return Law("reuse", "passed")


def _strided(value: Any) -> Any:
    """Return the same numbers in another layout: reversed strides, gaps between them."""
    array = np.asarray(value)
    if array.ndim == 0:
        return array
    wide = np.zeros((*array.shape[::-1][:-1], 2 * array.shape[0]), array.dtype)
    view = wide.T[::2]
    view[...] = array
    return view


def _close(first: Any, second: Any) -> bool:
    """Sums may be added in another order; nothing else may change."""
    a, b = (np.asarray(x).astype(np.complex128) for x in (first, second))
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
    slack = 1e-2 if np.asarray(first).dtype.itemsize == 2 else 1e-4
    return a.shape == b.shape and bool(
        np.all((np.abs(a - b) <= slack * scale) | (np.isnan(a) & np.isnan(b)) | (a == b))
    )
