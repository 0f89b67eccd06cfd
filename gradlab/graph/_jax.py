"""The graph of a JAX function: its equations as steps, run as one compiled program."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax

from gradlab.common.arrays import Array, Function, Tree, is_inexact
from gradlab.graph._equation import Equation
from gradlab.graph._group import as_step
from gradlab.graph._plan import Branches, Plan, Recording, Run, Step
from gradlab.nodes import Node, registry
from gradlab.tracing import Program
from gradlab.tracing.leaves import in_numpy
from gradlab.tracing.wiring import WiredEquation, Wiring, wiring


@dataclass(frozen=True)
class _Scope:
    """Where equations lie: what their wires' names begin with, and the line of the call."""

    prefix: str = ""
    line: str = ""


def record(program: Program) -> tuple[Recording, list[int]]:
    """Return the wires and steps of a traced program, and its output wires."""
    wired, table = wiring(program), Recording()
    table.inputs = [table.new(name) for name in program.in_names]
    places, steps = _steps(wired, table.inputs, table, _Scope())
    table.steps += steps
    return table, [places[wire] for wire in wired.outputs]


def _steps(
    wired: Wiring, inputs: Sequence[int], table: Recording, scope: _Scope
) -> tuple[dict[int, int], tuple[Step, ...]]:
    """Return where each wire of a wiring lies in the table, and the steps between them.

    What is one call as a whole, such as a jitted function, is taken as what is called.
    """
    places = dict(zip(wired.inputs, inputs))
    for wire, value in wired.constants.items():
        places[wire] = table.new(f"{scope.prefix}constant")
        table.constants[places[wire]] = value
    steps: list[Step] = []
    for equation in wired.equations:
        if equation.inside is None:
            steps.append(_step(equation, places, table, scope))
            continue
        whole = len(wired.equations) == 1
        name = _name(equation)
        line = equation.line or scope.line
        inner = scope if whole else _Scope(f"{scope.prefix}{name}/", line)
        entering = [places[wire] for wire in equation.inputs]
        found, members = _steps(equation.inside, entering, table, inner)
        leaving = [found[wire] for wire in equation.inside.outputs]
        places.update(zip(equation.outputs, leaving))
        if whole or len(members) < 2:
            steps += members
        else:
            steps.append(_call(members, leaving, table, scope, name, line))
    return places, tuple(steps)


def _call(
    members: Sequence[Step],
    leaving: Sequence[int],
    table: Recording,
    scope: _Scope,
    name: str,
    line: str,
) -> Step:
    """Return the steps of a call as one group, the wires that leave it named after it."""
    group = replace(as_step(members, set(leaving), table.constants, name), line=line)
    for wire, label in zip(group.outputs, _numbered(scope.prefix + name, len(group.outputs))):
        table.rename(wire, label)
    return group


def _step(equation: WiredEquation, places: dict[int, int], table: Recording, scope: _Scope) -> Step:
    """Return one equation as a step: a hand-written node where there is one."""
    node = node_for(equation)
    name = node.name() if node is not None else _name(equation)
    several = node is None and len(equation.outputs) != 1
    labels = _numbered(scope.prefix + name, len(equation.outputs))
    outputs = tuple(table.new(label) for label in labels)
    inputs = tuple(places[wire] for wire in equation.inputs)
    places.update(zip(equation.outputs, outputs))
    return Step(
        node or Equation(equation.primitive, equation.evaluate, several),
        inputs,
        outputs,
        several,
        equation.line or scope.line,
        "" if node is not None else _title(equation),
        frozenset(i for i, dtype in enumerate(equation.dtypes) if not is_inexact(dtype)),
    )


def _name(equation: WiredEquation) -> str:
    return equation.name.strip("_<>") or equation.primitive


def _title(equation: WiredEquation) -> str:
    """Return the equation's name; a loop's with the number of its iterations."""
    count = f" x{equation.repeats}" if equation.repeats is not None else ""
    return _name(equation) + count


def _numbered(name: str, number: int) -> list[str]:
    return [name] if number == 1 else [f"{name}[{i}]" for i in range(number)]


@dataclass(frozen=True, eq=False)
class CompiledPlan(Plan):
    """A plan that JAX compiles as a whole; values come out as NumPy arrays.

    Residuals are made again from the values of the wires: nothing else is kept between the two.
    """

    x64: bool = False

    @functools.cached_property
    def _values(self) -> Function:
        return jax.jit(lambda inputs: Plan.forward(self, inputs).values)

    @functools.cached_property
    def _gradients(self) -> Function:
        # From the values that forward left: compiled together with forward, XLA would fuse each
        # value's whole past into every gradient that needs it, and take minutes for long chains.
        def back(values: list[Array], upstreams: list[Array], wanted: frozenset[int]) -> Tree:
            branches: Branches = {}
            residuals = [
                step.node.forward(*(values[wire] for wire in step.inputs))[1] for step in self.steps
            ]
            run = Run(values, residuals)
            return Plan.backward(self, run, upstreams, wanted, branches), branches

        return jax.jit(back, static_argnums=2)

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """Hold x64 as it was when the program was traced, and the user's NaN checks off."""
        with jax.enable_x64(self.x64), jax.debug_nans(False):
            yield

    def _context_of(self, arrays: Iterable[Array]) -> contextlib.AbstractContextManager[None]:
        """Return the context in which to run; what JAX is tracing runs in JAX's own."""
        traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
        return contextlib.nullcontext() if traced else self.context()

    def forward(self, inputs: Iterable[Array], residuals: list[Array] | None = None) -> Run:
        """Return the values of all wires; residuals are not kept."""
        given = list(inputs)
        with self._context_of(given):
            return Run(_as_numpy(self._values(given)), [])

    def backward(
        self,
        run: Run,
        upstreams: Iterable[Array],
        wanted: frozenset[int],
        branches: Branches | None = None,
    ) -> list[Array]:
        """Return the gradients, as `Plan.backward` does."""
        given = list(upstreams)
        with self._context_of([*run.values, *given]):
            gradients, found = self._gradients(run.values, given, wanted)
            if branches is not None:
                branches.update((key, _one_as_numpy(value)) for key, value in found.items())
            return _as_numpy(gradients)


class TreeForm:
    """The form of a traced program's arguments and outputs, which may be any of JAX's pytrees."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.paths = list(program.in_names)

    def flatten(self, inputs: tuple[Tree, ...]) -> list[Array]:
        """Return the traced leaves of the arguments."""
        return self.program.flatten(inputs)

    def unflatten(self, flat: Iterable[Array], keep_static: bool = True) -> tuple[Tree, ...]:
        """Return arguments of this form; leaves that were not traced are None."""
        supply = iter(flat)
        leaves = [next(supply) if leaf.traced else None for leaf in self.program.leaves]
        arguments: tuple[Tree, ...] = jax.tree_util.tree_unflatten(self.program.in_tree, leaves)
        return arguments

    def pack(self, outputs: Sequence[Array]) -> Tree:
        """Return flat outputs in the form in which the function returns them."""
        return self.program.unflatten(outputs)

    def unpack(self, upstream: Tree) -> list[Array]:
        """Return the leaves of an upstream that has the form of the output."""
        return list(jax.tree_util.tree_leaves(upstream))


def _as_numpy(arrays: Sequence[Array]) -> list[Array]:
    """Return arrays as NumPy's; what is being traced, and random keys, stay as they are."""
    return [_one_as_numpy(array) for array in arrays]


def _one_as_numpy(array: Array) -> Tree:
    if array is None or isinstance(array, jax.core.Tracer):
        return array
    return in_numpy(array)


# Primitives entry by entry whose node has the same arguments and the same gradient.
_SAME = {
    "add": "add",
    "add_any": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "neg": "negate",
    "max": "maximum",
    "min": "minimum",
    "pow": "power",
    "logistic": "sigmoid",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
} | {
    name: name
    for name in (
        *("abs", "exp", "exp2", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "tanh"),
        *("sin", "cos", "tan", "sinh", "cosh", "erf"),
    )
}

Parameters: TypeAlias = dict[str, Any]
# Others: the node and its parameters from those of the primitive.
_SHAPED: dict[str, tuple[str, Callable[[Parameters], Parameters]]] = {
    "reduce_sum": ("sum", lambda p: {"axis": tuple(p["axes"])}),
    "reduce_max": ("max", lambda p: {"axis": tuple(p["axes"])}),
    "reduce_min": ("min", lambda p: {"axis": tuple(p["axes"])}),
    "transpose": ("transpose", lambda p: {"axes": tuple(p["permutation"])}),
    "reshape": ("reshape", lambda p: {"shape": tuple(p["new_sizes"])}),
    "squeeze": ("squeeze", lambda p: {"axis": tuple(p["dimensions"])}),
    "concatenate": ("concatenate", lambda p: {"axis": p["dimension"]}),
}


def node_for(equation: WiredEquation) -> Node | None:
    """Return the hand-written node that does the same, or None where there is none.

    The node has to mean the same for these inputs: real floats of one dtype, plain parameters.
    """
    if not equation.dtypes or not is_inexact(equation.dtypes[0]):
        return None
    dtype, *others = map(str, equation.dtypes)
    if dtype.startswith("complex") or {*others} - {dtype}:
        return None
    primitive, parameters = equation.primitive, equation.parameters
    if primitive in _SHAPED:
        name, translated = _SHAPED[primitive]
        return registry()[name](**translated(parameters))
    if primitive == "integer_pow":
        found = {2: "square", -1: "reciprocal"}.get(parameters["y"])
    elif primitive == "dot_general":
        found = "matmul" if _is_matmul(equation) else None
    elif (
        primitive == "custom_jvp_call"
    ):  # jax.nn.relu has a rule of its own, which the node has too
        found = "relu" if equation.name == "relu" else None
    elif dict.fromkeys(parameters.values()).keys() - {None, False}:
        found = None  # a parameter such as an accuracy that the node does not have
    else:
        found = _SAME.get(primitive)
    return registry()[found]() if found else None


def _is_matmul(equation: WiredEquation) -> bool:
    """Return whether a product is `a @ b` of matrices and vectors, in the inputs' own dtype."""
    (contracted, batched) = equation.parameters["dimension_numbers"]
    left, right = equation.shapes
    wanted = equation.parameters.get("preferred_element_type")
    same = wanted is None or wanted == equation.dtypes[0]
    plain = contracted == ((len(left) - 1,), (0,)) or contracted == ([len(left) - 1], [0])
    return same and plain and not any(batched) and 1 <= len(left) <= 2 and 1 <= len(right) <= 2
