"""A traced function: what everything else in gradlab reads, transforms and evaluates."""

import contextlib
import functools
import inspect
import re
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from gradlab.arguments import argument_names, name_of, require_callable, users_fault
from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.tracing.callbacks import runs_elsewhere
from gradlab.tracing.compiling import compile_once, remember
from gradlab.tracing.evaluate import Evaluator, Runner, Value
from gradlab.tracing.identity import identity
from gradlab.tracing.jaxprs import (
    Abstract,
    ClosedJaxpr,
    Jaxpr,
    Literal,
    body,
    contains,
    every_equation,
    numbers_given,
    shape_of,
    source_path,
    written_in,
)
from gradlab.tracing.leaves import Leaf, flatten, in_numpy, is_inexact, kind_of
from gradlab.tracing.settings import require_platform


class NotTraceable(GradlabError, TypeError):
    """JAX cannot trace the function: it reads the values of its inputs, or it is NumPy."""


class ClosesOverTrace(GradlabError, ValueError):
    """A custom rule holds values of the trace in which it was met, and cannot be run again."""


_INDICES = (
    "; JAX keeps the dtype of an int64 array from its first trace, whether x64 is on or off; "
    "give the array as int32, or wrap it in jnp.asarray inside the function"
)
_READS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


@dataclass(frozen=True, eq=False)
class Program:
    """A traced function: a closed jaxpr, the trees of its inputs and outputs, and names.

    Made by `trace`; other programs are derived from it. Its flat inputs are the traced leaves.
    `live` is the flat function that was traced, where it is the user's own: it runs the user's
    Python again, which what JAX has staged does not.
    """

    name: str
    jaxpr: Jaxpr = field(repr=False)
    leaves: tuple[Leaf, ...] = field(repr=False)
    in_names: tuple[str, ...]
    out_names: tuple[str, ...]
    in_tree: Any = field(repr=False)
    out_tree: Any = field(repr=False)
    x64: bool = field(repr=False, default=False)
    trace_wide: Callable[[], "Program | None"] = field(repr=False, default=lambda: None)
    live: Callable[..., list[Any]] | None = field(repr=False, default=None)

    @property
    def in_avals(self) -> list[Any]:
        """Shape and dtype of each flat input."""
        return list(self.jaxpr.in_avals)

    @property
    def out_avals(self) -> list[Any]:
        """Shape and dtype of each flat output."""
        return list(self.jaxpr.out_avals)

    @property
    def differentiable(self) -> tuple[int, ...]:
        """The positions of the flat inputs that have a gradient."""
        return tuple(i for i, aval in enumerate(self.in_avals) if is_inexact(aval.dtype))

    @functools.cached_property
    def identity(self) -> Hashable | None:
        """A key that only programs share which compute the same; None where that is unknown."""
        return identity(self.jaxpr)

    @functools.cached_property
    def computes(self) -> Hashable | None:
        """A key that programs share which compute the same values, whatever their rules."""
        return identity(self.jaxpr, rules="none")

    @functools.cached_property
    def believed(self) -> Hashable | None:
        """A key that programs share which are the same but for rules that JAX did not write."""
        return identity(self.jaxpr, rules="lasting")

    @property
    def place(self) -> tuple[str, ...]:
        """Where its source begins and ends: programs that compute the same may stand elsewhere."""
        equations = body(self.jaxpr).equations
        return tuple(source_path(equation) for equation in (*equations[:1], *equations[-1:]))

    @functools.cached_property
    def wide(self) -> "Program | None":
        """The same function traced at float64, or None where that trace fails.

        Lifting takes constants from it: a trace at float32 holds them already rounded.
        """
        try:
            return self.trace_wide()
        except Exception:  # a rule may well refuse float64; its constants then stay rounded
            return None

    def flatten(self, inputs: Sequence[Array]) -> list[Any]:
        """Return the traced leaves of a call's inputs, which have the structure of the trace's."""
        values, tree = jax.tree_util.tree_flatten(tuple(inputs), is_leaf=lambda x: x is None)
        if tree != self.in_tree:
            raise InputError(
                f"{self.name}: inputs have the structure {tree}; traced with {self.in_tree}"
            )
        return [value for value, leaf in zip(values, self.leaves) if leaf.traced]

    def unflatten(self, outputs: Sequence[Array]) -> Any:
        """Return flat outputs as the function's own output tree."""
        return jax.tree_util.tree_unflatten(self.out_tree, outputs)

    def flat(self, *arrays: Array) -> list[Array]:
        """Evaluate on flat inputs; JAX can trace, compile and differentiate this."""
        return list(jex.jaxpr_as_fun(self.jaxpr)(*arrays))

    def __call__(self, *inputs: Tree) -> Any:
        """Run as traced, compiled, and return the output tree with NumPy leaves."""
        with jax.enable_x64(self.x64):
            jaxpr, numbers = self._jitted
            arrays = [*self.flatten(inputs), *numbers]
            known = identity(jaxpr, rules="none")
            key = None if known is None else ("run", known, tuple(map(_kind, arrays)))

            def _run(*given: Array) -> list[Any]:
                return _evaluated(jaxpr, given)

            try:
                run = remember(key, lambda: compile_once(_run, *arrays), store="executable")
            except NotImplementedError as error:  # such as LAPACK in half precision
                said = str(error.args[-1]).rstrip(".")
                other = "dtypes=" if "dtype" in said else "device="
                raise InputError(
                    f"{self.name}: JAX cannot compile it: {said}; pass another {other}"
                ) from error
            outputs = run(*arrays)
            return self.unflatten([in_numpy(output) for output in outputs])

    @functools.cached_property
    def _jitted(self) -> tuple[Jaxpr, list[Any]]:
        """What is compiled, and the numbers that it takes beside the inputs."""
        return numbers_given(self.jaxpr)


def _evaluated(jaxpr: Jaxpr, arrays: Sequence[Array]) -> list[Any]:
    """Evaluate on flat inputs, also what this platform only interprets or calls back."""
    if not contains(jaxpr, runs_elsewhere):
        return list(jex.jaxpr_as_fun(jaxpr)(*arrays))
    values = Runner()(jaxpr, [Value(array, True) for array in arrays])
    return [value.array for value in values]


def trace(
    function: Function, *inputs: Tree, names: Sequence[str] | None = None, fixed: Sequence[int] = ()
) -> Program:
    """Trace a function at the dtypes of its inputs.

    Arrays are traced; `None`, functions, strings and settings (Python numbers in a container,
    Python integers) stay part of the function. float64 leaves are traced with x64 on.

    `fixed`: positions of inputs that stay part of the function, as settings do.
    """
    require_callable("function", function)
    require_platform()
    labels = tuple(names) if names is not None else argument_names(function, len(inputs))
    values, leaves, tree = flatten(inputs, labels)
    if fixed:
        leaves = [
            replace(leaf, kind="static") if leaf.position in fixed and leaf.traced else leaf
            for leaf in leaves
        ]
    x64 = _needs_x64(values, leaves)
    return _trace(function, values, leaves, tree, x64)


def require_values(what: str, values: Iterable[Array]) -> None:
    """Refuse what jit, vmap or grad trace: it has a shape, and no numbers."""
    if any(isinstance(value, jax.core.Tracer) for value in values):
        raise InputError(
            f"{what} traced by jit, vmap or grad, and has no values yet; check the function "
            "outside of them"
        )


def require_closed(program: Program) -> Program:
    """Return the program; refuse one that closes over what is traced."""
    require_values(f"{program.name}: it closes over what is", program.jaxpr.consts)
    return program


def as_function(program: Program) -> Function:
    """Return the program as a function of the original inputs that JAX can transform."""

    def function(*inputs: Tree) -> Any:
        return program.unflatten(program.flat(*program.flatten(inputs)))

    function.__name__ = program.name
    return function


def rename(program: Program, names: Sequence[str]) -> Program:
    """Return the program with other names for its flat inputs."""
    if len(names) != len(program.in_names):
        raise InputError(
            f"rename: {program.name} has {len(program.in_names)} inputs, got {len(names)} names"
        )
    return replace(program, in_names=tuple(names))


def derive(
    program: Program,
    flat_function: Callable[..., Sequence[Any]],
    avals: Sequence[Any],
    in_names: Sequence[str],
    out_names: Sequence[str],
    trace_wide: Callable[[], Program | None],
    label: str = "",
    key: Hashable = None,
) -> Program:
    """Trace a flat function made from a program (its VJP, its stripped form) as a new program.

    With a `key`, which tells what the function makes of which program, nothing is traced twice.
    """

    def traced() -> ClosedJaxpr:
        with jax.enable_x64(program.x64):
            made: ClosedJaxpr = jax.make_jaxpr(flat_function)(*(_blank(aval) for aval in avals))
        if any(isinstance(constant, jax.core.Tracer) for constant in body(made).constants):
            raise jax.errors.UnexpectedTracerError("a constant is a traced value")
        known = identity(made)  # of equal programs one is kept, with all that is known of it
        return remember(None if known is None else (known, program.place), lambda: made)

    try:
        jaxpr = remember(None if key is None else (key, program.place), traced)
    except jax.errors.UnexpectedTracerError as error:
        raise ClosesOverTrace(
            f"{program.name}: a custom rule inside closes over a value that is traced, such as an "
            "argument in its nondiff_argnums; give it as a constant: functools.partial(function, 2)"
        ) from error
    leaves = tuple(
        Leaf(name, i, kind_of(aval.dtype), aval.shape, aval.dtype)
        for i, (name, aval) in enumerate(zip(in_names, avals))
    )
    in_tree = jax.tree_util.tree_structure(tuple(range(len(avals))))
    out_tree = jax.tree_util.tree_structure(tuple(range(len(out_names))))
    return Program(
        name=f"{label}{program.name}",
        jaxpr=jaxpr,
        leaves=leaves,
        in_names=tuple(in_names),
        out_names=tuple(out_names),
        in_tree=in_tree,
        out_tree=out_tree,
        x64=program.x64,
        trace_wide=trace_wide,
    )


def rewritten(
    program: Program,
    evaluator: Evaluator,
    again: Callable[[Program], Program],
    key: Hashable = None,
) -> Program:
    """Return what an evaluator makes of a program; `again` does the same to its float64 twin.

    With a `key`, which tells what the evaluator makes of which program, it is evaluated once.
    """

    def flat_function(*arrays: Array) -> list[Any]:
        outputs = evaluator(program.jaxpr, [Value(array, True) for array in arrays])
        return [value.array for value in outputs]

    def wide() -> Program | None:
        return None if program.wide is None else again(program.wide)

    names = program.in_names, program.out_names
    made = derive(program, flat_function, program.in_avals, *names, wide, key=key)
    trees = {"in_tree": program.in_tree, "out_tree": program.out_tree}
    return replace(made, leaves=program.leaves, **trees)


def restricted(program: Program, outputs: Sequence[int]) -> Program:
    """Return a program with some of its flat outputs alone, named as they were."""

    def flat_function(*arrays: Array) -> list[Any]:
        found = program.flat(*arrays)
        return [found[k] for k in outputs]

    def wide() -> Program | None:
        return None if program.wide is None else restricted(program.wide, outputs)

    names = [program.out_names[k] for k in outputs]
    return derive(program, flat_function, program.in_avals, program.in_names, names, wide)


@contextlib.contextmanager
def without_checks() -> Iterator[None]:
    """Hold the user's debugging switches off, and x64 on, while gradlab evaluates lifted programs.

    Everything is a thread-local context; nothing global changes.
    """
    with contextlib.ExitStack() as stack:
        for context in (
            jax.enable_x64(True),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.disable_jit(False),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.default_matmul_precision("highest"),
        ):
            stack.enter_context(context)
        yield


def _trace(
    function: Function, values: list[Array], leaves: list[Leaf], tree: Tree, x64: bool
) -> Program:
    seen: dict[str, Any] = {}
    name = name_of(function)

    def flat_function(*arrays: Array) -> list[Any]:
        supply = iter(arrays)
        merged = [next(supply) if leaf.traced else v for v, leaf in zip(values, leaves)]
        with attributes_kept(function):
            output = function(*jax.tree_util.tree_unflatten(tree, merged))
        pairs, seen["tree"] = jax.tree_util.tree_flatten_with_path(output)
        seen["names"] = tuple("output" + jax.tree_util.keystr(keys) for keys, _ in pairs)
        for _, leaf in pairs:
            _require_array(name, leaf)
        return [leaf for _, leaf in pairs]

    try:
        with jax.enable_x64(x64):
            jaxpr: ClosedJaxpr = jax.make_jaxpr(flat_function)(
                *(v for v, leaf in zip(values, leaves) if leaf.traced)
            )
    except _READS_VALUES as error:
        raise NotTraceable(
            f"{name}: JAX cannot trace this function, because it reads values of its inputs "
            "(an `if` on a value, NumPy inside); use jax.numpy, jnp.where, jax.lax.cond"
        ) from error
    except GradlabError:
        raise
    except jax.errors.UnexpectedTracerError as error:
        raise NotTraceable(
            f"{name}: JAX cannot trace this function, because an input stands where JAX needs a "
            "constant; such a place is in nondiff_argnums of a custom_vjp, or in another trace; "
            "close over it: lambda x: f(x, 0.1)"
        ) from error
    except Exception as error:
        inputs = jax.tree_util.tree_unflatten(tree, values)
        mixed = {"int32", "int64"} <= set(re.findall(r"\bint\d+", str(error)))
        hint = _INDICES if mixed and isinstance(error, TypeError) else ""
        raise users_fault(name, function, inputs, error, hint=hint) from error

    jaxpr = _kept(jaxpr)

    def wide() -> Program | None:
        wider = [
            _widened(value) if leaf.differentiable else value for value, leaf in zip(values, leaves)
        ]
        return _trace(function, wider, leaves, tree, True)

    return Program(
        name=name,
        jaxpr=jaxpr,
        leaves=tuple(leaves),
        in_names=tuple(leaf.path for leaf in leaves if leaf.traced),
        out_names=seen["names"],
        in_tree=tree,
        out_tree=seen["tree"],
        x64=x64,
        trace_wide=wide,
        live=flat_function,
    )


def _kept(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """Return the program, or an equal one from the same lines, with all that is known of it.

    What holds an array of the user's is let go: JAX knows such an array by its first dtype, for as
    long as anything holds it.
    """
    every = every_equation(jaxpr)
    literals = (atom for e in every for atom in e.invars if isinstance(atom, Literal))
    known = identity(jaxpr)
    if known is None or body(jaxpr).constants or any(map(shape_of, literals)):
        return jaxpr
    lines = tuple(map(source_path, every))
    return remember(("traced", known, lines, written_in(jaxpr)), lambda: jaxpr)


_HELD = 1 << 24  # bytes of a layer's array that are kept beside it


@contextlib.contextmanager
def attributes_kept(function: Function) -> Iterator[None]:
    """Put the attributes of a layer back, and of layers inside: a trace is not the user's call."""
    function = inspect.unwrap(function)  # jax.grad of a method, too
    owner = function.__self__ if isinstance(function, types.MethodType) else function
    before = [(names, dict(names)) for names in _layers(owner, owner is not function)]
    arrays = [v for _, held in before for v in held.values() if type(v) is np.ndarray]
    contents = [(v, v.copy()) for v in arrays if v.nbytes <= _HELD and v.flags.writeable]
    try:
        yield
    finally:
        for array, content in contents:
            array[...] = content
        for names, held in before:
            if names.keys() != held.keys() or any(names[n] is not held[n] for n in held):
                names.clear()
                names.update(held)


def _layers(thing: Any, known: bool = False, depth: int = 4) -> Iterator[dict[str, Any]]:
    names = getattr(thing, "__dict__", None)
    layer = hasattr(type(thing), "forward") or hasattr(type(thing), "backward")
    if not isinstance(names, dict) or not (known or layer) or not depth:
        return
    yield names
    for value in list(names.values()):
        inner = value.values() if isinstance(value, dict) else value
        for each in inner if isinstance(value, dict | list | tuple) else (value,):
            yield from _layers(each, depth=depth - 1)


def _require_array(name: str, leaf: Tree) -> None:
    known = isinstance(leaf, int | float | complex) or hasattr(leaf, "__jax_array__")
    if not known and not hasattr(leaf, "dtype"):
        raise InputTypeError(f"{name}: returned {type(leaf).__name__}, expected arrays")


def _needs_x64(values: Sequence[Array], leaves: Sequence[Leaf]) -> bool:
    inexact = [(v, leaf.dtype) for v, leaf in zip(values, leaves) if leaf.differentiable]
    arrays = [dtype for value, dtype in inexact if not isinstance(value, float | complex)]
    wide = arrays or [dtype for _, dtype in inexact]  # a Python number alone is a double
    config: Any = jax.config
    return bool(config.jax_enable_x64) or any(
        dtype in (np.dtype("float64"), np.dtype("complex128")) for dtype in wide
    )


def _widened(value: Array) -> Any:
    if isinstance(value, float | complex):
        return value
    wide = np.complex128 if jnp.issubdtype(value.dtype, np.complexfloating) else np.float64
    return Abstract(np.shape(value), wide)


def _blank(aval: Any) -> Any:
    return Abstract(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def _kind(array: Array) -> Hashable:
    """Return what an executable asks of an argument."""
    return jax.typeof(array), getattr(array, "sharding", None)
