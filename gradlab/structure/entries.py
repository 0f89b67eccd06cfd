"""The entries of a Jacobian: where they stand, and the formats in which people need them."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from gradlab.arguments import refuse_bytes, refuse_words
from gradlab.common.arrays import NumPyArray as Array
from gradlab.errors import InputError
from gradlab.formatting import size_text
from gradlab.patterns import Pattern

Pair = tuple[str, str]
"""The path of an output and the path of an input."""
Format = Literal["bcoo", "data", "csr", "dense", "banded", "lineax"]


@dataclass(frozen=True)
class Side:
    """One input or output leaf of the function.

    Attributes:
        path: its name.
        shape: its shape.
        dtype: its dtype.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes per entry."""
        return jnp.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class Listing:
    """Where the entries of a matrix, or of one block of it, stand; sorted by row, then column.

    Attributes:
        shape: of the matrix or block.
        rows: the row of each entry.
        cols: the column of each entry.
        places: where each entry stands in the flattened result of all passes.
        corner: the block's first row and column in the whole matrix.
        symmetric: whether the matrix is known to be symmetric.
    """

    shape: tuple[int, int]
    rows: Array
    cols: Array
    places: Array
    corner: tuple[int, int] = (0, 0)
    symmetric: bool = False

    @functools.cached_property
    def indptr(self) -> Array:
        """Where each row starts among the entries, as in the CSR format."""
        starts = np.zeros(self.shape[0] + 1, self.rows.dtype)
        np.cumsum(np.bincount(self.rows, minlength=self.shape[0]), out=starts[1:])
        return starts

    @functools.cached_property
    def bandwidths(self) -> tuple[int, int]:
        """How many diagonals lie below the main one, and above."""
        if not len(self.rows):
            return 0, 0
        apart = self.rows.astype(np.int64) - self.cols
        return max(0, int(apart.max())), max(0, int(-apart.min()))

    @functools.cached_property
    def positions(self) -> Array:
        """Where each entry stands in the flattened dense matrix."""
        wide = np.int64 if math.prod(self.shape) > np.iinfo(np.int32).max else self.rows.dtype
        return self.rows.astype(wide) * self.shape[1] + self.cols

    @functools.cached_property
    def banded(self) -> Array:
        """For each place of the (l + u + 1, n) array of bands: where it is read, -1 for a zero."""
        low, high = self.bandwidths
        found = np.full((low + high + 1, self.shape[1]), -1, self.places.dtype)
        found[high + self.rows - self.cols, self.cols] = self.places
        return found

    def within(self, corner: tuple[int, int], shape: tuple[int, int]) -> "Listing":
        """Return the entries of one block."""
        (top, left), (high, wide) = corner, shape
        inside = (self.rows >= top) & (self.rows < top + high)
        inside &= (self.cols >= left) & (self.cols < left + wide)
        return Listing(
            shape,
            self.rows[inside] - top,
            self.cols[inside] - left,
            self.places[inside],
            corner,
            self.symmetric and top == left and high == wide,
        )

    def to_csr(self, data: Any) -> Any:
        """Return values of the entries in SciPy's CSR format; the index arrays are shared."""
        values = np.asarray(data)
        if values.dtype.itemsize < 4:  # half precision, which SciPy does not know
            values = values.astype(np.float32)
        return scipy.sparse.csr_array((values, self.cols, self.indptr), shape=self.shape)


def known_format(format: str) -> Format:
    """Return the name of a format, or refuse it."""
    refuse_words("format", format, get_args(Format))
    return format  # type: ignore[return-value]  # it is one of them


def index_of(format: Format, listing: Listing) -> tuple[Array, ...]:
    """Return the index arrays that `read` needs for a format.

    They are unsigned where none is negative. JAX lets signed ones count from the end, at a cost.
    """
    if format == "banded":
        return (listing.banded.reshape(-1),)
    index = (listing.places, listing.positions) if format == "dense" else (listing.places,)
    return tuple(each.view(f"u{each.itemsize}") for each in index)


def read(format: Format, listing: Listing, made: Any, index: Sequence[Any]) -> Any:
    """Read the array of a format from the result of all passes; JAX can trace this.

    Args:
        format: which format.
        listing: which entries there are.
        made: the result of all passes, flattened, or a row for each pass.
        index: the index arrays of `index_of`, as NumPy or JAX arrays.
    """
    flat, size = made.reshape(-1), made.size
    if format == "banded":
        low, high = listing.bandwidths
        values = flat[index[0]] if size else jnp.zeros(len(listing.banded.ravel()), flat.dtype)
        return jnp.where(index[0] >= 0, values, 0).reshape(low + high + 1, listing.shape[1])
    places = listing.places
    if len(places) == size and np.array_equal(places, np.arange(size)):
        data = flat
    elif not len(places):
        data = flat[:0]
    elif made.ndim > 1 and isinstance(index[0], np.ndarray):  # two indices spare XLA a division
        data = made.at[np.divmod(index[0], made.shape[1])].get(mode="promise_in_bounds")
    else:
        data = flat.at[index[0]].get(mode="promise_in_bounds")
    if format != "dense":
        return data
    if len(places) == math.prod(listing.shape):
        return data.reshape(listing.shape)
    dense = jnp.zeros(math.prod(listing.shape), data.dtype)
    return (
        dense.at[index[1]]
        .set(data, unique_indices=True, indices_are_sorted=True, mode="promise_in_bounds")
        .reshape(listing.shape)
    )


def data_of(format: Format, listing: Listing, found: Any) -> Array:
    """Return the entries' values from an array that `read` made."""
    values: Array = np.asarray(found)
    if format == "dense":
        values = values.reshape(-1)[listing.positions]
    if format == "banded":
        _, high = listing.bandwidths
        values = values[high + listing.rows - listing.cols, listing.cols]
    return values


def wrapped(format: Format, listing: Listing, found: Any, indices: Any) -> Any:
    """Return what a person gets, from the array that `read` made.

    Args:
        format: which format.
        listing: which entries there are.
        found: the array.
        indices: for "bcoo" the (row, column) of each entry, as a JAX array.
    """
    if format == "bcoo":
        return bcoo(listing.shape, found, indices)
    if format == "csr":
        if isinstance(found, jax.core.Tracer):
            raise InputError(
                'format="csr" is a SciPy matrix, which JAX cannot trace; inside jit, vmap, grad or '
                'a loop use format="bcoo"'
            )
        return listing.to_csr(found)
    if format == "lineax":
        try:
            from gradlab.structure.solving import as_operator
        except ImportError as error:
            raise InputError(
                'format="lineax" needs lineax, which is not installed: pip install lineax'
            ) from error
        return as_operator(listing, found)
    return found


def bcoo(shape: tuple[int, int], data: Any, indices: Any) -> Any:
    """Return the JAX BCOO of entries that are sorted and unique."""
    about = {"shape": shape, "indices_sorted": True, "unique_indices": True}
    return _kind_of_bcoo().tree_unflatten(about, (data, indices))  # checks and compiles nothing


@functools.cache
def _kind_of_bcoo() -> Any:
    from jax.experimental.sparse import BCOO

    return BCOO


def pairs_of(listing: Listing) -> Array:
    """Return the (row, column) of each entry, one row each."""
    return np.stack([listing.rows, listing.cols], axis=1).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Block:
    """The evaluated entries of one output by one input.

    Attributes:
        pattern: which entries may be nonzero.
        flat: the flattened result of all passes.
    """

    pattern: Pattern
    flat: Array = field(repr=False)
    _list: Callable[[], Listing] = field(repr=False)

    @functools.cached_property
    def listing(self) -> Listing:
        """Where the entries stand."""
        return self._list()

    @functools.cached_property
    def data(self) -> Array:
        """The entries' values, sorted by row, then column."""
        values: Array = self.flat[self.listing.places]
        return values

    @property
    def eps(self) -> float:
        """The spacing of the entries' dtype at 1."""
        return float(jnp.finfo(self.flat.dtype).eps)  # type: ignore[no-untyped-call]  # it has no types

    def diagonal(self) -> Array | None:
        """Return d where the block is diag(d), in the output's shape; else None."""
        if not self.pattern.is_diagonal or self.pattern.nnz != self.pattern.shape[0]:
            return None
        return self.data.reshape(self.pattern.output_shape)

    def to(self, format: Format) -> Any:
        """Return the block in a format, as `Entries.to`."""
        return _to(known_format(format), self.listing, self.flat)

    def to_scipy(self) -> Any:
        """Return the block as a SciPy CSR matrix over the flattened output and input."""
        return self.listing.to_csr(self.data)


def _to(format: Format, listing: Listing, flat: Array) -> Any:
    with jax.enable_x64(flat.dtype in (np.float64, np.complex128) or jax.config.jax_enable_x64):  # type: ignore[attr-defined]  # it has no types
        found = read(format, listing, jnp.asarray(flat), index_of(format, listing))
        return wrapped(format, listing, found, jnp.asarray(pairs_of(listing)))


@dataclass(frozen=True, eq=False)
class Entries:
    """The evaluated entries of a Jacobian, as its passes gave them.

    Attributes:
        outputs: the leaves of the output.
        inputs: the leaves of the input.
        patterns: which entries each block may have.
        flat: the flattened result of all passes.

    Example:
        >>> import jax.numpy as jnp, gradlab
        >>> entries = gradlab.jacobian(jnp.sin, jnp.zeros(3)).evaluate()
        >>> entries.to("data").tolist(), entries.nbytes
        ([1.0, 1.0, 1.0], 12)
    """

    outputs: tuple[Side, ...]
    inputs: tuple[Side, ...]
    patterns: Mapping[Pair, Pattern] = field(repr=False)
    flat: Array = field(repr=False)
    _list: Callable[[], Listing] = field(repr=False)

    @functools.cached_property
    def listing(self) -> Listing:
        """Where the entries of the whole matrix stand."""
        return self._list()

    @functools.cached_property
    def blocks(self) -> Mapping[Pair, Block]:
        """For each (output path, input path), the entries of that block."""
        if len(self.patterns) == 1:
            [(pair, pattern)] = self.patterns.items()
            return {pair: Block(pattern, self.flat, lambda: self.listing)}
        parts = functools.cache(lambda: parts_of(self.listing, self.outputs, self.inputs))

        def finder(pair: Pair) -> Callable[[], Listing]:
            return lambda: parts()[pair]

        return {
            pair: Block(pattern, self.flat, finder(pair)) for pair, pattern in self.patterns.items()
        }

    @property
    def block(self) -> Block:
        """The only block.

        Raises:
            InputError: there are several; look in `blocks`.
        """
        block: Block = only(self.blocks, "block", "blocks")
        return block

    @property
    def nbytes(self) -> int:
        """The memory that the entries take."""
        return int(self.flat.nbytes)

    def to(self, format: Format) -> Any:
        """Return the matrix (all outputs flattened, all inputs flattened) in a format.

        Args:
            format: "bcoo": a JAX BCOO; "data": the entries alone, by row; "csr": SciPy; "dense": a
                JAX array; "banded": the (l + u + 1, n) array of `scipy.linalg.solve_banded`;
                "lineax": a `lineax.AbstractLinearOperator`.

        Raises:
            InputError: there is no such format, or lineax is not installed.
        """
        return _to(known_format(format), self.listing, self.flat)

    def to_scipy(self) -> Any:
        """Return the matrix (all outputs flattened, all inputs flattened) in SciPy's CSR format.

        Memory: three integers of 8 bytes and two numbers for each entry of the pattern.
        """
        return self.listing.to_csr(self.flat[self.listing.places])

    def to_dense(self, max_bytes: int = 2**30) -> Array:
        """Return the matrix as a dense array of at most `max_bytes`.

        Raises:
            InputError: it takes more; nothing has been allocated then.
        """
        refuse_dense(self.outputs, self.inputs, max_bytes)
        dense: Array = self.to_scipy().toarray()
        return dense

    def to_bcoo(self) -> Any:
        """Return the matrix as a JAX BCOO array."""
        return self.to("bcoo")


def parts_of(
    listing: Listing, outputs: Sequence[Side], inputs: Sequence[Side]
) -> dict[Pair, Listing]:
    """Return the entries of each block."""
    found, top = {}, 0
    for out in outputs:
        left = 0
        for given in inputs:
            found[out.path, given.path] = listing.within((top, left), (out.size, given.size))
            left += given.size
        top += out.size
    return found


def refuse_dense(outputs: Sequence[Side], inputs: Sequence[Side], max_bytes: int) -> None:
    """Raise where the dense matrix takes more than `max_bytes`."""
    refuse_bytes(max_bytes)
    m, n = sum(side.size for side in outputs), sum(side.size for side in inputs)
    size = m * n * max((side.itemsize for side in outputs), default=1)
    if size > max_bytes:
        raise InputError(
            f"to_dense: the dense {m:,} x {n:,} matrix takes {size_text(size)}, more than "
            f"max_bytes={size_text(max_bytes)}; use evaluate() or to_scipy(), which keep only the "
            "entries of the pattern, or raise max_bytes"
        )


def only(blocks: Mapping[Pair, Any], one: str, many: str) -> Any:
    """Return the only block, or raise and say where to look for the others."""
    if len(blocks) != 1:
        raise InputError(
            f"{one}: there are {len(blocks)} blocks, {', '.join(map(str, list(blocks)[:4]))}; "
            f"look in .{many}[output path, input path]"
        )
    return next(iter(blocks.values()))
