"""Which of NumPy's public functions are read: a table, held against what the README says."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.errors import GradlabError
from gradlab.reading import evaluate, read

X = np.array([[0.3, -1.2, 0.7], [0.9, 0.4, -0.6], [1.4, 0.2, 0.8]])
SQUARE = X @ X.T + 2 * np.eye(3)
WHOLE = np.array([[2, 5, 3], [1, 4, 7], [6, 8, 1]])
SPACES = {"np": (np, jnp), "np.linalg": (np.linalg, jnp.linalg), "np.fft": (np.fft, jnp.fft)}
# These compute with no array, or with text, files, bits, types and functions.
NO_VALUES = """
array_repr array_str array_equiv bartlett blackman broadcast_shapes can_cast cumulative_prod dtype
einsum_path empty empty_like eye fftfreq rfftfreq packbits unpackbits finfo from_dlpack frombuffer
fromfile fromfunction fromiter frompyfunc fromstring get_printoptions hamming hanning identity iinfo
indices isdtype iterable issubdtype kaiser load mask_indices ndim ones printoptions promote_types
result_type save savez set_printoptions shape size tri tril_indices triu_indices zeros bool ufunc
"""
CALLS = {
    "apply_along_axis": lambda f, x: f(np.cumsum, 0, x),
    "apply_over_axes": lambda f, x: f(np.sum, x, [0, 1]),
    "arange": lambda f, x: f(3) * x,
    "array_split": lambda f, x: f(x, 2),
    "astype": lambda f, x: f(x, np.float32),
    "bincount": lambda f, x: f(WHOLE[0], x[0]),
    "block": lambda f, x: f([[x, x], [x, x]]),
    "broadcast_to": lambda f, x: f(x, (2, 3, 3)),
    "choose": lambda f, x: f([0, 1, 0], [x[0], x[1]]),
    "compress": lambda f, x: f([True, False, True], x, axis=0),
    "concatenate": lambda f, x: f([x, x]),
    "concat": lambda f, x: f([x, x]),
    "convolve": lambda f, x: f(x[0], x[1]),
    "correlate": lambda f, x: f(x[0], x[1]),
    "cross": lambda f, x: f(x, x[::-1]),
    "cumulative_sum": lambda f, x: f(x, axis=0),
    "delete": lambda f, x: f(x, 1, axis=0),
    "digitize": lambda f, x: f(x, np.array([-1.0, 0.0, 1.0])),
    "einsum": lambda f, x: f("ij,jk->ik", x, x),
    "extract": lambda f, x: f(x > 0, x),
    "fill_diagonal": lambda f, x: [f(x, 0.5), x][1],
    "full": lambda f, x: f((2, 2), x[0, 0]),
    "full_like": lambda f, x: f(x, x[0, 0]),
    "geomspace": lambda f, x: f(x[0, 0], 3.0, 4),
    "histogram": lambda f, x: f(x, 4)[0],
    "histogram2d": lambda f, x: f(x[0], x[1], 3)[0],
    "histogramdd": lambda f, x: f(x[:, :2], 3)[0],
    "insert": lambda f, x: f(x, 1, 0.5, axis=0),
    "interp": lambda f, x: f(x, [-2.0, 0.0, 2.0], [1.0, 3.0, 2.0]),
    "isclose": lambda f, x: f(x, x + 1e-9),
    "ix_": lambda f, x: x[f([0, 2], [1, 2])],
    "ldexp": lambda f, x: f(x, WHOLE),
    "lexsort": lambda f, x: f((x[0], x[1])),
    "linspace": lambda f, x: f(x[0, 0], x[0, 1], 5),
    "logspace": lambda f, x: f(x[0, 0], x[0, 1], 5),
    "matrix_power": lambda f, x: f(x, 3),
    "moveaxis": lambda f, x: f(x, 0, 1),
    "multi_dot": lambda f, x: f([x, x, x]),
    "nanpercentile": lambda f, x: f(x, 30),
    "nanquantile": lambda f, x: f(x, 0.3),
    "pad": lambda f, x: f(x, 1),
    "partition": lambda f, x: np.sort(f(x, 1), axis=-1),
    "argpartition": lambda f, x: np.take_along_axis(x, f(x, 1), -1)[..., 1],
    "percentile": lambda f, x: f(x, 30),
    "piecewise": lambda f, x: f(x, [x < 0, x >= 0], [lambda v: v * v, lambda v: v]),
    "place": lambda f, x: [f(x, x > 0, [0.5]), x][1],
    "poly": lambda f, x: f(x[0]),
    "polyadd": lambda f, x: f(x[0], x[1]),
    "polydiv": lambda f, x: f(x[0], x[1, :2]),
    "polyfit": lambda f, x: f(x[0], x[1], 1),
    "polymul": lambda f, x: f(x[0], x[1]),
    "polysub": lambda f, x: f(x[0], x[1]),
    "polyval": lambda f, x: f(x[0], x),
    "polyder": lambda f, x: f(x[0]),
    "polyint": lambda f, x: f(x[0]),
    "put": lambda f, x: [f(x, [0, 4], [7.0, 8.0]), x][1],
    "put_along_axis": lambda f, x: [f(x, WHOLE[:, :1] % 3, 0.5, 1), x][1],
    "putmask": lambda f, x: [f(x, x > 0, 0.5), x][1],
    "copyto": lambda f, x: [f(x, 2 * x), x][1],
    "quantile": lambda f, x: f(x, 0.3),
    "ravel_multi_index": lambda f, x: x.ravel()[f((WHOLE % 3, WHOLE % 2), (3, 3))],
    "repeat": lambda f, x: f(x, 2, axis=1),
    "reshape": lambda f, x: f(x, (9,)),
    "resize": lambda f, x: f(x, (2, 5)),
    "rollaxis": lambda f, x: f(x, 1),
    "roots": lambda f, x: np.sort(np.abs(f(np.array([1.0, -3.0, 2.0])))) * x[0, :2],
    "searchsorted": lambda f, x: f(np.array([-1.0, 0.0, 1.0]), x),
    "select": lambda f, x: f([x > 0, x < -1], [x, -x], 0.5),
    "solve": lambda f, x: f(x, x[0]),
    "tensorsolve": lambda f, x: f(x, x[0]),
    "split": lambda f, x: f(x, 3),
    "hsplit": lambda f, x: f(x, 3),
    "vsplit": lambda f, x: f(x, 3),
    "dsplit": lambda f, x: f(x[None], 3),
    "swapaxes": lambda f, x: f(x, 0, 1),
    "take": lambda f, x: f(x, [2, 0], axis=1),
    "take_along_axis": lambda f, x: f(x, WHOLE % 3, 1),
    "tensordot": lambda f, x: f(x, x, axes=1),
    "tensorinv": lambda f, x: f(x, 1),
    "tile": lambda f, x: f(x, (2, 1)),
    "trim_zeros": lambda f, x: f(x[0]),
    "tril_indices_from": lambda f, x: x[f(x)],
    "triu_indices_from": lambda f, x: x[f(x)],
    "diag_indices": lambda f, x: x[f(3)],
    "diag_indices_from": lambda f, x: x[f(x)],
    "unravel_index": lambda f, x: x[f(4, (3, 3))],
    "unwrap": lambda f, x: f(4 * x),
    "vander": lambda f, x: f(x[0]),
    "vectorize": lambda f, x: f(lambda v: v * v)(x),
    "where": lambda f, x: f(x > 0, x, 0.5),
    "meshgrid": lambda f, x: f(x[0], x[1]),
    "cholesky": lambda f, x: f(x + 9 * np.eye(3)),
    "eigh": lambda f, x: np.abs(f(x)[1]),
    "eig": lambda f, x: np.sort(f(x)[0].real),
    "eigvals": lambda f, x: np.sort(f(x).real),
    "svd": lambda f, x: f(x)[1],
    "qr": lambda f, x: np.abs(f(x)[1]),
    "lstsq": lambda f, x: f(x, x[0], rcond=None)[0],
    "diagflat": lambda f, x: f(x[0]),
    "hfft": lambda f, x: f(x[0]),
    "arccosh": lambda f, x: f(2 + np.abs(x)),
    "acosh": lambda f, x: f(2 + np.abs(x)),
}
TRIED = [
    lambda f, x: f(x),
    lambda f, x: f(x, x[::-1]),
    lambda f, x: f(np.abs(x) % 1),
    lambda f, x: f(WHOLE) * x,
    lambda f, x: f(WHOLE, WHOLE[::-1]) * x,
    lambda f, x: f([x, x]),
    lambda f, x: f(x[0], x[1]),
    lambda f, x: f(x, 1),
    lambda f, x: f(x, x, axes=1),
]


def works(call, function, x):
    """Return what NumPy computes, where there is something to compare; else None."""
    try:
        with np.errstate(all="ignore"):
            value = call(function, x.copy())
    except Exception:
        return None
    parts = value if isinstance(value, tuple | list) else [value]
    return [np.asarray(part) for part in parts] if all(map(is_number, parts)) else None


def is_number(value):
    return isinstance(value, np.ndarray | np.generic | bool | int | float | complex)


def is_read(function, name):
    """Whether a call of the function is read, and gives what NumPy gives there and elsewhere."""
    x = SQUARE if function.__module__ == "numpy.linalg" else X
    several = [CALLS[name]] if name in CALLS else TRIED
    call = next((each for each in several if works(each, function, x) is not None), None)
    if call is None:
        return False
    try:
        reading = read(lambda x: call(function, x), x)
    except GradlabError:
        return False
    for moved in (x, x * (1 + 1e-6)):
        theirs = works(call, function, moved)
        ours = evaluate(reading.program, moved)
        if reading.holds(moved):
            same = [a.shape == b.shape and np.allclose(a, b, equal_nan=True)
                    for a, b in zip(ours, theirs)]  # fmt: skip
            if len(ours) != len(theirs) or not all(same):
                return False
    return True


def named():
    """Return the functions that the README names: they are not read."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    line = next(row for row in readme.splitlines() if "functions of NumPy that JAX has" in row)
    return set(re.findall(r"`(np\.[\w.]+)`", line))


def table(chosen):
    """Return whether functions of NumPy that JAX has are read, by their names."""
    found = {}
    for space, (ours, theirs) in SPACES.items():
        for name in sorted(set(dir(ours)) & set(dir(theirs))):
            function = getattr(ours, name)
            usable = callable(function) and not isinstance(function, type)
            if usable and not name.startswith("_") and name not in NO_VALUES.split():
                found[f"{space}.{name}"] = function
    return {full: is_read(found[full], full.split(".")[-1]) for full in chosen(sorted(found))}


@pytest.mark.filterwarnings("ignore")
def test_what_the_readme_names_is_not_read_and_others_are():
    said = named()
    found = table(lambda names: [n for k, n in enumerate(names) if n in said or k % 5 == 0])
    assert {name for name, known in found.items() if not known} == said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_functions_are_read_but_those_that_the_readme_names():
    found = table(lambda names: names)
    missing = {name for name, known in found.items() if not known}
    assert missing == named() and len(missing) <= 0.05 * len(found)
