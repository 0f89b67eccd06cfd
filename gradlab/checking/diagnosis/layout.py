"""Transposed, flipped, shifted, swapped, not summed: the right numbers in the wrong places."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding

__all__ = ["layout", "swapped", "wrong_shape"]

Array = np.ndarray[Any, Any]
Move = Callable[[Array], Array]

_SHIFTS, _SLIDES = 16, 2


def layout(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield findings that say where the right numbers went, in the gradient or the upstream."""
    leaf = symptom.subject.targets[target]
    for kind, text, move in moves(leaf.shape):
        claims = [move(case.expected[target]) for case in symptom.cases]
        if all(symptom.explains(k, target, claim) for k, claim in enumerate(claims)):
            yield Finding(kind, leaf.path, f"the gradient of {leaf.path} is {text}")
            return
    yield from _upstream_moved(symptom, target)


def _upstream_moved(symptom: Symptom, target: int) -> Iterator[Finding]:
    path = symptom.subject.targets[target].path
    for upstream in symptom.subject.upstreams:
        if upstream.shape == ():
            continue
        for kind, text, move in moves(upstream.shape):
            points = [
                (c.values, {**c.upstreams, upstream.name: move(c.upstreams[upstream.name])})
                for c in symptom.cases
            ]
            claims = symptom.expected_many(points)
            if all(symptom.explains(k, target, claim[target]) for k, claim in enumerate(claims)):
                yield Finding(kind, path, f"the gradient of {path} reads its upstream {text}")
                return
            if (
                kind == "flipped"
                and all(
                    symptom.explains(k, target, move(claim[target]))
                    for k, claim in enumerate(claims)
                    if claim[target].shape == upstream.shape
                )
                and claims[0][target].shape == upstream.shape
            ):
                text = f"the gradient of {path} runs in the other direction, as if not reversed"
                yield Finding(kind, path, text)
                return


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


def swapped(symptom: Symptom) -> Iterator[Finding]:
    """Yield a finding for each pair of inputs whose gradients came in each other's place."""
    targets = symptom.subject.targets
    for i, j in itertools.combinations(symptom.wrong, 2):
        if targets[i].shape == targets[j].shape and all(
            symptom.explains(k, i, case.expected[j]) and symptom.explains(k, j, case.expected[i])
            for k, case in enumerate(symptom.cases)
        ):
            first, second = targets[i].path, targets[j].path
            text = f"the gradients of {first} and {second} are swapped"
            yield Finding("swapped", first, text)
            yield Finding("swapped", second, text)


def wrong_shape(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield what would give a gradient of a wrong shape its right one, if that makes it right."""
    path = symptom.subject.targets[target].path
    actual = [case.actual[target] for case in symptom.cases]
    wanted = [case.expected[target] for case in symptom.cases]
    shape = wanted[0].shape
    for upstream in symptom.subject.upstreams:
        both = (shape + upstream.shape, upstream.shape + shape)
        if shape and upstream.shape and actual[0].shape in both:
            text = (
                f"the gradient of {path} has the shape of a Jacobian, {actual[0].shape}: the "
                "product with the upstream is missing"
            )
            yield Finding("shape", path, text, code="GL223")
            return
    for name, reduce in (("sum", np.sum), ("mean", np.mean)):
        axes = _extra_axes(actual[0].shape, shape)
        if axes and all(
            _agree(reduce(a, axis=axes).reshape(shape), q) for a, q in zip(actual, wanted)
        ):
            where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
            text = f"missing {name} over {where} in the gradient of {path}"
            yield Finding(f"missing {name}", path, text)
            return
    if actual[0].size == wanted[0].size and all(
        _agree(a.reshape(shape), q) for a, q in zip(actual, wanted)
    ):
        text = f"the gradient of {path} has its numbers right and must be reshaped to {shape}"
        yield Finding("shape", path, text)


def _extra_axes(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes along which broadcasting repeated an input of the wanted shape."""
    lead = len(shape) - len(wanted)
    if lead < 0:
        return ()
    pairs = zip(shape[lead:], wanted)
    return (*range(lead), *(lead + i for i, (n, m) in enumerate(pairs) if m == 1 and n > 1))


def _agree(actual: Array, expected: Array) -> bool:
    return bool(
        np.allclose(actual, expected, rtol=1e-6, atol=1e-9 * np.max(np.abs(expected), initial=0))
    )
