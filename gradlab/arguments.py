"""What every public call asks of its arguments, and how it refuses those that do not fit.

A message names the argument, what came, what was expected, and what to do next.
"""

import functools
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.formatting import count

if TYPE_CHECKING:
    import inspect


def require_callable(argument: str, value: Any) -> None:
    """Refuse what cannot be called, and say what was expected."""
    if not callable(value):
        raise InputTypeError(
            f"{argument}: expected a function, got {type(value).__name__} {value!r:.60}"
        )


def require_inputs(function: Callable[..., Any], inputs: Sequence[Any]) -> None:
    """Raise an InputError where a function was given nothing to differentiate by."""
    if not inputs:
        raise InputError(f"inputs: {name_of(function)} got none; pass arrays to differentiate by")


def refuse_numbers(**given: Any) -> None:
    """Refuse a seed, order or number of samples that is no such number."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputTypeError(f"{name}: expected an integer, got {type(value).__name__}")
        least = 0 if name == "seed" else 1
        if value < least:
            raise InputError(
                f"{name}: expected at least {least}, got {value}", (str(value), str(least))
            )
        if name == "order" and value > 4:
            raise InputError(
                f"order: expected 1 to 4, got {value}; for more, check jax.grad of the function",
                (str(value), "4"),
            )


def refuse_flags(also: str = "", **flags: Any) -> None:
    """Refuse an option that is neither True nor False, nor one other word."""
    for name, value in flags.items():
        numpys = type(value).__name__ in ("bool", "bool_")
        if not (isinstance(value, bool) or numpys or (isinstance(value, str) and value == also)):
            known = f'True, False or "{also}"' if also else "True or False"
            raise InputTypeError(f"{name}: expected {known}, got {_shown(value)}")


def refuse_words(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse an option that is none of the words that are known."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}: {_shown(value)} is not known; choose one of {', '.join(known)}")


def refuse_bytes(max_bytes: Any) -> None:
    """Refuse a limit of memory that is no number."""
    number = isinstance(max_bytes, numbers.Real) and not isinstance(max_bytes, bool)
    if not number or max_bytes != max_bytes:
        raise InputTypeError(
            f"max_bytes: expected a number of bytes, such as 2**30, got {_shown(max_bytes)}"
        )


def _shown(value: Any) -> str:
    """Return a value as a message quotes it: an array only by its kind."""
    plain = value is None or isinstance(value, str | bytes | bool | numbers.Number)
    return repr(value) if plain else type(value).__name__


def several(value: Any) -> tuple[Any, ...]:
    """Return one thing, or several in a container, as a tuple; a string is one thing."""
    try:
        return (value,) if isinstance(value, str) else tuple(value)
    except TypeError:
        return (value,)


def name_of(function: Any) -> str:
    """Return the name by which a person knows this function."""
    while isinstance(function, functools.partial):
        function = function.func
    named = getattr(function, "__name__", None) or getattr(function, "fun", None)
    return str(getattr(named, "__name__", named) or type(function).__name__)


def call_of(called: str, function: Any, names: Sequence[str], seed: int, **options: object) -> str:
    """Return the call that repeats this one, as its author would write it."""

    def word(value: Any) -> str:
        owner = getattr(value, "__self__", None)
        if owner is not None and not hasattr(owner, "__name__"):
            return f"{type(owner).__name__}(...).{name_of(value)}"
        named = isinstance(value, functools.partial) or hasattr(value, "__name__")
        return name_of(value) if named or hasattr(value, "fun") else f"{name_of(value)}(...)"

    given = {name: value for name, value in options.items() if value is not None}
    words = [f"{k}={word(v) if callable(v) else repr(v)}" for k, v in given.items()]
    return f"gradlab.{called}({', '.join([word(function), *names, *words, f'seed={seed}'])})"


def argument_names(function: Callable[..., Any], number: int) -> tuple[str, ...]:
    """Return the names of a function's first positional arguments, as it spells them."""
    signature = _signature(function)
    names: list[str] = []
    for parameter in signature.parameters.values() if signature else ():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names.extend(f"{parameter.name}[{i}]" for i in range(number - len(names)))
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names.extend(f"input{i}" for i in range(len(names), number))
    return tuple(names[:number])


def nearest(name: Any, known: Iterable[str]) -> str:
    """Ask which of the known names may have been meant; nothing if none is near."""
    near = nearest_of(name, known)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def nearest_of(name: Any, known: Iterable[str]) -> list[str]:
    """Return which of the known names may have been meant: three at most, the nearest first."""
    import difflib

    return difflib.get_close_matches(str(name), list(known), n=3)


def misfit(function: Callable[..., Any], inputs: Sequence[Any]) -> "inspect.Signature | None":
    """Return the signature of a function that cannot be called with so many inputs, else None."""
    signature = _signature(function)
    try:
        if signature is not None:
            signature.bind(*inputs)
    except TypeError:
        return signature
    return None


def _signature(function: Callable[..., Any]) -> "inspect.Signature | None":
    import inspect

    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return None


def users_fault(
    who: str,
    function: Callable[..., Any],
    inputs: Sequence[Any],
    error: Exception,
    called_as: str = "",
    hint: str = "",
) -> GradlabError:
    """Return what to raise from an error that a user's function raised.

    `called_as`: how gradlab calls it, where that is not simply with the inputs.
    """
    signature = misfit(function, inputs) if isinstance(error, TypeError) else None
    if signature is not None:
        return InputError(
            f"{who} takes {signature}, but gradlab calls {called_as}"
            if called_as
            else f"inputs: {who} takes {signature}, but {count(len(inputs), 'input')} came; "
            "pass one for each"
        )
    return InputError(f"{who}: calling it raised {type(error).__name__}: {error}{hint}")
