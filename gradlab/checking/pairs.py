"""A forward with its backward beside it, in JAX or in NumPy, turned into a `Subject`.

It is held against autodiff of the forward; with `reference=` against that. What JAX cannot trace is
read as NumPy; what cannot be read is left to finite differences.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradlab.arguments import name_of
from gradlab.checking.forms import (
    FINITE_DIFFERENCES,
    jvp_or_none,
    notes_on,
    same_outputs,
    vjp_or_none,
)
from gradlab.checking.handwritten import Handwritten
from gradlab.checking.inputs import Returns
from gradlab.checking.intended import Intended
from gradlab.checking.probes import Calls
from gradlab.checking.subject import Subject, Upstream, anywhere, unchecked
from gradlab.common.arrays import Function, Tree
from gradlab.errors import GradlabError, NotReadable
from gradlab.formatting import listed
from gradlab.reading import Reading, read
from gradlab.tracing import (
    NotTraceable,
    Program,
    derive,
    iterates,
    opaque,
    open_kernels,
    rename,
    require_closed,
    strip,
    trace,
    with_derivative_of,
)


def pair(
    function: Function,
    inputs: tuple[Tree, ...],
    names: tuple[str, ...],
    backward: Function | None,
    reference: Function | None,
    returns: Returns,
    wrt: tuple[int, ...] | None,
    intended: Intended,
    calls: Calls,
) -> Subject:
    """A forward with a backward beside it, in JAX or in NumPy."""
    hand = Handwritten(function, backward, returns, inputs, names, wrt, calls)
    outputs, upstreams = hand.outputs, hand.upstreams
    forward, reading = _program(hand, inputs, names)
    ruled: Reading | None = None
    rule = None
    if forward is not None:
        rule, ruled = _rule(hand, upstreams, isinstance(reading, Reading))
    if rule is None and isinstance(reading, Reading):  # NumPy's arrays, and a rule in JAX
        traced = _traced_or_none(hand.forward, inputs, names)
        rule = None if traced is None else _rule(hand, upstreams, False)[0]
        forward, reading = (forward, reading) if rule is None else (traced, None)
    for program in (forward, rule):
        if program is not None:
            require_closed(program)
    positions = tuple(hand.order.index(t.path) for t in hand.targets)
    believed: Program | None = None
    stated: Reading | None = None
    oracle = FINITE_DIFFERENCES
    if reference is not None:
        believed, stated = _stated(reference, inputs, names)
        believed = rename(open_kernels(believed), hand.order)
        same_outputs(hand.name, hand.output_shapes, believed, name_of(reference))
        oracle = f"autodiff of {name_of(reference)}"
    elif forward is not None:
        believed = open_kernels(strip(forward))
        oracle = f"autodiff of {hand.name}"
        oracle += ", read from NumPy" if isinstance(reading, Reading) else ""
        if callable(intended.whole):
            other = trace(intended.whole, *inputs, names=names)
            believed = with_derivative_of(believed, rename(other, hand.order))
            oracle = f"autodiff of {name_of(intended.whole)}, as intended"
    else:
        oracle = f"{FINITE_DIFFERENCES} ({reading})"
    differentiated = None if believed is None else vjp_or_none(believed, positions)
    if believed is not None and differentiated is None:
        oracle = FINITE_DIFFERENCES
    if differentiated is not None and not upstreams:
        differentiated = _of_the_loss(differentiated)
    return Subject(
        name=hand.name,
        values=hand.values,
        targets=hand.targets,
        upstreams=upstreams,
        outputs=outputs,
        run=hand.run,
        primal=hand.primal,
        oracle=oracle,
        forward=forward,
        rule=rule,
        believed=believed,
        reference=differentiated,
        tangent=None if believed is None else jvp_or_none(believed, positions),
        stated=reference is not None or callable(intended.whole),
        intended=intended.said,
        approximate=reference is None and believed is not None and iterates(believed),
        loops=forward is not None and iterates(forward),
        opaque=any(bool(opaque(p)) for p in (forward, rule) if p is not None),
        eager=True,
        read=isinstance(reading, Reading),
        calls=calls,
        asked=tuple(
            r.asked for r in (reading, ruled, stated) if isinstance(r, Reading) and r.asked
        ),
        holds=_where(reading, ruled, stated),
        complaints=hand.complaints,
        notes=(*(() if forward is None else notes_on(forward)), *_decisions(reading)),
        shapes=hand.shapes,
        unchecked=unchecked(hand.leaves, hand.targets),
    )


def _program(
    hand: Handwritten, inputs: tuple[Tree, ...], names: tuple[str, ...]
) -> tuple[Program | None, Reading | NotReadable | None]:
    """Return the forward as a program, and how it was read if it is NumPy.

    What returns NumPy's arrays is read first: JAX's tracers answer many functions of NumPy too, and
    not always as NumPy does.
    """
    if not hand.numpy:
        traced = _traced_or_none(hand.forward, inputs, names)
        if traced is not None:
            return traced, None
    reading = _read(hand, hand.forward, inputs, names)
    if isinstance(reading, Reading):
        return reading.program, reading
    traced = _traced_or_none(hand.forward, inputs, names) if hand.numpy else None
    return traced, reading


def _stated(
    reference: Function, inputs: tuple[Tree, ...], names: tuple[str, ...]
) -> tuple[Program, Reading | None]:
    """Return a reference in JAX or in NumPy as a program, and how it was read if it is NumPy."""
    try:
        return require_closed(trace(reference, *inputs, names=names)), None
    except NotTraceable:
        with contextlib.suppress(NotReadable):
            reading = read(reference, *inputs, names=names)
            return reading.program, reading
        raise


def _rule(
    hand: Handwritten, upstreams: Sequence[Upstream], read_: bool
) -> tuple[Program | None, Reading | None]:
    """Return forward and backward as one program, traced as the forward was, and how it was read.

    The program is None where that is impossible.
    """
    arrays = [*hand.values.values(), *(np.ones(u.shape, u.dtype) for u in upstreams)]
    labels = (*hand.values, *(u.name for u in upstreams))
    if not read_:
        return _traced_or_none(hand.flat, tuple(arrays), labels), None
    reading = _read(hand, hand.flat, tuple(arrays), labels)
    return (reading.program, reading) if isinstance(reading, Reading) else (None, None)


def _read(
    hand: Handwritten, function: Function, inputs: tuple[Tree, ...], names: tuple[str, ...]
) -> Reading | NotReadable:
    """Read what JAX cannot trace as NumPy, or return why that is impossible."""
    try:
        return read(function, *inputs, names=names, roots=hand.functions)
    except NotReadable as error:
        return error
    except GradlabError as error:  # it runs, but not on stand-ins
        return NotReadable(str(error))


def _where(*readings: Reading | NotReadable | None) -> Callable[[Mapping[str, Any]], bool]:
    """Return where readings hold: everywhere, unless values decided."""
    decided = [r.holds_at for r in readings if isinstance(r, Reading) and r.decisions]
    return (lambda values: all(holds(values) for holds in decided)) if decided else anywhere


def _decisions(reading: Reading | NotReadable | None) -> tuple[str, ...]:
    """Return a note on the values that decided; what was read holds where they are the same."""
    if not isinstance(reading, Reading) or not reading.decisions:
        return ()
    return (f"gradlab checked only inputs where {listed([*map(str, reading.decisions)])}",)


def _traced_or_none(
    function: Function, inputs: tuple[Tree, ...], names: tuple[str, ...]
) -> Program | None:
    """Trace what may be NumPy; that it runs was seen before."""
    try:
        return trace(function, *inputs, names=names)
    except Exception:  # NumPy refuses tracers in many ways
        return None


def _of_the_loss(program: Program) -> Program:
    """Return a VJP whose upstream is 1: the gradient of a loss, as the loss itself returns it."""

    def flat_function(*arrays: Any) -> list[Any]:
        return program.flat(*arrays, np.ones((), program.in_avals[-1].dtype))

    def wide() -> Program | None:
        return None if program.wide is None else _of_the_loss(program.wide)

    names = program.in_names[:-1], program.out_names
    return derive(program, flat_function, program.in_avals[:-1], *names, wide)
