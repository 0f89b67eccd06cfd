"""A reading leaves no trace, says what it decided, and where it ended."""

import functools
import math
import random
import sys
import threading
import types

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

from gradlab.errors import InputError
from gradlab.reading import NotReadable, evaluate, read

SOURCE = """
import math, random, copy
import numpy as np
from numpy import exp, random as draw
import numpy.linalg as LA

weights = np.arange(6.0).reshape(2, 3)
settings = {"scale": np.full(3, 2.0), "list": [np.ones(3)]}
generator = np.random.default_rng(5)
kept = []
calls = 0

class Layer:
    eps = np.array(1e-5)
    def __init__(self):
        self.w, self.cache = np.ones((3, 2)), None
        self.mean = np.zeros(3)
        self.parts = [np.ones(3)]
    def forward(self, x, scale=np.ones(3)):
        self.cache = (x, x.sum())
        self.mean *= 0.9
        self.mean += 0.1 * x.mean(0)
        self.new = x * 2
        return x.dot(self.w) + self.eps * scale.sum() + self.mean.sum() + self.parts[0].sum()

layer = Layer()

def forward(x):
    global calls, last
    calls += 1
    last = x * 2
    kept.append(x)
    settings["x"] = x
    noise = generator.normal(size=3) + draw.normal(size=3) + random.random()
    return exp(x) * settings["scale"] + settings["list"][0] + weights[0] + noise * LA.norm(x)

def waits(x, started, go):
    y = np.zeros_like(x)
    y[0] = x[0]
    started.set()
    go.wait(20)
    return y + weights

def raises(x, error):
    weights[0] = 7
    raise error
"""


@pytest.fixture
def module():
    made = types.ModuleType("users_layers")
    made.__file__ = "/somewhere/users_layers.py"
    exec(compile(SOURCE, made.__file__, "exec"), made.__dict__)
    sys.modules["users_layers"] = made
    yield made
    del sys.modules["users_layers"]


def snapshot(module):
    names = {n: v for n, v in vars(module).items() if n not in ("__builtins__", "calls")}
    contents = (module.weights.tobytes(), list(module.kept), dict(module.settings))
    layer = (dict(vars(module.layer)), dict(vars(module.Layer)), module.layer.mean.tobytes())
    drawn = (repr(module.generator.bit_generator.state), random.getstate())
    legacy = repr(np.random.get_state())  # noqa: NPY002
    imports = (np, math, sys.modules["numpy"], __import__)
    return names, contents, layer, drawn, legacy, imports


def test_a_reading_leaves_no_trace(module):
    before = snapshot(module)
    read(module.forward, np.ones((2, 3)), checked=False)
    read(module.layer.forward, np.ones((2, 3)), checked=False)
    after = snapshot(module)
    assert repr(before) == repr(after)
    for old, new in zip(before, after):
        if isinstance(old, dict):
            assert all(old[name] is new[name] for name in old)
    assert module.calls == 1 and module.np is np and module.layer.cache is None


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_reading_leaves_no_trace(module, error):
    before = snapshot(module)
    with pytest.raises((InputError, KeyboardInterrupt, SystemExit)):
        read(lambda x: module.raises(x, error), np.ones(3))
    module.weights[0] = np.arange(3.0) if module.weights[0, 0] == 7 else module.weights[0]
    assert repr(before) == repr(snapshot(module))


def test_other_threads_see_numpy(module):
    started, go = threading.Event(), threading.Event()
    before = snapshot(module)
    readings = []
    thread = threading.Thread(
        target=lambda: readings.append(
            read(lambda x: module.waits(x, started, go), np.ones((2, 3)))
        )
    )
    thread.start()
    assert started.wait(20)
    x = np.full((2, 3), 0.5)
    layer = module.Layer()
    output = layer.forward(x)
    total = module.np.zeros(3) + module.weights + module.float(2)
    assert type(output) is np.ndarray and type(total) is np.ndarray
    np.testing.assert_allclose(layer.mean, 0.05)
    np.testing.assert_allclose(total, np.arange(6.0).reshape(2, 3) + 2)
    go.set()
    thread.join()
    assert repr(before) == repr(snapshot(module))
    assert evaluate(readings[0].program, x)[0].shape == (2, 3)


def test_a_module_that_the_function_does_not_reach_is_left_alone(module):
    other = types.ModuleType("users_others")
    other.__file__, other.np = "/somewhere/users_others.py", np
    sys.modules["users_others"] = other
    seen = []

    def looks(x):
        seen.append([type(names.np) for names in (sys.modules["users_others"], module)])
        return np.sin(x)

    try:
        read(looks, np.ones(3), checked=False)
    finally:
        del sys.modules["users_others"]
    assert seen[0][0] is types.ModuleType and seen[0][1] is not types.ModuleType


def test_a_module_that_is_reached_out_of_sight_is_read_too(module):
    def fills(x):
        np_ = sys.modules["users_layers"].np
        out = np_.zeros(3)
        out[1:] = x[1:] * sys.modules["users_layers"].weights[1, 1]
        return out

    del module  # no walk from the function meets it
    program = read(fills, np.ones(3)).program
    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(evaluate(program, x)[0], fills(x))


def test_the_users_arrays_are_put_back(module):
    def grows(x):
        module.weights[...] = 5.0
        module.weights += x
        return module.weights * 2

    reading = read(grows, np.ones((2, 3)))
    np.testing.assert_array_equal(module.weights, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(evaluate(reading.program, np.full((2, 3), 2.0))[0], 14.0)


def test_a_cache_keeps_no_stand_in():
    @functools.cache
    def table(n):
        return np.arange(n) / n

    reading = read(lambda x: x * table(3), np.ones(3))
    assert type(table(3)) is np.ndarray
    np.testing.assert_allclose(evaluate(reading.program, np.ones(3))[0], np.arange(3) / 3)


def test_inputs_are_left_alone():
    def writes(x):
        x *= 2
        return x.sum()

    x = np.ones(3)
    read(writes, x)
    np.testing.assert_array_equal(x, 1.0)


def test_decisions_are_noted_and_tested():
    def decides(x, n):
        if x.max() > 1:
            x = x * 2
        for _ in range(n[0]):
            x = x + 1
        return x[: int(x.sum() > 0) + 1]

    reading = read(decides, np.array([2.0, 0.5]), np.array([3]))
    kinds = [(each.kind, each.value) for each in reading.decisions]
    assert kinds == [("if", True), ("index", 3), ("int", True)]
    assert all("test_reading.py:" in each.line for each in reading.decisions)
    assert reading.holds(np.array([1.5, 0.1]), np.array([3]))
    assert not reading.holds(np.array([0.5, 0.1]), np.array([3]))
    assert not reading.holds(np.array([1.5, 0.1]), np.array([2]))
    lines = [int(each.line.split(":")[1]) for each in reading.decisions]
    first = decides.__code__.co_firstlineno
    assert lines == [first + 1, first + 3, first + 5]


def test_comparisons_stay_symbolic():
    def relu(x):
        y = x.copy()
        y[y < 0] = 0
        return y * (x > 0) + np.where(x > 1, x, 0) + y[x > 0.5].sum()

    assert read(relu, np.array([-1.0, 0.7, 2.0])).decisions == ()


def reads_pointer(x):
    return np.nditer(x)


def reads_float(x):
    return "%.3f" % x.mean()  # noqa: UP031


def into_unseen(x):
    hidden = memoryview(bytearray(24)).cast("d")
    array = np.ndarray.__new__(np.ndarray, (3,), float, hidden)
    array[:] = x
    return array * 2


def caught_by_numpy(x):
    hidden = np.ndarray.__new__(np.ndarray, (3,), float)
    try:
        hidden[0] = x[0]
    except Exception:
        hidden[0] = 1.0
    return hidden * x


def without_twin(x):
    return scipy.ndimage.uniform_filter(x)


def writes_twice(x):
    pairs = np.lib.stride_tricks.as_strided(x, (2, 2), (8, 8))
    pairs[...] = x[0]
    return x


@pytest.mark.parametrize(
    "function",
    [writes_twice, reads_pointer, reads_float, into_unseen, caught_by_numpy, without_twin],
)
def test_what_cannot_be_read_names_its_line(function):
    with pytest.raises(NotReadable) as caught:
        read(function, np.array([1.5, 2.0, 3.0]))
    assert caught.value.line.startswith("test_reading.py:") and caught.value.reason
    number = int(caught.value.line.split(":")[1])
    first = function.__code__.co_firstlineno
    assert first < number <= first + 6
    assert caught.value.line in str(caught.value)


def test_an_error_of_the_users_is_the_users():
    def broken(x):
        return x @ np.ones((5, 2))

    with pytest.raises(InputError, match="broken: calling it raised ValueError: matmul"):
        read(broken, np.ones((2, 3)))


def test_a_write_into_a_constant_does_not_change_what_was_recorded():
    def reuses(x):
        c = np.ones(3)
        y = x * c
        c[:] = 100.0
        return y + c

    np.testing.assert_array_equal(evaluate(read(reuses, np.ones(3)).program, np.ones(3))[0], 101.0)


def test_lines_are_the_users():
    def layer(x):
        y = np.exp(x)
        return np.pad(y, 1).sum()

    from gradlab.tracing import source

    lines = {source(each) for each in read(layer, np.ones(3)).program.jaxpr.eqns}
    first = layer.__code__.co_firstlineno
    assert lines == {f"test_reading.py:{first + 1}", f"test_reading.py:{first + 2}"}


def test_pytrees_and_python_numbers():
    def layer(params, x, scale, axis=0):
        return {"y": params["w"] * x.sum(axis) * scale, "n": params["n"]}

    reading = read(layer, {"w": np.ones(3), "n": 2}, np.ones((2, 3)), 2.5)
    assert reading.program.in_names == ("params['w']", "x", "scale")
    found = evaluate(reading.program, {"w": np.ones(3), "n": 2}, np.ones((2, 3)), 3.0)
    np.testing.assert_array_equal(found[1], 6.0)


def test_a_float32_function_keeps_its_dtypes_and_knows_its_constants():
    def layer(x):
        return x * 0.1 + x.dtype.type(0.3)

    program = read(layer, np.ones(3, np.float32)).program
    assert program.out_avals[0].dtype == np.float32
    assert program.wide is not None and program.wide.out_avals[0].dtype == np.float64


def test_without_deciding_a_value_ends_the_reading():
    with pytest.raises(NotReadable, match=r"test_reading.py:\d+"):
        read(lambda x: x if x.sum() > 0 else -x, np.ones(3), deciding=False)


def _row(x):
    k = x[:, 0].argmax()
    return x[k] * 2


def _negative_row(x):
    out, k = np.zeros_like(x), x[:, 0].argmax()
    out[k] -= x[k]
    out[k, 1:] += x[0, 1:]
    return out


def _alias(x):
    out, k = np.zeros_like(x), x[:, 0].argmax()
    row = out[k]
    row += x[0]
    row[1] = 7.0
    out[k][2] = x[1, 1]
    np.add(out[k], x[2], out=out[k])
    return out


def _nested(x):
    out, j, k = np.zeros((3, 4, 3)), x[0].argmax(), x[:, 0].argmax()
    inner = out[j]
    inner[k] += x[1]
    np.add.at(inner, [0, 0], x[:2])
    inner.sort(axis=0)
    return out


@pytest.mark.parametrize("function", [_row, _negative_row, _alias, _nested])
def test_what_stands_at_a_place_that_values_decide_is_the_array_itself(function):
    rng = np.random.default_rng(0)
    reading = read(function, rng.normal(size=(4, 3)))
    assert reading.decisions == ()
    for _ in range(5):
        x = rng.normal(size=(4, 3))
        np.testing.assert_array_equal(evaluate(reading.program, x)[0], function(x))


def test_a_view_at_a_place_that_values_decide_is_refused_when_it_is_out_of_date():
    def function(x):
        y = x.copy()
        row = y[x[:, 0].argmax()]
        y[0] = 0.0
        return row * 2

    with pytest.raises(NotReadable, match="is used after x was written"):
        read(function, np.eye(3))


def test_a_number_of_the_inputs_that_decides_a_shape_is_a_condition():
    reading = read(lambda x: x.reshape(x[0].argmax() + 1, -1).sum(0), np.eye(2))
    assert [d.kind for d in reading.decisions] == ["index"]
    assert not reading.holds(np.eye(2)[::-1])


@pytest.mark.parametrize(
    "function",
    [
        np.linalg.cholesky,
        lambda s: np.linalg.cholesky(s, upper=True),
        lambda s: np.linalg.eigh(s, "U")[0],
        np.linalg.eigvalsh,
        lambda s: scipy.linalg.cholesky(s),
        lambda s: scipy.linalg.eigh(s, lower=False)[0],
        lambda s: scipy.linalg.cho_solve(scipy.linalg.cho_factor(s), s[0]),
        lambda s: scipy.linalg.lu_solve(scipy.linalg.lu_factor(s), s[0]),
    ],
)
def test_a_function_that_reads_one_triangle_reads_the_same_one(function):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 3)) + 6 * np.eye(3)
    reading = read(function, x)
    y = x + 0.1 * rng.normal(size=(3, 3))
    found = evaluate(reading.program, y)[0]
    np.testing.assert_allclose(found, function(y), rtol=1e-12, atol=1e-12)
