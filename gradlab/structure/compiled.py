"""`Jacobian.compile`: a Jacobian as a function of its inputs that JAX can trace and transform."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, NumPyArray
from gradlab.errors import InputError
from gradlab.formatting import count, shape_text
from gradlab.structure.colouring import Plan
from gradlab.structure.entries import (
    Format,
    Listing,
    Pair,
    bcoo,
    data_of,
    index_of,
    pairs_of,
    parts_of,
    read,
    wrapped,
)
from gradlab.structure.evaluate import TOGETHER, Derivative, confirm, is_traced

if TYPE_CHECKING:
    from gradlab.structure.report import JacobianReport

Layout = Literal["matrix", "leaves"]

_FOLDED = 1 << 20
"""Seeds, or indices, of so many numbers at most are constants: XLA moves them beforehand.

Only tangents: jaxlib 0.10.2 on the CPU compiles constant upstreams wrongly.
"""


class CompiledJacobian:
    """A Jacobian as a pure function of the inputs of the function that it belongs to.

    Made by `Jacobian.compile`. It runs eagerly and inside jit, vmap, grad, jvp, scan, cond,
    while_loop and shard_map; it calls nothing on the host and reads no value. The first eager call
    holds its entries against one JVP in a random direction.

    Attributes:
        report: what is known of the Jacobian.
        format: of what a call returns.

    Example:
        >>> import jax.numpy as jnp, gradlab
        >>> gradlab.jacobian(jnp.tanh, jnp.zeros((100, 4096))).compile("data")
        CompiledJacobian(tanh: 409,600 x 409,600, 409,600 entries, 1 pass, format='data')
    """

    def __init__(
        self,
        report: "JacobianReport",
        derivative: Derivative,
        plan: Plan,
        listing: Callable[[], Listing],
        statics: Sequence[Any],
        format: Format,
        value: bool,
        chunk: int | None,
        layout: Layout,
        probe: bool,
    ) -> None:
        self.report = report
        self.format = format
        self._derivative, self._plan, self._list = derivative, plan, listing
        self._statics, self._value, self._layout = statics, value, layout
        self._chunk = chunk or TOGETHER
        self._probe = probe
        self._parts: dict[Pair, Listing] | None = None
        self._held: tuple[Any, list[Any]] | None = None
        self._quick: list[tuple[Any, Any]] | None = None
        self._run = jax.jit(self._compute)
        self._pass, self._pick = jax.jit(self._passes), jax.jit(self._read)

    def __repr__(self) -> str:
        m, n = self.shape
        return (
            f"CompiledJacobian({self.report.name}: {m:,} x {n:,}, {self.nnz:,} entries, "
            f"{count(self.passes, 'pass', 'passes')}, format={self.format!r})"
        )

    @property
    def passes(self) -> int:
        """How many JVPs and VJPs a call runs."""
        return self._plan.count

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix: entries of all outputs, entries of all inputs."""
        return self._plan.shape

    @property
    def nnz(self) -> int:
        """The number of entries that may be nonzero."""
        return self.report.nnz

    @property
    def rows(self) -> NumPyArray:
        """The row of each entry, in rising order."""
        return self._list().rows

    @property
    def cols(self) -> NumPyArray:
        """The column of each entry, in rising order within a row."""
        return self._list().cols

    @property
    def bandwidths(self) -> tuple[int, int]:
        """How many diagonals lie below the main one, and above."""
        return self._list().bandwidths

    def __call__(self, *inputs: Any) -> Any:
        """Return the Jacobian at a point, in the format; with `value=True`, (outputs, Jacobian).

        Args:
            *inputs: of the shapes and dtypes that the function was read at.

        Raises:
            InputError: shapes, dtypes or settings differ.
            StructureMismatch: the first eager call found an entry outside of the pattern.
        """
        kinds = None if self._probe else self._quick
        if kinds and kinds == [(getattr(x, "shape", 0), getattr(x, "dtype", 0)) for x in inputs]:
            assert self._held is not None
            given, [pairs] = self._held
            return bcoo(self.shape, self._run(given, *inputs)[1][0], pairs)
        program = self._derivative.program
        values = point_of(self._derivative, self._statics, inputs, "compile")
        if program.x64 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]  # it has no types
            with jax.enable_x64(True):
                return self._at(values)
        return self._at(values)

    def _at(self, values: Sequence[Array]) -> Any:
        (colours, index), every = self._prepare()
        if self._plan.vjps and not is_traced(values):  # in one program XLA may compile them wrongly
            results, rows = self._pass(colours, *values)
            found = self._pick(index, rows)
        else:
            results, found = self._run((colours, index), *values)
        assert self._parts is not None
        if self._probe and not is_traced([*values, *found]):
            blocks = [
                (part, data_of(self.format, part, each))
                for part, each in zip(self._parts.values(), found, strict=True)
            ]
            mode = "jvp" if "jvp" in self.report.modes else "vjp"
            confirm(self._derivative, values, mode, blocks)
            self._probe = False
        made = {
            pair: wrapped(self.format, part, each, pairs)
            for (pair, part), each, pairs in zip(self._parts.items(), found, every, strict=True)
        }
        jacobian = made if self._layout == "leaves" else made["", ""]
        if not self._value:
            return jacobian
        return self._derivative.program.unflatten(results), jacobian

    def _prepare(self) -> tuple[Any, list[Any]]:
        """Return the index arrays, listed once, and put on the device at the first eager call."""
        if self._parts is None:
            listing, report = self._list(), self.report
            if self._layout == "leaves":
                self._parts = parts_of(listing, report.outputs, report.inputs)
            else:
                self._parts = {("", ""): listing}
        if self._held is not None:
            return self._held
        plan = self._plan
        columns = None if plan.jvps * self.shape[1] <= _FOLDED else plan.columns
        colours = [None if c is None else c.astype(np.int32) for c in (columns, plan.rows)]
        parts = self._parts.values()
        folded = not plan.vjps and sum(len(part.places) for part in parts) <= _FOLDED
        index = None if folded else [index_of(self.format, part) for part in parts]
        pairs = [pairs_of(part) if self.format == "bcoo" else None for part in parts]
        arrays: tuple[Any, list[Any]] = (colours, index), pairs
        with jax.ensure_compile_time_eval():
            held: tuple[Any, list[Any]] = jax.device_put(arrays)
        if is_traced(jax.tree.leaves(held)):
            return arrays
        self._held = held
        program = self._derivative.program
        plain = not (self._statics or plan.vjps or self._value or program.x64)
        if plain and self.format == "bcoo" and self._layout == "matrix":
            self._quick = [(aval.shape, aval.dtype) for aval in program.in_avals]
        return held

    def _compute(self, given: Any, *values: Any) -> tuple[list[Any], list[Any]]:
        """Run all passes and read the format's arrays from what they give."""
        colours, index = given
        results, rows = self._passes(colours, *values)
        return results, self._read(index, rows)

    def _passes(self, colours: Any, *values: Any) -> tuple[list[Any], list[Any]]:
        """Return the function's outputs, if they are wanted, and the rows of the passes."""
        plan, at = self._plan, self._derivative
        results: list[Any] = []
        found: list[Any] = []
        columns, rows = colours
        columns = plan.columns if columns is None else columns
        for mode, number, assigned in (("jvp", plan.jvps, columns), ("vjp", plan.vjps, rows)):
            if number:
                whole = self._value and not found
                own, made = self._rows(mode, number, assigned, values, whole)
                results = own if whole else results
                found.append(made)
        if self._value and not found:
            results = at.program.flat(*values)
        return results, found

    def _read(self, index: Any, rows: Any) -> list[Any]:
        """Return the array of the format, for the matrix or for each block."""
        flat = [made.reshape(-1) for made in rows]
        if len(rows) == 1:
            whole = rows[0].reshape(len(rows[0]), -1)
        else:
            whole = jnp.concatenate(flat or [jnp.zeros(0, self._derivative.dtype("jvp"))])
        assert self._parts is not None
        parts = self._parts.values()
        if index is None:
            index = [index_of(self.format, part) for part in parts]
        return [read(self.format, p, whole, i) for p, i in zip(parts, index, strict=True)]

    def _rows(
        self, mode: str, number: int, colours: Any, values: Sequence[Array], whole: bool
    ) -> tuple[list[Any], Any]:
        """Return the function's outputs, where they are wanted, and a row for each pass.

        More than a few VJPs, or many JVPs, run in two batches at least: jaxlib 0.10.2 on the CPU
        compiles some wrongly in one.
        """
        chunk = min(self._chunk, number)
        if number > (TOGETHER if mode == "jvp" else 3):
            chunk = min(chunk, -(-number // 2))
        batches = -(-number // chunk)
        order = np.arange(batches * chunk, dtype=np.int32).reshape(batches, chunk)

        def batch(colours_of_batch: Any, whole: bool = False) -> Any:
            return self._derivative.coloured(mode, values, colours_of_batch, colours, whole)

        if batches == 1:
            made = batch(order[0], whole)
            return made if whole else ([], made)
        results, first = batch(order[0], True) if whole else ([], None)
        rest = jax.lax.map(batch, jnp.asarray(order if first is None else order[1:]))
        rest = rest.reshape(-1, rest.shape[-1])
        return results, rest if first is None else jnp.concatenate([first, rest])


def point_of(
    derivative: Derivative, statics: Sequence[Any], inputs: Sequence[Array], who: str
) -> Sequence[Any]:
    """Return the flat traced values of a call's inputs, or refuse them.

    Args:
        derivative: of the function.
        statics: the values of the leaves that are part of the function, as it was read.
        inputs: of the call.
        who: the method that is called.
    """
    program = derivative.program
    if len(inputs) == len(program.leaves) and all(map(_is_array, inputs)) and not statics:
        values: Sequence[Array] = inputs
    else:
        leaves, tree = jax.tree_util.tree_flatten(tuple(inputs), is_leaf=lambda x: x is None)
        if tree != program.in_tree:
            raise InputError(
                f"{who}: the inputs have the structure {tree}; {program.name} was read with "
                f"{program.in_tree}"
            )
        values = [value for value, leaf in zip(leaves, program.leaves) if leaf.traced]
        settings = [value for value, leaf in zip(leaves, program.leaves) if not leaf.traced]
        for setting, known in zip(settings, statics, strict=True):
            if setting is not known and setting != known:
                raise InputError(
                    f"{who}: the setting {setting!r} is part of the function, which was read with "
                    f"{known!r}; call gradlab.jacobian again with the new one"
                )
    for value, aval, name in zip(values, program.in_avals, program.in_names, strict=True):
        shape, dtype = np.shape(value), getattr(value, "dtype", aval.dtype)
        if shape != aval.shape or (dtype != aval.dtype and jnp.result_type(value) != aval.dtype):
            raise InputError(
                f"{who}: {name} is {shape_text(shape)} {dtype}; {program.name} was read with "
                f"{name} {shape_text(aval.shape)} {aval.dtype}; call gradlab.jacobian again at the "
                "new shape and dtype"
            )
    return values


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)
