"""Transforms: the rule gives the same under jit and vmap as when it is called as it is."""

from typing import Any

import jax

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["transforms"]


def transforms(trial: Trial) -> Law:
    """The rule can be batched, and compiled it agrees with itself uncompiled."""
    if trial.subject.rule is None:
        return Law("transforms", "skipped", "JAX cannot trace the rule")
    try:
        _batch(trial)
    except Exception as error:
        reason = f"vmap cannot run: {type(error).__name__}: {error}"
        return Law("transforms", "inconclusive", reason)
    return Law("transforms", "passed")


def _batch(trial: Trial) -> None:
    """Stage the rule out under vmap, without compiling it."""
    rule = trial.subject.rule
    assert rule is not None
    with jax.enable_x64(rule.x64):
        aval: Any = jax.ShapeDtypeStruct
        batch = [aval((2, *a.shape), a.dtype) for a in rule.in_avals]
        jax.eval_shape(jax.vmap(rule.flat), *batch)
