"""What the command line's words name: functions by MODULE:CALLABLE, inputs by SHAPE[:DTYPE].

Modules are imported where they are used: `gradlab --help` passes here, and is to answer at once.
"""

import importlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from gradlab.arguments import argument_names, misfit, nearest, refuse_numbers, users_fault
from gradlab.errors import InputError
from gradlab.formatting import count

__all__ = ["drawn_inputs", "load", "load_inputs", "require_fitting"]

_DTYPES = (
    *("float64", "float32", "bfloat16", "float16", "complex128", "complex64"),
    *("int64", "int32", "int16", "int8", "uint32", "uint8", "bool"),
)


def load(target: str, what: str = "MODULE:CALLABLE") -> Callable[..., Any]:
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
    if not callable(found):
        raise InputError(f"{what}: {target} is {type(found).__name__}, not something callable")
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


def drawn_inputs(specs: Sequence[str], seed: int) -> tuple[Any, ...]:
    """Return random NumPy arrays: `100x4096`, `8x64:bfloat16`, `scalar`, `32:int32`.

    Floats are standard normal, in float32 if no dtype is named; integers are 0 or 1, which index
    any axis of two or more; booleans are as likely true as false.

    Raises:
        InputError: a word is not of that form.

    Example:
        >>> [x.shape for x in drawn_inputs(["2x3", "scalar:float64"], seed=0)]
        [(2, 3), ()]
    """
    import ml_dtypes
    import numpy as np

    refuse_numbers(seed=seed)
    rng = np.random.default_rng(seed)
    inputs = []
    for spec in specs:
        shape_word, _, dtype_word = spec.partition(":")
        dtype_word = dtype_word or "float32"
        if not re.fullmatch(r"scalar|\d+(x\d+)*", shape_word):
            raise InputError(
                f"INPUT: expected SHAPE[:DTYPE], such as 100x4096, 8x64:bfloat16 or scalar, "
                f"got {spec!r}"
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
            raise InputError(f"INPUT: {spec!r} is more than fits in memory here") from None
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


def require_fitting(function: Callable[..., Any], inputs: Sequence[Any], target: str) -> None:
    """Raise an InputError if a function cannot be called with so many inputs."""
    signature = misfit(function, inputs)
    if signature is not None:
        raise InputError(
            f"INPUT: {target} takes {signature}, but {count(len(inputs), 'input')} came; "
            "pass one SHAPE[:DTYPE] for each, or --inputs"
        )


def _meant(name: str, known: Sequence[str]) -> str:
    question = nearest(name, known)
    return question and f"; {question}"
