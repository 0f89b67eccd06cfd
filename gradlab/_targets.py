"""What the command line's words name: functions by MODULE:NAME, inputs by SHAPE[:DTYPE].

Modules are imported where they are used: `gradlab --help` passes here, and is to answer at once.
"""

import importlib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from gradlab.arguments import argument_names, misfit, name_of, nearest, refuse_numbers, users_fault
from gradlab.errors import InputError
from gradlab.formatting import count

__all__ = ["drawn_inputs", "dtype_of", "load", "load_inputs", "positional", "require_fitting"]

_DTYPES = (
    *("float64", "float32", "bfloat16", "float16", "complex128", "complex64"),
    *("int64", "int32", "int16", "int8", "uint32", "uint8", "bool"),
)


def load(target: str, what: str = "TARGET") -> Callable[..., Any]:
    """Return the function that `package.module:name` names, importing its module.

    Raises:
        InputError: it cannot be found; the nearest names are told.

    Example:
        >>> load("math:sqrt")(9.0)
        3.0
    """
    module_name, colon, path = target.partition(":")
    if not colon or not module_name or not path or module_name.startswith("."):
        raise InputError(f"{what}: expected MODULE:NAME, such as layers:softmax, got {target!r}")
    if module_name.endswith(".py"):
        dotted = module_name[: -len(".py")].replace("/", ".")
        raise InputError(f"{what}: pass the module, not its file: {dotted}:{path}")
    found: Any = _module(module_name, what)
    for name in path.split("."):
        if not hasattr(found, name):
            known = [n for n in dir(found) if not n.startswith("_")]
            raise InputError(f"{what}: {module_name} has no {name!r}{_meant(name, known)}")
        found = getattr(found, name)
    if isinstance(found, type) and (hasattr(found, "forward") or hasattr(found, "loss")):
        call = f"{path}({', '.join(positional(found))})"
        raise InputError(
            f"{what}: {path} is a class. Write layer = {call} in the module, and pass "
            f"{module_name}:layer"
        )
    if not callable(found) and not hasattr(found, "forward") and not hasattr(found, "loss"):
        kind = type(found).__name__
        raise InputError(f"{what}: {target} is {kind}; pass a function, or an object with forward")
    function: Callable[..., Any] = found
    return function


def _module(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports another one that is not
        here = [name[: -len(".py")] for name in os.listdir() if name.endswith(".py")]
        raise InputError(
            f"{what}: there is no module named {error.name!r}{_meant(name, here)}; "
            "modules are looked for in the current directory and on sys.path"
        ) from None


def drawn_inputs(
    specs: Sequence[str], seed: int, names: Sequence[str] = (), dtype: str = "float32"
) -> tuple[Any, ...]:
    """Return random NumPy arrays, such as `100x4096`, and numbers that are named, such as `x=-2`.

    Floats are standard normal; integers are 0 or 1, which index
    any axis of two or more; booleans are as likely true as false.

    Args:
        specs: `SHAPE[:DTYPE]`, `scalar`, or `NAME=VALUE`.
        seed: of the random numbers.
        names: what the function calls its inputs; a named value takes the place of its name.
        dtype: of the inputs whose word names none.

    Raises:
        InputError: a word is not of that form, or no input has that name.

    Example:
        >>> [x.shape for x in drawn_inputs(["2x3", "scalar:float64"], seed=0)]
        [(2, 3), ()]
        >>> drawn_inputs(["z=-4", "x=-2", "y=5"], 0, ["x", "y", "z"])
        (-2.0, 5.0, -4.0)
    """
    named = dict(spec.split("=", 1) for spec in specs if "=" in spec)
    for name in named:
        if name not in names:
            known = ", ".join(names)
            raise InputError(f"INPUT: no input is called {name!r}; the inputs are {known}")
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
        raise InputError(
            f"INPUT: {name}={words} is no number; write {name}=0.5, or a shape such as 8x64"
        ) from None


def _drawn_inputs(specs: Sequence[str], seed: int) -> tuple[Any, ...]:
    import ml_dtypes
    import numpy as np

    refuse_numbers(seed=seed)
    rng = np.random.default_rng(seed)
    inputs = []
    for spec in specs:
        shape_word, _, dtype_word = spec.partition(":")
        if not re.fullmatch(r"scalar|\d+(x\d+)*", shape_word):
            raise InputError(
                f"INPUT: expected SHAPE[:DTYPE] or NAME=VALUE, such as 100x4096, 8x64:bfloat16, "
                f"scalar or x=-2, got {shape_word!r}"
            )
        if dtype_word not in _DTYPES:
            raise InputError(
                f"INPUT: {spec!r} has no dtype that gradlab draws{_meant(dtype_word, _DTYPES)}"
            )
        shape = () if shape_word == "scalar" else tuple(map(int, shape_word.split("x")))
        dtype = np.dtype(ml_dtypes.bfloat16 if dtype_word == "bfloat16" else dtype_word)
        try:
            inputs.append(_drawn(rng, shape, dtype))
        except (MemoryError, OverflowError, ValueError):
            raise InputError(f"INPUT: {shape_word!r} is more than fits in memory here") from None
    return tuple(inputs)


def _drawn(rng: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    drawn = rng.integers(0, 2, shape) if dtype.kind in "iub" else rng.normal(size=shape)
    if dtype.kind == "c":
        drawn = drawn + 1j * rng.normal(size=shape)
    return drawn.astype(dtype) if shape else dtype.type(drawn)[...]


def load_inputs(source: str, function: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the inputs that a function returns (`MODULE:FUNCTION`) or a file holds (`FILE.npz`).

    The arrays of a file are taken by name where they are named like the arguments, else in order.

    Raises:
        InputError: there is no such function or file, or it holds something else.
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
        raise InputError(f"--inputs: there is no file {source}") from None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):
        raise InputError(
            f"--inputs: {source} holds no arrays of numbers; write it with numpy.savez"
        ) from None
    order = [name for name in argument_names(function, len(held)) if name in held]
    return tuple(held[name] for name in (order if len(order) == len(held) else held))


def require_fitting(function: Callable[..., Any], inputs: Sequence[Any], words: str) -> None:
    """Raise an InputError if a function cannot be called with so many inputs.

    Args:
        function: the function.
        inputs: what it would be called with.
        words: the command as it was given: its name, the target, a word for each input.
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
    """Return the names of the inputs that a function must be given.

    Example:
        >>> positional(lambda x, weight, eps=1e-6: x)
        ['x', 'weight']
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def _meant(name: str, known: Sequence[str]) -> str:
    question = nearest(name, known)
    return question and f"; {question}"
