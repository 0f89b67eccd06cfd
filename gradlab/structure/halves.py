"""Complex values as pairs of real ones: what the real part reads, and what the imaginary one does.

What moves or adds entries acts on both parts alike. A product mixes them as `(a + bi)(c + di)`
says, so a factor that is real keeps them apart. Of a Fourier transform, those coefficients are read
as zero that every algorithm computes exactly.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.patterns import Pattern, maps
from gradlab.patterns.size import has_number
from gradlab.primitives import lookup, names
from gradlab.primitives.known import Known, told
from gradlab.structure.infer import HALVES, Traced, Walk, union
from gradlab.structure.sizes import in_sizes
from gradlab.tracing.jaxprs import dtype_of

Half = tuple[Traced, Traced]
"""The real and the imaginary part."""

_LISTED = 1 << 14
_LONGEST = 64  # transforms from here on may convolve, which leaves no coefficient exact
_EXACT = (1, 2, 4)  # all coefficients are 1, i, -1 or -i


def halved(
    rule: "Rule", walk: Walk, equation: Any, operands: Sequence[Traced], made: list[Traced]
) -> list[Traced]:
    """Return the result of an equation with what its parts read, where the rule tells."""
    out = equation.outvars[0]
    if len(made) > 1 or not any(map(_is_complex, (out, *equation.invars))):
        return made
    given = [_parts(walk, *each) for each in zip(equation.invars, operands, strict=True)]
    found = rule(walk, equation, operands, given)
    if found is None:
        return made
    whole = found[0]
    if _is_complex(out):
        whole = replace(_either(walk, equation, *found), parts=found)
    known = made[0].known
    return [whole if known is None or known.array is None else replace(whole, known=known)]


def _parts(walk: Walk, atom: Any, value: Traced) -> Half:
    """Return the parts of a value; of a real one, itself and zero."""
    if value.parts:
        return value.parts
    shape, known = walk.shape(atom), value.known
    if not _is_complex(atom):
        return value, Traced(known=Known(support=Pattern.zero(shape, ())))
    if known is not None and known.array is not None:
        real, imaginary = np.real(known.array), np.imag(known.array)
        return Traced(known=Known(array=real)), Traced(known=Known(array=imaginary))
    return _bare(value), _bare(value)


def _bare(value: Traced) -> Traced:
    """Return a value of which only its zeros are known."""
    return replace(value, known=None if value.known is None else told(value.known.nonzero))


def _either(walk: Walk, equation: Any, a: Traced, b: Traced) -> Traced:
    """Return a value that is made of two others, entry by entry."""
    parts = {
        seed: [value.reads[seed] for value in (a, b) if seed in value.reads]
        for seed in {**a.reads, **b.reads}
    }
    known = None
    if a.nonzero is not None and b.nonzero is not None:
        known = told(a.nonzero | b.nonzero)
    vanishes = (a.vanishes and b.vanishes) or not parts
    return Traced(union(parts), known, None if vanishes else walk.offset(equation, (a, b)))


def _is_complex(atom: Any) -> bool:
    return bool(getattr(dtype_of(atom), "kind", "") == "c")


Rule = Callable[[Walk, Any, Sequence[Traced], Sequence[Half]], Half | None]


def _each(walk: Walk, equation: Any, operands: Sequence[Traced], given: Sequence[Half]) -> Half:
    """Move or add the parts apart; masks and indices are for both."""
    found = []
    for k in (0, 1):
        inputs = [
            half[k] if _is_complex(atom) else value
            for atom, value, half in zip(equation.invars, operands, given)
        ]
        found += walk.primitive(equation, inputs)
    return found[0], found[1]


def _same(walk: Walk, equation: Any, operands: Sequence[Traced], given: Sequence[Half]) -> Half:
    """A cast, or a conjugate."""
    return _bare(given[0][0]), _bare(given[0][1])


def _joined(walk: Walk, equation: Any, operands: Sequence[Traced], given: Sequence[Half]) -> Half:
    """A complex number of its parts, one of which may be a number for all entries."""
    shape = walk.shape(equation.outvars[0])

    def spread(atom: Any, part: Traced) -> Traced:
        if walk.shape(atom) == shape:
            return part
        pattern = Pattern.broadcast(walk.shape(atom), shape)
        reads = {seed: [walk.compose(pattern, before)] for seed, before in part.reads.items()}
        known = None if part.nonzero is None else told(pattern @ part.nonzero)
        return Traced(union(reads), known, part.offset)

    real, imaginary = (spread(atom, half[0]) for atom, half in zip(equation.invars, given))
    return real, imaginary


def _product(walk: Walk, equation: Any, operands: Sequence[Traced], given: Sequence[Half]) -> Half:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i."""

    def times(j: int, k: int) -> Traced:
        return walk.primitive(equation, [given[0][j], given[1][k]])[0]

    either = functools.partial(_either, walk, equation)
    return either(times(0, 0), times(1, 1)), either(times(0, 1), times(1, 0))


def _quotient(
    walk: Walk, equation: Any, operands: Sequence[Traced], given: Sequence[Half]
) -> Half | None:
    """A divisor that is real divides the parts apart."""
    divisor, rest = given[1]
    if not rest.is_zero:
        return None
    real, imaginary = (walk.primitive(equation, [half, divisor])[0] for half in given[0])
    return real, imaginary


def _transform(
    walk: Walk, equation: Any, operands: Sequence[Traced], given: Sequence[Half]
) -> Half | None:
    """Read cosines of a part for the same part, and sines for the other."""
    lengths = in_sizes(tuple(equation.params["fft_lengths"]), walk.sizes)
    shape, made = (walk.shape(atom) for atom in (equation.invars[0], equation.outvars[0]))
    batch = len(shape) - len(lengths)
    if not all(map(has_number, (*shape[batch:], *made[batch:]))):
        return None
    if math.prod(shape[batch:]) * math.prod(made[batch:]) > _LISTED:
        return None
    masks = _coefficients(lengths, made[batch:], shape[batch:])
    cosines, sines = (
        maps.product(
            Pattern.identity(shape[:batch]), Pattern.explicit(mask, made[batch:], shape[batch:])
        )
        for mask in masks
    )

    def read(pattern: Pattern, part: Traced) -> Traced:
        reads = {seed: [walk.compose(pattern, before)] for seed, before in part.reads.items()}
        known = told(pattern.rows() if part.nonzero is None else pattern @ part.nonzero)
        return Traced(union(reads), known, part.offset)

    real, imaginary = given[0]
    either = functools.partial(_either, walk, equation)
    return (
        either(read(cosines, real), read(sines, imaginary)),
        either(read(sines, real), read(cosines, imaginary)),
    )


def _coefficients(lengths: Sequence[int], made: Sequence[int], given: Sequence[int]) -> Any:
    """Return where the cosines of a transform, and its sines, may differ from zero."""
    turn = math.lcm(*lengths)
    outer, inner = (np.indices(shape).reshape(len(lengths), -1) for shape in (made, given))
    angle = sum(
        np.multiply.outer(k, j) * (turn // n) for k, j, n in zip(outer, inner, lengths, strict=True)
    )
    quarters, rest = np.divmod(4 * (np.asarray(angle) % turn), turn)
    exact = np.full(quarters.shape, turn in _EXACT)
    if max(lengths) < _LONGEST:  # the first frequency is a sum; the first entry is added to all
        exact |= ~np.logical_and.outer((outer != 0).any(axis=0), (inner != 0).any(axis=0))
    known = exact & (rest == 0)
    return ~(known & (quarters % 2 == 1)), ~(known & (quarters % 2 == 0))


_RULES: dict[str, Rule] = {
    **{name: _each for name in names() if lookup(name).moves is not None},
    **dict.fromkeys(("add", "add_any", "sub", "neg", "reduce_sum", "cumsum"), _each),
    **dict.fromkeys(("reduce_window_sum", "scatter-add"), _each),
    "complex": _joined,
    "real": lambda walk, equation, operands, given: given[0],
    "imag": lambda walk, equation, operands, given: given[0][::-1],
    **dict.fromkeys(("conj", "convert_element_type"), _same),
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), _product),
    "div": _quotient,
    "fft": _transform,
}
HALVES |= {name: functools.partial(halved, rule) for name, rule in _RULES.items()}
