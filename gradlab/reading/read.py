"""Reading: a NumPy function and example arrays become a traced program."""

import copy
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from gradlab.arguments import argument_names, name_of, require_callable, users_fault
from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import GradlabError, InputTypeError, NotReadable
from gradlab.reading.frames import is_library
from gradlab.reading.lines import RunsAway
from gradlab.reading.names import replaced
from gradlab.reading.rules import RULES
from gradlab.reading.running import evaluate_flat, require_same
from gradlab.reading.session import Decision, Recorder
from gradlab.reading.standins import Chosen, Stand
from gradlab.tracing import Leaf, Program, without_checks
from gradlab.tracing.jaxprs import Abstract, with_outputs
from gradlab.tracing.leaves import flatten
from gradlab.tracing.program import attributes_kept


@dataclass(frozen=True, eq=False)
class Reading:
    """A NumPy function as a program."""

    program: Program  # what the function computes, at the dtypes that NumPy gives at the example
    # the values of inputs that the function asked for; the program holds where they are the same
    decisions: tuple[Decision, ...]
    # the program that computes them, None where there are none
    asked: Program | None = field(repr=False)
    equations: int = 0  # how many operations were written down

    def holds(self, *inputs: Any) -> bool:
        """Whether the function would decide at these inputs as it did at the example."""
        return self.holds_at(dict(zip(self.program.in_names, self.program.flatten(inputs))))

    def holds_at(self, values: Mapping[str, Any]) -> bool:
        """Whether it would at traced inputs that are given by name."""
        if self.asked is None:
            return True
        found = evaluate_flat(self.asked, [values[name] for name in self.asked.in_names])
        return all(
            np.array_equal(value, decision.value, equal_nan=True)
            if np.asarray(value).dtype.kind in "fc"
            else np.array_equal(value, decision.value)
            for value, decision in zip(found, self.decisions)
        )


def read(
    function: Function,
    *inputs: Any,
    names: Sequence[str] | None = None,
    roots: Sequence[Any] = (),
    deciding: bool = True,
    checked: bool = True,
) -> Reading:
    """Read a NumPy function as a program: run it once on stand-ins for its arrays.

    `roots`: what `function` calls, where it is not itself the user's. `deciding`: values of inputs
    may decide. `checked`: it is compared with the function, here and at two moved inputs.
    """
    require_callable("function", function)
    labels = tuple(names) if names is not None else argument_names(function, len(inputs))
    given = function, inputs, labels, roots, deciding, checked
    try:
        return _read(*given, everywhere=False)
    except NotReadable:  # it may reach a module in a way that nobody saw
        return _read(*given, everywhere=True)


def _read(
    function: Function,
    inputs: tuple[Any, ...],
    labels: tuple[str, ...],
    roots: Sequence[Any],
    deciding: bool,
    checked: bool,
    everywhere: bool,
) -> Reading:
    values, leaves, tree = flatten(inputs, labels)
    name = name_of(function)
    recorder = Recorder(RULES, deciding)
    seen: dict[str, Any] = {}

    def flat_function(*symbols: Any) -> list[Any]:
        supply = iter(symbols)
        merged = [
            _standing(recorder, value, next(supply)) if leaf.traced else value
            for value, leaf in zip(values, leaves)
        ]
        arguments = jax.tree_util.tree_unflatten(tree, merged)
        start = (function, *roots, *_statics(values, leaves))
        with replaced(recorder, start, everywhere):
            with attributes_kept(function):
                output = function(*arguments)
            pairs, seen["tree"] = jax.tree_util.tree_flatten_with_path(output)
            seen["names"] = tuple("output" + jax.tree_util.keystr(keys) for keys, _ in pairs)
            results = [_symbol(recorder, name, leaf) for _, leaf in pairs]
        seen["count"] = len(results)
        return [*results, *recorder.deciders]

    avals = [
        Abstract(np.shape(v), np.asarray(v).dtype) for v, leaf in zip(values, leaves) if leaf.traced
    ]
    try:
        with without_checks(), np.errstate(all="ignore"):
            jaxpr = jax.make_jaxpr(flat_function)(*avals)
    except Exception as error:
        if recorder.refusal is not None:
            raise recorder.refusal from error
        if isinstance(error, GradlabError | RunsAway):
            raise  # Python counts no lines any more, so that it may not run again
        _require_to_run(name, function, inputs)
        said = f"{type(error).__name__}: {error}".split("\n")[0]
        raise NotReadable(f"on stand-ins the function raised {said}", _line(error)) from error
    if recorder.refusal is not None:  # the user's code has caught it
        raise recorder.refusal

    def _again(*wider: Any) -> Reading:
        return read(function, *wider, names=labels, roots=roots, deciding=deciding, checked=False)

    def wide() -> Program | None:
        wider = [_widened(v) if leaf.differentiable else v for v, leaf in zip(values, leaves)]
        try:
            again = jax.tree_util.tree_unflatten(tree, wider)
            return _again(*again).program
        except Exception:  # a function may well refuse float64; its constants then stay rounded
            return None

    program = Program(
        name=name,
        jaxpr=with_outputs(jaxpr, slice(seen["count"])),
        leaves=tuple(leaves),
        in_names=tuple(leaf.path for leaf in leaves if leaf.traced),
        out_names=seen["names"],
        in_tree=tree,
        out_tree=seen["tree"],
        x64=True,
        trace_wide=wide,
    )
    asked = _asked(program, jaxpr, seen["count"], recorder) if recorder.decisions else None
    reading = Reading(program, tuple(recorder.decisions), asked, recorder.count)
    if checked:
        require_same(program, reading.holds, function, inputs, recorder.rewind)
    return reading


def _require_to_run(name: str, function: Function, inputs: tuple[Tree, ...]) -> None:
    try:
        function(*copy.deepcopy(inputs))
    except Exception as error:
        raise users_fault(name, function, inputs, error) from error


def _line(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_library(f.filename)]
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _asked(program: Program, jaxpr: Any, count: int, recorder: Recorder) -> Program:
    labels = tuple(f"decision {k}" for k in range(len(recorder.decisions)))
    return Program(
        name=f"decisions of {program.name}",
        jaxpr=with_outputs(jaxpr, slice(count, None)),
        leaves=program.leaves,
        in_names=program.in_names,
        out_names=labels,
        in_tree=program.in_tree,
        out_tree=jax.tree_util.tree_structure(labels),
        x64=True,
    )


def _standing(recorder: Recorder, value: Any, symbol: Any) -> Any:
    if isinstance(value, float | complex | np.generic):
        return recorder.scalar(value, symbol)
    return recorder.array(np.array(value), symbol)


def _statics(values: Sequence[Array], leaves: Sequence[Leaf]) -> list[Any]:
    return [value for value, leaf in zip(values, leaves) if leaf.kind == "static"]


def _symbol(recorder: Recorder, name: str, leaf: Any) -> Any:
    if type(leaf) is Chosen:
        leaf = recorder.plain(leaf)
    if type(leaf) is Stand:
        return recorder.symbol(leaf)
    if isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex | jax.Array):
        return np.array(leaf) if not isinstance(leaf, jax.Array) else leaf
    raise InputTypeError(f"{name}: returned {type(leaf).__name__}, expected arrays")


def _widened(value: Any) -> Any:
    if isinstance(value, float | complex) and not isinstance(value, np.generic):
        return value
    array = np.asarray(value)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
