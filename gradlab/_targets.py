"""What the command line's words name: functions by MODULE:NAME, inputs by SHAPE[:DTYPE].

Modules are imported where they are used: `gradlab --help` passes here, and is to answer at once.
"""

import importlib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from gradlab.arguments import (
    argument_names,
    misfit,
    name_of,
    nearest_of,
    refuse_numbers,
    users_fault,
)
from gradlab.errors import InputError
from gradlab.formatting import count, listed

_DTYPES = (
    *("float64", "float32", "bfloat16", "float16", "complex128", "complex64"),
    *("int64", "int32", "int16", "int8", "uint32", "uint8", "bool"),
)


def load(target: str, option: str = "") -> Callable[..., Any]:
    """Return the function that `package.module:name` names, importing its module."""
    what = option and f"{option}: "
    module_name, colon, path = target.partition(":")
    if not colon or not module_name or not path or module_name.startswith("."):
        raise InputError(
            f"{what}{target} is not MODULE:NAME; write layers:softmax for softmax in layers.py"
        )
    if module_name.endswith(".py"):
        dotted = f"{module_name[: -len('.py')].replace('/', '.')}:{path}"
        raise InputError(f"{what}pass the module, not its file: {dotted}", (target, dotted))
    found: Any = _module(module_name, what)
    for name in path.split("."):
        if not hasattr(found, name):
            near = nearest_of(name, [n for n in dir(found) if not n.startswith("_")])
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise InputError(
                f"{what}{module_name} has no {name}{meant}",
                (path, path.replace(name, near[0])) if near else ("", ""),
            )
        found = getattr(found, name)
    if isinstance(found, type) and (hasattr(found, "forward") or hasattr(found, "loss")):
        call = f"{path}({', '.join(positional(found))})"
        layer = f"{module_name}:layer"
        raise InputError(
            f"{what}{path} is a class. Write layer = {call} in {module_name}.py, and pass {layer}",
            (target, layer),
        )
    if not callable(found) and not hasattr(found, "forward") and not hasattr(found, "loss"):
        kind = type(found).__name__
        raise InputError(
            f"{what}{target} is of type {kind}; pass a function, or an object with forward"
        )
    function: Callable[..., Any] = found
    return function


def _module(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports another one that is not
        here = [name[: -len(".py")] for name in os.listdir() if name.endswith(".py")]
        near = nearest_of(name, here)
        raise InputError(
            f"{what}there is no module {error.name} in this directory, nor on sys.path",
            (name, near[0]) if near else ("", ""),
        ) from None


def drawn_inputs(
    specs: Sequence[str], seed: int, names: Sequence[str] = (), dtype: str = "float32"
) -> tuple[Any, ...]:
    """Return random NumPy arrays, such as `100x4096`, and numbers that are named, such as `x=-2`.

    Floats are standard normal; integers are 0 or 1, which index
    any axis of two or more; booleans are as likely true as false.

    A named value takes the place of its name among the inputs; `dtype` is for words without one.
    """
    named = dict(spec.split("=", 1) for spec in specs if "=" in spec)
    for name in named:
        if name not in names:
            raise InputError(
                f"no input is called {name}; the inputs are {listed(names)}", (name, names[0])
            )
    shapes = [spec for spec in specs if "=" not in spec]
    drawn = iter(_drawn_inputs([s if ":" in s else f"{s}:{dtype}" for s in shapes], seed))
    placed = [_number(name, named[name]) if name in named else next(drawn, None) for name in names]
    return tuple(x for x in (*placed, *drawn) if x is not None)


def dtype_of(function: Any) -> str:
    """Return the dtype in which inputs fit: that of an object's parameters, else float32."""
    held = list(getattr(function, "__dict__", {}).values())
    held += [part for each in held if isinstance(each, dict) for part in each.values()]
    wide = any(str(getattr(each, "dtype", "")) == "float64" for each in held)
    return "float64" if wide else "float32"


def _number(name: str, words: str) -> float:
    try:
        return float(words)
    except ValueError:
        shape = re.fullmatch(r"(scalar|\d+(x\d+)*)(:\w+)?", words)
        raise InputError(
            f"{name}={words} is not a number; write {name}=0.5, or a shape without a name (8x64)",
            (f"{name}={words}", words if shape else f"{name}=0.5"),
        ) from None


def _drawn_inputs(specs: Sequence[str], seed: int) -> tuple[Any, ...]:
    import ml_dtypes
    import numpy as np

    refuse_numbers(seed=seed)
    rng = np.random.default_rng(seed)
    inputs = []
    for spec in specs:
        shape_word, _, dtype_word = spec.partition(":")
        if shape_word in _DTYPES:
            raise InputError(
                f"{shape_word} is a dtype; write it behind a shape (8x64:{shape_word}), or put "
                "commas between dtypes (--dtypes float32,float16)"
            )
        if not re.fullmatch(r"scalar|\d+(x\d+)*", shape_word):
            raise InputError(
                f"{shape_word} is not an input; write a shape (100x4096, 8x64:bfloat16, scalar) or "
                f"a value (x=-2){', with a blank before the next' * (',' in shape_word)}",
                (shape_word, shape_word.replace("*", "x")),
            )
        if dtype_word not in _DTYPES:
            near = [*nearest_of(dtype_word, _DTYPES), "float32"][0]
            raise InputError(
                f"{spec}: gradlab draws no {dtype_word}; did you mean {near}?",
                (spec, f"{shape_word}:{near}"),
            )
        shape = () if shape_word == "scalar" else tuple(map(int, shape_word.split("x")))
        dtype = np.dtype(ml_dtypes.bfloat16 if dtype_word == "bfloat16" else dtype_word)
        try:
            inputs.append(_drawn(rng, shape, dtype))
        except (MemoryError, OverflowError, ValueError):
            raise InputError(
                f"an array of shape {shape_word} does not fit into memory; give a smaller shape"
            ) from None
    return tuple(inputs)


def _drawn(rng: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    drawn = rng.integers(0, 2, shape) if dtype.kind in "iub" else rng.normal(size=shape)
    if dtype.kind == "c":
        drawn = drawn + 1j * rng.normal(size=shape)
    return drawn.astype(dtype) if shape else dtype.type(drawn)[...]


def load_inputs(source: str, function: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the inputs that a function returns (`MODULE:FUNCTION`) or a file holds (`FILE.npz`).

    The arrays of a file are taken by name where they are named like the arguments, else in order.
    """
    if not source.endswith(".npz"):
        given = load(source, "--inputs")
        try:
            inputs = given()
        except Exception as error:
            raise users_fault("--inputs", given, (), error, called_as=f"{source}()") from error
        return inputs if isinstance(inputs, tuple) else (inputs,)
    import zipfile

    import numpy as np

    try:
        with np.load(source, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise InputError(
            f"--inputs: there is no file {source}; write it with numpy.savez('{source}', x=x)"
        ) from None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):
        raise InputError(
            f"--inputs: {source} holds no arrays of numbers; write it with "
            f"numpy.savez('{source}', x=x)"
        ) from None
    order = [name for name in argument_names(function, len(held)) if name in held]
    return tuple(held[name] for name in (order if len(order) == len(held) else held))


def require_fitting(function: Callable[..., Any], inputs: Sequence[Any], words: str) -> None:
    """Raise an InputError if a function cannot be called with so many inputs.

    `words`: the command as it was given: its name, the target, a word for each input.
    """
    if misfit(function, inputs) is None:
        return
    names = positional(function)
    takes = f"{count(len(names), 'input')} ({', '.join(names)})"
    words = " ".join([*words.split()[: 2 + len(names)], *["SHAPE"] * (len(names) - len(inputs))])
    raise InputError(
        f"{name_of(function)} takes {takes}, but you gave {len(inputs)}.\n"
        f"  Give a shape for each: gradlab {words}"
    )


def positional(function: Callable[..., Any]) -> list[str]:
    """Return the names of the inputs that a function must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
