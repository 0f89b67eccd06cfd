"""Right layers in NumPy, in the forms that people write, are right; wrong ones are found."""

import functools
import importlib.util
import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking.summary import explaining

_spec = importlib.util.spec_from_file_location(
    "numpy_layers", Path(__file__).with_name("numpy_layers.py")
)
layers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(layers)

CASES = [*layers.PAIRS, *layers.OBJECTS]
DTYPES = [np.float64, np.float32]
LONG = {"lstm", "rnn", "gru_step", "conv_loops", "attention", "max_pool_loops", "svm_loss_loops"}
LONGEST = {"conv_loops", "max_pool_loops", "svm_loss_loops"}
WRONG = [
    pytest.param(change, pair, marks=pytest.mark.slow if pair.__name__ in LONG else ())
    for change, pair in itertools.product(["zero", "off"], layers.PAIRS)
]


RIGHT = [  # a layer is right in one dtype, and its faults are found in the other
    pytest.param(
        case, dtype, marks=pytest.mark.slow if name in LONGEST or k == len(name) % 2 else ()
    )
    for case in CASES
    for name in [case.__name__]
    for k, dtype in enumerate(DTYPES)
]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("case", "dtype"), RIGHT, ids=lambda each: each.__name__)
def test_a_right_layer_is_right_and_read(case, dtype):
    function, inputs, options = case(np.random.default_rng(3), dtype)
    report = gradlab.check(function, *inputs, **options)
    assert report.ok, report
    assert report.oracle.endswith("read from NumPy")


def wrong(backward, entry, change):
    """Return a backward that changes one entry of one gradient, or makes one gradient zero."""

    def changed(*arguments):
        gradients = backward(*arguments)
        several = isinstance(gradients, tuple)
        found = list(gradients) if several else [gradients]
        turned = [(entry + k) % len(found) for k in range(len(found))]
        which = next((k for k in turned if found[k] is not None and np.any(found[k])), None)
        if which is None:  # as a softmax's is for an upstream of ones
            return gradients
        new = np.array(found[which])
        if change == "zero":
            new = np.zeros_like(new)
        else:
            place = np.unravel_index(np.argmax(np.abs(new)), new.shape)
            new[place] = new[place] * new.dtype.type(1.01)
        found[which] = new
        return tuple(found) if several else found[0]

    return changed


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("change", "case"), WRONG)
def test_a_wrong_layer_is_found(case, change):
    dtype = DTYPES[len(case.__name__) % 2]
    function, inputs, options = case(np.random.default_rng(4), dtype)
    if "backward" in options:
        options = {**options, "backward": wrong(options["backward"], 1, change)}
    else:
        own = function

        @functools.wraps(own)
        def function(*arguments):
            loss, gradients = own(*arguments)
            if isinstance(gradients, dict):
                names = list(gradients)
                found = wrong(lambda: tuple(gradients.values()), 1, change)()
                return loss, dict(zip(names, found))
            return loss, wrong(lambda: gradients, 1, change)()

    unexplained = explaining.set(False)  # whether it is found is the question, not why
    try:
        report = gradlab.check(function, *inputs, **options)
    finally:
        explaining.reset(unexplained)
    assert report.status == "wrong", report


def test_a_proof_of_complex_numbers_that_are_moved_does_not_fail():
    def forward(x):
        return jnp.abs(jnp.fft.fft(x)) ** 2

    def backward(upstream, x):
        return 2 * jnp.real(jnp.fft.ifft(upstream * jnp.fft.fft(x)) * x.size).astype(x.dtype)

    assert gradlab.check(forward, jnp.arange(6.0) * 0.3 + 1, backward=backward).ok


def test_the_function_itself_is_asked_along_three_directions():
    calls = []

    def forward(x):
        calls.append(x)
        return np.tanh(x)

    x = np.random.default_rng(0).normal(size=(3, 4))
    report = gradlab.check(forward, x, backward=lambda up, x: up * (1 - np.tanh(x) ** 2))
    (law,) = [law for law in report.laws if law.name == "finite differences"]
    assert (law.status, law.judged) == ("passed", 3) and len(calls) < 200
