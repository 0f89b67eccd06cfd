"""A forward and a backward as people write them, made into one flat function.

returns="output":            y = forward(*inputs);          dx = backward(upstream, *inputs)
returns="output+residuals":  y, cache = forward(*inputs);   dx = backward(upstream, cache)
returns="output+gradients":  loss, dx = forward(*inputs)
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.arguments import name_of, users_fault
from gradlab.checking.gradients import call_that_works, keyed, looks_handwritten, wrong_number
from gradlab.checking.inputs import Returns
from gradlab.checking.probes import Calls
from gradlab.checking.subject import Arrays, Complaint, Upstream, nothing_to_differentiate
from gradlab.checking.widen import widen
from gradlab.common.arrays import Array, DTypeLike, Function, Tree
from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.formatting import shape_text
from gradlab.reading import is_library, rewinder
from gradlab.reading.lines import RunsAway
from gradlab.tracing import Leaf
from gradlab.tracing.leaves import flatten, is_inexact


class Handwritten:
    """A forward with its backward, called once as the user would call them to see their forms.

    `flat` and `run` map flat inputs and upstreams to flat outputs and one gradient per target.
    """

    def __init__(
        self,
        function: Function,
        backward: Function | None,
        returns: Returns,
        inputs: tuple[Tree, ...],
        names: tuple[str, ...],
        wrt: tuple[int, ...] | None,
        calls: Calls,
    ) -> None:
        self.name = name_of(function)
        self._function, self._backward, self._returns = function, backward, returns
        self._inputs, self._names, self._asked = inputs, names, wrt is not None
        self.calls = calls
        self._refuses_wide: bool | None = None  # None: nobody has asked yet
        self._leaf_values, self.leaves, self._tree = flatten(inputs, names)
        traced = [(v, leaf) for v, leaf in zip(self._leaf_values, self.leaves) if leaf.traced]
        self.values: Arrays = {leaf.path: value for value, leaf in traced}
        self.order = [leaf.path for _, leaf in traced]
        self._wrt = tuple(range(len(inputs))) if wrt is None else wrt
        self.targets: tuple[Leaf, ...] = tuple(
            leaf for _, leaf in traced if leaf.differentiable and leaf.position in self._wrt
        )
        if not self.targets:
            raise nothing_to_differentiate(self.leaves, wrt)
        self._rewind = rewinder(self.functions)
        self._look()

    @property
    def functions(self) -> tuple[Any, ...]:
        """The user's functions, and the objects that they belong to."""
        given = [f for f in (self._function, self._backward) if f is not None]
        return (*given, *(root for f in given for root in getattr(f, "roots", ())))

    @property
    def numpy(self) -> bool:
        """Whether the user's forward returns arrays or numbers of NumPy's, and no other."""
        code = getattr(self._function, "__code__", None)
        own = code is not None and is_library(code.co_filename)
        if own and not hasattr(self._function, "roots"):
            return False  # a node or a graph, written for NumPy and JAX alike
        return not any(isinstance(example, jax.Array) for example in self._examples)

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the outputs."""
        return [np.shape(example) for example in self._examples]

    def forward(self, *inputs: Tree) -> Any:
        """Return the output alone."""
        result = self._counted(*inputs)
        return result if self._returns == "output" else self._pair(result)[0]

    def _counted(self, *inputs: Tree) -> Any:
        self.calls.own += 1
        return self._function(*inputs)

    def primal(self, values: Arrays) -> list[Any]:
        """Evaluate the forward alone, as the user does; a copy, for layers reuse their memory."""

        def output(arrays: Sequence[Array]) -> list[Array]:
            with self._steady(arrays):
                found = self.forward(*self._rebuild(arrays))
                return [np.array(result) for result in jax.tree.leaves(found)]

        return self._in_digits_it_takes(output, [values[name] for name in self.order])

    def _in_digits_it_takes(
        self, compute: Callable[[Sequence[Any]], list[Any]], arrays: list[Array]
    ) -> list[Any]:
        """Compute from arrays, in the dtypes that were given where float64 is refused anywhere."""
        if self._refuses_wide:
            return compute(self._narrowed(arrays))
        try:
            return compute(arrays)
        except RunsAway:  # in other dtypes it would never end either
            raise
        except Exception:
            if self._refuses_wide is None and any(map(_is_wide, arrays)):
                given = [widen(value) for value in self.values.values()]
                try:
                    compute([*given, *arrays[len(given) :]])
                    self._refuses_wide = False
                except Exception:  # the given inputs are refused, too: it insists on its dtype
                    found = compute(self._narrowed(arrays))
                    self._refuses_wide = True
                    return found
            raise

    def _narrowed(self, arrays: list[Array]) -> list[Any]:
        dtypes = [np.asarray(value).dtype for value in self.values.values()]
        dtypes += [upstream.dtype for upstream in self.upstreams]
        return [np.asarray(array).astype(dtype) for array, dtype in zip(arrays, dtypes)]

    def flat(self, *arrays: Array) -> list[Array]:
        """Evaluate forward and backward on flat inputs followed by upstreams."""
        inputs = self._rebuild(arrays[: len(self.order)])
        output, gradients = self._both(inputs, arrays[len(self.order) :])
        return [*jax.tree.leaves(output), *self._align(gradients, [])]

    def run(self, values: Arrays) -> list[Any]:
        """Evaluate as the user does, on arrays of the kinds and dtypes that were given; a copy."""

        def results(arrays: Sequence[Array]) -> list[Array]:
            with self._steady(arrays):
                return [np.array(result) for result in self.flat(*arrays)]

        names = (*self.order, *(u.name for u in self.upstreams))
        return self._in_digits_it_takes(results, [values[name] for name in names])

    @contextlib.contextmanager
    def _steady(self, arrays: Sequence[Array] = ()) -> Iterator[None]:
        """Enter the context of a call: x64 if needed; generators stay where they are."""
        try:
            with jax.enable_x64(self._x64 or any(map(_is_wide, arrays))):
                yield
        finally:
            self._rewind()

    @property
    def _x64(self) -> bool:
        ambient = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
        return ambient or any(map(_is_wide, self.targets))

    def _look(self) -> None:
        """Call forward and backward once; where they do not fit, say which call would."""
        given = self._copies()
        with self._steady(), np.errstate(all="ignore"):
            output = self._call(self.name, self.forward, *given)
        plain = self._returns == "output" and isinstance(output, tuple)
        hint = ""
        if plain:
            back = name_of(self._backward) if self._backward is not None else ""
            hint = call_that_works(self.name, self._names, output, back)
        try:
            self._examine(output)
        except GradlabError as error:
            if not hint:
                raise
            raise type(error)(f"{error}; {hint}") from error
        shapes = [each.text for each in self.complaints if each.kind == "shape"]
        if hint and shapes and looks_handwritten(output, given):
            raise InputError(f"backward: {shapes[0]}; {hint}")

    def _examine(self, output: Tree) -> None:
        """Note the forms of the outputs, and of the gradients that the backward returns."""
        with self._steady(), np.errstate(all="ignore"):
            pairs, self._out_tree = jax.tree_util.tree_flatten_with_path(output)
            self._examples = [leaf for _, leaf in pairs]
            for _, leaf in pairs:
                if not hasattr(leaf, "dtype") and not isinstance(leaf, float | complex):
                    raise InputTypeError(
                        f"{self.name}: returned {type(leaf).__name__}, expected arrays"
                    )
            self.outputs = tuple("output" + jax.tree_util.keystr(keys) for keys, _ in pairs)
            self.upstreams = self._make_upstreams()
            complaints: list[Complaint] = []
            ones = [np.ones(u.shape, u.dtype) for u in self.upstreams]
            given = self._copies()
            before = jax.tree_util.tree_flatten(given)
            _, gradients = self._both(given, ones, careful=True)
            self._narrow(gradients)
            complaints += self._rebound(given, *before)
            aligned = self._align(gradients, complaints)
        self.complaints = tuple(complaints)
        self.shapes = tuple(np.shape(gradient) for gradient in aligned)

    def _make_upstreams(self) -> tuple[Upstream, ...]:
        inexact = [
            (name, np.shape(x), _dtype(x))
            for name, x in zip(self.outputs, self._examples)
            if is_inexact(_dtype(x))
        ]
        if not inexact:
            raise InputError(f"{self.name}: returns no float array, so it has no gradient")
        if self._returns == "output+gradients":
            if len(inexact) > 1 or inexact[0][1] != ():
                raise InputError(
                    f"{self.name}: returns='output+gradients' expects one scalar loss beside the "
                    f"gradients, got {', '.join(shape_text(s) for _, s, _ in inexact)}"
                )
            return ()
        labels = [name.replace("output", "upstream", 1) for name, _, _ in inexact]
        return tuple(Upstream(label, *each) for label, each in zip(labels, inexact))

    def _both(
        self, inputs: tuple[Tree, ...], upstreams: Sequence[Array], careful: bool = False
    ) -> tuple[Any, Any]:
        call = self._call if careful else _plain
        if self._returns == "output+gradients":
            return self._pair(call(self.name, self._counted, *inputs))
        result = call(self.name, self._counted, *inputs)
        upstream = self._upstream_tree(upstreams)
        assert self._backward is not None  # the entry point refuses other combinations
        if self._returns == "output":
            return result, call("backward", self._backward, upstream, *inputs)
        output, residuals = self._pair(result)
        return output, call("backward", self._backward, upstream, residuals)

    def _rebound(
        self, inputs: tuple[Tree, ...], leaves: Sequence[Tree], tree: Tree
    ) -> list[Complaint]:
        """Return which containers among the inputs hold something else now.

        An input that has no gradient, such as the running means of a batch norm, is state.
        """
        now, other = jax.tree_util.tree_flatten(inputs)
        if str(tree) != str(other):
            changed = [
                _root(leaf.path)
                for i, value in enumerate(inputs)
                for leaf in self.leaves
                if leaf.position == i
                and str(jax.tree.structure(value)) != str(jax.tree.structure(self._inputs[i]))
            ]
        else:
            paths = [leaf.path for leaf in self.leaves if leaf.kind != "none"]
            changed = [p for p, a, b in zip(paths, leaves, now) if a is not b]
        judged = {_root(target.path) for target in self.targets}
        return [
            Complaint(path, f"modifies its {path} in place", "modifies")
            for path in dict.fromkeys(changed)
            if _root(path) in judged
        ]

    def _upstream_tree(self, upstreams: Sequence[Array]) -> Tree:
        """Return the upstreams in the output's tree, as arrays of the output's kind."""
        supply = iter(upstreams)
        leaves: list[Tree] = []
        for example in self._examples:
            if not is_inexact(_dtype(example)):
                leaves.append(np.zeros(np.shape(example), _dtype(example)))
                continue
            upstream = next(supply)
            numpy_ = isinstance(upstream, np.ndarray) and isinstance(example, jax.Array)
            leaves.append(jnp.asarray(upstream) if numpy_ else upstream)
        return jax.tree_util.tree_unflatten(self._out_tree, leaves)

    def _align(self, gradients: Tree, complaints: list[Complaint]) -> list[Any]:
        """Return one gradient per target, zeros where `None` was returned."""
        by_position = self._by_position(gradients)
        aligned = []
        for target in self.targets:
            path = target.path
            value = self.values[path]
            found = _leaf_at(by_position.get(target.position), self._inputs, self.leaves, target)
            if found is None or str(getattr(found, "dtype", "")) == "[('float0', 'V')]":
                found = np.zeros(np.shape(value), target.dtype)
            objects = str(getattr(found, "dtype", "")) == "object"
            number = hasattr(found, "dtype") or isinstance(found, int | float | complex)
            if objects or not number:
                kind = "an array of objects" if objects else type(found).__name__
                raise InputTypeError(
                    f"backward: returned {kind} for {path}, expected an array of "
                    f"shape {shape_text(np.shape(value))}, or None"
                )
            kind, theirs, ours = "shape", shape_text(np.shape(found)), shape_text(np.shape(value))
            dtype = getattr(found, "dtype", None)
            if theirs == ours and dtype is not None and not self._takes(dtype, target, value):
                kind, theirs, ours = "dtype", str(dtype), str(target.dtype)
            if theirs != ours:
                text = f"gradient of {path} has {kind} {theirs}; the input has {ours}"
                complaints.append(Complaint(path, text, kind))
            aligned.append(found)
        return aligned

    def _takes(self, dtype: DTypeLike, target: Leaf, value: Tree) -> bool:
        """Whether a gradient may have this dtype: its input's, or a number's any.

        NumPy's may be wider, and as narrow as any of the numbers that it is computed from.
        """
        same = is_inexact(dtype) and (target.kind == "complex" or dtype.kind != "c")
        if isinstance(value, float | complex) and not hasattr(value, "dtype"):
            return bool(same)
        given = (
            *(leaf.dtype for leaf in self.leaves if leaf.traced),
            *(u.dtype for u in self.upstreams),
        )
        least = min(np.dtype(d).itemsize for d in given if is_inexact(d))
        wide = self.numpy and same and dtype.itemsize >= least
        return bool(wide or dtype == target.dtype)

    def _narrow(self, gradients: Tree) -> None:
        """Where a dict names what it has gradients of, and the user named nothing, take these."""
        if isinstance(gradients, Mapping) and not self._asked:
            found = keyed(gradients, self._inputs, self._names)
            self.targets = tuple(t for t in self.targets if t.position in found) or self.targets

    def _by_position(self, gradients: Tree) -> dict[int, Any]:
        """Return the gradients by the position of their input, however they were gathered."""
        differentiable = sorted({target.position for target in self.targets})
        if isinstance(gradients, Mapping):
            return keyed(gradients, self._inputs, self._names)
        if not isinstance(gradients, tuple | list) or (
            len(differentiable) == 1
            and isinstance(self._inputs[differentiable[0]], tuple | list)
            and len(gradients) == len(self._inputs[differentiable[0]])
            and len(gradients) != len(self._wrt)
        ):
            gradients = (gradients,)
        floating = sorted({leaf.position for leaf in self.leaves if leaf.differentiable})
        for positions in (self._wrt, differentiable, floating, range(len(self._inputs))):
            if len(gradients) == len(positions):
                return dict(zip(positions, gradients))
        loss = self._returns == "output+gradients"
        raise wrong_number(self.name, self._names, self._inputs, gradients, loss)

    def _pair(self, result: Tree) -> tuple[Any, Any]:
        if not isinstance(result, tuple) or len(result) < 2:
            raise InputError(
                f"{self.name}: returns={self._returns!r} expects a pair from the forward, "
                f"got {type(result).__name__}"
            )
        return (result[0], result[1]) if len(result) == 2 else (result[0], result[1:])

    def _rebuild(self, arrays: Sequence[Array]) -> tuple[Any, ...]:
        supply = iter(arrays)
        leaves = [
            _like(value, next(supply)) if leaf.traced else value
            for value, leaf in zip(self._leaf_values, self.leaves)
        ]
        return tuple(jax.tree_util.tree_unflatten(self._tree, leaves))

    def _copies(self) -> tuple[Any, ...]:
        given = self.values.values()
        return self._rebuild([x.copy() if isinstance(x, np.ndarray) else x for x in given])

    def _call(self, who: str, function: Function, *arguments: Tree) -> Any:
        """Call the user's function; what it raises is said to be its own."""
        try:
            return function(*arguments)
        except GradlabError:
            raise
        except Exception as error:
            given = "residuals" if self._returns == "output+residuals" else "*inputs"
            called_as = f"backward(upstream, {given})" if who == "backward" else ""
            raise users_fault(who, function, arguments, error, called_as) from error


def _plain(who: str, function: Function, *arguments: Tree) -> Any:
    return function(*arguments)


def _dtype(value: Tree) -> DTypeLike:
    return value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype


def _like(example: Any, array: Array) -> Any:
    """Return an array of the kind of the example: NumPy where that was given, JAX otherwise."""
    if isinstance(example, jax.Array) and isinstance(array, np.ndarray):
        return jnp.asarray(array)
    return array


def _root(path: str) -> str:
    return path.split("[")[0].split(".")[0]


def _leaf_at(gradient: Any, inputs: tuple[Any, ...], leaves: Sequence[Leaf], target: Leaf) -> Any:
    """Return the part of one input's gradient that belongs to a leaf of it."""
    if gradient is None:
        return None
    pairs, _ = jax.tree_util.tree_flatten_with_path(
        inputs[target.position], is_leaf=lambda x: x is None
    )
    if len(pairs) == 1 and pairs[0][0] == ():
        return gradient
    mine = [leaf for leaf in leaves if leaf.position == target.position]
    keys = next(keys for (keys, _), leaf in zip(pairs, mine) if leaf.path == target.path)
    found, _ = jax.tree_util.tree_flatten_with_path(gradient, is_leaf=lambda x: x is None)
    for path, value in found:
        if path == keys:
            return value
    return None


def _is_wide(array: Array) -> bool:
    return str(getattr(array, "dtype", "")) in ("float64", "complex128")
