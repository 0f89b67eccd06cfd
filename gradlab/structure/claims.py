"""`gradlab.assert_structure`: hold a Jacobian to a claimed structure, with line and witness."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradlab.errors import InputError, InputTypeError, StructureMismatch
from gradlab.patterns import Pattern
from gradlab.structure.entries import Side
from gradlab.structure.jacobian import jacobian
from gradlab.structure.proof import axis_pair
from gradlab.structure.report import JacobianReport

__all__ = ["assert_structure"]

_STRUCTURES = (
    "zero", "identity", "diagonal", "permutation", "block-diagonal", "banded", "lower-triangular",
    "upper-triangular", "dense",
)  # fmt: skip
_TRIED = 8

Axis = int | tuple[int, int]


def assert_structure(
    function: Callable[..., Any],
    *inputs: Any,
    structure: str | None = None,
    elementwise: bool = False,
    independent: Axis | None = None,
    causal: Axis | None = None,
    wrt: Any = None,
) -> JacobianReport:
    """Raise unless the Jacobian is proved to have a structure, at every input.

    Memory: none that grows with the arrays while claims hold; a search for a witness against one
    takes 8 derivatives.

    Args:
        function: a JAX function, a node or a graph.
        *inputs: arrays of any shape and dtype, Python numbers or pytrees of them;
            `jax.ShapeDtypeStruct` where shapes suffice.
        structure: a name such as "diagonal", "banded", "lower-triangular"; any structure that lies
            inside it passes, as a diagonal is banded.
        elementwise: shapes are equal and each output entry reads the input entry of its own index.
        independent: an axis (or input axis, output axis) whose slices do not read each other.
        causal: an axis (or such a pair) along which no output reads a later input.
        wrt: positions or argument names of the inputs meant; by default all.

    Returns:
        The report, for whoever wants to look further.

    Raises:
        StructureMismatch: a claim is wrong (with one derivative as witness), or cannot be proved.
        InputError: nothing is claimed, an axis or a structure's name does not exist, or `jacobian`
            refuses the call.

    Example:
        >>> import jax, numpy as np, gradlab
        >>> x = np.zeros((8, 5), np.float32)
        >>> _ = gradlab.assert_structure(jax.nn.softmax, x, independent=0)
        >>> _ = gradlab.assert_structure(jax.numpy.tanh, x, elementwise=True)
    """
    __tracebackhide__ = True
    if not isinstance(elementwise, bool):
        raise InputTypeError(f"elementwise: expected True or False, got {elementwise!r}")
    if structure is None and not elementwise and independent is None and causal is None:
        raise InputError(
            "assert_structure: nothing is claimed; give structure=, elementwise=, independent= or "
            "causal="
        )
    if structure is not None and str(structure) not in _STRUCTURES:
        raise InputError(
            f"structure: {structure!r} is not known; choose one of {', '.join(_STRUCTURES)}"
        )
    report = jacobian(function, *inputs, wrt=wrt)
    for out_number, out in enumerate(report.outputs):
        for in_number, given in enumerate(report.inputs):
            pattern = report.patterns[out.path, given.path]
            for claim, axis, allowed in _claims(
                out, given, structure, elementwise, independent, causal
            ):
                held = (
                    allowed.covers(pattern) if allowed is not None else pattern.has_structure(claim)
                )
                if not held:
                    witness = _witness(report, out_number, in_number, claim, allowed)
                    raise StructureMismatch(
                        _message(report, out, given, claim, axis, witness), report
                    )
    return report


def _claims(
    out: Side,
    given: Side,
    structure: str | None,
    elementwise: bool,
    independent: Axis | None,
    causal: Axis | None,
) -> Iterator[tuple[str, int | None, Pattern | None]]:
    """Yield each claim in words, the input axis that it is about, and the entries it allows."""
    shapes = out.shape, given.shape
    if elementwise:
        allowed = Pattern.identity(out.shape) if out.shape == given.shape else Pattern.zero(*shapes)
        yield "elementwise", None, allowed
    if independent is not None:
        i, k = _axes("independent", independent, out, given)
        yield f"independent along axis {i}", i, Pattern.from_axes(*shapes, [(k, ~i)])
    if causal is not None:
        i, k = _axes("causal", causal, out, given)
        yield f"causal along axis {i}", i, Pattern.from_axes(*shapes, [(k, ~i, 0, None)])
    if structure == "zero":
        yield "zero", None, Pattern.zero(*shapes)
    elif structure in ("identity", "diagonal") and out.shape == given.shape:
        yield structure, None, Pattern.identity(out.shape)
    elif structure is not None:
        yield structure, None, None


def _axes(name: str, axis: Axis, out: Side, given: Side) -> tuple[int, int]:
    """Return (input axis, output axis), counted from the front."""
    i, k = axis_pair(name, axis)
    found = []
    for value, side in ((i, given), (k, out)):
        rank = len(side.shape)
        if not -rank <= value < rank:
            raise InputError(
                f"{name}: axis {value} does not exist in {side.path} of shape {side.shape}; give "
                "(input axis, output axis) where they differ"
            )
        found.append(value % rank)
    return found[0], found[1]


def _witness(
    report: JacobianReport, out: int, source: int, claim: str, allowed: Pattern | None
) -> tuple[tuple[int, ...], tuple[int, ...], float] | None:
    """Look for one entry that refutes the claim: (input index, output index, derivative)."""
    at = report._at
    if at is None or at.values is None:
        return None
    given, made = report.inputs[source], report.outputs[out]
    if not given.size or not made.size:
        return None
    forward = "jvp" in report.modes
    side, other = (given, made) if forward else (made, given)
    draw = np.random.default_rng(0)
    flat = {0, side.size - 1, side.size // 2, *draw.integers(side.size, size=_TRIED - 3).tolist()}
    seeds = np.zeros((len(flat), side.size), report._dtype(side))
    seeds[np.arange(len(flat)), sorted(flat)] = 1
    batch = seeds.reshape(len(flat), *side.shape)
    values = at.along("jvp" if forward else "vjp", out, source, batch).reshape(len(flat), -1)
    for row, start in zip(values, sorted(flat)):
        here = tuple(map(int, np.unravel_index(start, side.shape)))
        usable = np.where(np.isfinite(row), np.abs(row), 0)
        for end in np.argsort(-usable, kind="stable")[: other.size]:
            if usable[end] == 0:
                break
            there = tuple(map(int, np.unravel_index(int(end), other.shape)))
            input_index, output_index = (here, there) if forward else (there, here)
            if _refutes(claim, allowed, input_index, output_index, given, made):
                return input_index, output_index, float(np.real(row[end]))
    return None


def _refutes(
    claim: str,
    allowed: Pattern | None,
    input_index: tuple[int, ...],
    output_index: tuple[int, ...],
    given: Side,
    made: Side,
) -> bool:
    if allowed is not None:
        return not allowed.contains(output_index, input_index)
    row = int(np.ravel_multi_index(output_index, made.shape)) if made.shape else 0
    column = int(np.ravel_multi_index(input_index, given.shape)) if given.shape else 0
    if claim in ("identity", "diagonal"):
        return row != column
    return (claim == "lower-triangular" and row < column) or (
        claim == "upper-triangular" and row > column
    )


def _message(
    report: JacobianReport,
    out: Side,
    given: Side,
    claim: str,
    axis: int | None,
    witness: tuple[tuple[int, ...], tuple[int, ...], float] | None,
) -> str:
    pattern = report.patterns[out.path, given.path]
    verdict = "is not" if witness else "is not proved to be"
    lines = [
        f"{report.name}: the Jacobian of {out.path} by {given.path} {verdict} {claim}; it is "
        f"{pattern.structure}, {pattern.describe(out.path, given.path)}"
    ]
    if witness:
        input_index, output_index, value = witness
        lines.append(
            f"witness: d {out.path}{list(output_index)} / d {given.path}{list(input_index)} "
            f"= {value:.6g}"
        )
    else:
        lines.append(
            "not proved: no entry that refutes it was found at these inputs; the program alone "
            "does not exclude one"
        )
    axes = [axis] if axis is not None else range(len(given.shape))
    for a in axes:
        text = report.why(a)
        lines += [line for line in text.splitlines() if "coupled" in line]
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(dict.fromkeys(lines))
