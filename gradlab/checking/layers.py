"""Layers as people write them: objects with `forward` and `backward`, and models with `loss`.

An object becomes a forward and a backward of its inputs and parameters. Every call runs on a deep
copy in which the parameters are set, so that no cache leaks and the user's object stays as it was.

A gradient is found at a path of the copy after the backward ran (`grads.W`), or in what the
backward returned: `#0` by position, `#W` by key.
"""

import copy
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.arguments import argument_names, users_fault
from gradlab.checking.gradients import SPELLINGS, is_float, quoted, spelled
from gradlab.checking.inputs import Returns
from gradlab.errors import InputError, InputTypeError
from gradlab.formatting import count, listed

_TWINS = {"params": ("grads", "gradients"), "parameters": ("grads", "gradients")}
_HEAP_TYPE = 1 << 9  # the flag of a class that a program makes
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


def layer_form(
    function: Any, backward: Any, inputs: tuple[Any, ...], parameters: Any, gradients: Any
) -> Form | None:
    """Return an object or its bound methods as a form; None for what is neither.

    `function` has `forward` or `__call__` and `backward`, is a model with `loss`, or one method.
    `parameters` are names or paths, `gradients` paths in their order; or both are the same dict.
    """
    methods = _methods(function, backward, inputs)
    if methods is None:
        if parameters is not None or gradients is not None:
            raise InputError(
                "parameters: they belong to an object with forward and backward; pass the "
                "parameters of a function as its inputs"
            )
        return None
    layer = _Layer(*methods, inputs)
    layer.find(_as_dict(parameters, gradients))
    return layer.form()


def _methods(function: Any, backward: Any, inputs: tuple[Any, ...]) -> tuple[Any, str, str] | None:
    """Return an object and the names of its forward and its backward, "" where a loss has none."""
    owner = getattr(function, "__self__", None) if isinstance(function, types.MethodType) else None
    if owner is not None and not isinstance(owner, type):
        if isinstance(backward, types.MethodType) and backward.__self__ is owner:
            return owner, function.__name__, backward.__name__
        if backward is None and function.__name__ == "loss":
            return owner, "loss", ""
        if backward is None and hasattr(type(owner), "backward"):
            name = function.__name__
            raise InputError(
                f"backward: layer.{name} alone has none; pass the object, check(layer, x), or "
                f"check(layer.{name}, x, backward=layer.backward)"
            )
    if isinstance(function, type):
        if any(hasattr(function, name) for name in ("forward", "backward", "loss")):
            name = function.__name__
            raise InputTypeError(
                f"{name} is a class. Pass an object: gradlab.check({_made(function)}, x)"
            )
        return None
    plain = isinstance(function, types.FunctionType | types.MethodType | np.ufunc)
    if plain or backward is not None:
        return None
    kind = type(function)
    called = ("forward", *(["__call__"] if callable(function) else []), "loss")
    forwards = [name for name in called if hasattr(kind, name)]
    if forwards and hasattr(kind, "backward"):
        fit = (name for name in forwards if _fits(getattr(function, name), inputs))
        return function, next(fit, forwards[0]), "backward"
    if hasattr(kind, "loss"):
        return function, "loss", ""
    if hasattr(kind, "forward"):
        known = [n for n, v in inspect.getmembers(kind, callable) if not n.startswith("_")]
        other = next((n for n in known if n.startswith("b")), "METHOD")
        raise InputTypeError(
            f"function: {kind.__name__} has no backward; it has {', '.join(known)}; pass two "
            f"of them: check(layer.forward, x, backward=layer.{other})"
        )
    return None


def _fits(method: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    """Whether a method can be called with these inputs."""
    try:
        inspect.signature(method).bind(*inputs)
    except (TypeError, ValueError):  # or it has no signature
        return False
    return True


def _made(cls: type) -> str:
    """Return a call that makes an object, with the names of what it takes."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):  # a class of a compiled module
        return f"{cls.__name__}(...)"
    return f"{cls.__name__}({', '.join(p.name for p in parameters if p.default is p.empty)})"


def _as_dict(parameters: Any, gradients: Any) -> dict[str, str] | None:
    """Return parameters that were named, with the paths of their gradients, "" where unknown."""
    given = next((each for each in (parameters, gradients) if isinstance(each, Mapping)), None)
    if given is not None:
        return {str(name): str(path) for name, path in given.items()}
    names, paths = (
        [each] if isinstance(each, str) else list(each or ()) for each in (parameters, gradients)
    )
    if paths and len(paths) != len(names):
        raise InputError(
            f"gradients: {count(len(paths), 'path')} for {count(len(names), 'parameter')}; give "
            "one for each: parameters=('W',), gradients=('dW',)"
        )
    return dict(zip(names, paths or [""] * len(names))) or None


class _Layer:
    """An object, run once on a copy to see where the gradients of its parameters are."""

    def __init__(self, thing: Any, forward: str, backward: str, inputs: tuple[Any, ...]) -> None:
        self.thing, self.inputs = thing, inputs
        self.forward, self.backward = forward, backward
        self.name = type(thing).__name__
        self.names = argument_names(getattr(thing, forward), len(inputs))
        self.pairs: dict[str, str] = {}  # from the path of a parameter to where its gradient is
        self.own: dict[int, str] = {}  # from the position of an input to where its gradient is
        self.notes: list[str] = []

    def copied(self, values: Sequence[Any] = ()) -> Any:
        """Return a deep copy with these parameters, and gradients of zero."""
        memo: dict[int, Any] = {}
        numbers = {}
        for (path, gradient), value in zip(self.pairs.items(), values):
            old, kept = _get(self.thing, path), _get(self.thing, gradient, None)
            if hasattr(old, "dtype"):
                memo[id(old)] = value
            else:
                numbers[path] = value
            if isinstance(kept, float):
                numbers[gradient] = 0.0
            elif hasattr(kept, "dtype") and kept is not old:
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

    def run_backward(self, made: Any, upstream: Any, inputs: tuple[Any, ...]) -> Any:
        """Call the backward with what it takes: the upstream or its parts, nothing, or inputs."""
        method = getattr(made, self.backward)
        names, takes = _positional(method)
        if not takes:
            return method()
        if len(inputs) > 1 and names == list(self.names):
            return method(*inputs)
        if len(names) > 1:
            if isinstance(upstream, tuple) and len(upstream) == len(names):
                return method(*upstream)
            raise InputError(
                f"{self.name}.{self.backward}: takes ({', '.join(names)}), but is called as "
                f"{self.backward}(upstream); give {', '.join(names[1:])} a default"
            )
        return method(upstream)

    def find(self, asked: dict[str, str] | None) -> None:
        """Run forward and backward once, and find the gradients of inputs and parameters."""
        made = self.copied()
        inputs = copy.deepcopy(self.inputs)
        known = {path: (v, _get(made, path, None)) for path, v in _floats(self.thing)}
        output = self._called(made, lambda: getattr(made, self.forward)(*inputs), self.forward)
        kept = {p: v for p, (v, own) in known.items() if _is_kept(_get(made, p, None), own, v)}
        returned: Any
        if self.backward:
            upstream = _ones(output)
            returned = self._called(
                made, lambda: self.run_backward(made, upstream, inputs), self.backward
            )
        else:
            pair = isinstance(output, tuple) and len(output) == 2
            returned = output[1] if pair else None
        if isinstance(returned, Mapping):
            self._by_key(returned, kept, asked)
        else:
            self._by_position(returned, asked if self.backward else None)
        if not any(place.startswith("#") for place in self.pairs.values()):
            self._stored(made, kept, asked)
            if self.pairs and self.backward:
                self._accumulates(made, upstream, inputs)
        if self.backward and not (self.pairs or self.own):
            arrays = ", ".join(path for path, _ in _floats(self.thing)) or "none"
            raise InputError(
                f"{self.name}.{self.backward}: returned no gradient, and none stands beside a "
                f"parameter (its arrays: {arrays}); return that of {self.names[0]}, or pass "
                "parameters={'W': 'dW'}"
            )
        if not (self.pairs or self.backward):
            more = (
                "the inputs for which it returns both"
                if np.ndim(output)
                else "parameters={'W': 'dW'}"
            )
            raise InputError(
                f"{self.name}.{self.forward}: expected a loss and a dict of gradients keyed as its "
                f"params; got {type(output).__name__}; pass {more}"
            )

    def form(self) -> Form:
        """Return the object as functions of inputs and parameters."""
        number, paths = len(self.inputs), tuple(self.pairs)
        places = [*self.own.values(), *self.pairs.values()]

        def forward(*arguments: Any) -> tuple[Any, Any]:
            thing = self.copied(arguments[number:])
            return getattr(thing, self.forward)(*arguments[:number]), (thing, arguments[:number])

        def backward(upstream: Any, kept: Any) -> Any:
            thing, inputs = kept
            returned = self.run_backward(thing, upstream, inputs)
            return [_place(place, returned, thing) for place in places]

        def loss(*arguments: Any) -> tuple[Any, Any]:
            value, (thing, inputs) = forward(*arguments)
            returned = None
            if self.backward:
                returned = self.run_backward(thing, None, inputs)
            elif isinstance(value, tuple):
                value, returned = value
            return value, [_place(place, returned, thing) for place in places]

        whole: tuple[Any, ...] = (forward, backward, loss)
        for each in whole:
            each.__name__, each.roots = self.name, (self.thing,)  # where a reading begins
        values = [_get(self.thing, path) for path in paths]
        values = [np.array(v) if isinstance(v, np.ndarray) else v for v in values]
        wrt = (*self.own, *range(number, number + len(paths)))
        common = (*self.inputs, *values), (*self.names, *paths), wrt or None, tuple(self.notes)
        takes = self.backward and _positional(getattr(self.thing, self.backward))[1]
        if takes:
            return Form(forward, backward, "output+residuals", *common)
        return Form(loss, None, "output+gradients", *common)

    def _called(self, made: Any, call: Callable[[], Any], name: str) -> Any:
        try:
            with np.errstate(all="ignore"):
                return call()
        except InputError:
            raise
        except Exception as error:
            method = getattr(made, name)
            given = self.inputs if name == self.forward else (None,)
            raise users_fault(f"{self.name}.{name}", method, given, error) from error

    def _by_key(
        self, returned: Mapping[str, Any], kept: dict[str, Any], asked: dict[str, str] | None
    ) -> None:
        """Match returned gradients by their keys with inputs and parameters."""
        left = [key for k, v in returned.items() for key in _keys(k, v)]
        for i, name in enumerate(self.names):
            key = spelled(name, left)
            if key is not None and is_float(self.inputs[i]):
                self.own[i] = f"#{key}"
                left.remove(key)
        if asked is not None:
            wanted = {self._path(name): (name, key) for name, key in asked.items()}
        else:
            wanted = {path: (_key(path), "") for path in kept}
        for path, (name, key) in wanted.items():
            found = key if key in left else spelled(str(name), left)
            if found is not None:
                self.pairs[path] = f"#{found}"
                left.remove(found)
        if asked is None and (left or not (self.pairs or self.own)):
            raise self._no_match(returned, list(map(_key, kept)))
        if asked is None:
            self._note_missing([path for path, value in kept.items() if np.ndim(value)])
        self._noted("by key" if asked is None else "as you named them")

    def _by_position(self, returned: Any, asked: dict[str, str] | None) -> None:
        """Match returned gradients with the inputs, then with the parameters that were named."""
        if returned is None:
            return
        several = returned if isinstance(returned, tuple | list) else (returned,)
        floats = [i for i, value in enumerate(self.inputs) if is_float(value)]
        floating = len(floats)
        if len(several) <= max(floating, len(self.inputs)):
            kept = range(len(self.inputs)) if len(several) == len(self.inputs) else floats
            self.own = {
                i: f"#{k}" if several is returned else "#"
                for k, (i, g) in enumerate(zip(kept, several))
                if i in floats and g is not None
            }
            return
        names = list(asked or ())
        given = (n for n in (floating, len(self.inputs)) if len(several) - n == len(names))
        start = next(given, None)
        if start is None or any((asked or {}).values()):
            arrays = [path for path, _ in _floats(self.thing)][: len(several) - floating]
            raise InputError(
                f"backward returned {len(several)} arrays for {count(floating, 'input')}; "
                f"name the others: parameters={tuple(arrays) or ('W', 'b')}"
            )
        own = enumerate(floats) if start == floating else ((i, i) for i in floats)
        self.own = {i: f"#{k}" for k, i in own}
        self.pairs = {self._path(name): f"#{start + k}" for k, name in enumerate(names)}
        self._noted("by their order")

    def _stored(self, made: Any, kept: dict[str, Any], asked: dict[str, str] | None) -> None:
        """Find gradients beside parameters, after the backward ran."""
        if asked is not None:
            for name, gradient in asked.items():
                path = self._path(name)
                place = gradient or next(_beside(path, made), "")
                if _get(made, place, None) is None or not place:
                    at = f" at {place!r}" if place else ""
                    raise InputError(
                        f"parameters: {name!r} has no gradient{at} after {self.backward or 'loss'};"
                        f" pass its path: parameters={{{name!r}: 'PATH'}}"
                    )
                self.pairs[path] = place
            self._noted("as you named them")
            return
        seen: set[int] = set()
        alone = []
        for path, value in kept.items():
            place = next(_beside(path, made), "")
            alias = hasattr(value, "dtype") and id(value) in seen
            seen.add(id(value))
            if place and not alias and _get(made, place) is not None:
                self.pairs[path] = place
            elif place and not alias:
                self.notes.append(
                    f"{path} was not checked: {place} is None after {self.backward or 'loss'}"
                )
            elif np.ndim(value) and not alias:
                alone.append(path)
        self._note_missing(alone)
        self._require_all_met(made, kept)
        beside = any(p.rpartition(".")[0] != g.rpartition(".")[0] for p, g in self.pairs.items())
        self._noted("by their place beside the parameters" if beside else "by name")

    def _require_all_met(self, made: Any, kept: dict[str, Any]) -> None:
        """Refuse a dict of gradients that stands beside one of parameters under other keys."""
        for first, seconds in _TWINS.items():
            for second in seconds:
                ours, theirs = _get(made, first, None), _get(made, second, None)
                if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
                    met = {str(_tokens(g)[-1]) for g in self.pairs.values()}
                    left = [k for k, v in theirs.items() if str(k) not in met and v is not None]
                    if left and any(f"{first}.{n}" not in self.pairs for n in ours):
                        raise self._no_match(theirs, list(map(str, ours)), f"{second}.")

    def _no_match(
        self, found: Mapping[str, Any], names: Sequence[str], where: str = ""
    ) -> InputError:
        inputs = "" if where else f"; the inputs are {', '.join(self.names)}"
        pairs = {name: spelled(name, found) for name in names}
        left = iter([key for key in found if key not in pairs.values()])
        pairs = {n: next(left, None) if key is None else key for n, key in pairs.items()}
        shown = ", ".join(f"{n!r}: {where + str(k)!r}" for n, k in pairs.items() if k is not None)
        return InputError(
            f"gradients: {quoted(found)}; parameters: {quoted(names)}; pass gradients="
            f"{{{shown}}}{inputs}"
        )

    def _path(self, name: str) -> str:
        """Return the path of a parameter that was named, also by its key in `params` alone."""
        for path in (name, *(f"{home}.{name}" for home in _TWINS)):
            if _get(self.thing, path, None) is not None:
                return path
        arrays = [path for path, _ in _floats(self.thing)]
        raise InputError(
            f"parameters: {self.name} has no {name!r}; its arrays are {', '.join(arrays) or 'none'}"
        )

    def _accumulates(self, made: Any, upstream: Any, inputs: tuple[Any, ...]) -> None:
        """Note which gradients a second backward doubles."""
        start = {path: _get(self.thing, place, None) for path, place in self.pairs.items()}
        first = {path: np.array(_get(made, place)) for path, place in self.pairs.items()}
        try:
            with np.errstate(all="ignore"):
                self.run_backward(made, upstream, inputs)
        except Exception:  # the first has used its cache up
            return
        second = {path: np.asarray(_get(made, place)) for path, place in self.pairs.items()}
        added = {p: g - (0 if start[p] is None else start[p]) for p, g in first.items()}
        half = {path: np.linalg.norm(gradient) / 2 for path, gradient in added.items()}
        adds = [p for p in added if 0 < half[p] < np.linalg.norm(second[p] - first[p])]
        others = ", and replaces the others" * (len(adds) < len(added))
        if adds:
            self.notes.append(f"backward adds to the stored gradients of {listed(adds)}{others}")

    def _note_missing(self, paths: Sequence[str]) -> None:
        """Name the arrays among these for which no gradient was found."""
        missing = [p for p in paths if p not in self.pairs and p not in self.pairs.values()]
        if missing:
            example = f"parameters={{{missing[0]!r}: 'd{_key(missing[0])}'}}"
            self.notes.append(
                f"not checked, because no gradient was found: {listed(missing)}; "
                f"for a parameter, pass {example}"
            )

    def _noted(self, said: str) -> None:
        if self.pairs:
            self.notes.insert(
                0, f"gradlab matched the gradients of {listed(list(self.pairs))} {said}"
            )


def _place(place: str, returned: Any, thing: Any) -> Any:
    """Return a gradient from where it was found."""
    if not place.startswith("#"):
        return _get(thing, place)
    if place == "#":
        return returned
    if isinstance(returned, Mapping):
        return returned[place[1:]] if place[1:] in returned else _get(returned, place[1:])
    return returned[int(place[1:])]


def _keys(key: Any, value: Any) -> list[Any]:
    """Return a key of gradients, or those of the entries of a list that stands there."""
    several = isinstance(value, list | tuple) and all(isinstance(v, np.ndarray) for v in value)
    return [f"{key}[{i}]" for i in range(len(value))] if several else [key]


def _key(path: str) -> str:
    """Return the last name of a path, with the places in a list behind it."""
    tokens = _tokens(path)
    last = max((i for i, token in enumerate(tokens) if isinstance(token, str)), default=0)
    return _written(tokens[last:])


def _beside(path: str, made: Any) -> Iterator[str]:
    """Yield the paths at which the gradient of a parameter stands, None or not."""
    tokens = _tokens(path)
    places = [[*tokens[:-1], "grad"]] if tokens[-1] == "data" else []
    for k, token in reversed(list(enumerate(tokens))):  # `dW`, and `grads.W` or `dweights[0]`
        other = [s.format(token) for s in SPELLINGS[1:]] if isinstance(token, str) else []
        tails = [tokens[k + 1 :]]
        if token in _TWINS:
            other += _TWINS[token]
            tails += [[s.format(tokens[-1])] for s in SPELLINGS[1:] if isinstance(tokens[-1], str)]
        places += [[*tokens[:k], each, *tail] for each in other for tail in tails]
    if isinstance(tokens[-1], str):  # `W` as an attribute, and `grads["W"]` or `grads["dW"]`
        keys = [spelling.format(tokens[-1]) for spelling in SPELLINGS]
        places += [[*tokens[:-1], home, key] for home in _TWINS["params"] for key in keys]
    missing = object()
    for place in map(_written, places):
        if _get(made, place, missing) is not missing:
            yield place


def _floats(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the float arrays and numbers of an object, its containers and sub-layers, by path."""
    seen: set[int] = set()

    def walk(tokens: list[Any], value: Any, depth: int) -> Iterator[tuple[str, Any]]:
        if is_float(value):
            if tokens:
                yield _written(tokens), value
            return
        if id(value) in seen or depth > 2 * _DEEPEST:
            return
        seen.add(id(value))
        items: Any = ()
        if isinstance(value, Mapping):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        elif _is_users(value):
            slots = [s for kind in type(value).__mro__ for s in getattr(kind, "__slots__", ())]
            items = {s: getattr(value, s) for s in slots if hasattr(value, s)}
            items = {**items, **getattr(value, "__dict__", {})}.items()
        nested = []
        for name, item in items:
            if is_float(item):
                yield from walk([*tokens, name], item, depth + 1)
            else:
                nested.append((name, item))
        for name, item in nested:
            yield from walk([*tokens, name], item, depth + 1)

    return walk([], thing, 0)


def _is_users(value: Any) -> bool:
    if isinstance(value, type | types.FunctionType | types.MethodType | types.ModuleType):
        return False
    from gradlab.reading import is_library  # functions have no attributes to look through

    code = getattr(inspect.getmodule(type(value)), "__file__", None)
    made_in_c = not type(value).__flags__ & _HEAP_TYPE  # `exec` may give a class no module
    plain = type(value).__module__ == "builtins" and made_in_c
    return isinstance(value, types.SimpleNamespace) or not (plain or is_library(code or ""))


def _positional(method: Any) -> tuple[list[str], bool]:
    """Return the names of the arguments that a method must be given, and if it takes any."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return [], True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    some = [p for p in parameters if p.kind in (*kinds, inspect.Parameter.VAR_POSITIONAL)]
    return [p.name for p in some if p.kind in kinds and p.default is p.empty], bool(some)


def _ones(output: Any) -> Any:
    if isinstance(output, tuple | list):
        return type(output)(map(_ones, output))
    return np.ones_like(output)


def _is_kept(now: Any, own: Any, before: Any) -> bool:
    """Whether a forward has left a parameter as it was: what it replaces is a cache."""
    return now is own and np.array_equal(now, before, equal_nan=True)


_TOKENS = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")


def _tokens(path: str) -> list[Any]:
    found = _TOKENS.findall(path)
    return [int(i) if i.lstrip("-").isdigit() else (i.strip("'\"") or name) for name, i in found]


def _written(tokens: Sequence[Any]) -> str:
    parts = (f"[{t}]" if isinstance(t, int) else f".{t}" for t in tokens)
    return "".join(parts).removeprefix(".")


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
