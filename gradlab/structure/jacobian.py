"""`gradlab.jacobian`: trace, linearise, infer, report."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradlab.arguments import several
from gradlab.errors import InputError, InputTypeError
from gradlab.patterns import Pattern
from gradlab.structure import cells, control, sharded  # noqa: F401  (for their registrations)
from gradlab.structure.entries import Side
from gradlab.structure.evaluate import Differential
from gradlab.structure.infer import Step, Traced, Walk
from gradlab.structure.products import formulas
from gradlab.structure.proof import Proof, equations_of
from gradlab.structure.report import JacobianReport
from gradlab.tracing import Program, is_gradient, open_kernels, trace
from gradlab.tracing.linearise import Linearised, linearise, stateful

__all__ = ["jacobian"]


def jacobian(function: Callable[..., Any], *inputs: Any, wrt: Any = None) -> JacobianReport:
    """Infer the structure of a function's Jacobian from its program, and say why.

    The program of the derivative is traced and read axis by axis; no entry is evaluated, so that
    ten million entries cost what ten cost. What the pattern leaves out is zero at every input at
    which the values are finite.

    Memory: none that grows with the arrays; `evaluate` allocates, within its `max_bytes`.

    Args:
        function: a JAX function, a node or a graph.
        *inputs: arrays of any shape and dtype, Python numbers or pytrees of them;
            `jax.ShapeDtypeStruct` where shapes suffice.
        wrt: positions or argument names of the inputs to differentiate by; by default all.

    Returns:
        The report: `structure`, `pattern`, `nnz`, `why()`, `evaluate()` and more.

    Raises:
        InputError: nothing to differentiate, `wrt` names no input, or JAX cannot differentiate
            the function.
        InputTypeError: `function` cannot be called.
        NotTraceable: the function reads values of its inputs.

    References:
        Bounds between axes are closed as difference-bound matrices: Dill (1989), "Timing
        assumptions and verification of finite-state concurrent systems"; Mine (2001), "A new
        numerical abstract domain based on difference-bound matrices".

    Example:
        >>> import jax.numpy as jnp, numpy as np, gradlab
        >>> report = gradlab.jacobian(jnp.tanh, np.zeros((100, 4096), np.float32))
        >>> report.structure, report.nnz, report.notation
        ('diagonal', 409600, 'out[i, j] <- in[i, j]')
    """
    blanks = tuple(map(_stand_in, inputs))
    program = trace(function, *blanks)
    sources = _chosen(program, wrt)
    outputs = tuple(
        k
        for k, aval in enumerate(program.out_avals)
        if jax.numpy.issubdtype(aval.dtype, np.inexact)
    )
    if not outputs:
        dtypes = ", ".join(str(aval.dtype) for aval in program.out_avals)
        raise InputError(
            f"function: {program.name} returns {dtypes or 'nothing'}, which has no derivative; "
            "it must return floating-point arrays"
        )
    program, linear = _linearised(program, sources, outputs)
    given = [Side(program.in_names[k], *_form(program.in_avals[k])) for k in sources]
    made = [Side(program.out_names[k], *_form(program.out_avals[k])) for k in outputs]
    walk, patterns = _infer(linear, given, made)
    flags = [k in sources for k in range(len(program.in_avals))]
    seeds = tuple(side.path for side in (given if linear.mode == "jvp" else made))
    known = not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(inputs))
    return JacobianReport(
        name=program.name,
        inputs=tuple(given),
        outputs=tuple(made),
        patterns=patterns,
        evidence="proved",
        notes=tuple(map(str, walk.notes)) + _widened(patterns),
        unknown=tuple(walk.unknown),
        proof=Proof(
            equations_of(program.jaxpr, flags),
            tuple(walk.steps),
            seeds,
            linear.mode,
            formulas(program.jaxpr, program.in_names, "out"),
        ),
        modes=_modes(linear, walk.steps),
        _at=Differential(
            program, tuple(program.flatten(inputs)) if known else None, sources, outputs
        ),
        _is_gradient=lambda: (
            len(sources) == len(outputs) == 1
            and is_gradient(function, blanks, program, _position(program, sources[0]))
        ),
    )


def _infer(
    linear: Linearised, given: Sequence[Side], made: Sequence[Side]
) -> tuple[Walk, dict[tuple[str, str], Pattern]]:
    """Return the pattern of every block."""
    walk = Walk()
    seeds, results = (given, made) if linear.mode == "jvp" else (made, given)
    count = len(linear.jaxpr.in_avals) - linear.seeds
    states = [Traced()] * count
    states += [Traced({n: Pattern.identity(side.shape)}) for n, side in enumerate(seeds)]
    mutable = stateful(linear.jaxpr)
    if mutable:
        walk.unknown[mutable] = None
        made_of = [Traced()] * len(results)
    else:
        made_of = walk.run(linear.jaxpr, states)
    shapes = {n: side.shape for n, side in enumerate(seeds)}
    found = [walk.result(v, side.shape, shapes) for v, side in zip(made_of, results, strict=True)]
    patterns = {}
    for out in range(len(made)):
        for source in range(len(given)):
            row, seed = (out, source) if linear.mode == "jvp" else (source, out)
            pattern = found[row].get(seed)
            if pattern is None:
                pattern = Pattern.zero(results[row].shape, seeds[seed].shape)
            key = made[out].path, given[source].path
            patterns[key] = pattern if linear.mode == "jvp" else pattern.T
    return walk, patterns


def _linearised(
    program: Program, sources: tuple[int, ...], outputs: tuple[int, ...]
) -> tuple[Program, Linearised]:
    """Return the program and its derivative, if possible with its kernels opened.

    JAX differentiates some kernels forwards, and none backwards.
    """
    opened = open_kernels(program)
    with contextlib.suppress(Exception):
        if opened is not program:
            return opened, linearise(opened, sources, outputs)
    try:
        return program, linearise(program, sources, outputs)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"function: JAX differentiates {program.name} neither forwards nor backwards: {reason}"
        ) from error


def _chosen(program: Program, wrt: Any) -> tuple[int, ...]:
    """Return the flat traced inputs that `wrt` names, all differentiable ones by default."""
    traced = [leaf for leaf in program.leaves if leaf.traced]
    floating = [k for k, leaf in enumerate(traced) if leaf.differentiable]
    if wrt is None:
        chosen = floating
    else:
        picks = several(wrt)
        if not picks:
            raise InputError("wrt: empty; leave it out to differentiate by all inputs")
        chosen = []
        count = len(program.in_tree.children())
        for pick in picks:
            if isinstance(pick, bool) or not isinstance(pick, int | str):
                raise InputTypeError(
                    f"wrt: expected positions or names of inputs, got {type(pick).__name__}"
                )
            here = [
                k
                for k in floating
                if (
                    traced[k].position in (pick, pick + count)
                    if isinstance(pick, int)
                    else _named(traced[k].path, pick)
                )
            ]
            if not here:
                raise InputError(
                    f"wrt: {pick!r} is no differentiable input of {program.name}; choose among "
                    f"{', '.join(traced[k].path for k in floating) or 'none: no input is floating'}"
                )
            chosen += [k for k in here if k not in chosen]
    if not chosen:
        dtypes = ", ".join(f"{leaf.path}: {leaf.dtype or leaf.kind}" for leaf in program.leaves)
        raise InputError(
            f"inputs: {program.name} has no floating-point input to differentiate by ({dtypes}); "
            "cast with x.astype('float32')"
        )
    return tuple(sorted(chosen))


def _position(program: Program, source: int) -> int:
    """Return the positional input that holds a flat traced input."""
    return [leaf for leaf in program.leaves if leaf.traced][source].position


def _named(path: str, name: Any) -> bool:
    return path == name or path.startswith((f"{name}[", f"{name}."))


def _form(aval: Any) -> tuple[tuple[int, ...], str]:
    return tuple(aval.shape), str(aval.dtype)


def _modes(linear: Linearised, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the modes that AD can run: a `custom_vjp` has no JVP, a `while` no VJP."""
    if linear.mode == "vjp":
        return ("vjp",)
    return ("jvp",) if _loops(steps) else ("jvp", "vjp")


def _loops(steps: Sequence[Step]) -> bool:
    return any(step.name == "while" or _loops(step.inner) for step in steps)


def _widened(patterns: dict[tuple[str, str], Pattern]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for p in patterns.values() for text in p.widened))


def _stand_in(value: Any) -> Any:
    """Give a shape the form of an array that takes no memory."""
    return jax.tree.map(
        lambda leaf: (
            np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
        ),
        value,
    )
