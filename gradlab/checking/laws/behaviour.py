"""Laws of what a rule does when it runs: to its arguments, when called again, and transformed."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from gradlab.checking.evidence import copied, draw_upstreams, nearby
from gradlab.checking.laws.entries import entry_name
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.common.arrays import Array
from gradlab.references import LIMIT, blocks, jacrev_program, known, unit_roundoff
from gradlab.report import Law
from gradlab.tracing import (
    ClosesOverTrace,
    Program,
    TooLong,
    batches_by_itself,
    custom_rules,
    remember,
    run_lifted,
    stage,
)
from gradlab.tracing.jaxprs import Jaxpr
from gradlab.tracing.leaves import in_words, is_inexact

T = TypeVar("T")
Abstract: Any = jax.ShapeDtypeStruct
_ROWS = 3
_ENTRIES = 1 << 14  # of inputs and outputs; larger programs are batched, but not run
_JACOBIAN = 1 << 16  # entries that `jit(jacrev(f))` may have
_TURNS = 4096
_SLACK = 1e-9


def pure(trial: Trial) -> Law:
    """Hold a call to change no argument, and another call to give the same bits.

    An accelerator may add in another order at every call: what that changes is within rounding.
    """
    point = copied(trial.point)
    again = trial.run_on(point)
    changed = [n for n, value in point.items() if not _same_bits(value, trial.point[n])]
    changed += [c.path for c in trial.subject.complaints if c.kind == "modifies"]
    if changed:
        names = " and ".join(dict.fromkeys(changed))
        return Law("pure", "failed", f"modifies its {names} in place")
    moved = ""
    pairs = zip(trial.gradients(trial.actual), trial.gradients(again))
    for i, (before, after) in enumerate(pairs):
        if _same_bits(before, after):
            continue
        moved = f"the gradient of {trial.subject.targets[i].path} changes from call to call"
        if not (trial.accelerated and trial.within_rounding(i, after)):
            return Law("pure", "failed", f"not deterministic: {moved}")
    if moved:
        return Law("pure", "warned", f"{moved}, within rounding", judged=len(again))
    return Law("pure", "passed", judged=len(again))


def reuse(trial: Trial) -> Law:
    """Hold another call in between, and upstreams that are not contiguous, to change nothing."""
    trial.probe({**trial.point, **draw_upstreams(trial.subject, trial.seed + 1)})
    again = trial.gradients(trial.run(trial.point))
    strided = {n: _strided(trial.point[n]) for n in trial.upstreams}
    across = trial.gradients(trial.run_on({**trial.point, **strided}))
    for i, (target, first, second, other) in enumerate(
        zip(trial.subject.targets, trial.gradients(trial.actual), again, across)
    ):
        if not np.array_equal(first, second, equal_nan=True):
            reason = f"the gradient of {target.path} changes after another call"
            return Law("reuse", "failed", reason)
        if not (_close(first, other) or trial.within_rounding(i, other)):  # terms may cancel
            reason = f"the gradient of {target.path} is wrong where the upstream is not contiguous"
            return Law("reuse", "failed", reason)
    return Law("reuse", "passed", judged=len(again))


def transforms(trial: Trial) -> Law:
    """Hold the rule called as it is, batched and compiled to the numbers that it has.

    As it is: its Python runs once on arrays. Batched: what vmap makes of it, against a loop. A
    compiled rule is what the accuracy law judges. Plain functions are compiled and batched at
    once, too: there JAX's own rules and its compiler are under test.
    """
    rules = trial.subject.forward is not None and any(
        rule.user for rule in custom_rules(trial.subject.forward)
    )
    if trial.subject.intended != "any" and trial.any_wrong:
        return Law("transforms", "skipped", "the gradient is wrong without jit and vmap too")
    try:
        own = rules and not trial.subject.eager and not trial.subject.forward_mode
        found = _eager(trial) if own else ""
        judged, batched = (0, "") if found else _batched(trial)
    except TooLong:
        return Law("transforms", "inconclusive", "a loop inside is too long to run eagerly")
    except ClosesOverTrace as error:
        return Law("transforms", "inconclusive", str(error))
    except _CannotBatch as error:
        return Law("transforms", "inconclusive", f"vmap fails: {error}")
    if found or batched:
        return Law("transforms", "failed", found or batched)
    compiled = "" if rules or trial.subject.eager else _compiled_and_batched(trial)
    if compiled:
        return Law("transforms", "warned", compiled, judged=judged)
    return Law("transforms", "passed", judged=judged)


class _CannotBatch(Exception):
    """JAX has no batching rule for something inside."""


def _eager(trial: Trial) -> str:
    """Say how the rule differs when its Python sees arrays, as without `jit`; empty: nowhere."""
    rule, forward = trial.subject.rule, trial.subject.forward
    assert rule is not None and forward is not None
    arrays = [trial.point[name] for name in rule.in_names]
    positions = [forward.in_names.index(target.path) for target in trial.subject.targets]
    if sum(map(np.size, arrays)) > _ENTRIES:
        return ""
    results = trial.gradients(stage(forward, positions, arrays, _TURNS))
    found = _differing(trial, results, trial.gradients_here("rule"))
    if found:  # constants are lifted in one of them, and rounded in the other
        traced = _run(trial, rule.jaxpr, arrays)  # nothing where a callback refuses
        found = _differing(trial, results, trial.gradients(traced)) if traced else ""
    return found


def _differing(trial: Trial, eager: Sequence[Array], traced: Sequence[Array]) -> str:
    """Say where gradients differ by more than rounding explains; empty: nowhere."""
    scatters = trial.accuracy["rule"][trial.outputs :]
    for target, ours, expected, estimate in zip(trial.subject.targets, eager, traced, scatters):
        unit = unit_roundoff(target.dtype)
        most = LIMIT * (known(estimate.scatter) + unit * np.abs(expected))
        at = _apart(ours, expected, most)
        if at is not None:
            return (
                f"called without jit, the gradient of {entry_name(target.path, at)} is "
                f"{ours[at]:.6g}; under jit it is {expected[at]:.6g}"
            )
    return ""


def _batched(trial: Trial) -> tuple[int, str]:
    """Count the numbers that vmap was held to, and say where they differ from a loop's.

    What JAX's own rules make of a program that was batched before is known.
    """
    rule = trial.subject.rule
    assert rule is not None
    several = batches_by_itself(rule) and not _is_large(rule)
    known = None if several or rule.computes is None else ("batched", rule.computes)
    return remember(known, lambda: _batched_anew(trial, rule, several), lambda found: not found[1])


def _is_large(rule: Program) -> bool:
    return bool(sum(a.size for a in (*rule.in_avals, *rule.out_avals)) > _ENTRIES)


def _batched_anew(trial: Trial, rule: Program, several: bool) -> tuple[int, str]:
    inputs = list(rule.in_names)
    movable = [n for n, a in zip(inputs, rule.in_avals) if is_inexact(a.dtype)]
    judged = 0
    for chosen in sets(movable) if several else [tuple(movable)]:
        if not trial.subject.grants(["rule"], 2 * _ROWS):
            raise _CannotBatch("it would call what cannot be read once too often")
        axes = [0 if name in chosen else None for name in inputs]
        avals = [
            Abstract((_ROWS, *a.shape), a.dtype) if n in chosen else a
            for n, a in zip(inputs, rule.in_avals)
        ]
        try:
            with jax.enable_x64(rule.x64):
                jaxpr = jax.make_jaxpr(jax.vmap(rule.flat, in_axes=axes))(*avals)
        except Exception as error:  # JAX has many words for what it cannot batch
            text = str(error).partition("\n")[0]
            raise _CannotBatch(f"{type(error).__name__}: {text}") from error
        if _is_large(rule) or trial.subject.loops:
            continue
        points = [trial.point, *(_moved(trial, trial.seed + 11 + k) for k in range(_ROWS - 1))]
        rows = [{**trial.point, **{n: point[n] for n in chosen}} for point in points]
        together = [
            np.stack([np.asarray(row[n]) for row in rows]) if n in chosen else trial.point[n]
            for n in inputs
        ]
        batch = _run(trial, jaxpr, together)
        for k, row in enumerate(rows if batch else ()):
            expected = _run(trial, rule.jaxpr, [row[name] for name in inputs])
            found = _row_apart(trial, rule, [y[k] for y in batch], expected)
            if found:
                return judged, f"batched over {' and '.join(chosen)}, {found}"
            judged += sum(map(np.size, expected))
    return judged, ""


def _run(trial: Trial, jaxpr: Jaxpr, arrays: Sequence[Array]) -> list[Any]:
    return trial.dropped.attempt(lambda: run_lifted(jaxpr, arrays, _TURNS)) or []


def sets(several: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Yield all, then each alone, then every other set of few."""
    yield tuple(several)
    for size in range(1, len(several)) if len(several) <= 3 else (1,):
        yield from itertools.combinations(several, size)


def _moved(trial: Trial, seed: int) -> dict[str, Array]:
    values = nearby(trial.subject, trial.values, seed)
    return {**trial.values, **values, **draw_upstreams(trial.subject, seed)}


def _row_apart(trial: Trial, rule: Program, ours: Sequence[Array], loop: Sequence[Any]) -> str:
    estimates = trial.drawn(trial.draws)[trial.subject.opaque]["rule"]
    for name, mine, expected, estimate in zip(rule.out_names, ours, loop, estimates):
        if np.shape(mine) != np.shape(expected):
            return (
                f"vmap gives the {name} the shape {np.shape(mine)}, and a loop {np.shape(expected)}"
            )
        if not is_inexact(np.asarray(in_words(mine)).dtype):
            if not np.array_equal(in_words(mine), in_words(expected)):
                return f"the {name} under vmap differs from that of a loop"
            continue
        size = np.max(np.abs(known(estimate.scatter)), initial=0.0)
        at = _apart(mine, expected, 16 * LIMIT * size + _SLACK * np.abs(expected))
        if at is not None:
            what = name.replace("gradient ", "gradient of ")
            text = f"{mine[at]:.6g} under vmap; a loop gives {expected[at]:.6g}"
            return f"the {entry_name(what, at)} is {text}"
    return ""


def _apart(actual: Array, expected: Array, most: Any) -> tuple[int, ...] | None:
    """Return where two arrays differ by more than `most`, at the worst entry; None: nowhere."""
    off = np.abs(widen(actual) - widen(expected))
    both = np.isnan(widen(actual)) & np.isnan(widen(expected))
    wrong = ~(off <= most) & ~both & np.isfinite(widen(expected))
    if not wrong.any():
        return None
    worst = np.argmax(np.where(wrong, np.nan_to_num(off, nan=np.inf), -1.0))
    return tuple(int(i) for i in np.unravel_index(int(worst), off.shape))


def _compiled_and_batched(trial: Trial) -> str:
    """Say how `jit(jacrev(f))` differs from the gradients of f; empty: nowhere, or not asked.

    XLA has compiled such programs wrongly. Each row is one upstream of ones and zeros, so that the
    rows, weighted with the upstream, are the gradient.
    """
    forward = trial.subject.forward
    assert forward is not None
    upstreams = trial.subject.upstreams
    rows = sum(int(np.prod(u.shape)) for u in upstreams)
    columns = sum(int(np.prod(t.shape)) for t in trial.subject.targets)
    dtypes = [t.dtype for t in trial.subject.targets] + [u.dtype for u in upstreams]
    is_complex = any(np.dtype(dtype).kind == "c" for dtype in dtypes)
    if len(upstreams) != 1 or rows < 2 or rows * columns > _JACOBIAN or is_complex:
        return ""
    upstream, output = upstreams[0], trial.subject.outputs.index(upstreams[0].output)
    positions = tuple(forward.in_names.index(target.path) for target in trial.subject.targets)
    values = [trial.values[name] for name in forward.in_names]
    whole = jacrev_program(forward, output, positions)
    with trial.placed():
        blocks_ = trial.dropped.attempt(lambda: whole(*values))
    weights = widen(trial.upstreams[upstream.name]).ravel()
    estimates = trial.accuracy["rule"][trial.outputs :]
    for target, block, estimate in zip(trial.subject.targets, blocks_ or (), estimates):
        flat = widen(block).reshape(rows, -1)
        terms = np.abs(weights) @ np.abs(flat)
        most = LIMIT * (known(estimate.scatter).ravel() + unit_roundoff(target.dtype) * terms)
        expected = estimate.value.ravel()
        at = _apart(weights @ flat, expected, LIMIT * most)
        if at is not None:
            index = tuple(map(int, np.unravel_index(at[0], target.shape)))
            return (
                f"jit(jacrev({forward.name})) is wrong in JAX {jax.__version__}: weighted with the "
                f"upstream, its column of {entry_name(target.path, index)} gives "
                f"{(weights @ flat)[at]:.6g}, the gradient is {expected[at]:.6g}; the gradient "
                "itself is right. Use jit(jacfwd(...)), or jacrev without jit"
            )
    return ""


def _same_bits(before: Array, after: Array) -> bool:
    if not isinstance(before, np.ndarray):
        return True
    if before.shape != np.shape(after):
        return False
    a, b = np.ravel(before), np.ravel(after)
    return all(a[row].tobytes() == b[row].tobytes() for row in blocks(a.size))


def _strided(value: Array) -> Any:
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
