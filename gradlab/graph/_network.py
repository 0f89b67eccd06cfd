"""What every graph is underneath: steps between named wires, and the last run through them."""

from collections.abc import Callable, Sequence
from typing import Any

from gradlab.common.arrays import Array, is_inexact, namespace
from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.formatting import count, shape_text
from gradlab.graph._plan import Plan, Run, Step, zeros_like
from gradlab.graph._tree import is_array
from gradlab.graph._views import nearest_or_all

__all__ = ["Network"]


class Network:
    """Steps between named wires; the plan that runs them, and what the last run left.

    Attributes:
        title: the name of the function.
        arguments: the names of its arguments.
        plan: the steps in order, ready to run.
        labels: the name of each wire, those inside groups included.
    """

    title: str
    arguments: tuple[str, ...]
    plan: Plan
    labels: list[str]
    _run: Run | None
    _gradients: list[Any] | None
    _touched: set[int]
    _places: dict[str, int]

    def _set_up(
        self,
        title: str,
        arguments: Sequence[str],
        form: Any,
        returned: Any,
        record: Any,
        outputs: Sequence[int],
        flat: list[Any],
        plan: Callable[..., Plan] = Plan,
    ) -> None:
        self.title, self.arguments = title, tuple(arguments)
        self._form, self._returned, self._flat = form, returned, flat
        self.labels, self._constants = record.names, record.constants
        self._ends = tuple(record.inputs), tuple(outputs)
        self._plan_of = plan
        self._asked: tuple[Any, Any] | None = None
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

        Raises:
            InputError: there is none; the nearest names are told.
        """
        place = self._places.get(name)
        if place is not None:
            return place
        if name in self.labels:
            raise InputError(f"the wire {name!r} lies inside a group; ungroup it first")
        raise InputError(f"there is no wire named {name!r}; {nearest_or_all(name, self.names)}")

    def ones(self) -> Any:
        """Return an upstream of ones: with it, backward gives the gradient of the outputs' sum."""
        outputs = [self.run.values[wire] for wire in self.plan.outputs]
        return self._returned.pack([namespace(y).ones_like(y) for y in outputs])

    def gradient(self, wire: int) -> Array | None:
        """Return the gradient on a wire in the last backward pass, None where there is none."""
        if self._gradients is None or wire not in self._touched:
            return None
        return _or_zeros(self._gradients[wire], self.run.values[wire])

    def branches(self) -> dict[tuple[int, int], Any]:
        """Return what each step sent back to each input, by its number and the input's position."""
        noted: dict[tuple[int, int], Any] = {}
        if self._gradients is not None and self._asked is not None:
            upstream, wrt = self._asked
            self._backward(self.run, upstream, frozenset(self._wanted(wrt)), noted)
        return noted

    def _step_of(self, name: str) -> Step:
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

    def _forward(self, flat: list[Any]) -> Run:
        residuals: list[Any] = []
        try:
            return self.plan.forward(flat, residuals)
        except GradlabError as error:
            step = self.plan.steps[len(residuals)]
            error.add_note(f"at wire {self.labels[step.outputs[0]]!r}, {step.line}")
            raise

    def _backward(
        self,
        run: Run,
        upstream: Any,
        wanted: frozenset[int],
        branches: dict[tuple[int, int], Any] | None = None,
    ) -> list[Any]:
        outputs = [run.values[wire] for wire in self.plan.outputs]
        given = self._returned.unpack(upstream)
        if len(given) != len(outputs):
            raise InputError(
                f"backward: the function returns {count(len(outputs), 'array')}, but upstream has "
                f"{len(given)}; pass a container like the output, zeros for what does not count"
            )
        return self.plan.backward(run, map(_as_upstream, given, outputs), wanted, branches)

    def _pack(self, run: Run) -> Any:
        return self._returned.pack([run.values[wire] for wire in self.plan.outputs])

    def _answer(self, run: Run, gradients: list[Any], wires: tuple[int, ...], wrt: Any) -> Any:
        found: Any = tuple([_or_zeros(gradients[wire], run.values[wire]) for wire in wires])
        if wrt is None:
            found = self._form.unflatten(found, keep_static=False)
        return found[0] if len(found) == 1 and not isinstance(wrt, tuple | list) else found

    def _wanted(self, wrt: str | Sequence[str] | None) -> tuple[int, ...]:
        """Return the wires whose gradients are asked for."""
        if wrt is None:
            return self.plan.inputs
        return tuple([self.wire(name) for name in ([wrt] if isinstance(wrt, str) else wrt)])


def _or_zeros(gradient: Any, value: Array) -> Any:
    """Return the gradient; zeros where nothing arrived; None where there can be none."""
    if gradient is None and is_inexact(value.dtype):
        return zeros_like(value)
    return gradient


def _as_upstream(upstream: Any, output: Array) -> Array:
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
