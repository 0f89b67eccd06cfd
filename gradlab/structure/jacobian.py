"""`gradlab.jacobian`: trace, linearise, infer; then ask, evaluate, compile."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.arguments import (
    refuse_bytes,
    refuse_flags,
    refuse_words,
    require_inputs,
    several,
)
from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.files import write_whole
from gradlab.formatting import shape_text
from gradlab.patterns import Pattern
from gradlab.patterns.size import Sizes
from gradlab.primitives.facts import FINITE_MASK
from gradlab.reading import ported
from gradlab.structure import control, halves, sharded  # noqa: F401  (for their registrations)
from gradlab.structure.colouring import listed
from gradlab.structure.compiled import CompiledJacobian, Layout, point_of
from gradlab.structure.conditions import Accept, Condition, accepting, holding, refuse
from gradlab.structure.entries import (
    Entries,
    Format,
    Listing,
    Pair,
    Side,
    known_format,
    refuse_dense,
)
from gradlab.structure.evaluate import PROBED, Derivative, compress, confirm, is_traced
from gradlab.structure.explanation import couplings_of, equations_of
from gradlab.structure.infer import Step, Traced, Walk
from gradlab.structure.lanes import lanes_for
from gradlab.structure.products import formulas
from gradlab.structure.report import JacobianReport
from gradlab.structure.sizes import Names, checked, has_names, in_sizes, shaped
from gradlab.structure.structured import Program as Unread
from gradlab.structure.structured import Structured, operators_of
from gradlab.structure.unseen import unseen
from gradlab.tracing import (
    Program,
    compile_once,
    gradients_of,
    open_kernels,
    trace,
    write_zeros,
)
from gradlab.tracing.gradients import wraps_primal
from gradlab.tracing.linearise import Linearised, linearise, stateful

Patterns = Mapping[Pair, Pattern]


class Jacobian:
    """A function's Jacobian: what is known of it, and the ways to its entries.

    Made by `gradlab.jacobian`. Every attribute of its report is an attribute of it, too.

    Attributes:
        report: what is known, as plain data.
        derivative: of the traced function.
        values: the flat traced values of the inputs given; None where only shapes were.

    Example:
        >>> import jax.numpy as jnp, numpy as np, gradlab
        >>> J = gradlab.jacobian(jnp.tanh, np.zeros(3, np.float32))
        >>> J.structure, J.at(np.ones(3, np.float32)).block.diagonal().round(2).tolist()
        ('diagonal', [0.41999998688697815, 0.41999998688697815, 0.41999998688697815])
    """

    def __init__(
        self,
        report: JacobianReport,
        derivative: Derivative,
        values: Any,
        statics: Sequence[Any],
        reading: "_Reading",
        again: Callable[..., "Jacobian"],
    ) -> None:
        self.report = report
        self._again = again
        self._reading = reading
        self.derivative = derivative
        self.values = values
        self._statics = statics
        self._confirmed: set[str] = set()

    def __str__(self) -> str:
        return str(self.report)

    def __repr__(self) -> str:
        m, n = self.shape
        return f"Jacobian({self.name}: {m:,} x {n:,}, {self.structure}, {self.nnz:,} entries)"

    def __bool__(self) -> bool:
        return self.report.ok

    def _repr_html_(self) -> str:
        return with_operators(self)._repr_html_()

    # of its report
    kind: str
    ok: bool
    name: str
    inputs: tuple[Side, ...]
    outputs: tuple[Side, ...]
    patterns: Patterns
    pattern: Pattern
    evidence: str
    structure: str
    notation: str
    shape: tuple[int, int]
    nnz: int
    exact: bool
    rung: str
    density: float
    dense_bytes: int
    stored_bytes: int
    passes: int
    notes: tuple[str, ...]
    unknown: tuple[str, ...]
    conditions: tuple[Condition, ...]
    sizes: Mapping[str, str]
    why: Callable[..., str]
    render: Callable[[str], str]
    to_dict: Callable[[], dict[str, Any]]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "report":  # while it is copied, there is none yet
            raise AttributeError(name)
        return getattr(self.report, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in dir(self.report) if name[0] != "_")]

    def under(self, conditions: Any) -> "Jacobian":
        """Return the Jacobian with the pattern that conditions allow.

        Args:
            conditions: some of `conditions`, or as in the call of `jacobian`.

        Raises:
            InputError, InputTypeError: as for `jacobian`.

        Example:
            >>> import jax, jax.numpy as jnp, gradlab
            >>> def attend(s):
            ...     return jax.nn.softmax(jnp.where(jnp.tri(4, dtype=bool), s, -1e30))
            >>> J = gradlab.jacobian(attend, jnp.zeros((4, 4)))
            >>> J.nnz, J.under(1e6).nnz
            (40, 30)
        """
        return self._under(accepting(conditions))

    def _under(self, accept: Accept) -> "Jacobian":
        report = self._reading.report(accept)
        return Jacobian(
            report, self.derivative, self.values, self._statics, self._reading, self._again
        )

    def sized(self, **sizes: int) -> "Jacobian":
        """Read the function at other sizes.

        Args:
            **sizes: numbers for names in the shapes that were given; others stay.

        Raises:
            InputError, InputTypeError: as for `jacobian`.

        Example:
            >>> import jax.numpy as jnp, gradlab
            >>> J = gradlab.jacobian(jnp.cumsum, "T", sizes={"T": 4})
            >>> J.nnz, J.sized(T=8).nnz
            (10, 36)
        """
        return self._again(**sizes)

    def holds(self, *inputs: Any) -> tuple[Any, ...]:
        """Return whether each of `conditions` holds at a point; works under jit.

        Args:
            *inputs: of the shapes and dtypes that the function was read at.

        Returns:
            A boolean for each of `conditions`, in their order.

        Raises:
            InputError: shapes, dtypes or settings differ.
        """
        self._numbers("holds")
        values = point_of(self.derivative, self._statics, inputs, "holds")
        with jax.enable_x64(self.derivative.program.x64):
            return self._reading.holding(self.conditions, values)

    def evaluate(self, max_bytes: int = 2**30, probes: bool = True) -> Entries:
        """Evaluate every entry at the inputs given, in `passes` JVPs or VJPs, chunk by chunk.

        Chunks are spread over `jax.devices()`, where there are several. In processes joined by
        `jax.distributed.initialize`, all call this with the same arrays, and each gets all entries.

        Args:
            max_bytes: the most memory that seeds and results may take at once; what cannot fit is
                refused before anything is allocated.
            probes: hold the entries against a derivative in a random direction, the first time
                that they are evaluated.

        Raises:
            InputError: only shapes were given, the inputs are traced, the entries take more
                memory, or processes have different arrays.
            StructureMismatch: a probe disagrees.

        Example:
            >>> import jax.numpy as jnp, numpy as np, gradlab
            >>> J = gradlab.jacobian(jnp.sin, np.zeros((2, 3), np.float32))
            >>> J.evaluate().block.diagonal()
            array([[1., 1., 1.],
                   [1., 1., 1.]], dtype=float32)
        """
        self._numbers("evaluate")
        if self.values is None:
            raise InputError(
                "evaluate: the report was made from shapes; call at(*inputs) with arrays of values"
            )
        return self._entries(self.values, "evaluate", max_bytes, probes)

    def at(self, *inputs: Any, max_bytes: int = 2**30, probes: bool = True) -> Entries:
        """Evaluate every entry at other inputs; nothing is read, coloured or compiled again.

        Args:
            *inputs: of the shapes and dtypes that the function was read at.
            max_bytes: as for `evaluate`.
            probes: as for `evaluate`.

        Raises:
            InputError: as for `evaluate`; or shapes, dtypes or settings differ.
            StructureMismatch: a probe disagrees.

        Example:
            >>> import jax.numpy as jnp, numpy as np, gradlab
            >>> J = gradlab.jacobian(jnp.square, np.zeros(2, np.float32))
            >>> J.at(np.array([1, 3], np.float32)).to_dense()
            array([[2., 0.],
                   [0., 6.]], dtype=float32)
        """
        self._numbers("at")
        values = point_of(self.derivative, self._statics, inputs, "at")
        return self._entries(values, "at", max_bytes, probes)

    def compile(
        self,
        format: Format = "bcoo",
        value: bool = False,
        chunk: int | None = None,
        layout: Layout = "matrix",
        probe: bool = True,
    ) -> CompiledJacobian:
        """Return the Jacobian as a function of the inputs that JAX can trace and transform.

        A call at a new point runs `passes` JVPs or VJPs, and no Python of the function.

        Args:
            format: of what a call returns, as `Entries.to`: "bcoo", "data", "csr", "dense",
                "banded" or "lineax".
            value: whether a call returns (outputs of the function, Jacobian), from one
                linearisation.
            chunk: how many passes run together; by default 64.
            layout: "matrix": one matrix over all leaves, in the order of `ravel_pytree`; "leaves":
                a dict with the keys of `patterns`.
            probe: whether the first eager call holds the entries against one JVP in a random
                direction. Calls under a trace are not probed.

        Raises:
            InputError: there is no such format or layout.

        Example:
            >>> import jax, jax.numpy as jnp, gradlab
            >>> c = gradlab.jacobian(jnp.sin, jnp.zeros(3)).compile("data")
            >>> jax.jit(c)(jnp.zeros(3)).tolist()
            [1.0, 1.0, 1.0]
        """
        self._numbers("compile")
        refuse_words("layout", layout, get_args(Layout))
        refuse_flags(value=value, probe=probe)
        if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int)):
            raise InputTypeError(f"chunk: expected a number of passes, got {chunk!r}")
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk: expected at least 1 pass at a time, got {chunk}")
        return CompiledJacobian(
            self.report,
            self.derivative,
            self.report.plan,
            lambda: self._listing,
            self._statics,
            known_format(format),
            value,
            chunk,
            layout,
            probe,
        )

    def operator(self, *inputs: Any) -> Structured | dict[Pair, Structured]:
        """Return the Jacobian at a point as a structured operator, from the program.

        It applies, transposes and multiplies without the entries, in the bytes that the structure
        needs, and prints as a formula; a softmax is a diagonal plus rank one in each row. It works
        under jit. What the formula says follows from the program alone, not from the values.

        Args:
            *inputs: of the shapes and dtypes that the function was read at.

        Returns:
            The operator; of several blocks a dict with the keys of `patterns`.

        Raises:
            InputError: shapes, dtypes or settings differ.

        Example:
            >>> import jax, jax.numpy as jnp, gradlab
            >>> x = jnp.ones((100, 512))
            >>> J = gradlab.jacobian(jax.nn.softmax, x).operator(x)
            >>> print(J, J.stored_bytes)
            diag(d) + u v' for each i 614400
        """
        self._numbers("operator")
        found = self._operators(point_of(self.derivative, self._statics, inputs, "operator"))
        named = dict(zip(self.patterns, found.values(), strict=True))
        return next(iter(named.values())) if len(named) == 1 else named

    def _operators(self, values: Sequence[Any]) -> dict[tuple[int, int], Structured]:
        at = self.derivative
        with jax.enable_x64(at.program.x64):
            linear = linearise(at.program, at.wrt, at.outputs)
            values = [jnp.asarray(value) for value in values]
            return operators_of(at, linear, values, self.report.grid[0])

    @functools.cached_property
    def _listing(self) -> Listing:
        """Where the entries of the whole matrix stand."""
        report, plan = self.report, self.report.plan
        m, n = plan.shape
        largest = max(m, n, report.nnz, plan.jvps * m + plan.vjps * n)
        kind = np.int32 if largest < 2**31 else np.int64
        alone = next(iter(report.patterns.values()))
        if len(report.patterns) == 1 and alone.is_diagonal and alone.nnz == m == n:
            rows = cols = np.arange(m, dtype=kind)
        else:
            matrix = listed(*report.grid)
            rows = np.repeat(np.arange(m, dtype=kind), np.diff(matrix.indptr))
            cols = matrix.indices.astype(kind)
        places = plan.places(rows.astype(np.int64), cols.astype(np.int64)).astype(kind)
        return Listing((m, n), rows, cols, places, symmetric=report.symmetric)

    def holds_at(self, pair: Pair, holds: Callable[[Pattern, Mapping[str, Any]], bool]) -> bool:
        """Return whether something holds of a block, at every size for which it is proved.

        Args:
            pair: the block.
            holds: of the block's pattern, where names of sizes have these values.
        """
        pattern, reading = self.patterns[pair], self._reading
        if reading.sizes is None or not self.report.least:
            return holds(pattern, {})
        return holds(pattern, {}) and reading.names.everywhere(
            reading.sizes,
            self.report.least,
            lambda numbers, here: holds(pattern.sized(numbers), numbers),
        )

    def _numbers(self, who: str) -> None:
        """Refuse what needs the numbers of all sizes."""
        if self.report.least:
            names = ", ".join(f"{name}=8" for name in self.report.least)
            raise InputError(f"{who}: sizes have no numbers; call J.sized({names}).{who} instead")

    def _entries(self, values: Sequence[Any], who: str, max_bytes: int, probes: bool) -> Entries:
        refuse_bytes(max_bytes)
        refuse_flags(probes=probes)
        if is_traced(values):
            raise InputError(
                f"{who}: the inputs are traced by jit, vmap or grad, and have no values yet; "
                'J.compile("bcoo")(*inputs) works there'
            )
        report, at = self.report, self.derivative
        with jax.enable_x64(at.program.x64):
            values = [jnp.asarray(value) for value in values]
        flat = compress(at, values, report.plan, max_bytes, lanes_for(values))
        entries = Entries(
            report.outputs, report.inputs, report.patterns, flat, lambda: self._listing
        )
        mode = "jvp" if "jvp" in report.modes else "vjp"
        if probes and mode not in self._confirmed:
            if report.nnz <= PROBED:
                data = entries.flat[entries.listing.places]
                confirm(at, values, mode, [(entries.listing, data)])
            self._confirmed.add(mode)
        return entries

    def to_dense(self, max_bytes: int = 2**30) -> np.ndarray[Any, Any]:
        """Evaluate and return the dense matrix, shape `shape`, of at most `max_bytes`.

        Raises:
            InputError: it takes more; nothing has been evaluated then.

        Example:
            >>> import gradlab, jax.numpy as jnp
            >>> J = gradlab.jacobian(jnp.tanh, jnp.ones((100, 4096)))
            >>> try:
            ...     J.to_dense()
            ... except gradlab.GradlabError as error:
            ...     print(str(error)[:58])
            to_dense: the dense 409,600 x 409,600 matrix takes 625 GiB
        """
        refuse_dense(self.outputs, self.inputs, max_bytes)
        return self.evaluate(max_bytes).to_dense(max_bytes)

    def to_scipy(self, max_bytes: int = 2**30) -> Any:
        """Evaluate and return a SciPy CSR matrix, shape `shape`; memory: as `Entries.to_scipy`."""
        return self.evaluate(max_bytes).to_scipy()

    def to_bcoo(self, max_bytes: int = 2**30) -> Any:
        """Evaluate and return a JAX BCOO array, shape `shape`; memory: as `Entries.to_scipy`."""
        return self.evaluate(max_bytes).to_bcoo()

    def plot(self, path: str | Path) -> None:
        """Write a picture of the pattern, block by block, as an SVG file.

        Raises:
            InputError: the path does not end in `.svg`.
        """
        if not isinstance(path, str | os.PathLike):
            raise InputTypeError(f"path: expected a file ending in .svg, got {type(path).__name__}")
        target = Path(path)
        if target.suffix != ".svg":
            raise InputError(f"plot: path must end in .svg, got {target.name!r}")
        write_whole(str(target), self.render("svg"))


def jacobian(
    function: Callable[..., Any],
    *inputs: Any,
    wrt: Any = None,
    conditions: Any = None,
    sizes: Mapping[str, int] | None = None,
) -> Jacobian:
    """Infer the structure of a function's Jacobian from its program, and say why.

    gradlab traces the program of the derivative and reads it axis by axis. It evaluates no entry,
    so ten million entries cost as much as ten. Entries outside the pattern are zero at every input
    whose values are finite.

    Memory: does not grow with the arrays; `evaluate` allocates at most its `max_bytes`.

    Args:
        function: a JAX or NumPy function, a node or a graph.
        *inputs: arrays of any shape and dtype, Python numbers or pytrees of them;
            `jax.ShapeDtypeStruct`, or words such as "BxTx64:bfloat16,T%8==0", where shapes suffice.
        wrt: inputs to differentiate, by position or by name (default: all).
        conditions: conditions that the pattern may assume: 1e6 says that masked values stay below
            1e6, "nonempty" that each row keeps an entry, "finite" that values are finite; also
            `Condition`s, or a tuple of these. By default none.
        sizes: numbers for the names in shapes. A name without one stands for every size; JAX takes
            a test such as `x.shape[0] == 8` for false there, and `J.sizes` names it.

    Returns:
        The Jacobian: `structure`, `pattern`, `nnz`, `why()`, `at()`, `compile()` and more.

    Raises:
        InputError: nothing to differentiate, `wrt` names no input, or JAX cannot differentiate
            the function, or a condition is not known.
        InputTypeError: `function` cannot be called.
        NotTraceable: the function reads values of its inputs.

    References:
        Bounds between axes are closed as difference-bound matrices: Dill (1989), "Timing
        assumptions and verification of finite-state concurrent systems"; Mine (2001), "A new
        numerical abstract domain based on difference-bound matrices".

    Example:
        >>> import jax.numpy as jnp, numpy as np, gradlab
        >>> J = gradlab.jacobian(jnp.tanh, np.zeros((100, 4096), np.float32))
        >>> J.structure, J.nnz, J.notation
        ('diagonal', 409600, 'out[i, j] <- x[i, j]')
    """
    accept, numbers, called = accepting(conditions), checked(sizes), inputs
    names = Names.of(inputs, numbers)
    inputs = tuple(shaped(value, names) for value in inputs)
    blanks = tuple(map(_stand_in, inputs))
    try:
        with names.watching():
            program = trace(function, *blanks)
    except GradlabError as error:
        if names.units:
            eights = ", ".join(f"{name!r}: 8" for name in names.units)
            raise InputError(
                f"{str(error).rstrip('.')}. If it runs where {' and '.join(names.units)} "
                f"{'are' if len(names.units) > 1 else 'is'} a number, "
                f"give sizes={{{eights}}}"
            ) from error
        function = ported(function, inputs, error)
        program = trace(function, *blanks)
    require_inputs(function, inputs)
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
    with names.watching():
        program, linear = _linearised(program, sources, outputs)
    mirrors = _mirrors(function, blanks, program, sources, outputs)
    reading = _Reading(program, linear, sources, outputs, mirrors, names, names.sizes())
    leaves = jax.tree.leaves(inputs, is_leaf=lambda leaf: leaf is None)
    known = not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)

    def again(*values: Any) -> list[Any]:
        supply = iter(values)
        given = [next(supply) if leaf.traced else v for v, leaf in zip(leaves, program.leaves)]
        return jax.tree.leaves(function(*jax.tree.unflatten(program.in_tree, given)))

    return Jacobian(
        reading.report(accept),
        Derivative(program, sources, outputs, again),
        tuple(program.flatten(inputs)) if known else None,
        [value for value, leaf in zip(leaves, program.leaves, strict=True) if not leaf.traced],
        reading,
        lambda **more: jacobian(
            function, *called, wrt=wrt, conditions=conditions, sizes={**numbers, **more}
        ),
    )


def with_operators(J: Jacobian) -> JacobianReport:
    """Return the report of a Jacobian with the formula of each operator that saves memory."""
    report, program = J.report, J.derivative.program
    found: dict[Pair, tuple[str, int]] = {}

    def read(*values: Any) -> None:
        for pair, block in zip(J.patterns, J._operators(values).values(), strict=True):
            saves = block.stored_bytes < block.operator.dense_bytes
            if saves and not isinstance(block.operator, Unread):
                found[pair] = str(block), block.stored_bytes

    if not report.least:
        with jax.enable_x64(program.x64):
            jax.eval_shape(read, *program.in_avals)
    return replace(report, operators=found)


@dataclass(frozen=True, eq=False)
class _Reading:
    """The program of a derivative, to be read under conditions."""

    program: Program
    linear: Linearised
    sources: tuple[int, ...]
    outputs: tuple[int, ...]
    mirrors: tuple[int, ...]
    names: Names
    sizes: Sizes | None
    walks: "list[_Walked]" = field(default_factory=list)

    def sides(self, sizes: Sizes | None) -> tuple[tuple[Side, ...], tuple[Side, ...]]:
        """Return the leaves differentiated by, and those that are differentiated."""
        program = self.program
        given = [(program.in_names[k], program.in_avals[k]) for k in self.sources]
        made = [(program.out_names[k], program.out_avals[k]) for k in self.outputs]
        inputs, outputs = (
            tuple(
                Side(name, in_sizes(tuple(aval.shape), sizes), str(aval.dtype))
                for name, aval in side
            )
            for side in (given, made)
        )
        return inputs, outputs

    def report(self, accept: Accept) -> JacobianReport:
        """Return what is known under the conditions that are accepted."""
        program, linear = self.program, self.linear
        walk, patterns = self._infer(accept, self.sizes)
        if walk.used:
            plain, without = self._infer(refuse, self.sizes)
            if _covers(patterns, without):  # nothing is gained
                walk, patterns = plain, without
        conditions = tuple(replace(c, accepted=True) for c in walk.used.values())
        if walk.refused:
            every, smallest = self._infer(lambda condition: True, self.sizes)
            if not _covers(smallest, patterns):
                more = {need: c for need, c in every.used.items() if need not in walk.used}
                conditions += tuple(more.values())
        finite = any(c.accepted for c in conditions)
        notes = [note for note in walk.notes if not (finite and note.text.endswith(FINITE_MASK))]
        flags = [k in self.sources for k in range(len(program.in_avals))]
        given, made = self.sides(self.sizes)
        reach = self._reach(patterns, accept)
        seeds = given if linear.mode == "jvp" else made
        lines = equations_of(program.jaxpr, flags)
        return JacobianReport(
            name=program.name,
            inputs=given,
            outputs=made,
            patterns=patterns,
            evidence="proved",
            notes=tuple(map(str, notes)) + _widened(patterns),
            unknown=tuple(walk.unknown),
            steps=lines,
            couplings=couplings_of(walk.steps, lines, [(s.path, s.shape) for s in seeds]),
            formulas=formulas(program.jaxpr, program.in_names, "out"),
            modes=_modes(linear, walk.steps),
            read_in=linear.mode,
            mirrors=self.mirrors,
            conditions=conditions,
            sizes=self.names.described(self.sizes, reach),
            least=reach,
            unseen=self._unseen(patterns, accept),
        )

    def _unseen(self, patterns: Patterns, accept: Accept) -> str:
        """Say where values go beyond the patterns; what it asks of sizes is no part of a proof."""
        sizes = self.names.sizes()
        numbers = {name: sizes.named(name) for name in sizes.least} if sizes else {}
        same = {pair: p.sized(numbers) if numbers else p for pair, p in patterns.items()}
        return unseen(self.program, self.sources, self.outputs, same, sizes, accept)

    def _reach(self, patterns: Patterns, accept: Accept) -> Mapping[str, int]:
        """Return for each name of a size from which number on the patterns are proved.

        Where the proof has assumed more than was asked, it is done again at the few smaller sizes.
        """
        sizes = self.sizes
        if sizes is None:
            return {}

        def hold(numbers: Mapping[str, Any], here: Sizes) -> bool:
            smaller = self._infer(accept, here)[1]
            there = {pair: p.sized(numbers) for pair, p in patterns.items()}
            fits = all(p.output_shape == smaller[pair].output_shape for pair, p in there.items())
            return fits and all(p.covers(smaller[pair]) for pair, p in there.items())

        return sizes.least if self.names.everywhere(sizes, sizes.least, hold) else sizes.bounds()

    def holding(self, conditions: Sequence[Condition], values: Sequence[Any]) -> tuple[Any, ...]:
        """Return whether conditions hold at a point."""
        walk, _ = self._infer(lambda condition: True, None)
        given, made = self.sides(None)
        seeds = given if self.linear.mode == "jvp" else made
        zeros = [jnp.zeros(side.shape, side.dtype) for side in seeds]

        def asked(*values: Any) -> tuple[Any, ...]:
            return holding(self.linear.jaxpr, values, walk.watched, conditions)

        point = [*values, *zeros]
        if any(isinstance(value, jax.core.Tracer) for value in values):
            return asked(*point)
        result: tuple[Any, ...] = compile_once(asked, *point)(*point)
        return result

    def _infer(self, accept: Accept, sizes: Sizes | None) -> tuple[Walk, dict[Pair, Pattern]]:
        """Return the pattern of every block; a walk with the same answers is not repeated."""
        for known in self.walks:
            if known.sizes is sizes and all(accept(c) == said for c, said in known.answers):
                return known.walk, known.patterns
        answers: list[tuple[Condition, bool]] = []

        def answer(condition: Condition) -> bool:
            answers.append((condition, accept(condition)))
            return answers[-1][1]

        walk = Walk(accept=answer, sizes=sizes)
        self.walks.append(_Walked(sizes, answers, walk, self._walked(walk, sizes)))
        return walk, self.walks[-1].patterns

    def _walked(self, walk: Walk, sizes: Sizes | None) -> dict[Pair, Pattern]:
        """Walk the derivative; return the pattern of every block."""
        linear, (given, made) = self.linear, self.sides(sizes)
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
        found = [
            walk.result(v, side.shape, shapes) for v, side in zip(made_of, results, strict=True)
        ]
        patterns = {}
        for out in range(len(made)):
            for source in range(len(given)):
                row, seed = (out, source) if linear.mode == "jvp" else (source, out)
                pattern = found[row].get(seed)
                if pattern is None:
                    pattern = Pattern.zero(results[row].shape, seeds[seed].shape)
                key = made[out].path, given[source].path
                patterns[key] = pattern if linear.mode == "jvp" else pattern.T
        return patterns


@dataclass(frozen=True, eq=False)
class _Walked:
    """A walk that was made: what it asked, what it was told, and what it found."""

    sizes: Sizes | None
    answers: Sequence[tuple[Condition, bool]]
    walk: Walk
    patterns: dict[Pair, Pattern]


def _mirrors(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    program: Program,
    sources: Sequence[int],
    outputs: Sequence[int],
) -> tuple[int, ...]:
    """Return for each output the input by which it is the gradient of one scalar function."""
    given = [program.in_avals[k] for k in sources]
    made = [program.out_avals[k] for k in outputs]
    kinds = [sorted(str((aval.shape, aval.dtype)) for aval in avals) for avals in (given, made)]
    sizes = [aval.size for aval in given]
    if kinds[0] != kinds[1] or (all(isinstance(n, int) for n in sizes) and sum(sizes) < 3):
        return ()
    leaves = [leaf for leaf in program.leaves if leaf.traced]
    found = gradients_of(program, sources, outputs)
    positions = list(dict.fromkeys(leaves[k].position for k in sources))
    if not found and wraps_primal(function, inputs, program, positions):
        return tuple(range(len(sources)))
    return found


def _linearised(
    program: Program, sources: tuple[int, ...], outputs: tuple[int, ...]
) -> tuple[Program, Linearised]:
    """Return the program and its derivative, if possible with kernels opened and zeros written.

    JAX differentiates some kernels forwards, and none backwards.
    """
    opened = write_zeros(open_kernels(program))
    with contextlib.suppress(Exception):
        if opened is not program:
            return opened, linearise(opened, sources, outputs)
    try:
        return program, linearise(program, sources, outputs)
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"function: JAX cannot differentiate {program.name} in forward mode or in reverse "
            f"mode: {reason}"
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
                paths = [traced[k].path for k in floating]
                raise InputError(
                    f"wrt: {pick!r} is no differentiable input of {program.name}; choose among "
                    f"{', '.join(paths) or 'none: no input is floating'}",
                    (str(pick), [*paths, ""][0]),
                )
            chosen += [k for k in here if k not in chosen]
    if not chosen:
        dtypes = ", ".join(f"{leaf.path}: {leaf.dtype or leaf.kind}" for leaf in program.leaves)
        old = [f"{shape_text(leaf.shape)}:{leaf.dtype}" for leaf in program.leaves if leaf.dtype]
        raise InputError(
            f"inputs: {program.name} has no floating-point input to differentiate by ({dtypes}); "
            "cast with x.astype('float32')",
            (old[0], f"{old[0].partition(':')[0]}:float32") if old else ("", ""),
        )
    return tuple(sorted(chosen))


def _named(path: str, name: Any) -> bool:
    return path == name or path.startswith((f"{name}[", f"{name}."))


def _modes(linear: Linearised, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the modes that AD can run: a `custom_vjp` has no JVP, a `while` no VJP."""
    if linear.mode == "vjp":
        return ("vjp",)
    return ("jvp",) if _loops(steps) else ("jvp", "vjp")


def _loops(steps: Sequence[Step]) -> bool:
    return any(step.name == "while" or _loops(step.inner) for step in steps)


def _covers(a: Mapping[Pair, Pattern], b: Mapping[Pair, Pattern]) -> bool:
    return all(pattern.covers(b[pair]) for pair, pattern in a.items())


def _widened(patterns: dict[tuple[str, str], Pattern]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for p in patterns.values() for text in p.widened))


def _stand_in(value: Any) -> Any:
    """Give a shape the form of an array that takes no memory."""
    return jax.tree.map(
        lambda leaf: (
            np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
            if isinstance(leaf, jax.ShapeDtypeStruct) and not has_names(leaf)
            else leaf
        ),
        value,
    )
