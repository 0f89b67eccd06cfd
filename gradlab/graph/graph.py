"""Computational graphs: nodes wired together, a value and a gradient on every wire."""

from collections.abc import Callable, Sequence
from typing import Any

from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.formatting import count, shape_text
from gradlab.graph._form import Form, argument_names
from gradlab.graph._plan import Run, zeros_like
from gradlab.graph._tree import is_array, leaves, rebuild
from gradlab.graph._variable import Recorder, Variable
from gradlab.graph._views import LocalGradients, Wires, nearest
from gradlab.graph.report import GraphReport, graph_report
from gradlab.nodes import Node
from gradlab.nodes._arrays import Array, is_inexact, namespace

__all__ = ["Graph"]


class Graph:
    """The computational graph of a function: forward, backward, and everything on the way.

    The function is called once, on variables, and what it does to them is recorded: arithmetic,
    the functions of `gradlab.nodes`, and NumPy's functions of the same names. Wires are named after
    the function's arguments and after the nodes; `label` renames them.

    Args:
        function: what to record; a function of arrays, or a node.
        *inputs: arrays of NumPy or JAX, Python numbers, or tuples, lists and dicts of arrays.
            Integer arrays (labels, indices) have no gradient. None, strings, and Python numbers
            inside containers are kept as they are.

    Raises:
        InputTypeError: the function is not callable, or returns something that is no variable.

    Example:
        >>> from gradlab import Graph
        >>> def f(x, y, z):
        ...     return (x + y) * z
        >>> g = Graph(f, -2.0, 5.0, -4.0).label(add="q", multiply="f")
        >>> print(g.forward())
        -12.0
        >>> print(*g.backward())
        -4.0 -4.0 3.0
        >>> print(g.values["q"], g.gradients["q"], g.local_gradients["f", "q"].to_dense())
        3.0 -4.0 [[-4.]]
    """

    def __init__(self, function: Callable[..., Any], *inputs: Any) -> None:
        if not callable(function):
            raise InputTypeError(f"Graph: function is {function!r}; pass something callable")
        self.title = function.name() if isinstance(function, Node) else _title(function)
        self._form = Form(_names(function, len(inputs)), inputs)
        self._flat = self._form.flatten(inputs)
        recorder = Recorder()
        pairs = zip(self._form.paths, self._flat)
        variables = self._form.unflatten(recorder.input(path, leaf) for path, leaf in pairs)
        output = function(*variables)
        # The output as the function returned it, with a wire in place of each variable.
        self._output = rebuild(output, lambda leaf: _wire_returned(recorder, leaf))
        self._places = {name: wire for wire, name in enumerate(recorder.names)}
        self.plan = recorder.plan(tuple(wire for _, wire in leaves(self._output, "output")))
        self._run: Run | None = Run(recorder.values, recorder.residuals)
        self._gradients: list[Any] | None = None
        self._touched: set[int] = set()

    def forward(self, *inputs: Any) -> Any:
        """Run all nodes and return the output, in the form in which the function returned it.

        Args:
            *inputs: as many as the function takes; none at all means those of the last run.

        Raises:
            InputError: the inputs do not fit; the node and its line are named.
        """
        if inputs:
            self._flat = self._form.flatten(inputs)
        self._run = self._gradients = None  # their memory is free for the new ones
        return self._returned(self.run.values)

    def backward(self, upstream: Any = 1.0, wrt: str | Sequence[str] | None = None) -> Any:
        """Return the gradient of the output with respect to the inputs, at the last forward pass.

        Args:
            upstream: the gradient that arrives at the output, in its shape; for several outputs a
                container like theirs.
            wrt: the wires whose gradients are wanted, by name: one or several; None means all
                inputs. What leads to none of them is not computed.

        Returns:
            One gradient for one input, else a tuple in the order of the inputs, each in its input's
            form; None for an integer input, zeros for one that is not used. With `wrt`, an array
            for one name and a tuple for several. They may share memory: copy before writing.

        Raises:
            InputError: the upstream has not the output's shape, or a name is unknown.

        Example:
            >>> import numpy as np
            >>> g = Graph(lambda x, w: x @ w, np.ones((2, 3)), np.ones((3, 4)))
            >>> g.backward(np.ones((2, 4)), wrt="w").shape
            (3, 4)
        """
        wires = self._asked(wrt)
        wanted = frozenset(wires)
        self._gradients = self._backward(self.run, upstream, wanted)
        self._touched = self.plan.between(wanted)
        return self._answer(self.run, self._gradients, wires, wrt)

    def value_and_gradient(self, *inputs: Any, upstream: Any = 1.0, wrt: Any = None) -> Any:
        """Return `forward(*inputs)` and `backward(upstream, wrt)`, and keep nothing.

        It is a pure function of its inputs, so JAX can compile it.

        Example:
            >>> import jax
            >>> g = Graph(lambda x: x * x, 1.0)
            >>> value, gradient = jax.jit(g.value_and_gradient)(3.0)
            >>> print(value, gradient)
            9.0 6.0
        """
        run = self._forward(self._form.flatten(inputs))
        wires = self._asked(wrt)
        gradients = self._backward(run, upstream, frozenset(wires))
        return self._returned(run.values), self._answer(run, gradients, wires, wrt)

    def __call__(self, *inputs: Any) -> Any:
        """Return the output at these inputs, and keep nothing."""
        return self._returned(self._forward(self._form.flatten(inputs)).values)

    def reference(self, *inputs: Any) -> Any:
        """Return the output as JAX computes it, by every node's reference.

        `jax.grad(graph.reference)` is the gradient that `backward` is held against.
        """
        return self._returned(self.plan.reference(self._form.flatten(inputs)))

    def label(self, **names: str) -> "Graph":
        """Rename wires, as in `label(add="q")`, and return the graph.

        Raises:
            InputError: there is no such wire, or the new name is taken.
        """
        for old, new in names.items():
            wire = self.wire(old)
            if new != old and new in self._places:
                raise InputError(f"label: the name {new!r} is taken; choose another for {old!r}")
            self._places = {new if w == wire else name: w for name, w in self._places.items()}
        return self

    @property
    def values(self) -> Wires:
        """The value of each wire in the last forward pass, by name."""
        return Wires(self, lambda wire: self.run.values[wire])

    @property
    def gradients(self) -> Wires:
        """The gradient with respect to each wire in the last backward pass, by name."""
        return Wires(self, self._named_gradient)

    @property
    def local_gradients(self) -> LocalGradients:
        """The Jacobian of each node with respect to each input, as an operator: `[node, input]`."""
        return LocalGradients(self)

    def report(self) -> GraphReport:
        """Return the graph with all its values and gradients as plain data."""
        return graph_report(self)

    def table(self) -> str:
        """Return the graph as text: a line for every wire.

        Example:
            >>> g = Graph(lambda x, y: x * y, 3.0, 4.0)
            >>> _ = g.backward()
            >>> print(g.table())
            wire      node      inputs  value  gradient
            x                           3      4
            y                           4      3
            multiply  multiply  x, y    12     1
        """
        return self.report().render("text")

    def __repr__(self) -> str:
        plan = self.plan
        inputs, nodes = count(len(plan.inputs), "input"), count(len(plan.steps), "node")
        return f"Graph({self.title}: {inputs}, {nodes}, {count(len(plan.outputs), 'output')})"

    @property
    def run(self) -> Run:
        """The last forward pass."""
        if self._run is None:
            self._run = self._forward(self._flat)
        return self._run

    @property
    def names(self) -> list[str]:
        """The names of all wires, in the order in which they are computed."""
        return list(self._places)

    def wire(self, name: Any) -> int:
        """Return the place of the wire with this name.

        Raises:
            InputError: there is none; the nearest names are told.
        """
        place = self._places.get(name)
        if place is None:
            raise InputError(f"there is no wire named {name!r}; {nearest(name, self.names)}")
        return place

    def gradient(self, wire: int) -> Array | None:
        """Return the gradient on a wire in the last backward pass, None where there is none."""
        if self._gradients is None or wire not in self._touched:
            return None
        return _or_zeros(self._gradients[wire], self.run.values[wire])

    def _named_gradient(self, wire: int) -> Array:
        gradient = self.gradient(wire)
        if gradient is not None:
            return gradient
        name = self.names[wire]
        if self._gradients is None:
            raise InputError(f"gradients[{name!r}]: call backward first")
        if wire in self._touched:
            raise InputError(f"gradients[{name!r}]: integers have no gradient")
        raise InputError(
            f"gradients[{name!r}]: it does not depend on the inputs of the last backward; "
            f"call backward(wrt={name!r})"
        )

    def _forward(self, flat: list[Any]) -> Run:
        residuals: list[Any] = []
        try:
            return self.plan.forward(flat, residuals)
        except GradlabError as error:
            step = self.plan.steps[len(residuals)]
            error.add_note(f"at wire {self.names[step.outputs[0]]!r}, {step.line}")
            raise

    def _backward(self, run: Run, upstream: Any, wanted: frozenset[int]) -> list[Any]:
        outputs = [run.values[wire] for wire in self.plan.outputs]
        bare = self._output.__class__ is int
        given = [upstream] if bare else [leaf for _, leaf in leaves(upstream, "upstream")]
        if len(given) != len(outputs):
            raise InputError(
                f"backward: the function returns {count(len(outputs), 'array')}, but upstream has "
                f"{len(given)}; pass a container like the output, zeros for what does not count"
            )
        return self.plan.backward(run, map(_as_upstream, given, outputs), wanted)

    def _returned(self, values: list[Any]) -> Any:
        if self._output.__class__ is int:
            return values[self._output]
        return rebuild(self._output, lambda wire: values[wire])

    def _answer(self, run: Run, gradients: list[Any], wires: tuple[int, ...], wrt: Any) -> Any:
        found: Any = tuple([_or_zeros(gradients[wire], run.values[wire]) for wire in wires])
        if wrt is None:
            found = self._form.unflatten(found, keep_static=False)
        return found[0] if len(found) == 1 and not isinstance(wrt, tuple | list) else found

    def _asked(self, wrt: str | Sequence[str] | None) -> tuple[int, ...]:
        """Return the wires whose gradients are asked for."""
        if wrt is None:
            return self.plan.inputs
        return tuple([self.wire(name) for name in ([wrt] if isinstance(wrt, str) else wrt)])


def _names(function: Callable[..., Any], number: int) -> list[str]:
    if isinstance(function, Node):
        return [function.input_name(i) for i in range(number)]
    return argument_names(function, number)


def _title(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "function" if name == "<lambda>" else str(name)


def _wire_returned(recorder: Recorder, leaf: Any) -> int:
    if not isinstance(leaf, Variable) and not is_array(leaf):
        raise InputTypeError(
            f"Graph: the function returned {type(leaf).__name__}, not something made of its inputs"
        )
    return recorder.wire_of(leaf)


def _or_zeros(gradient: Any, value: Array) -> Any:
    """Return the gradient; zeros where nothing arrived; None where there can be none."""
    if gradient is None and is_inexact(value.dtype):
        return zeros_like(value)
    return gradient


def _as_upstream(upstream: Any, output: Array) -> Array:
    if not is_array(upstream):
        upstream = namespace(output).asarray(upstream, dtype=output.dtype)
    if tuple(upstream.shape) != tuple(output.shape):
        raise InputError(
            f"backward: upstream has shape {shape_text(upstream.shape)}, but the output has shape "
            f"{shape_text(output.shape)}; pass the gradient with respect to the output, such as "
            "ones for the gradient of the sum of its entries"
        )
    return upstream
