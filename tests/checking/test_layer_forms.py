"""Layers as people write them: how parameters are found, and what is said when they are not."""

import collections
import inspect
import types

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
    assert any("the gradients of b by name" in note for note in report.notes)
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
    assert any("backward adds to the stored gradients of" in note for note in report.notes)
    assert not any("stored gradients" in note for note in gradlab.check(Affine(), X).notes)


def test_gradients_of_parameters_may_be_returned():
    report = gradlab.check(Returning(), X, parameters=("w", "b"))
    assert report.ok and paths(report) == ["x", "w", "b"]


class Store(Affine):
    """Weights that a backward finds in several places, with caches that look like weights."""

    def __init__(self):
        self.kernel, self.x, self.dx = np.ones((3, 2)), np.ones((4, 3)), None
        self.kernel_grad, self.offsets = np.full((3, 2), 4.0), {"c": [np.zeros(2)]}

    def forward(self, x):
        self.x = x
        return x @ self.kernel + self.offsets["c"][0]

    def backward(self, up):
        self.kernel_grad += self.x.T @ up
        self.dx = up @ self.kernel.T
        return {"dx": self.dx}


class Frozen(Affine):
    def backward(self, dout):
        self.dw, self.db = self.x.T @ dout, None
        return dout @ self.w.T


class Renamed:
    def __init__(self):
        self.params, self.grads = {"K": np.ones((3, 2)), "o": np.ones(2)}, {}

    def forward(self, x):
        self.x = x
        return x @ self.params["K"] + self.params["o"]

    def backward(self, up):
        self.grads = {"kernel": self.x.T @ up, "offset": up.sum(0)}
        return up @ self.params["K"].T


class Box:
    def __init__(self, data):
        self.data, self.grad = data, None


class Boxes:
    def __init__(self):
        self.boxes, self.rest = [Box(np.ones((3, 2)))], {"o": Box(np.ones(2))}

    def __call__(self, x):
        self.x = x
        return x @ self.boxes[0].data + self.rest["o"].data

    def backward(self, up):
        self.boxes[0].grad, self.rest["o"].grad = self.x.T @ up, up.sum(0)
        return up @ self.boxes[0].data.T


class Silent:
    def forward(self, x):
        return 2 * x

    def backward(self, up):
        self.kept = 2 * up


class Steps(Affine):
    def backward(self, dout, rate):
        return dout @ self.w.T


class Mixed(Adding):
    def backward(self, dout):
        self.dw += self.x.T @ dout
        self.db = dout.sum(0)
        return dout @ self.w.T


def test_a_cache_is_no_parameter_and_a_key_may_be_short():
    used = Store()
    used.backward(used.forward(X))
    for layer in (Store(), used):
        report = gradlab.check(layer, X)
        assert report.ok and paths(report) == ["x", "kernel"]
    report = gradlab.check(Boxes(), X)
    assert report.ok and paths(report) == ["x", "boxes[0].data", "rest.o.data"]


class Listed:
    def __init__(self):
        self.weights, self.dweights = [np.ones((3, 2)), np.ones(2)], [None, None]

    def forward(self, x):
        self.x = x
        return x @ self.weights[0] + self.weights[1]

    def backward(self, up):
        self.dweights = [self.x.T @ up, up.sum(0)]
        return up @ self.weights[0].T


class Slotted:
    __slots__ = ("grads", "params", "x")

    def __init__(self):
        self.params = types.SimpleNamespace(K=np.ones((3, 2)))
        self.grads = types.SimpleNamespace()

    def forward(self, x):
        self.x = x
        return x @ self.params.K

    def backward(self, up):
        self.grads.K = self.x.T @ up
        return up @ self.params.K.T


class Suffixed(Affine):
    def backward(self, up):
        self.w_gradient, self.b_gradient = self.x.T @ up, up.sum(0)
        return up @ self.w.T


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Listed, ["x", "weights[0]", "weights[1]"]),
        (Slotted, ["x", "params.K"]),
        (Suffixed, ["x", "w", "b"]),
    ],
)
def test_where_gradients_stand_beside_parameters(kind, found):
    report = gradlab.check(kind(), X)
    assert report.ok and paths(report) == found


class Scores(Keys):
    def loss(self, X, y=None):
        scores = X @ self.params["W1"]
        if y is None:
            return scores
        return ((scores - y) ** 2).sum(), {"W1": 2 * X.T @ (scores - y)}


def test_the_loss_of_a_model_is_the_model():
    for model in (Scores(), Scores().loss):
        report = gradlab.check(model, X, np.ones((4, 2)))
        assert report.ok and paths(report) == ["params.W1"]
    with pytest.raises(gradlab.InputError, match="pass the inputs for which it returns both"):
        gradlab.check(Scores(), X)


class Ordered:
    """A model with a dtype, whose layers hold its parameters in a dict that keeps its order."""

    def __init__(self):
        self.dtype = np.dtype(float)
        self.params = {"w": np.ones((3, 2)), "b": np.zeros(2)}
        self.layers = collections.OrderedDict(first=types.SimpleNamespace(**self.params))

    def loss(self, x):
        first = self.layers["first"]
        y = np.tanh(x @ first.w + first.b)
        d = 2 * y * (1 - y**2)
        return np.sum(y**2), {"w": x.T @ d, "b": d.sum(0)}


def test_a_model_may_have_a_dtype_and_keep_its_layers_in_any_dict():
    report = gradlab.check(Ordered(), X)
    assert [leaf.path for leaf in report.leaves] == ["params.w", "params.b"]
    assert report.ok and "read from NumPy" in report.oracle, report


class Stack:
    """Lists of weights; a function of NumPy's is kept in a dict."""

    def __init__(self):
        self.weights, self.act = [np.ones((3, 4)) / 3, np.ones((4, 2))], {"first": np.tanh}

    def loss(self, x):
        a = self.act["first"](x @ self.weights[0])
        y = a @ self.weights[1]
        first = x.T @ (y @ self.weights[1].T * (1 - a**2))
        return 0.5 * np.sum(y**2), {"weights": [first, a.T @ y]}


def test_gradients_may_stand_in_lists_as_their_parameters_do():
    report = gradlab.check(Stack(), X)
    assert [leaf.path for leaf in report.leaves] == ["weights[0]", "weights[1]"]
    assert report.ok and "read from NumPy" in report.oracle, report


class Squares:
    """A loss with a backward of its own; a subclass has a forward beside it."""

    def __init__(self):
        self.w = np.ones((3, 2))

    def loss(self, x, y):
        self.x, self.e = x, x @ self.w - y
        return 0.5 * np.sum(self.e**2)

    def backward(self):
        self.dw = self.x.T @ self.e


class Predicting(Squares):
    def forward(self, x):
        return x @ self.w


@pytest.mark.parametrize("model", [Squares(), Predicting()])
def test_a_loss_may_have_a_backward_beside_it(model):
    report = gradlab.check(model, X, X[:, :2])
    assert report.ok and [leaf.path for leaf in report.leaves] == ["w"], report


class Looked:
    def __init__(self):
        self.table = np.ones((5, 2))

    def forward(self, index):
        self.index = index
        return self.table[index] ** 2

    def backward(self, up):
        found = np.zeros_like(self.table)
        np.add.at(found, self.index, 2 * up * self.table[self.index])
        return None, found


def test_an_integer_input_has_a_place_among_what_is_returned():
    report = gradlab.check(Looked(), np.array([1, 3, 1]), parameters="table")
    assert report.ok and paths(report) == ["table"]


def test_a_gradient_that_is_none_is_said():
    report = gradlab.check(Frozen(), X)
    assert paths(report) == ["x", "w"]
    assert any("b was not checked: db is None after backward" in note for note in report.notes)


def test_which_gradients_a_backward_adds_to():
    layer = Mixed()
    layer.db = np.ones(2)
    notes = " ".join(gradlab.check(layer, X).notes)
    assert "adds to the stored gradients of w, and replaces the others" in notes


class Centred:
    """Under an upstream of ones, the gradient of its gain is rounding noise."""

    def __init__(self):
        self.gain = np.ones(2)

    def forward(self, x):
        self.x = x - x.mean(0)
        return self.gain * self.x

    def backward(self, up):
        self.dgain = (up * self.x).sum(0)
        up = up * self.gain
        return up - up.mean(0)


def test_a_gradient_that_is_noise_is_not_added_to():
    x = np.random.default_rng(1).normal(size=(6, 2))
    assert not any("stored gradients" in note for note in gradlab.check(Centred(), x).notes)


def test_keys_may_be_mapped():
    given = {"K": "grads.kernel", "o": "grads.offset"}
    report = gradlab.check(Renamed(), X, gradients=given)
    assert report.ok and paths(report) == ["x", "params.K", "params.o"]


def dense(inp, kernel):
    return inp @ kernel, (inp, kernel)


def dense_back(up, kept):
    inp, kernel = kept
    return up @ kernel.T, inp.T @ up


def loss(theta, inp, goal):
    r = inp @ theta["K"] + theta["o"] - goal
    return (r**2).sum(), {"K": 2 * inp.T @ r, "o": 2 * r.sum(0)}


def wrong_keys(theta, inp, goal):
    value, found = loss(theta, inp, goal)
    return value, {"k": found["K"], "o": found["o"]}


def one_of_three(kernel, inp, goal):
    r = inp @ kernel - goal
    return (r**2).sum(), 2 * inp.T @ r


THETA = {"K": np.ones((3, 2)), "o": np.ones(2)}
GOAL = np.ones((4, 2))


def test_gradients_in_a_dict_are_those_of_its_names():
    report = gradlab.check(loss, THETA, X, GOAL, returns="output+gradients")
    assert report.ok and paths(report) == ["theta['K']", "theta['o']"]
    assert [each.path for each in report.unchecked] == ["inp", "goal"]
    named = lambda *a: (loss(*a)[0], {"dtheta": loss(*a)[1]})  # noqa: E731
    named.__signature__ = inspect.signature(loss)
    assert gradlab.check(named, THETA, X, GOAL, returns="output+gradients").ok


def test_an_input_may_be_an_output():
    def back(up, x):
        return 2 * up[0] + up[1]

    assert gradlab.check(lambda x: (2 * x, x), X, backward=back).ok
    with pytest.raises(gradlab.InputError, match=r"returns='output\+residuals'"):
        gradlab.check(lambda x: (np.maximum(x, 0), x), X, backward=lambda up, kept: up * (kept > 0))


def test_a_wider_gradient_is_right_in_numpy():
    def back(up, x):
        dx = np.zeros(x.shape)
        dx += up * 2
        return dx

    x = X.astype(np.float32)
    assert gradlab.check(lambda x: np.float32(2) * x, x, backward=back).ok
    narrow = lambda up, x: (2 * up).astype(np.float16)  # noqa: E731
    assert not gradlab.check(lambda x: np.float32(2) * x, x, backward=narrow).ok


class Narrow(Affine):
    def forward(self, x):
        return super().forward(x).astype(x.dtype)


def test_a_gradient_may_have_the_dtype_of_the_input_that_it_is_computed_from():
    report = gradlab.check(Narrow(), X.astype(np.float32))  # its parameters are float64
    assert report.ok and {leaf.dtype for leaf in report.leaves} == {"float32", "float64"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: gradlab.check(Returning(), X), r"returned 3 arrays for 1 input; name the others"),
        (lambda: gradlab.check(Affine, X), r"Pass an object: gradlab.check\(Affine\(\), x\)"),
        (lambda: gradlab.check(NoBackward(), X), r"no backward; it has forward"),
        (lambda: gradlab.check(Affine(), X, parameters="v"), r"has no 'v'; its arrays are w, b"),
        (lambda: gradlab.check(Affine(), X, parameters="w"), r"'w' has no gradient"),
        (
            lambda: gradlab.check(Keys(), X, np.ones((4, 2))),
            r"gradients: 'w1'; parameters: 'W1'; pass gradients=\{'W1': 'w1'\}",
        ),
        (lambda: gradlab.check(np.tanh, X, parameters="w"), r"belong to an object"),
        (
            lambda: gradlab.check(Renamed(), X),
            r"gradients: 'kernel', 'offset'; parameters: 'K', 'o'; "
            r"pass gradients=\{'K': 'grads.kernel', 'o': 'grads.offset'\}",
        ),
        (lambda: gradlab.check(Steps(), X), r"takes \(dout, rate\).*give rate a default"),
        (lambda: gradlab.check(Affine().forward, X), r"check\(layer, x\)"),
        (lambda: gradlab.check(Frozen(), X, parameters="b"), r"'b' has no gradient at 'db'"),
        (
            lambda: gradlab.check(dense, X, np.ones((3, 2)), backward=dense_back),
            r"check\(dense, inp, kernel, backward=dense_back, returns='output\+residuals'\)",
        ),
        (
            lambda: gradlab.check(loss, THETA, X, GOAL),
            r"check\(loss, theta, inp, goal, returns='output\+gradients'\)",
        ),
        (
            lambda: gradlab.check(wrong_keys, THETA, X, GOAL, returns="output+gradients"),
            r"gradients: 'k', 'o'; parameters: 'K', 'o'; inputs: 'theta', 'inp', 'goal'",
        ),
        (
            lambda: gradlab.check(
                one_of_three, np.ones((3, 2)), X, GOAL, returns="output+gradients"
            ),
            r"1 gradient for 3 inputs; say which: wrt=\('kernel',\)",
        ),
        (
            lambda: gradlab.check(np.tanh, X, backward=lambda up, x: (up, up)),
            r"2 gradients for 1 input; pass everything that is differentiated as an input",
        ),
        (lambda: gradlab.check(Silent(), X), r"returned no gradient.*return that of x, or pass"),
        (lambda: gradlab.audit(Affine(), X), r"Affine has a backward of its own"),
    ],
)
def test_errors_show_the_call_that_works(call, said):
    with pytest.raises(gradlab.GradlabError, match=said):
        call()


def scaled(x, w):
    return x * w


def scaled_backward(up, x, w):
    return up * w, 2 * up * x


@pytest.mark.parametrize(
    ("thing", "options", "call"),
    [
        (Centred(), {}, "gradlab.check(Centred(...), x, seed=0)"),
        (
            scaled,
            {"backward": scaled_backward, "wrt": "x"},
            "gradlab.check(scaled, x, w, backward=scaled_backward, wrt='x', seed=0)",
        ),
    ],
)
def test_a_report_says_the_call_that_repeats_it(thing, options, call):
    inputs = (np.ones((3, 2)), np.ones((3, 2)))[: 1 + bool(options)]
    assert gradlab.check(thing, *inputs, **options).call == call


class _Affine:
    def __init__(self):
        self.W, self.b = np.random.default_rng(0).normal(size=(6, 4)), np.zeros(4)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b


class _Forgotten(_Affine):
    def backward(self, u):
        self.dW = self.x.T @ u
        return u @ self.W.T


class _InOneDict(_Affine):
    def backward(self, u):
        self.grads = {"W": self.x.T @ u, "b": u.mean(0)}
        return u @ self.W.T


class _NotSummed(_Affine):
    def backward(self, u):
        self.dW = self.x.T @ u
        self.db = u
        return u @ self.W.T


def test_arrays_without_a_gradient_are_said_to_be_unchecked():
    report = gradlab.check(_Forgotten(), np.random.default_rng(1).normal(size=(5, 6)))
    assert report.ok
    assert any("no gradient was found: b; " in note for note in report.notes), report.notes


class _HalfAModel:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.params = {"W": rng.normal(size=(6, 1)), "b": np.ones(1)}

    def loss(self, X, y):
        error = X @ self.params["W"] + self.params["b"] - y
        return np.sum(error**2), {"W": 2 * X.T @ error}


def test_a_model_that_returns_no_gradient_of_a_parameter_is_told_so():
    rng = np.random.default_rng(1)
    report = gradlab.check(_HalfAModel(), rng.normal(size=(5, 6)), rng.normal(size=(5, 1)))
    assert report.ok
    assert any("no gradient was found: params.b; " in note for note in report.notes), report.notes


def test_a_dict_of_gradients_may_stand_beside_attributes():
    report = gradlab.check(_InOneDict(), np.random.default_rng(1).normal(size=(5, 6)))
    assert [leaf.path for leaf in report.leaves if leaf.wrong] == ["b"], report


def test_a_fix_is_verified_where_a_bias_is_not_zero_and_shown_whole():
    report = gradlab.check(_NotSummed(), np.random.default_rng(1).normal(size=(5, 6)))
    assert [line.strip() for line in report.fixes[0].after] == ["self.db = u.sum(axis=0)"], report
    text = str(report)
    assert "-        self.db = u\n" in text and "+        self.db = u.sum(axis=0)\n" in text
    assert len(text.splitlines()) <= 24
