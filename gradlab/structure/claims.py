"""`gradlab.assert_structure`: hold a Jacobian to a claimed structure, with line and witness."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradlab.errors import InputError, InputTypeError, StructureMismatch
from gradlab.patterns import Pattern
from gradlab.structure.conditions import suggested
from gradlab.structure.entries import Side
from gradlab.structure.evaluate import is_traced
from gradlab.structure.explanation import axis_pair, culprits_of, reads, shown_couplings
from gradlab.structure.jacobian import Jacobian, jacobian

_STRUCTURES = (
    "zero", "identity", "diagonal", "permutation", "block-diagonal", "banded", "lower-triangular",
    "upper-triangular", "dense",
)  # fmt: skip
_TRIED = 8
_ROUNDED = 16  # times the rounding of one derivative, beyond which an entry is not rounding

Axis = int | tuple[int, int]


def assert_structure(
    function: Callable[..., Any],
    *inputs: Any,
    structure: str | None = None,
    elementwise: bool = False,
    independent: Axis | None = None,
    causal: Axis | None = None,
    wrt: Any = None,
    conditions: Any = None,
    sizes: Mapping[str, int] | None = None,
) -> Jacobian:
    """Raise unless the Jacobian is proved to have a structure, at every input.

    A claim is about derivatives. Where values go further without one, as through an argmax, the
    result's `unseen` says so.

    Memory: none that grows with the arrays while claims hold; a search for a witness against one
    takes 8 derivatives.

    Args:
        function: a JAX function, a node or a graph.
        *inputs: arrays of any shape and dtype, Python numbers or pytrees of them;
            `jax.ShapeDtypeStruct` where shapes suffice.
        structure: a name such as "diagonal", "banded", "lower-triangular". A structure inside it
            passes too: a diagonal is banded.
        elementwise: each output entry reads the input entry of the same index alone.
        independent: an axis, or a pair (input axis, output axis), whose slices do not read each
            other.
        causal: an axis, or such a pair, along which no output reads a later input.
        wrt: inputs to ask about, by position or by name (default: all).
        conditions: conditions that the proof may assume, as for `jacobian` (default: none).
        sizes: numbers for names in shapes such as "BxTx64", as for `jacobian`.

    Returns:
        The Jacobian, for whoever wants to look further.

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
    J = jacobian(function, *inputs, wrt=wrt, conditions=conditions, sizes=sizes)
    for out_number, out in enumerate(J.outputs):
        for in_number, given in enumerate(J.inputs):
            for claim in _claims(out, given, structure, elementwise, independent, causal):
                if not J.holds_at((out.path, given.path), claim.holds):
                    witness = _witness(J, out_number, in_number, claim)
                    refuted = _message(J, out, given, claim, witness)
                    raise StructureMismatch(refuted, replace(J.report, refuted=refuted))
    return J


@dataclass(frozen=True, eq=False)
class _Claim:
    """What was asserted of one block.

    Attributes:
        words: as the call says it, such as `independent=0`.
        wrong: the sentence that says how the function breaks it; empty: it names the structure.
        axis: the input axis that it is about, if it is about one.
        allowed: the entries that may differ from zero; None: a structure says so.
        structure: the name of the structure.
    """

    words: str
    wrong: str = ""
    axis: int | None = None
    allowed: Pattern | None = None
    structure: str = ""

    def holds(self, pattern: Pattern, numbers: Mapping[str, Any]) -> bool:
        """Return whether a proved pattern lies inside what was asserted.

        Args:
            pattern: of a block.
            numbers: what names of sizes stand for there.
        """
        if self.allowed is None:
            return pattern.has_structure(self.structure)
        return (self.allowed.sized(numbers) if numbers else self.allowed).covers(pattern)


def _claims(
    out: Side,
    given: Side,
    structure: str | None,
    elementwise: bool,
    independent: Axis | None,
    causal: Axis | None,
) -> Iterator[_Claim]:
    """Yield each claim on a block."""
    shapes = out.shape, given.shape
    if elementwise:
        allowed = Pattern.identity(out.shape) if out.shape == given.shape else Pattern.zero(*shapes)
        yield _Claim("elementwise=True", allowed=allowed)
    if independent is not None:
        i, k = _axes("independent", independent, out, given)
        allowed = Pattern.from_axes(*shapes, [(k, ~i)])
        words = f"couples axis {i} of {given.path}"
        yield _Claim(f"independent={independent}", words, i, allowed)
    if causal is not None:
        i, k = _axes("causal", causal, out, given)
        allowed = Pattern.from_axes(*shapes, [(k, ~i, 0, None)])
        words = f"reads later entries along axis {i} of {given.path}"
        yield _Claim(f"causal={causal}", words, i, allowed)
    if structure is None:
        return
    words = f"structure={structure!r}"
    if structure == "zero":
        yield _Claim(words, allowed=Pattern.zero(*shapes))
    elif structure in ("identity", "diagonal") and out.shape == given.shape:
        yield _Claim(words, allowed=Pattern.identity(out.shape))
    else:
        yield _Claim(words, structure=structure)


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


@dataclass(frozen=True)
class _Witness:
    """What was tried to refute a claim.

    Attributes:
        tried: whether any derivative was computed.
        entry: (input index, output index, derivative) of an entry that refutes the claim.
        noise: entries that would refute it are at most this large, which rounding explains.
    """

    tried: bool = False
    entry: tuple[tuple[int, ...], tuple[int, ...], float] | None = None
    noise: float = 0.0


def _witness(J: Jacobian, out: int, source: int, claim: _Claim) -> _Witness:
    """Look for one entry that refutes the claim.

    An entry counts only if rounding does not explain it: what is left where terms cancel, as in a
    Fourier transform there and back, is as large as the spacing of the terms, of which the largest
    entry of the same derivative is the measure.
    """
    at, values = J.derivative, J.values
    given, made = J.inputs[source], J.outputs[out]
    if values is None or is_traced(values) or not given.size or not made.size:
        return _Witness()
    forward = "jvp" in J.report.modes
    side, other = (given, made) if forward else (made, given)
    sides, others = (J.inputs, J.outputs) if forward else (J.outputs, J.inputs)
    number, place = (source, out) if forward else (out, source)
    before = sum(s.size for s in sides[:number])
    start_of_other = sum(s.size for s in others[:place])
    draw = np.random.default_rng(0)
    flat = {0, side.size - 1, side.size // 2, *draw.integers(side.size, size=_TRIED - 3).tolist()}
    mode = "jvp" if forward else "vjp"
    rows = []
    for start in sorted(flat):
        seed = np.zeros(sum(s.size for s in sides), np.float32)
        seed[before + start] = 1
        row = at.passed(mode, values, seed)
        rows.append(row[start_of_other : start_of_other + other.size])
    found = _Witness(tried=True)
    for row, start in zip(rows, sorted(flat)):
        here = tuple(map(int, np.unravel_index(start, side.shape)))
        wide = row.astype(np.complex128 if np.iscomplexobj(row) else np.float64)
        usable = np.where(np.isfinite(wide), np.abs(wide), 0)
        rounding = at.rounding(mode) * max(1.0, math.log2(side.size + 1)) * usable.max(initial=0.0)
        for end in np.argsort(-usable, kind="stable"):
            if usable[end] == 0:
                break
            there = tuple(map(int, np.unravel_index(int(end), other.shape)))
            input_index, output_index = (here, there) if forward else (there, here)
            if _refutes(claim, input_index, output_index, given, made):
                if usable[end] > _ROUNDED * rounding:
                    entry = input_index, output_index, float(np.real(wide[end]))
                    return _Witness(True, entry)
                found = _Witness(True, None, max(found.noise, float(usable[end])))
                break
    return found


def _refutes(
    claim: _Claim,
    input_index: tuple[int, ...],
    output_index: tuple[int, ...],
    given: Side,
    made: Side,
) -> bool:
    if claim.allowed is not None:
        return not claim.allowed.contains(output_index, input_index)
    row = int(np.ravel_multi_index(output_index, made.shape)) if made.shape else 0
    column = int(np.ravel_multi_index(input_index, given.shape)) if given.shape else 0
    if claim.structure in ("identity", "diagonal"):
        return row != column
    return (claim.structure == "lower-triangular" and row < column) or (
        claim.structure == "upper-triangular" and row > column
    )


def _message(J: Jacobian, out: Side, given: Side, claim: _Claim, witness: _Witness) -> str:
    pattern, one = J.patterns[out.path, given.path], given.path.partition("[")[0].partition(".")[0]
    found = claim.wrong or f"has a {pattern.structure} Jacobian of {out.path} by {given.path}"
    may = "" if witness.entry or not claim.wrong else " as far as the proof goes"
    lines = [f"{J.name} {found}{may}, but {claim.words} was asserted"]
    axes = [claim.axis] if claim.axis is not None else range(len(given.shape))
    culprits = [c for a in axes for c in culprits_of(J.report, given.path, a)]
    labels = J.report.labels((out.path, given.path))
    told = [] if culprits else [("pattern", reads(pattern, labels).rstrip("."))]
    lines += shown_couplings(culprits) if culprits else []
    if witness.entry:
        input_index, output_index, value = witness.entry
        entry = f"d {labels[0]}{list(output_index)} / d {labels[1]}{list(input_index)}"
        told.append(("witness", f"{entry} = {value:.3g}; {claim.words} needs 0"))
    else:
        told.append(("unproved", "the program does not exclude an entry that must be 0"))
        tried = f"{_TRIED} derivatives at these inputs: "
        if not witness.tried:
            tried = "nothing, because the inputs have no values"
        elif witness.noise:
            tried += "entries that must be 0 are at "
            tried += f"most {witness.noise:.1e}, which rounding explains"
        else:
            tried += "every entry that must be 0 is 0"
        told.append(("tried", tried))
    refused = [c for c in J.conditions if not c.accepted]
    pair = out.path, given.path
    if refused and J._under(lambda condition: True).holds_at(pair, claim.holds):
        told += [("condition", str(condition)) for condition in refused]
        told.append(("accept", f"pass conditions={suggested(J.conditions)}, if it always holds"))
    told += [("note", str(note)) for note in J.notes]
    others = [side.path for side in J.inputs if side.path != given.path]
    if others:
        asked = " and ".join([", ".join(others[:-1]), others[-1]] if others[1:] else others)
        were = "was" if len(others) == 1 else "were"
        told.append(
            ("inputs", f'{asked} {were} asked about too; pass wrt="{one}" to ask about {one} alone')
        )
    return "\n".join([*lines, *(f"  {word:<9} {said}" for word, said in told)])
