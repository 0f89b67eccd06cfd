"""Computational graphs: nodes wired together, a value and a gradient on every wire."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from gradlab.arguments import (
    argument_names,
    nearest,
    require_callable,
    require_inputs,
    users_fault,
)
from gradlab.common.arrays import Array, Function, Tree, is_inexact, namespace
from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.files import write_whole
from gradlab.formatting import count, shape_text
from gradlab.graph._form import Form, Returned, is_array, leaves
from gradlab.graph._group import grouped, opened, require_same
from gradlab.graph._plan import Branches, Plan, Recording, Run, Step, zeros_like
from gradlab.graph._reporting import graph_report
from gradlab.graph._variable import Recorder, Variable
from gradlab.graph.report import GraphReport
from gradlab.nodes import Node
from gradlab.nodes._base import Kept
from gradlab.operators import Operator

if TYPE_CHECKING:
    from gradlab.graph._jax import TreeForm

_SUFFIXES = {f".{each}": each for each in ("svg", "html", "dot", "json")}
_SUFFIXES |= {".mmd": "mermaid", ".txt": "text"}
Wrt: TypeAlias = str | Sequence[str] | None
_RECORDED = (
    "; a graph records arithmetic, nodes, and NumPy's functions of their names; use Graph.from_jax "
    "for a JAX function"
)


class Graph:
    """The computational graph of a function: forward, backward, and everything on the way.

    The function is called once, on variables, and what it does to them is recorded: arithmetic,
    the functions of `gradlab.nodes`, and NumPy's functions of the same names. Wires are named after
    arguments and nodes; `label` renames them. Memory: values, gradients, residuals of one pass.

    Args:
        function: what to record; a function of arrays, or a node.
        *inputs: arrays of NumPy or JAX, of any shape and dtype, Python numbers, or tuples, lists
            and dicts of arrays. Integer arrays (labels, indices) have no gradient. None, strings,
            and Python numbers inside containers are kept as they are.

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

    title: str
    arguments: tuple[str, ...]
    plan: Plan
    labels: list[str]
    _asked: tuple[Tree, Wrt] | None
    _run: Run | None
    _gradients: list[Array] | None
    _touched: set[int]
    _places: dict[str, int]

    def __init__(self, function: Function, *inputs: Tree) -> None:
        require_callable("function", function)
        names = _names(function, len(inputs))
        form = Form(names, inputs)
        recorder = Recorder()
        flat = form.flatten(inputs)
        pairs = zip(form.paths, flat)
        variables = form.unflatten(recorder.input(path, leaf) for path, leaf in pairs)
        try:
            output = function(*variables)
        except GradlabError:
            raise
        except Exception as error:
            fault = users_fault(_title(function), function, inputs, error, hint=_RECORDED)
            raise InputTypeError(str(fault)) from error
        wires = [_wire_returned(recorder, leaf) for _, leaf in leaves(output, "output")]
        self._set_up(_title(function), names, form, Returned(output), recorder, wires, flat)
        self._run = Run(recorder.values, recorder.residuals)

    @classmethod
    def from_jax(cls, function: Function, *inputs: Tree) -> "Graph":
        """Return the graph of any JAX function: each equation of its program is a node.

        An equation is a hand-written node where gradlab has one that does the same, otherwise JAX's
        own rule. A call (`jax.jit`, most of `jax.numpy`) is a group, which `ungroup` opens; a loop
        is one node. The whole graph is compiled by JAX; values and gradients are NumPy arrays.

        Args:
            function: a JAX or NumPy function.
            *inputs: arrays of any shape and dtype, Python numbers, or pytrees of them.

        Raises:
            GradlabError: JAX cannot trace the function.

        Example:
            >>> import jax, jax.numpy as jnp
            >>> g = Graph.from_jax(lambda x: jnp.tanh(x).sum(), jnp.zeros(3))
            >>> g.backward()
            array([1., 1., 1.], dtype=float32)
            >>> g.names
            ['x', 'tanh', 'sum']
        """
        from gradlab.graph._jax import CompiledPlan, TreeForm, record
        from gradlab.reading import ported
        from gradlab.tracing import trace

        try:
            program = trace(function, *inputs)
        except GradlabError as error:
            program = trace(ported(function, inputs, error), *inputs)
        form = TreeForm(program)
        table, outputs = record(program)
        graph = cls.__new__(cls)
        plan = functools.partial(CompiledPlan, x64=program.x64)
        names, flat = _names(function, len(inputs)), form.flatten(inputs)
        graph._set_up(_title(function), names, form, form, table, outputs, flat, plan)
        return graph

    def forward(self, *inputs: Tree) -> Tree:
        """Run all nodes and return the output, in the form in which the function returned it.

        Args:
            *inputs: as many as the function takes; none at all means those of the last run.

        Raises:
            InputError: the inputs do not fit; the node and its line are named.
        """
        if inputs:
            self._flat = self._form.flatten(inputs)
        self._run = self._gradients = None  # their memory is free for the new ones
        return self._pack(self.run)

    def backward(self, upstream: Tree = 1.0, wrt: Wrt = None) -> Tree:
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
        wires = self._wanted(wrt)
        wanted = frozenset(wires)
        self._gradients = self._backward(self.run, upstream, wanted)
        self._touched = self.plan.between(wanted)
        self._asked = upstream, wrt
        return self._answer(self.run, self._gradients, wires, wrt)

    def value_and_gradient(self, *inputs: Tree, upstream: Tree = 1.0, wrt: Wrt = None) -> Tree:
        """Return `forward(*inputs)` and `backward(upstream, wrt)`, and keep nothing.

        It is a pure function of its inputs, so JAX can compile it.

        Args:
            *inputs: as for `forward`.
            upstream: as for `backward`.
            wrt: as for `backward`.

        Raises:
            InputError: as for both.

        Example:
            >>> import jax
            >>> g = Graph(lambda x: x * x, 1.0)
            >>> value, gradient = jax.jit(g.value_and_gradient)(3.0)
            >>> print(value, gradient)
            9.0 6.0
        """
        run = self._forward(self._form.flatten(inputs))
        wires = self._wanted(wrt)
        gradients = self._backward(run, upstream, frozenset(wires))
        return self._pack(run), self._answer(run, gradients, wires, wrt)

    def __call__(self, *inputs: Tree) -> Tree:
        """Return the output at these inputs, and keep nothing."""
        return self._pack(self._forward(self._form.flatten(inputs)))

    def reference(self, *inputs: Tree) -> Tree:
        """Return the output as JAX computes it, by every node's reference.

        `jax.grad(graph.reference)` is the gradient that `backward` is held against.

        Args:
            *inputs: as for `forward`; JAX may trace them.
        """
        values = self.plan.reference(self._form.flatten(inputs))
        return self._pack(Run(values, []))

    def label(self, **names: str) -> "Graph":
        """Rename wires, as in `label(add="q")`, and return the graph.

        Args:
            **names: the new name of each wire, by its old one.

        Raises:
            InputError: there is no such wire, or the new name is taken.
        """
        for old, new in names.items():
            wire = self.wire(old)
            if new != old and new in self._places:
                raise InputError(f"label: the name {new!r} is taken; choose another for {old!r}")
            self.labels[wire] = new
            self._places = {self.labels[wire]: wire for wire in self._places.values()}
        return self

    def group(
        self, names: Sequence[str], as_node: Node | None = None, name: str | None = None
    ) -> "Graph":
        """Make one node of several, and return the graph; values and gradients stay the same.

        Args:
            names: the nodes, each by a wire that leaves it.
            as_node: a hand-written node that does the same as the group and takes its place. That
                it does the same is verified, here and now, against JAX.
            name: what to call the group.

        Raises:
            InputError: a path leads out of the group and back into it, or `as_node` is another
                function.

        Example:
            >>> import numpy as np
            >>> from gradlab import nodes
            >>> g = Graph(lambda x: 1 / (1 + np.exp(-x)), 1.0)
            >>> g = g.group(["negate", "exp", "add", "reciprocal"], as_node=nodes.Sigmoid())
            >>> g.label(reciprocal="y").names, g.ungroup("y").names[:3]
            (['x', 'y'], ['x', 'negate', 'exp'])
        """
        chosen = {self.step_of(wire) for wire in ([names] if isinstance(names, str) else names)}
        members = [step for step in self.plan.steps if step in chosen]
        label = name or (as_node.name() if as_node is not None else "group")
        if not members:
            raise InputError("group: names is empty; name the nodes by the wires that leave them")
        steps = grouped(self.plan.steps, members, self.plan.outputs, self._constants, label)
        if as_node is not None:
            step = next(step for step in steps if step not in self.plan.steps)
            require_same(step, as_node, [self.run.values[wire] for wire in step.inputs])
            node = replace(step, node=as_node, label="", several=False)
            steps = tuple(node if s is step else s for s in steps)
        return self._redone(steps)

    def ungroup(self, name: str) -> "Graph":
        """Put the nodes of a group back in its place, and return the graph.

        Args:
            name: a wire that leaves the group.

        Raises:
            InputError: it leaves no group.
        """
        step = self.step_of(name)
        if not step.inside:
            groups = [self.labels[s.outputs[0]] for s in self.plan.steps if s.inside]
            known = f"; groups are {', '.join(groups[:10])}" if groups else ""
            raise InputError(f"ungroup: {name!r} leaves a node, not a group{known}")
        return self._redone(opened(self.plan.steps, step))

    def _redone(self, steps: tuple[Step, ...]) -> "Graph":
        """Take other steps for the same function; a backward pass that was made is made again."""
        again = self._asked if self._gradients is not None else None
        self._rewire(steps)
        if again is not None:
            self.backward(*again)
        return self

    @property
    def values(self) -> "Wires":
        """The value of each wire in the last forward pass, by name."""
        return Wires(self, lambda wire: self.run.values[wire])

    @property
    def gradients(self) -> "Wires":
        """The gradient with respect to each wire in the last backward pass, by name."""
        return Wires(self, self._named_gradient)

    @property
    def local_gradients(self) -> "LocalGradients":
        """The Jacobian of each node with respect to each input, as an operator: `[node, input]`."""
        return LocalGradients(self)

    def report(
        self,
        local_gradients: bool = False,
        decimals: int = 3,
        heat_maps: bool | None = False,
        checks: bool = False,
    ) -> GraphReport:
        """Return the graph with all its values and gradients as plain data.

        Args:
            local_gradients: whether to describe the Jacobian of each node, which takes time.
            decimals: how many decimals to show where it is drawn.
            heat_maps: whether arrays are seen from far, as grids of at most 24 x 24 cells; None
                means in graphs of up to 40 nodes, for arrays of up to 4096 entries.
            checks: whether to hold each node's backward against finite differences.

        Example:
            >>> import numpy as np
            >>> g = Graph(lambda x: np.exp(x), np.arange(8.0))
            >>> _ = g.backward(np.ones(8))
            >>> g.report(checks=True).gates[0].check.status
            'passed'
        """
        return graph_report(self, local_gradients, decimals, heat_maps, checks)

    def draw(
        self,
        path: str | os.PathLike[str],
        local_gradients: bool = False,
        decimals: int = 3,
        heat_maps: bool | None = None,
    ) -> None:
        """Draw the graph into a file, as the course does: values green, gradients red.

        Args:
            path: the file; its suffix tells the format: .svg, .html (one page, to step through,
                with local gradients and a check of each node), .dot, .mmd (Mermaid), .txt or .json.
            local_gradients: whether to write each node's local gradients beside its inputs.
            decimals: how many decimals to show.
            heat_maps: whether to draw arrays as heat maps too; None means small ones in a graph
                of few nodes.

        Raises:
            InputError: the suffix tells no format.

        Example:
            >>> import tempfile
            >>> g = Graph(lambda x, y, z: (x + y) * z, -2.0, 5.0, -4.0)
            >>> _ = g.backward()
            >>> g.draw(f"{tempfile.mkdtemp()}/graph.svg")
        """
        suffix = os.path.splitext(path)[1]
        format = _SUFFIXES.get(suffix)
        if format is None:
            raise InputError(f"draw: {suffix!r} tells no format; use one of {', '.join(_SUFFIXES)}")
        html, picture = format == "html", format in ("html", "svg")
        seen = heat_maps if picture else False
        report = self.report(local_gradients or html, decimals, seen, checks=html)
        write_whole(os.fspath(path), report.render(format))

    def _repr_html_(self) -> str:
        return self.report(heat_maps=None)._repr_html_()

    def table(self) -> str:
        """Return the graph as text: a line for every wire.

        Example:
            >>> g = Graph(lambda x, y: x * y, 3.0, 4.0)
            >>> _ = g.backward()
            >>> print(g.table())
            wire      node      inputs  value  gradient
            x                               3         4
            y                               4         3
            multiply  multiply  x, y       12         1
        """
        return self.report().render("text")

    def __repr__(self) -> str:
        plan = self.plan
        inputs, nodes = count(len(plan.inputs), "input"), count(len(plan.steps), "node")
        return f"Graph({self.title}: {inputs}, {nodes}, {count(len(plan.outputs), 'output')})"

    def _set_up(
        self,
        title: str,
        arguments: Sequence[str],
        form: "Form | TreeForm",
        returned: "Returned | TreeForm",
        record: Recording,
        outputs: Sequence[int],
        flat: list[Array],
        plan: Callable[..., Plan] = Plan,
    ) -> None:
        self.title, self.arguments = title, tuple(arguments)
        self._form, self._returned, self._flat = form, returned, flat
        self.labels, self._constants = record.names, record.constants
        self._ends = tuple(record.inputs), tuple(outputs)
        self._plan_of = plan
        self._asked = None
        self._rewire(tuple(record.steps))

    def _rewire(self, steps: tuple[Step, ...]) -> None:
        """Make the plan of these steps; what was computed by another one is forgotten."""
        inputs, outputs = self._ends
        self.plan = self._plan_of(len(self.labels), inputs, self._constants, steps, outputs)
        order = dict.fromkeys(inputs)
        for step in steps:
            order |= dict.fromkeys(wire for wire in step.inputs if wire in self._constants)
            order |= dict.fromkeys(step.outputs)
        wires = [*order, *(wire for wire in outputs if wire not in order)]
        self._places = {self.labels[wire]: wire for wire in wires}
        self._run = None
        self._gradients = None
        self._touched = set()

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

    def wire(self, name: str) -> int:
        """Return the place of the wire with this name.

        Args:
            name: of the wire.

        Raises:
            InputError: there is none; the nearest names are told.
        """
        place = self._places.get(name)
        if place is not None:
            return place
        if name in self.labels:
            raise InputError(f"the wire {name!r} lies inside a group; ungroup it first")
        raise InputError(f"there is no wire named {name!r}; {nearest_or_all(name, self.names)}")

    def ones(self) -> Tree:
        """Return an upstream of ones: with it, backward gives the gradient of the outputs' sum."""
        outputs = [self.run.values[wire] for wire in self.plan.outputs]
        return self._returned.pack([namespace(y).ones_like(y) for y in outputs])

    def gradient(self, wire: int) -> Array | None:
        """Return the gradient on a wire in the last backward pass, None where there is none.

        Args:
            wire: its place.
        """
        if self._gradients is None or wire not in self._touched:
            return None
        return _or_zeros(self._gradients[wire], self.run.values[wire])

    def branches(self) -> Branches:
        """Return what each step sent back to each input, by its number and the input's position."""
        noted: Branches = {}
        if self._gradients is not None and self._asked is not None:
            upstream, wrt = self._asked
            self._backward(self.run, upstream, frozenset(self._wanted(wrt)), noted)
        return noted

    def step_of(self, name: str) -> Step:
        """Return the node that a wire leaves.

        Args:
            name: of the wire.

        Raises:
            InputError: it leaves none.
        """
        wire = self.wire(name)
        found = next((step for step in self.plan.steps if wire in step.outputs), None)
        if found is None:
            raise InputError(f"{name!r} is an input or a constant, not a node")
        return found

    def _named_gradient(self, wire: int) -> Array:
        gradient = self.gradient(wire)
        if gradient is not None:
            return gradient
        name = self.labels[wire]
        if self._gradients is None:
            raise InputError(f"gradients[{name!r}]: call backward first")
        if wire in self._touched:
            raise InputError(f"gradients[{name!r}]: integers have no gradient")
        raise InputError(
            f"gradients[{name!r}]: it does not depend on the inputs of the last backward; "
            f"call backward(wrt={name!r})"
        )

    def _forward(self, flat: list[Array]) -> Run:
        residuals: list[Kept] = []
        try:
            return self.plan.forward(flat, residuals)
        except GradlabError as error:
            step = self.plan.steps[len(residuals)]
            error.add_note(f"at wire {self.labels[step.outputs[0]]!r}, {step.line}")
            raise

    def _backward(
        self, run: Run, upstream: Tree, wanted: frozenset[int], branches: Branches | None = None
    ) -> list[Array]:
        outputs = [run.values[wire] for wire in self.plan.outputs]
        given = self._returned.unpack(upstream)
        if len(given) != len(outputs):
            raise InputError(
                f"backward: the function returns {count(len(outputs), 'array')}, but upstream has "
                f"{len(given)}; pass a container like the output, zeros for what does not count"
            )
        return self.plan.backward(run, map(_as_upstream, given, outputs), wanted, branches)

    def _pack(self, run: Run) -> Tree:
        return self._returned.pack([run.values[wire] for wire in self.plan.outputs])

    def _answer(self, run: Run, gradients: list[Array], wires: tuple[int, ...], wrt: Wrt) -> Tree:
        found: Tree = tuple([_or_zeros(gradients[wire], run.values[wire]) for wire in wires])
        if wrt is None:
            found = self._form.unflatten(found, keep_static=False)
        return found[0] if len(found) == 1 and not isinstance(wrt, tuple | list) else found

    def _wanted(self, wrt: Wrt) -> tuple[int, ...]:
        """Return the wires whose gradients are asked for."""
        if wrt is None:
            return self.plan.inputs
        return tuple([self.wire(name) for name in ([wrt] if isinstance(wrt, str) else wrt)])


class Wires(Mapping[str, Array]):
    """A value for each wire, by name, in the order in which they are computed."""

    def __init__(self, graph: "Graph", lookup: Callable[[int], Array]) -> None:
        self._graph = graph
        self._lookup = lookup

    def __getitem__(self, name: str) -> Array:
        return self._lookup(self._graph.wire(name))

    def __contains__(self, name: object) -> bool:
        return name in self._graph.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._graph.names)

    def __len__(self) -> int:
        return len(self._graph.names)

    def __repr__(self) -> str:
        return f"Wires({', '.join(self)})"


class LocalGradients:
    """The Jacobian of one node with respect to one of its inputs: `local_gradients[node, input]`.

    A node is named by a wire that leaves it. An input is named by the wire that enters, or by its
    position; a wire that enters twice, as in `x * x`, has the sum of both Jacobians.
    """

    def __init__(self, graph: "Graph") -> None:
        self._graph = graph

    def __getitem__(self, key: object) -> Operator:
        if not isinstance(key, tuple) or len(key) != 2:
            raise InputError(f"local_gradients[{key!r}]: pass two names, [node, input]")
        node, source = key
        graph = self._graph
        step = graph.step_of(node)
        with graph.plan.context():
            _, residuals = step.node.forward(*(graph.run.values[w] for w in step.inputs))
            gradients = step.node.local_gradient(residuals)
        if step.several:
            gradients = gradients[step.outputs.index(graph.wire(node))]
        places = _places(step.inputs, source, graph)
        if not step.node.domain(places[0]).differentiable:
            raise InputError(f"local_gradients[{node!r}, {source!r}]: this input has no gradient")
        found = [gradients[place] for place in places]
        total: Operator = sum(found[1:], start=found[0])
        return total


def _places(inputs: tuple[int, ...], source: str | int, graph: "Graph") -> list[int]:
    """Return the positions at which a wire, or the input at a position, enters a node."""
    names = [graph.labels[wire] for wire in inputs]
    if isinstance(source, int) and -len(inputs) <= source < len(inputs):
        return [source]
    places = [place for place, name in enumerate(names) if name == source]
    if not places:
        raise InputError(f"local_gradients: {source!r} does not enter this node; {names} do")
    return places


def nearest_or_all(name: str, known: list[str]) -> str:
    """Return the end of an error message: the known names that are like `name`."""
    listed = f"{', '.join(map(repr, known[:10]))}{', ...' if len(known) > 10 else ''}"
    return nearest(name, known) or f"there are {listed}"


def _names(function: Function, number: int) -> list[str]:
    if isinstance(function, Node):
        return [function.input_name(i) for i in range(number)]
    return list(argument_names(function, number))


def _title(function: Function) -> str:
    if isinstance(function, Node):
        return function.name()
    name = getattr(function, "__name__", type(function).__name__)
    return "function" if name == "<lambda>" else str(name)


def _wire_returned(recorder: Recorder, leaf: Tree) -> int:
    if not isinstance(leaf, Variable) and not is_array(leaf):
        raise InputTypeError(
            f"Graph: the function returned {type(leaf).__name__}, not something made of its inputs"
        )
    return recorder.wire_of(leaf)


def _or_zeros(gradient: Array | None, value: Array) -> Tree:
    """Return the gradient; zeros where nothing arrived; None where there can be none."""
    if gradient is None and is_inexact(value.dtype):
        return zeros_like(value)
    return gradient


def _as_upstream(upstream: Tree, output: Array) -> Array:
    if not is_array(upstream):
        if not isinstance(upstream, int | float | complex | list | tuple):
            raise InputTypeError(
                f"backward: upstream is {type(upstream).__name__}; pass an array of shape "
                f"{shape_text(output.shape)}"
            )
        upstream = namespace(output).asarray(upstream, dtype=output.dtype)
    if tuple(upstream.shape) != tuple(output.shape):
        raise InputError(
            f"backward: upstream has shape {shape_text(upstream.shape)}, but the output has shape "
            f"{shape_text(output.shape)}; pass the gradient with respect to the output, such as "
            "ones for the gradient of the sum of its entries"
        )
    return upstream


def read_graph(function: Function, *inputs: Tree) -> Graph:
    """Return the graph of a function, run forward and backward with an upstream of ones.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> read_graph(np.tanh, np.ones(3)).names, read_graph(jnp.tanh, np.ones(3)).names
        (['x', 'tanh'], ['x', 'tanh'])
    """
    require_inputs(function, inputs)
    try:
        graph = Graph(function, *inputs)
    except TypeError:  # it is no function of variables; whatever else is wrong, JAX will say
        graph = Graph.from_jax(function, *inputs)
    graph.backward(graph.ones())
    return graph
