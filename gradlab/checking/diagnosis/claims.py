"""What a wrong gradient may be: the right one elsewhere, or the right one rearranged.

Other inputs, other upstreams, another target's gradient, its entries in other places, a number
times it. Each claim is held against what came in every case, simplest first.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.checking.diagnosis.symptom import Case, Claim, Point, Symptom
from gradlab.checking.laws.linearity import ignored_outputs
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array
from gradlab.report import Finding
from gradlab.tracing import run_lifted, without_checks

Move = Callable[..., Any]

_SHIFTS, _SLIDES = 16, 2
_ENTRIES = 1 << 14  # of an input that is read rearranged
_DIAGONAL, _DIFFERENCES = 256, 24
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "the tanh approximation of gelu": partial(jax.nn.gelu, approximate=True),
    "gelu with erf": partial(jax.nn.gelu, approximate=False),
    "the sigmoid approximation of gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    **{f.__name__: f for f in (jax.nn.silu, jax.nn.mish, jax.nn.sigmoid, jax.nn.softplus)},
    **{f.__name__: f for f in (jax.nn.relu, jax.nn.relu6, jax.nn.elu, jax.nn.selu, jnp.tanh)},
    **{f.__name__: f for f in (jax.nn.soft_sign, jnp.arctan, jnp.exp, jnp.log1p, jnp.sin, jnp.cos)},
}


def scaling(symptom: Symptom, target: int) -> Iterator[Claim]:
    """Yield that a gradient is zero, a number times the right one, or that it ignores upstreams."""
    leaf, subject = symptom.subject.targets[target], symptom.subject
    the = f"the gradient of {leaf.path}"
    if not np.any(symptom.cases[0].actual[target]):
        meant = _lambda(symptom, target, "0 * ")
        text = f"{the} is zero, as if it were detached"
        yield Claim("detached", text, _times(0.0, target), meant=meant)
        return
    ones = _upstreams(np.ones_like)
    yield _right(
        "upstream ignored", "the upstream is ignored, as if it were all ones", target, ones
    )
    if subject.linear and len(ignored_outputs(symptom.trial)) == len(subject.upstreams):
        yield Claim(
            "upstream ignored", "the upstream is ignored", lambda case, _: case.actual[target]
        )
    for upstream in subject.upstreams if len(subject.upstreams) > 1 else ():
        text = f"in {the}, the upstream of {upstream.output} is ignored"
        for change, more in ((np.zeros_like, ""), (np.ones_like, ", as if it were all ones")):
            at = _upstreams(change, upstream.name)
            yield _right("upstream ignored", text + more, target, at)
    factor = _ratio(symptom, target)
    if factor is not None and abs(factor + 1) < 1e-9:
        turned = any(
            symptom.explains(0, target, -u) for u in symptom.cases[0].point.upstreams.values()
        )
        meant = _lambda(symptom, target, "-") if turned else '"any"'
        yield Claim("sign", f"{the} has the wrong sign", _times(factor, target), meant=meant)
    elif factor is not None and abs(factor - 1) > 1e-6:
        yield Claim("factor", f"{the} is off by a factor {_named(factor)}", _times(factor, target))
    if leaf.kind == "complex":
        text = f"{the} is the complex conjugate"
        yield Claim("conjugated", text, lambda _, right: np.conj(right[target]))


def claims(symptom: Symptom, target: int) -> Iterator[Claim]:
    """Yield what is told by entries in other places, and by what became of upstreams."""
    subject, leaf = symptom.subject, symptom.subject.targets[target]
    the = f"the gradient of {leaf.path}"
    for k, other in enumerate(subject.targets):
        if k == target or other.shape != leaf.shape:
            continue
        both = sorted((k, target))
        first, second = (subject.targets[i].path for i in both)
        swapped = symptom.explains(0, k, symptom.cases[0].expected[target])
        text = f"{the} is that of {other.path}: the backward returns it in the wrong place"
        text = f"the gradients of {first} and {second} are swapped" if swapped else text
        yield _right("swapped" if swapped else "exchanged", text, k)
    for kind, words, move in moves(leaf.shape):
        yield Claim(kind, f"{the} is {words}", partial(_rearranged, move, target))
    yield from through(symptom, target)
    for upstream in subject.upstreams:
        name = upstream.name
        for kind, words, move in moves(upstream.shape):
            at = _upstreams(move, name)
            yield _right(kind, f"{the} reads its upstream {words}", target, at)
            if kind == "flipped" and upstream.shape == leaf.shape:
                text = f"{the} runs in the wrong direction, as if it were not reversed"
                yield Claim(kind, text, partial(_rearranged, move, target), at)
        of = f" of {upstream.output}" if len(subject.upstreams) > 1 else ""
        for kind, words, change in (
            ("sign", "has the wrong sign", np.negative),
            ("upstream averaged", "is averaged over all entries", partial(_filled, np.mean)),
            ("upstream averaged", "is summed over all entries", partial(_filled, np.sum)),
        ):
            text = f"in {the}, the upstream{of} {words}"
            yield _right(kind, text, target, _upstreams(change, name))
    yield from _indices(symptom, target)
    text = f"the Jacobian for {leaf.path} is taken as diagonal, so its other entries are lost"
    yield from _jacobian(symptom, target, "diagonal", text, lambda m, u: np.diagonal(m) * u)


def through(symptom: Symptom, target: int) -> Iterator[Claim]:
    """Yield that a gradient is an upstream as it came, or its negative."""
    leaf = symptom.subject.targets[target]
    the = f"the gradient of {leaf.path} passes the upstream through"
    for upstream in symptom.subject.upstreams:
        for sign, words in ((1, ", as the identity would (straight-through)"), (-1, ", reversed")):
            if upstream.shape == leaf.shape:
                meant = _lambda(symptom, target, "-" if sign < 0 else "")
                passed = _upstream_itself(upstream.name, sign)
                yield Claim("upstream passed", the + words, passed, meant=meant)


def _lambda(symptom: Symptom, target: int, before: str) -> str:
    """Return code for a multiple of the only input; "any" where that does not fit."""
    subject = symptom.subject
    path, shape = subject.targets[target].path, subject.targets[target].shape
    fits = len(subject.values) == 1 and [u.shape for u in subject.upstreams] == [shape]
    return f"lambda {path}: {before}{path}" if fits and path.isidentifier() else '"any"'


def further_claims(symptom: Symptom, target: int) -> Iterator[Claim]:
    """Yield that another function was differentiated, or that an input was read otherwise."""
    subject, leaf = symptom.subject, symptom.subject.targets[target]
    the = f"the gradient of {leaf.path}"
    for k, other in enumerate(subject.targets):
        path = other.path
        if k != target and other.shape == leaf.shape:
            text = f"{the} equals that of {path} if {leaf.path} and {path} are exchanged"
            yield _right("exchanged", text, k, partial(_exchanged, leaf.path, path))
        if k != target:
            text = f"{the} is right only if {path} were all ones, so {path} is left out"
            yield _right("input ignored", text, target, _values(np.ones_like, path))
        text = f"{the} would be right at -{path}, so a comparison or a sign is reversed"
        yield _right("input negated", text, target, _values(np.negative, path))
        for kind, words, move in moves(other.shape) if math.prod(other.shape) <= _ENTRIES else ():
            if kind in ("transposed", "flipped"):
                at = _values(move, path)
                yield _right(f"input {kind}", f"{the} reads {path} {words}", target, at)
    text = f"{the} multiplies the upstream by the Jacobian, and not by its transpose: "
    text += "it is the forward mode"
    yield from _jacobian(symptom, target, "not transposed", text, np.matmul)
    same = (u.name for u in subject.upstreams if _entry_by_entry(symptom, target, u.name))
    if leaf.kind == "real" and math.prod(leaf.shape) >= 3:
        for name, (words, function) in itertools.product(same, _FUNCTIONS.items()):
            made = partial(_of_another, function, leaf.path, name)
            yield Claim("other function", f"{the} belongs to another function: {words}", made)


def _right(kind: str, text: str, target: int, at: Callable[[Case], Point] | None = None) -> Claim:
    """Claim the right gradient of a target, at another point."""
    return Claim(kind, text, lambda _, right: right[target], at)


def _rearranged(move: Move, target: int, _: Case, right: list[Array]) -> Array:
    moved: Array = move(right[target])
    return moved


def _times(factor: complex, target: int) -> Callable[[Case, list[Array]], Array]:
    return lambda _, right: factor * right[target]


def _upstream_itself(name: str, sign: int) -> Callable[[Case, list[Array]], Array]:
    return lambda case, _: sign * case.point.upstreams[name]


def _filled(reduce: Move, upstream: Array) -> Array:
    return np.full_like(upstream, reduce(upstream))


def _upstreams(change: Move, name: str | None = None) -> Callable[[Case], Point]:
    """Change one upstream, None: each."""

    def at(case: Case) -> Point:
        values, held = case.point
        changed = {n: change(u) for n, u in held.items() if name in (None, n)}
        return Point(values, {**held, **changed})

    return at


def _values(change: Move, path: str) -> Callable[[Case], Point]:
    def at(case: Case) -> Point:
        values, upstreams = case.point
        return Point({**values, path: change(values[path])}, upstreams)

    return at


def _exchanged(first: str, second: str, case: Case) -> Point:
    values, upstreams = case.point
    return Point({**values, first: values[second], second: values[first]}, upstreams)


def _ratio(symptom: Symptom, target: int) -> complex | None:
    """Return what came over what was expected, at the largest entry."""
    case = symptom.cases[0]
    expected, actual = case.expected[target].ravel(), case.actual[target].ravel()
    size = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    if np.count_nonzero(size) < min(2, size.size) or not size.any():
        return None  # one number alone always has a ratio
    ratio = actual[size.argmax()] / expected[size.argmax()]
    return complex(ratio) if np.isfinite(ratio) else None


def _named(factor: complex) -> str:
    """Return a factor as a fraction, else six digits, more where those would say that it is 1."""
    if factor.imag:
        return f"{factor:.6g}"
    real = factor.real
    fraction = Fraction(real).limit_denominator(64)
    if math.isclose(fraction, real, rel_tol=1e-9):
        return str(fraction)
    short = f"{real:.6g}"
    return f"{real:.12g}" if short in ("1", "-1") else short


def moves(shape: tuple[int, ...]) -> Iterator[tuple[str, str, Move]]:
    """Yield the rearrangements of an array of this shape: kind, words, and the move itself."""
    axes = range(len(shape))
    for order in itertools.permutations(axes) if len(shape) <= 4 else ():
        moved = tuple(shape[i] for i in order)
        if order != tuple(axes) and moved == shape:
            text = "transposed" if len(shape) == 2 else f"transposed (axes {order})"
            yield "transposed", text, partial(np.transpose, axes=order)
    for axis in axes:
        if shape[axis] > 1:
            yield "flipped", f"flipped along axis {axis}", partial(np.flip, axis=axis)
    for axis in axes:
        n = shape[axis]
        for step in range(1, n) if n <= _SHIFTS else (1, -1, 2, -2):
            back = step - n if step > n // 2 else step
            text = f"shifted by {back} along axis {axis}"
            yield "index shifted", text, partial(np.roll, shift=step, axis=axis)
            if abs(back) <= _SLIDES:
                yield "index shifted", text, partial(_slid, step=back, axis=axis)


def _slid(array: Array, step: int, axis: int) -> Array:
    """Shift with zeros coming in."""
    moved = np.roll(array, step, axis)
    empty = slice(0, step) if step > 0 else slice(step, None)
    moved[(slice(None),) * axis + (empty,)] = 0
    return moved


def _indices(symptom: Symptom, target: int) -> Iterator[Claim]:
    """Yield that repeated indices overwrite each other, or that an index is off by one."""
    the = f"the gradient of {symptom.subject.targets[target].path}"
    for name, value in symptom.trial.values.items():
        if getattr(getattr(value, "dtype", None), "kind", "") not in "iu" or np.size(value) < 2:
            continue
        index = np.asarray(value)
        for text, order in (("last", -1), ("first", 1)):
            keep = np.zeros(index.size, bool)
            keep[np.unique(index.ravel()[::order], return_index=True)[1]] = True
            mask = partial(_masked, keep[::order].reshape(index.shape))
            text = f"where an index in {name} is repeated, {the} is overwritten, not added: " + (
                f"only the {text} one counts"
            )
            if not keep.all():
                yield _right("overwritten", text, target, _upstreams(mask))
        every = {n for t in symptom.subject.targets for n in t.shape if n > int(index.max())}
        for step, length in itertools.product((1, -1), sorted(every)):
            moved = ((index + step) % length).astype(index.dtype)
            text = f"{the} reads {name} shifted by {step}"
            yield _right("index shifted", text, target, partial(_put, name, moved))


def _masked(keep: Array, upstream: Array) -> Array:
    if upstream.shape[: keep.ndim] != keep.shape:
        return upstream
    return upstream * keep.reshape(*keep.shape, *[1] * (upstream.ndim - keep.ndim))


def _put(name: str, value: Array, case: Case) -> Point:
    return Point({**case.point.values, name: value}, case.point.upstreams)


def _jacobian(
    symptom: Symptom, target: int, kind: str, text: str, product: Callable[[Any, Any], Any]
) -> Iterator[Claim]:
    """Yield that what came is some product of the square Jacobian and an upstream."""
    shape = symptom.subject.targets[target].shape
    size = math.prod(shape)
    if not 1 < size <= (_DIAGONAL if symptom.trial.has_reference else _DIFFERENCES):
        return
    for upstream in symptom.subject.upstreams:
        if upstream.shape != shape:
            continue

        def made(case: Case, _: list[Array], name: str = upstream.name) -> Array:
            values, held = case.point
            zeros = {n: np.zeros_like(u) for n, u in held.items()}
            basis = np.eye(size).reshape(size, *shape)
            points = [Point(values, {**zeros, name: one}) for one in basis]
            rows = np.array([row[target].ravel() for row in symptom.expected(points)])
            return np.reshape(product(rows, held[name].ravel()), shape)

        yield Claim(kind, text, made)


def _entry_by_entry(symptom: Symptom, target: int, upstream: str) -> bool:
    """Whether a gradient is its upstream times what no upstream changes."""
    first, second = (
        (case.actual[target], case.point.upstreams[upstream]) for case in symptom.cases[:2]
    )
    if np.shape(first[0]) != np.shape(first[1]):
        return False
    return np.allclose(first[0] * second[1], second[0] * first[1], rtol=1e-6, atol=0)


def _of_another(
    function: Callable[[Any], Any], path: str, upstream: str, case: Case, _: list[Array]
) -> Array:
    x = widen(case.point.values[path])
    with without_checks():
        slopes = jax.make_jaxpr(jax.vmap(jax.grad(function)))(x.ravel())
    (slope,) = run_lifted(slopes, [x.ravel()])  # in NumPy: nothing is compiled for it
    return np.asarray(case.point.upstreams[upstream] * slope.reshape(x.shape))


def wrong_shape(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield what would give a gradient of a wrong shape its right one, if that makes it right."""
    path = symptom.subject.targets[target].path
    pairs = [(case.actual[target], case.expected[target]) for case in symptom.cases]
    came, shape = pairs[0][0].shape, pairs[0][1].shape
    for upstream in symptom.subject.upstreams:
        both = (shape + upstream.shape, upstream.shape + shape)
        if shape and upstream.shape and came in both:
            text = (
                f"the gradient of {path} has the shape of a Jacobian, {came}: the product with the "
                "upstream is missing"
            )
            yield Finding("shape", path, text, code="GL223")
            return
    axes = _extra_axes(came, shape)
    where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
    means: dict[str, Move] = {"sum": np.sum, "mean": np.mean}
    for name, reduce in means.items() if axes else ():
        if all(_same_numbers(reduce(a, axis=axes), q) for a, q in pairs):
            text = f"the gradient of {path} needs a {name} over {where}"
            yield Finding(f"missing {name}", path, text)
            return
    if all(_same_numbers(*pair) for pair in pairs):
        text = f"the numbers of the gradient of {path} are right, so reshape it to {shape}"
        yield Finding("shape", path, text)


def _same_numbers(came: Array, right: Array) -> bool:
    slack = 1e-9 * np.max(np.abs(right), initial=0)
    return came.size == right.size and np.allclose(came.reshape(right.shape), right, 1e-6, slack)


def _extra_axes(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes along which broadcasting repeated an input of the wanted shape."""
    lead = len(shape) - len(wanted)
    if lead < 0:
        return ()
    pairs = zip(shape[lead:], wanted)
    return (*range(lead), *(lead + i for i, (n, m) in enumerate(pairs) if m == 1 and n > 1))
