"""Layers as people write them: how parameters are found, and what is said when they are not."""

import numpy as np
import pytest

import gradlab

X = np.random.default_rng(0).normal(size=(4, 3))


class Affine:
    def __init__(self):
        self.w, self.b = np.ones((3, 2)), np.zeros(2)

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.grad_of_w, self.db = self.x.T @ dout, dout.sum(0)
        return dout @ self.w.T


class Adding(Affine):
    def __init__(self):
        super().__init__()
        self.dw = np.full((3, 2), 7.0)

    def backward(self, dout):
        self.dw += self.x.T @ dout
        self.db = dout.sum(0)
        return dout @ self.w.T


class Returning(Affine):
    def backward(self, dout):
        return dout @ self.w.T, self.x.T @ dout, dout.sum(0)


class NoBackward:
    def forward(self, x):
        return x


class Keys:
    def __init__(self):
        self.params = {"W1": np.ones((3, 2))}

    def loss(self, X, y):
        r = X @ self.params["W1"] - y
        return (r**2).sum(), {"w1": 2 * X.T @ r}


def paths(report):
    return [leaf.path for leaf in report.leaves]


def test_parameters_are_found_by_name_and_named_in_a_note():
    layer = Affine()
    before = dict(vars(layer))
    report = gradlab.check(layer, X)
    assert report.ok and paths(report) == ["x", "b"]
    assert any("parameters: b (by name)" in note for note in report.notes)
    assert vars(layer) == before


@pytest.mark.parametrize(
    "given",
    [
        {"parameters": {"w": "grad_of_w", "b": "db"}},
        {"parameters": ("w", "b"), "gradients": ("grad_of_w", "db")},
    ],
)
def test_parameters_are_given_with_their_gradients(given):
    report = gradlab.check(Affine(), X, **given)
    assert report.ok and paths(report) == ["x", "w", "b"]


def test_a_backward_that_adds_is_told_from_one_that_replaces():
    report = gradlab.check(Adding(), X)
    assert report.ok and paths(report) == ["x", "w", "b"]
    assert any("backward adds to the gradients" in note for note in report.notes)
    assert any("replaces" in note for note in gradlab.check(Affine(), X).notes)


def test_gradients_of_parameters_may_be_returned():
    report = gradlab.check(Returning(), X, parameters=("w", "b"))
    assert report.ok and paths(report) == ["x", "w", "b"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: gradlab.check(Returning(), X), r"returned 3 arrays for 1 input; name the others"),
        (lambda: gradlab.check(Affine, X), r"pass an object: check\(Affine\(\.\.\.\), x\)"),
        (lambda: gradlab.check(NoBackward(), X), r"no backward; it has forward"),
        (lambda: gradlab.check(Affine(), X, parameters="v"), r"has no 'v'; its arrays are w, b"),
        (lambda: gradlab.check(Affine(), X, parameters="w"), r"'w' has no gradient"),
        (
            lambda: gradlab.check(Keys(), X, np.ones((4, 2))),
            r"gradients: 'w1'; parameters: 'W1'; these keys do not match",
        ),
        (lambda: gradlab.check(np.tanh, X, parameters="w"), r"belong to an object"),
    ],
)
def test_errors_show_the_call_that_works(call, said):
    with pytest.raises(gradlab.GradlabError, match=said):
        call()
