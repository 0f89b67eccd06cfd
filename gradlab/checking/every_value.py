"""Every finite value of a half-precision dtype, for a rule whose entries do not meet."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradlab.checking.subject import Subject
from gradlab.checking.trial import Trial
from gradlab.errors import GradlabError, InputError
from gradlab.tracing import Program, as_function

_HALF = ("bfloat16", "float16")
_DIAGONAL = ("zero", "identity", "diagonal")

SAME = 1e-10  # relative; gradients that differ by less need no verdict

Anew = Callable[[Mapping[str, Any]], Subject]
"""From arrays in place of inputs, by path, to the same rule there."""


def finite_values(dtype: str) -> Any:
    """Return all finite numbers of a dtype of 16 bits, as one array."""
    values = np.arange(1 << 16, dtype=np.uint16).view(jnp.dtype(dtype))
    return jnp.asarray(values[np.isfinite(values.astype(np.float32))])


def every_value(trial: Trial, anew: Anew) -> tuple[int, Trial | None]:
    """Return at how many values of its dtype a rule was tried, and the rule where it is in doubt.

    It is tried at all that are finite, where it has one input, in half precision, and is proved
    elementwise: then an entry of the gradient depends on its own input and upstream alone.
    """
    subject = trial.subject
    if len(subject.values) != 1 or len(subject.targets) != 1 or len(subject.upstreams) != 1:
        return 0, None
    dtype = str(subject.targets[0].dtype)
    programs = subject.forward, subject.rule
    if dtype not in _HALF or any(p is None or not _elementwise(p, trial) for p in programs):
        return 0, None
    values = finite_values(dtype)
    there = _at(values, trial, anew)
    if there is None:
        return 0, None
    found = there.many([{}])[0]
    first, second = (np.asarray(found[name][-1]) for name in ("rule", "reference"))
    with np.errstate(all="ignore"):
        same = np.abs(first - second) <= SAME * np.abs(second)
    doubt = ~same & (np.isfinite(first) | np.isfinite(second))
    other = _at(values[doubt], trial, anew) if doubt.any() else None
    return (0 if doubt.any() and other is None else values.size), other


def _at(values: Any, trial: Trial, anew: Anew) -> Trial | None:
    """Return the rule at some values; None where the function takes one shape alone."""
    subject = trial.subject
    try:
        there = anew({subject.targets[0].path: values})
    except GradlabError:
        return None
    if there.rule is None or there.reference is None or there.outputs != subject.outputs:
        return None
    return Trial(there, there.values, trial.seed, place=trial.place)


def _elementwise(program: Program | None, trial: Trial) -> bool:
    """Whether no output of a program depends on an entry elsewhere, proved from the program."""
    assert program is not None
    inputs = [jnp.asarray(trial.point[name]) for name in program.in_names]
    from gradlab.structure.jacobian import jacobian  # with SciPy, for half precision alone

    try:
        report = jacobian(as_function(program), *inputs)
    except InputError:  # JAX differentiates it in no way, as a callback without a rule
        return False
    return all(pattern.structure in _DIAGONAL for pattern in report.patterns.values())
