"""What a jaxpr is made of, spelled the same for every supported JAX.

JAX 0.10 has closed and open jaxprs, later versions one kind; `scan` names its parts differently.
Everything that differs is here.
"""

import functools
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.extend.source_info_util import user_context

from gradlab.common.arrays import DTypeLike, Tree
from gradlab.primitives import Equation as EquationView
from gradlab.tracing.callbacks import bind_callback, is_callback
from gradlab.tracing.settings import platform_here

T = TypeVar("T")

ClosedJaxpr = jex.ClosedJaxpr
Equation = jex.JaxprEqn
Literal = jex.Literal
Variable = jex.Var
Jaxpr: TypeAlias = Any  # an open or a closed jaxpr: the newest JAX has one kind
Atom: TypeAlias = Any  # a variable or a literal
Abstract: Any = jax.ShapeDtypeStruct

JAX_FOLDER = os.path.dirname(jax.__file__) + os.sep
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OWN_ROOMS = ("tracing", "references", "reading", "checking")
NOT_THE_USERS = (
    JAX_FOLDER,
    os.path.dirname(np.__file__) + os.sep,
    *(_OWN + room + os.sep for room in _OWN_ROOMS),
)


def once(function: Callable[..., T]) -> Callable[..., T]:
    """Remember what a function returns for a jaxpr, for as long as the jaxpr lives.

    The function must not read the constants of a closed jaxpr.
    """
    known: weakref.WeakKeyDictionary[Any, dict[Any, T]] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def found(jaxpr: Jaxpr, *more: Any) -> T:
        results = known.setdefault(getattr(jaxpr, "jaxpr", jaxpr), {})
        if more not in results:
            results[more] = function(jaxpr, *more)
        return results[more]

    return found


class Body(NamedTuple):
    """The parts of a jaxpr: `constants` are the values of its `constvars`."""

    constvars: Sequence[Any]
    constants: Sequence[Any]
    invars: Sequence[Any]
    equations: Sequence[Any]
    outvars: Sequence[Any]


def body(jaxpr: Jaxpr) -> Body:
    """Return the parts of an open or closed jaxpr."""
    constants = getattr(jaxpr, "consts", ())
    opened: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return Body(opened.constvars, constants, opened.invars, opened.eqns, opened.outvars)


def closed(jaxpr: Jaxpr) -> Any:
    """Return a jaxpr without constants as a closed one."""
    return jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ())


def inner_jaxprs(equation: Any) -> Iterator[tuple[str, Any]]:
    """Yield every jaxpr among an equation's parameters, with the parameter's name."""
    for name, value in equation.params.items():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield name, item


def contains(jaxpr: Jaxpr, wanted: Any) -> bool:
    """Return whether an equation at any depth satisfies the predicate `wanted`."""
    return any(map(wanted, every_equation(jaxpr)))


@once
def holds(jaxpr: Jaxpr, wanted: Callable[[Any], bool]) -> bool:
    """Return what `contains` does, for a function of a module that reads an equation alone."""
    return contains(jaxpr, wanted)


@once
def every_equation(jaxpr: Jaxpr) -> tuple[Any, ...]:
    """Return the equations of a jaxpr, each followed by those inside it."""
    found: list[Any] = []
    for equation in body(jaxpr).equations:
        found.append(equation)
        for _, inner in inner_jaxprs(equation):
            found += every_equation(inner)
    return tuple(found)


def loop_parts(equation: Any) -> tuple[int, int]:
    """Return the number of constants and of carried values of a `scan` equation."""
    if "num_carry" in equation.params:
        return equation.params["num_consts"], equation.params["num_carry"]
    constants, carry, _ = equation.params["ft_in"].unpack()
    return len(list(constants)), len(list(carry))


class Loop(NamedTuple):
    """A `scan` or a `while`: how many operands are what, and the programs inside.

    A `scan` has fixed operands, the carry and columns; a `while` has what its condition alone reads
    (`tested`), then fixed operands and the carry.
    """

    tested: int
    fixed: int
    carried: int
    body: Any
    condition: Any = None

    @classmethod
    def of(cls, equation: Any) -> "Loop":
        """Return the view of an equation that is a loop."""
        params = equation.params
        if equation.primitive.name == "scan":
            return cls(0, *loop_parts(equation), params["jaxpr"])
        tested, fixed = params["cond_nconsts"], params["body_nconsts"]
        carried = len(equation.invars) - tested - fixed
        return cls(tested, fixed, carried, params["body_jaxpr"], params["cond_jaxpr"])

    def split(self, values: Sequence[T]) -> tuple[list[T], list[T], list[T]]:
        """Return the fixed operands, the carry and the columns."""
        start = self.tested + self.fixed
        end = start + self.carried
        return list(values[self.tested : start]), list(values[start:end]), list(values[end:])


def bind(equation: Any, inputs: Sequence[Any], **changed: Any) -> list[Any]:
    """Evaluate an equation as it was traced, or with some parameters changed.

    It keeps the line that it was written in. A kernel that was written for an accelerator is
    interpreted where the CPU computes.
    """
    primitive = equation.primitive
    traced = any(isinstance(value, jax.core.Tracer) for value in inputs)
    if is_callback(equation) and not traced:
        return bind_callback(equation, inputs)
    if primitive.name == "pallas_call" and platform_here() == "cpu":
        changed["interpret"] = equation.params["interpret"] or True
    if primitive.name in ("shard_map", "pallas_call") and not traced:
        return bind_compiled(equation, inputs, **changed)
    if not (traced or compiles(primitive)):  # a library's code counts on JAX's arrays
        inputs = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in inputs]
    params = primitive.get_bind_params({**equation.params, **changed})
    with equation.ctx.manager, at_line(equation):
        outputs = primitive.bind(*inputs, **params)
    return list(outputs) if primitive.multiple_results else [outputs]


def bind_to_run(equation: Any, inputs: Sequence[Any]) -> list[Any]:
    """Evaluate an equation where a program is compiled and run: a callback gets all digits.

    What this makes of a callback has a derivative of zero, and must not be differentiated.
    """
    return (bind_callback if is_callback(equation) else bind)(equation, inputs)


def bind_compiled(equation: Any, inputs: Sequence[Any], **changed: Any) -> list[Any]:
    """Evaluate an equation whose primitive JAX would compile anew at every call: once compiled."""
    config: Any = jax.config
    key = ByIdentity(equation), tuple(changed.items()), bool(config.jax_enable_x64)
    return list(_compiled(*key)(*inputs))


def compiles(primitive: Any) -> bool:
    """Return whether JAX runs a primitive by compiling it, so that it takes NumPy's arrays."""
    implementation = getattr(vars(primitive).get("impl"), "func", None)
    return getattr(implementation, "__name__", "") == "apply_primitive"


class ByIdentity(Generic[T]):
    """A thing as a key: equal only to itself, and kept alive."""

    def __init__(self, thing: T) -> None:
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.thing is other.thing


@functools.lru_cache(maxsize=256)
def _compiled(key: ByIdentity[Any], changed: tuple[tuple[str, Any], ...], wide: bool) -> Any:
    primitive = key.thing.primitive
    params = primitive.get_bind_params({**key.thing.params, **dict(changed)})

    def run(*inputs: Any) -> list[Any]:
        outputs = primitive.bind(*inputs, **params)
        return list(outputs) if primitive.multiple_results else [outputs]

    return jax.jit(run)


def view(equation: Any) -> EquationView:
    """Return an equation as the book of primitives sees it."""
    return EquationView(
        name=equation.primitive.name,
        params=equation.params,
        in_shapes=tuple(_shape(atom) for atom in equation.invars),
        out_shapes=tuple(_shape(variable) for variable in equation.outvars),
        in_dtypes=tuple(_numpy_dtype(atom) for atom in equation.invars),
        out_dtypes=tuple(_numpy_dtype(variable) for variable in equation.outvars),
    )


def _shape(atom: Atom) -> tuple[int, ...]:
    return tuple(getattr(atom.aval, "shape", ()))


def _numpy_dtype(atom: Atom) -> DTypeLike:
    dtype = getattr(atom.aval, "dtype", None)
    return dtype if isinstance(dtype, np.dtype) else np.dtype(object)


def as_flat(jaxpr: Jaxpr) -> Any:
    """Return a closed jaxpr as a function of flat arrays."""
    return jex.jaxpr_as_fun(jaxpr)


def needed(equations: Sequence[Any], outvars: Sequence[Any]) -> list[Any]:
    """Return the equations that an output needs, or that have an effect."""
    wanted = {atom for atom in outvars if not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(equations):
        if equation.effects or not wanted.isdisjoint(equation.outvars):
            kept.append(equation)
            wanted.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return kept[::-1]


def with_outputs(jaxpr: Jaxpr, chosen: slice) -> Any:
    """Return a closed jaxpr with some of its outputs, without what no other of them needs."""
    opened = jaxpr.jaxpr
    outvars = list(opened.outvars)[chosen]
    kept = needed(opened.eqns, outvars)
    info = opened.debug_info
    if getattr(info, "result_paths", None) is not None:
        info = info._replace(result_paths=tuple(info.result_paths)[chosen])
    fewer = opened.replace(outvars=outvars, eqns=kept, debug_info=info)
    return jaxpr.replace(jaxpr=fewer)


def numbers_given(jaxpr: Jaxpr) -> tuple[Any, list[Any]]:
    """Return a closed jaxpr whose inputs are also what the user's jitted functions are given.

    The numbers that they are given are returned, too: where the user runs it, they are arguments.
    Programs that differ in them alone are compiled to the same.
    """
    opened = jaxpr.jaxpr
    added: dict[Any, Any] = {}  # new inputs, with their numbers

    def given(atom: Atom) -> Any:
        if not isinstance(atom, Literal):
            return atom
        added[variable := Variable(atom.aval)] = np.asarray(atom.val, dtype_of(atom))
        return variable

    equations = [
        equation.replace(invars=list(map(given, equation.invars)))
        if _jitted_by_user(equation)
        else equation
        for equation in opened.eqns
    ]
    if not added:
        return jaxpr, []
    info = opened.debug_info
    if getattr(info, "arg_names", None) is not None:
        info = info._replace(arg_names=(*info.arg_names, *("number",) * len(added)))
    invars = [*opened.invars, *added]
    made = opened.replace(invars=invars, eqns=equations, debug_info=info)
    return jaxpr.replace(jaxpr=made), list(added.values())


def _jitted_by_user(equation: Any) -> bool:
    if equation.primitive.name not in ("jit", "pjit"):
        return False
    return users_file(written_in(equation.params["jaxpr"]) or JAX_FOLDER)


def shape_of(atom: Atom) -> tuple[int, ...]:
    """Return the shape of a variable or literal."""
    return tuple(atom.aval.shape)


def dtype_of(value: Tree) -> Any:
    """Return the dtype of an array, a variable or a literal; PRNG keys have theirs, too."""
    if type(value) is np.ndarray:
        return value.dtype
    aval = getattr(value, "aval", None)
    return value.dtype if aval is None else getattr(aval, "dtype", np.dtype(object))


def at_line(equation: Any) -> Any:
    """Enter the user's line that made an equation; where a library did, the caller's line stays."""
    return user_context(equation.source_info.traceback if source_path(equation) else None)


def source_path(equation: Any) -> str:
    """Return `/full/path/layer.py:12`, the user's line that made an equation, or nothing."""
    return _users_line(equation.source_info.traceback)


@functools.lru_cache(1 << 12)
def _users_line(traceback: Any) -> str:
    for frame in traceback.frames if traceback is not None else ():
        if users_file(frame.file_name):
            return f"{frame.file_name}:{frame.line_num}"
    return ""


def written_in(jaxpr: Jaxpr) -> str:
    """Return the file of the function that a jaxpr was traced from, or nothing."""
    info = getattr(getattr(jaxpr, "jaxpr", jaxpr), "debug_info", None)
    return str(getattr(info, "func_filename", None) or "")


def source_span(equation: Any) -> tuple[int, int]:
    """Return the columns of that line at which the call begins and ends; (0, 0) if unknown."""
    traceback = equation.source_info.traceback
    codes, places = traceback.raw_frames() if traceback is not None else ((), ())
    for code, place in zip(codes, places):
        if users_file(code.co_filename):
            found = next(itertools.islice(code.co_positions(), place // 2, None), (None,) * 4)
            line, last, start, end = found
            if start is None or end is None:
                return 0, 0
            return start, end if line == last else sys.maxsize
    return 0, 0


def users_file(path: str) -> bool:
    """Return whether a frame of a traceback lies in a file of the user's."""
    return not path.startswith(NOT_THE_USERS) and path[:1] != "<"


def source(equation: Any) -> str:
    """Return `layer.py:12`, the user's line that made an equation, or an empty string."""
    return os.path.basename(source_path(equation))
