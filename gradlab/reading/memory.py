"""Memory with a symbol: which entries of a buffer a view shows, and how they are read and written.

Whatever made a view (a slice, a transpose, `split`, `as_strided`), its address, strides and shape
say which entries it shows. Reading slices, reverses, transposes and reshapes the buffer's symbol
where strides allow, and gathers at constant places elsewhere; writing goes the same way back.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax

Array: TypeAlias = npt.NDArray[Any]
Symbol: TypeAlias = jax.Array
Shape: TypeAlias = tuple[int, ...]


@dataclass(eq=False)
class Buffer:
    """One owned array: `symbol` is what was computed into it, None while it is constant.

    `memory` shows the owner's entries in the order in which they lie; the symbol has its shape.
    `guarded`: the array is the user's, so its contents are kept before the first write.
    """

    owner: Array
    memory: Array
    symbol: Symbol | None = None
    guarded: bool = False
    version: int = 0
    saved: Array | None = None
    seen: dict[Any, Any] = field(default_factory=dict)
    source: "Source | None" = None

    @property
    def traced(self) -> bool:
        """Whether what it holds depends on the inputs."""
        return self.symbol is not None or self.source is not None

    @property
    def stale(self) -> bool:
        """Whether what it was taken from has been written since."""
        source = self.source
        return source is not None and (source.buffer.version != source.seen or source.buffer.stale)

    def read(self, view: Array) -> Any:
        """Return what a view shows: a symbol, or a copy of the entries while they are constant."""
        where = _layout(self.memory, view)
        if where not in self.seen:
            self.seen[where] = np.array(view) if self.symbol is None else self._traced(view, where)
        return self.seen[where]

    def write(self, view: Array, value: Any | None) -> bool:
        """Write a symbol through a view, or None for entries that are constant and whole.

        Returns False where the view shows an entry twice. The shadow is written by the caller,
        afterwards.
        """
        plan = _plan_for(self.memory, view)
        if plan.twice:
            return False
        if value is None and not plan.whole and self.symbol is not None:
            raise AssertionError("a part of a traced buffer is written with a symbol")
        new = None
        if value is not None:
            value = lax.convert_element_type(value, view.dtype)
            new = self._joined(plan.write(self._parts(view), value), view)
        self.changing()
        self.symbol = new
        return True

    def changing(self) -> None:
        """Note that the memory is about to change."""
        if self.guarded and self.saved is None:
            self.saved = self.memory.copy()
        self.version += 1
        self.seen = {}

    def restore(self) -> None:
        """Put the contents back that the user's array had."""
        if self.saved is not None:
            self.memory[...] = self.saved

    @property
    def current(self) -> Any:
        """The symbol of the whole memory, made from its entries while they are constant."""
        if self.symbol is not None:
            return self.symbol
        if self.memory.tobytes().count(0) == self.memory.nbytes:
            return lax.full(self.memory.shape, 0, self.memory.dtype)
        return self.memory.copy()

    def _traced(self, view: Array, where: Any) -> Any:
        if where == (0, _strides(self.memory), self.memory.shape, self.memory.dtype):
            return self.symbol
        return _plan_for(self.memory, view).read(self._parts(view))

    def _parts(self, view: Array) -> Any:
        """Return the memory's symbol; of complex numbers that are seen as real ones, both parts."""
        whole = self.current
        if view.dtype == self.memory.dtype:
            return whole
        return lax.concatenate(
            [lax.expand_dims(part, (part.ndim,)) for part in (jnp.real(whole), jnp.imag(whole))],
            self.memory.ndim,
        )

    def _joined(self, whole: Symbol, view: Array) -> Symbol:
        if view.dtype == self.memory.dtype:
            return whole
        return lax.complex(whole[..., 0], whole[..., 1])


@dataclass(eq=False)
class Source:
    """Where a buffer was taken from: `stand[key]`, at a place that depends on values.

    NumPy shows the array itself there, so what is written into the buffer is written there too.
    `seen` and `kept` are the versions of the array and of the buffer when they were last the same.
    """

    stand: Any
    key: Any
    seen: int
    kept: int = 0

    @property
    def buffer(self) -> Buffer:
        """The array's memory."""
        found: Buffer = self.stand.buffer
        return found


def owner_of(array: Array) -> Array:
    """Return the array whose memory a view shows."""
    owner, base = array, array.base
    while base is not None:
        if isinstance(base, np.ndarray):
            owner = base
        base = getattr(base, "base", None)  # `as_strided` puts an object between
    return owner


def buffer_of(owner: Array, symbol: Symbol | None = None, guarded: bool = False) -> Buffer | None:
    """Return a new buffer for an array, with a symbol of its shape; None if it has gaps."""
    if owner.flags.c_contiguous:
        return Buffer(owner, owner, symbol, guarded)
    order = tuple(int(i) for i in np.argsort([-s for s in owner.strides], kind="stable"))
    memory = owner.transpose(order)
    if not memory.flags.c_contiguous:
        return None
    return Buffer(owner, memory, None if symbol is None else lax.transpose(symbol, order), guarded)


def _strides(array: Array) -> Shape:
    return tuple(s // array.itemsize for s in array.strides)


def _layout(memory: Array, view: Array) -> tuple[int, Shape, Shape, Any]:
    start = view.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    return start // view.itemsize, _strides(view), view.shape, view.dtype


def _plan_for(memory: Array, view: Array) -> "_Plan":
    offset, strides, shape, dtype = _layout(memory, view)
    parts = memory.shape if dtype == memory.dtype else (*memory.shape, 2)
    return _plan(parts, offset, strides, shape)


def seen_as(memory: Array, view: Array) -> bool:
    """Whether entries are whole numbers of the memory, or the two parts of complex ones."""
    if view.dtype == memory.dtype:
        return True
    return (
        memory.dtype.kind == "c"
        and 2 * view.itemsize == memory.itemsize
        and (view.dtype.kind == "f")
    )


@dataclass(frozen=True)
class _Plan:
    """How a view lies in memory: a slice of a grid, or constant places.

    The memory is reshaped to `grid`; of each axis, `counts` entries from `starts` on, `steps`
    apart, are seen. They are `sizes` in order of their strides, those of `backwards` reversed;
    axis `axes[k]` of the view is the k-th of them, and the others repeat it or have one entry.
    """

    memory: Shape
    shape: Shape
    grid: Shape
    starts: Shape
    steps: Shape
    counts: Shape
    sizes: Shape
    backwards: Shape
    axes: Shape
    places: Array | None
    twice: bool

    @property
    def whole(self) -> bool:
        return self.places is None and not self.twice and self.counts == self.grid

    def read(self, symbol: Any) -> Any:
        if self.places is not None:
            return _flat(symbol).at[self.places].get(mode="promise_in_bounds")
        if math.prod(self.shape) == 0:
            return lax.full(self.shape, 0, symbol.dtype)
        symbol = _reshaped(symbol, self.grid)
        if self.counts != self.grid:
            ends = (s + (n - 1) * t + 1 for s, n, t in zip(self.starts, self.counts, self.steps))
            symbol = lax.slice(symbol, self.starts, tuple(ends), self.steps)
        symbol = _reshaped(symbol, self.sizes)
        if self.backwards:
            symbol = lax.rev(symbol, self.backwards)
        order = tuple(int(k) for k in np.argsort(self.axes))
        if order != tuple(range(len(order))):
            symbol = lax.transpose(symbol, order)
        if symbol.shape == self.shape:
            return symbol
        return lax.broadcast_in_dim(symbol, self.shape, tuple(sorted(self.axes)))

    def write(self, symbol: Any, value: Any) -> Any:
        if math.prod(self.shape) == 0:
            return symbol
        if self.places is not None:
            flat = (
                _flat(symbol)
                .at[self.places]
                .set(value, mode="promise_in_bounds", unique_indices=True)
            )
            return _reshaped(flat, self.memory)
        value = _reshaped(value, tuple(self.shape[axis] for axis in sorted(self.axes)))
        order = tuple(sorted(self.axes).index(axis) for axis in self.axes)
        if order != tuple(range(len(order))):
            value = lax.transpose(value, order)
        if self.backwards:
            value = lax.rev(value, self.backwards)
        value = _reshaped(value, self.counts)
        if self.counts == self.grid:
            return _reshaped(value, self.memory)
        grid = _reshaped(symbol, self.grid)
        if all(step == 1 for step in self.steps):
            grid = lax.dynamic_update_slice(grid, value, tuple(map(np.int32, self.starts)))
        else:
            chosen = tuple(
                slice(s, s + (n - 1) * t + 1, t)
                for s, n, t in zip(self.starts, self.counts, self.steps)
            )
            grid = jnp.asarray(grid).at[chosen].set(value, unique_indices=True)
        return _reshaped(grid, self.memory)


def _reshaped(symbol: Any, shape: Shape) -> Any:
    return symbol if symbol.shape == shape else lax.reshape(symbol, shape)


def _flat(symbol: Any) -> Symbol:
    return jnp.asarray(_reshaped(symbol, (math.prod(symbol.shape),)))


@functools.lru_cache(4096)
def _plan(memory: Shape, offset: int, strides: Shape, shape: Shape) -> _Plan:
    live = [(abs(t), n, axis, t < 0) for axis, (t, n) in enumerate(zip(strides, shape)) if n > 1]
    repeats = any(t == 0 for t, *_ in live)
    seen = sorted((each for each in live if each[0]), key=lambda each: -each[0])
    start = offset + sum((n - 1) * t for t, n in zip(strides, shape) if t < 0 and n > 1)
    sizes = tuple(n for _, n, _, _ in seen)
    axes = tuple(axis for _, _, axis, _ in seen)
    backwards = tuple(k for k, each in enumerate(seen) if each[3])
    lines = [(t, n) for t, n, _, _ in seen]
    for grid, rows in ((memory, lines), _refined(math.prod(memory), lines)):
        found = _match(grid, start, rows)
        if found is not None:
            return _Plan(memory, shape, grid, *found, sizes, backwards, axes, None, repeats)
    places = np.full(shape, offset, np.int32 if math.prod(memory) < 2**31 else np.int64)
    for axis, (t, n) in enumerate(zip(strides, shape)):
        places = places + (np.arange(n) * t).reshape((-1,) + (1,) * (len(shape) - axis - 1))
    places = places.astype(np.int32)
    twice = np.unique(places).size < places.size
    return _Plan(memory, shape, (), (), (), (), (), (), (), places, twice)


def _match(
    grid: Shape, start: int, lines: Sequence[tuple[int, int]]
) -> tuple[Shape, Shape, Shape] | None:
    """Return starts, steps and counts if every line runs along an axis of the grid of its own."""
    if math.prod(grid) == 0:
        return (0,) * len(grid), (1,) * len(grid), grid
    strides = [math.prod(grid[k + 1 :]) for k in range(len(grid))]
    starts = [start // s % n for s, n in zip(strides, grid)]
    steps, counts = [1] * len(grid), [1] * len(grid)
    for t, n in lines:
        axis = next((k for k, s in enumerate(strides) if s <= t < s * grid[k]), None)
        if axis is None or t % strides[axis] or counts[axis] > 1:
            return None
        steps[axis], counts[axis] = t // strides[axis], n
        if starts[axis] + (n - 1) * steps[axis] >= grid[axis]:
            return None
    return tuple(starts), tuple(steps), tuple(counts)


def _refined(size: int, lines: Sequence[tuple[int, int]]) -> tuple[Shape, list[tuple[int, int]]]:
    """Return a grid with an axis for every line, where their strides divide each other."""
    merged: list[tuple[int, int]] = []
    for t, n in lines:
        if merged and merged[-1][0] == t * n:
            merged[-1] = (t, merged[-1][1] * n)
        else:
            merged.append((t, n))
    grid: list[int] = []
    rest = size
    for t, _ in merged:
        if rest % t:
            return (size,), merged
        grid.append(rest // t)
        rest = t
    return (*grid, rest), merged
