"""Layers as people write them: objects with `forward` and `backward`, and models with `loss`.

An object becomes a forward and a backward of its inputs and parameters. Every call runs on a deep
copy in which the parameters are set, so that no cache leaks and the user's object stays as it was.
"""

import copy
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradlab.arguments import argument_names, users_fault
from gradlab.checking.handwritten import Returns
from gradlab.errors import InputError, InputTypeError

__all__ = ["Form", "layer_form"]

_FORWARDS, _LOSSES = ("forward", "__call__"), ("loss",)
_SIDES = (("params", "grads"), ("parameters", "gradients"), ("params", "gradients"))
_PREFIXES = ("d{}", "d_{}", "grad_{}", "{}_grad", "g{}", "{}.grad")
_DEEPEST = 4


@dataclass(frozen=True)
class Form:
    """An object as a forward, a backward, and all that is differentiated."""

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    returns: Returns
    inputs: tuple[Any, ...]
    names: tuple[str, ...]
    wrt: tuple[int, ...] | None
    notes: tuple[str, ...]


@dataclass
class _Layer:
    """An object, the names of its two methods, and its parameters beside their gradients."""

    thing: Any
    forward: str
    backward: str
    pairs: dict[str, str] = field(default_factory=dict)
    returned: str = ""  # the argument or the dict whose keys the returned gradients have

    @property
    def name(self) -> str:
        return type(self.thing).__name__

    def copied(self, values: Sequence[Any]) -> Any:
        """Return a deep copy with these parameters, and gradients of zero."""
        memo: dict[int, Any] = {}
        numbers = {}
        for (path, gradient), value in zip(self.pairs.items(), values):
            old, kept = _get(self.thing, path), _get(self.thing, gradient, None)
            if hasattr(old, "dtype"):
                memo[id(old)] = value
            else:
                numbers[path] = value
            if hasattr(kept, "dtype") and kept is not old and not gradient.startswith("#"):
                memo[id(kept)] = np.zeros_like(value)
        try:
            made = copy.deepcopy(self.thing, memo)
        except (TypeError, NotImplementedError) as error:
            raise InputError(
                f"{self.name}: the object cannot be copied ({error}), and each call runs on a "
                "copy; pass functions of its inputs and parameters"
            ) from error
        for path, value in numbers.items():
            _set(made, path, value)
        return made

    def call_backward(self, made: Any, upstream: Any) -> Any:
        method = getattr(made, self.backward)
        return method(upstream) if _takes_upstream(method) else method()


def layer_form(
    function: Any, backward: Any, inputs: tuple[Any, ...], parameters: Any, gradients: Any
) -> Form | None:
    """Return an object or its bound methods as a form; None for what is neither.

    Args:
        function: an object with `forward` (or `__call__`) and `backward`, a model with `loss`, or
            one method of an object.
        backward: another method of the same object, or None.
        inputs: of the forward.
        parameters: names or paths of parameters, or a dict from these to paths of gradients.
        gradients: paths of gradients, in the order of `parameters`.

    Raises:
        InputError: a parameter that is not there, or that has no gradient after the backward.
        InputTypeError: a class in place of an object, or an object without a backward.
    """
    layer = _layer(function, backward)
    if layer is None:
        if parameters is not None or gradients is not None:
            raise InputError(
                "parameters: they belong to an object with forward and backward; pass the "
                "parameters of a function as its inputs"
            )
        return None
    form = _model if not layer.backward else _object
    return form(layer, inputs, parameters, gradients)


def _layer(function: Any, backward: Any) -> _Layer | None:
    if isinstance(function, type):
        if any(hasattr(function, name) for name in ("forward", "backward", "loss")):
            name = function.__name__
            raise InputTypeError(
                f"function: {name} is a class; pass an object: check({name}(...), x)"
            )
        return None
    if isinstance(function, types.MethodType):
        same = isinstance(backward, types.MethodType) and backward.__self__ is function.__self__
        if same:
            return _Layer(function.__self__, function.__name__, backward.__name__)
        return None
    if isinstance(function, types.FunctionType | types.BuiltinFunctionType | np.ufunc):
        return None
    if backward is not None or not hasattr(function, "__dict__"):
        return None
    thing = type(function)
    forward = next((n for n in _FORWARDS if hasattr(thing, n)), "")
    if forward and hasattr(thing, "backward"):
        return _Layer(function, forward, "backward")
    if hasattr(thing, "loss"):
        return _Layer(function, "loss", "")
    if hasattr(thing, "forward"):
        methods = [n for n, v in inspect.getmembers(thing, callable) if not n.startswith("_")]
        raise InputTypeError(
            f"function: {thing.__name__} has no backward; it has {', '.join(methods)}; pass two "
            "of them: check(layer.forward, x, backward=layer.METHOD)"
        )
    return None


def _object(layer: _Layer, inputs: tuple[Any, ...], parameters: Any, gradients: Any) -> Form:
    """An object with a forward and a backward."""
    names = argument_names(getattr(layer.thing, layer.forward), len(inputs))
    made = layer.copied(())
    output = _called(made, layer.forward, copy.deepcopy(inputs))
    upstream = _ones(output)
    returned = _called(
        made, layer.backward, (upstream,) if _takes_upstream(getattr(made, layer.backward)) else ()
    )
    extra = _returned_too(layer, returned, inputs, parameters, gradients)
    layer.pairs, said = (
        (extra, "returned") if extra else (_paired(layer, made, parameters, gradients))
    )
    paths = tuple(layer.pairs)
    notes = [f"parameters: {', '.join(paths)} ({said})"] if paths else []
    if paths and not extra:
        first = [np.array(_get(made, path)) for path in layer.pairs.values()]
        layer.call_backward(made, upstream)
        second = [np.asarray(_get(made, path)) for path in layer.pairs.values()]
        adds = any(np.any(b != a) for a, b in zip(first, second))
        notes.append(f"backward {'adds to' if adds else 'replaces'} the gradients that stood there")
    count = len(inputs)
    takes = _takes_upstream(getattr(made, layer.backward))
    wrt = _positions(layer, returned, inputs, names) + tuple(range(count, count + len(paths)))

    def forward(*arguments: Any) -> tuple[Any, Any]:
        thing = layer.copied(arguments[count:])
        return getattr(thing, layer.forward)(*arguments[:count]), thing

    def backward(upstream: Any, thing: Any) -> Any:
        given = layer.call_backward(thing, upstream)
        each = _in_order(given, names, wrt, count)
        stored = (given[int(g[1:])] if extra else _get(thing, g) for g in layer.pairs.values())
        return [*each, *stored]

    def loss(*arguments: Any) -> tuple[Any, Any]:
        value, thing = forward(*arguments)
        return value, backward(None, thing)

    values = tuple(_value(_get(layer.thing, path)) for path in paths)
    whole: tuple[Any, ...] = (forward, backward, loss)
    for each in whole:
        each.__name__, each.roots = layer.name, (layer.thing,)  # where a reading begins
    common = ((*inputs, *values), (*names, *paths), wrt or None, tuple(notes))
    if takes:
        return Form(forward, backward, "output+residuals", *common)
    return Form(loss, None, "output+gradients", *common)


def _model(layer: _Layer, inputs: tuple[Any, ...], parameters: Any, gradients: Any) -> Form:
    """A model whose `loss` returns the loss and its gradients."""
    names = argument_names(getattr(layer.thing, layer.forward), len(inputs))
    made = layer.copied(())
    result = _called(made, layer.forward, copy.deepcopy(inputs))
    returned = result[1] if isinstance(result, tuple) and len(result) == 2 else None
    if isinstance(returned, Mapping):
        layer.pairs, said = _keyed(layer, returned, parameters, names)
    else:
        layer.pairs, said = _paired(layer, made, parameters, gradients)
        returned = None
    if not layer.pairs:
        raise InputError(
            f"{layer.name}.loss: expected a loss and a dict of gradients keyed as its params; "
            f"got {type(result).__name__}; pass parameters={{'W': 'dW'}}"
        )
    count, paths = len(inputs), tuple(layer.pairs)
    own = tuple(i for i, name in enumerate(names) if returned is not None and name in returned)

    def loss(*arguments: Any) -> tuple[Any, Any]:
        thing = layer.copied(arguments[count:])
        value = getattr(thing, layer.forward)(*arguments[:count])
        if returned is None:
            found = [_get(thing, path) for path in layer.pairs.values()]
            return (value[0] if isinstance(value, tuple) else value), found
        value, given = value
        return value, [*(given[names[i]] for i in own), *(given[k] for k in layer.pairs.values())]

    loss.__name__ = layer.name
    loss.roots = (layer.thing,)  # type: ignore[attr-defined]  # where a reading begins
    values = tuple(_value(_get(layer.thing, path)) for path in paths)
    wrt = (*own, *range(count, count + len(paths)))
    notes = (f"parameters: {', '.join(paths)} ({said})",)
    return Form(loss, None, "output+gradients", (*inputs, *values), (*names, *paths), wrt, notes)


def _paired(
    layer: _Layer, made: Any, parameters: Any, gradients: Any
) -> tuple[dict[str, str], str]:
    """Return parameters beside the paths of their gradients, and how they were found."""
    if parameters is not None:
        return _given(layer, made, parameters, gradients), "as given"
    found = {}
    said = "by name"
    for path, owner in _owners(made):
        sides = _side_by_side(owner)
        if sides:
            said = "side by side"
        for name, gradient in (sides or dict(_attributes(owner))).items():
            found[path + name] = path + gradient
    found = {p.removeprefix("."): g.removeprefix(".") for p, g in found.items()}
    known = {p: g for p, g in found.items() if _is_float(_get(made, p)) and _is_there(made, g)}
    return known, said


def _given(layer: _Layer, made: Any, parameters: Any, gradients: Any) -> dict[str, str]:
    names = [parameters] if isinstance(parameters, str) else list(parameters)
    if isinstance(parameters, Mapping):
        pairs = {str(k): str(v) for k, v in parameters.items()}
    elif gradients is not None:
        given = [gradients] if isinstance(gradients, str) else list(gradients)
        if len(given) != len(names):
            raise InputError(
                f"gradients: {len(given)} paths for {len(names)} parameters; give one for each"
            )
        pairs = dict(zip(names, given))
    else:
        pairs = {name: _guessed(made, name) for name in names}
    floats = [name for name, value in vars(layer.thing).items() if _is_float(value)]
    for name, gradient in pairs.items():
        if _get(layer.thing, name, None) is None:
            raise InputError(
                f"parameters: {layer.name} has no {name!r}; its arrays are "
                f"{', '.join(floats) or 'none'}"
            )
        if not _is_there(made, gradient):
            raise InputError(
                f"parameters: {name!r} has no gradient at {gradient!r} after {layer.backward}; "
                f"pass its path: parameters={{{name!r}: 'PATH'}}"
            )
    return pairs


def _keyed(
    layer: _Layer, returned: Mapping[str, Any], parameters: Any, names: Sequence[str]
) -> tuple[dict[str, str], str]:
    """Match the gradients that a loss returned with the parameters by their keys."""
    if isinstance(parameters, Mapping):
        return {str(k): str(v) for k, v in parameters.items()}, "as given"
    home = next((n for n in ("params", "parameters") if hasattr(layer.thing, n)), "")
    holder = getattr(layer.thing, home) if home else vars(layer.thing)
    pairs = {}
    for name in holder:
        key = next((k for k in (name, f"d{name}", f"d_{name}") if k in returned), None)
        if key is not None:
            pairs[f"{home}.{name}" if home else str(name)] = key
    left = [str(k) for k in returned if k not in pairs.values() and k not in names]
    if left or not pairs:
        raise InputError(
            f"gradients: {', '.join(map(repr, returned))}; parameters: "
            f"{', '.join(repr(str(n)) for n in holder)}; these keys do not match; pass "
            "parameters={'PARAMETER': 'KEY'}"
        )
    return pairs, "by key"


def _side_by_side(owner: Any) -> dict[str, str]:
    """Return entries of dicts or lists that stand side by side, such as `params` and `grads`."""
    for first, second in _SIDES:
        ours, theirs = _get(owner, first, None), _get(owner, second, None)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            keys = {k: next((g for g in (k, f"d{k}", f"d_{k}") if g in theirs), None) for k in ours}
            found = {f".{first}.{k}": f".{second}.{g}" for k, g in keys.items() if g is not None}
            if found:
                return found
        both = isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs)
        if both and ours and all(map(_is_float, ours)):
            return {f".{first}[{i}]": f".{second}[{i}]" for i in range(len(ours))}
    return {}


def _attributes(owner: Any) -> Iterator[tuple[str, str]]:
    for name, value in list(vars(owner).items()):
        if hasattr(value, "data") and hasattr(value, "grad") and not hasattr(value, "dtype"):
            yield f".{name}.data", f".{name}.grad"
        elif _is_float(value):
            gradient = _guessed(owner, name)
            if gradient:
                yield f".{name}", f".{gradient}"


def _guessed(owner: Any, path: str) -> str:
    """Return the path at which the gradient of a parameter would stand, or nothing."""
    head, dot, name = path.rpartition(".")
    for pattern in _PREFIXES:
        guess = head + dot + pattern.format(name)
        if _get(owner, guess, None) is not None:
            return guess
    return ""


def _owners(thing: Any, path: str = "", depth: int = _DEEPEST) -> Iterator[tuple[str, Any]]:
    """Yield the object and its sub-layers in attributes, lists and dicts, by path."""
    yield path, thing
    if not depth:
        return
    for name, value in list(vars(thing).items()):
        several: list[tuple[str, Any]] = [(f"{path}.{name}", value)]
        if isinstance(value, list | tuple):
            several = [(f"{path}.{name}[{i}]", item) for i, item in enumerate(value)]
        elif isinstance(value, dict):
            several = [(f"{path}.{name}.{key}", item) for key, item in value.items()]
        for where, item in several:
            if hasattr(type(item), "backward") and hasattr(item, "__dict__"):
                yield from _owners(item, where, depth - 1)


def _in_order(given: Any, names: Sequence[str], wrt: Sequence[int], count: int) -> list[Any]:
    """Return what a backward returned as one gradient for each differentiated input."""
    asked = [position for position in wrt if position < count]
    if isinstance(given, Mapping):
        return [given[names[i]] for i in asked]
    if not isinstance(given, tuple | list):
        return [given] if asked else []
    return [given[i] for i in asked] if len(given) == count else list(given)[: len(asked)]


def _positions(
    layer: _Layer, returned: Any, inputs: tuple[Any, ...], names: Sequence[str]
) -> tuple[int, ...]:
    """Return which inputs the backward returns gradients of."""
    floats = [i for i, value in enumerate(inputs) if _is_float(value)]
    if returned is None:
        return ()
    if isinstance(returned, Mapping):
        unknown = [key for key in returned if key not in names]
        if unknown:
            raise InputError(
                f"gradients: {', '.join(map(repr, returned))}; inputs: "
                f"{', '.join(map(repr, names))}; these keys do not match"
            )
        return tuple(i for i, name in enumerate(names) if name in returned)
    several = returned if isinstance(returned, tuple | list) else (returned,)
    if len(several) in (len(inputs), len(floats)):
        kept = range(len(inputs)) if len(several) == len(inputs) else floats
        return tuple(i for i, g in zip(kept, several) if i in floats and g is not None)
    return tuple(floats[: len(several)])


def _returned_too(
    layer: _Layer, returned: Any, inputs: tuple[Any, ...], parameters: Any, gradients: Any
) -> dict[str, str]:
    """Return the parameters whose gradients a backward returns behind those of its inputs."""
    count = sum(map(_is_float, inputs))
    if not isinstance(returned, tuple | list) or len(returned) <= max(count, len(inputs)):
        return {}
    extra = len(returned) - count
    names = [parameters] if isinstance(parameters, str) else list(parameters or ())
    if len(names) != extra or gradients is not None or isinstance(parameters, Mapping):
        arrays = [name for name, value in vars(layer.thing).items() if _is_float(value)]
        raise InputError(
            f"backward returned {len(returned)} arrays for {count} input{'s' * (count != 1)}; name "
            f"the others: parameters={tuple(arrays[:extra]) or ('W', 'b')}"
        )
    return {name: f"#{count + i}" for i, name in enumerate(names)}


def _called(made: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    method = getattr(made, name)
    try:
        with np.errstate(all="ignore"):
            return method(*arguments)
    except Exception as error:
        raise users_fault(f"{type(made).__name__}.{name}", method, arguments, error) from error


def _takes_upstream(method: Any) -> bool:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind is not p.KEYWORD_ONLY and p.kind is not p.VAR_KEYWORD for p in parameters)


def _ones(output: Any) -> Any:
    if isinstance(output, tuple | list):
        return type(output)(map(_ones, output))
    return np.ones_like(output)


def _is_float(value: Any) -> bool:
    if isinstance(value, float):
        return True
    return getattr(getattr(value, "dtype", None), "kind", "") in ("f", "c")


def _is_there(made: Any, path: str) -> bool:
    return bool(path) and _get(made, path, None) is not None


def _value(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray) else value


_TOKENS = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")


def _tokens(path: str) -> list[Any]:
    found = _TOKENS.findall(path)
    return [int(i) if i.lstrip("-").isdigit() else (i.strip("'\"") or name) for name, i in found]


def _step(owner: Any, token: Any) -> Any:
    if isinstance(owner, Mapping | list | tuple):
        return owner[token]
    return getattr(owner, str(token))


def _get(owner: Any, path: str, *default: Any) -> Any:
    try:
        for token in _tokens(path):
            owner = _step(owner, token)
    except (AttributeError, KeyError, IndexError, TypeError):
        if default:
            return default[0]
        raise
    return owner


def _set(owner: Any, path: str, value: Any) -> None:
    *head, last = _tokens(path)
    for token in head:
        owner = _step(owner, token)
    if isinstance(owner, dict | list):
        owner[last] = value
    else:
        setattr(owner, str(last), value)
