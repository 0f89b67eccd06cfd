"""`gradlab.verify`: right nodes pass; a node that is broken on purpose is named, with its entry."""

from dataclasses import dataclass

import numpy as np
import pytest

import gradlab
from gradlab import InputError, InputTypeError, nodes
from gradlab.checking.node_laws import Ledger, judge_cases
from gradlab.operators import Diagonal


class WrongDerivative(nodes.Tanh):
    """tanh with the derivative of another function."""

    def derivative(self, xp, y):
        return 1.0 - y


class WrongInOneEntry(nodes.Square):
    """x^2, one entry off by one part in 10^12."""

    def backward(self, upstream, residuals):
        (dx,) = super().backward(upstream, residuals)
        factor = np.ones(dx.shape)
        factor.flat[-1] += 1e-12
        return (dx * factor,)


class WrongBackwardAlone(nodes.Exp):
    """exp whose backward forgets the upstream; its local gradient is right."""

    def backward(self, upstream, residuals):
        (y,), *_ = residuals
        return (1.0 * y,)


class WrongLocalGradientAlone(nodes.Exp):
    """exp whose local gradient is doubled; its backward is right."""

    def local_gradient(self, residuals):
        (y,), *_ = residuals
        return (Diagonal(2.0 * y),)


class WrongForward(nodes.Sigmoid):
    """A sigmoid that saturates."""

    def value(self, xp, x):
        return xp.clip(super().value(xp, x), 0.2, 0.8)


class ForgetsToSum(nodes.Add):
    """An add that does not sum back over broadcast axes."""

    def backward(self, upstream, residuals):
        return upstream, upstream


class WrongDtype(nodes.Exp):
    """A backward that answers in float32."""

    def backward(self, upstream, residuals):
        return (super().backward(upstream, residuals)[0].astype(np.float32),)


class Raises(nodes.Exp):
    """A backward with a bug in its text."""

    def backward(self, upstream, residuals):
        return (undefined_name,)  # noqa: F821  (the node under test raises)


@dataclass(frozen=True)
class OneGradientMissing(nodes.Multiply):
    """A product that forgets its second input."""

    def backward(self, upstream, residuals):
        return super().backward(upstream, residuals)[:1]


@pytest.mark.parametrize(
    ("node", "law", "subject"),
    [
        (WrongDerivative, "local gradient", "d output / d x"),
        (WrongInOneEntry, "backward", "gradient of x"),
        (WrongBackwardAlone, "backward", "gradient of x"),
        (WrongLocalGradientAlone, "local gradient", "d output / d x"),
        (WrongForward, "forward", "output"),
        (ForgetsToSum, "form", "gradient of y"),
        (WrongDtype, "form", "gradient of x"),
        (Raises, "runs", ""),
        (OneGradientMissing, "form", "backward"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_node_is_named(node, law, subject):
    report = gradlab.verify(node)
    assert not report.ok
    found = {(f.law, f.subject) for f in report.nodes[0].findings}
    assert (law, subject) in found
    assert node.name() in str(report)


def test_the_entry_and_both_numbers_are_told():
    report = gradlab.verify(WrongInOneEntry())
    finding = next(f for f in report.nodes[0].findings if f.law == "backward")
    assert finding.index == (2, 3)
    assert finding.actual != finding.expected
    assert abs(finding.actual / finding.expected - 1 - 1e-12) < 1e-14
    assert f"gradient of x[2, 3]: {finding.actual:.17g}" in str(report)


def test_an_instance_is_verified_with_its_own_parameters():
    report = gradlab.verify(nodes.Softmax(axis=-2), nodes.Reshape((12,)))
    assert report.ok, str(report)
    assert report.nodes[1].cases == 1  # of three, the one that has 12 entries
    with pytest.raises(InputError, match="no case of Reshape"):
        gradlab.verify(nodes.Reshape((7, 7)))


def test_only_the_law_that_is_broken_fails():
    findings = gradlab.verify(WrongLocalGradientAlone).nodes[0].findings
    assert {f.law for f in findings} == {"local gradient", "transpose"}
    assert {f.law for f in gradlab.verify(WrongBackwardAlone).nodes[0].findings} == {"backward"}


@pytest.mark.parametrize(
    "name",
    ["tanh", *(pytest.param(n, marks=pytest.mark.slow) for n in ("multiply", "take", "max"))],
)
def test_nodes_are_right_in_every_way(name):
    report = gradlab.verify(name, thorough=True)
    assert report.ok, str(report)
    assert report.nodes[0].cases == len(nodes.registry()[name].cases())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_narrow_dtypes_are_judged_by_their_own_rounding(dtype):
    report = gradlab.verify("multiply", "tanh", "softmax", dtypes=[dtype])
    assert report.ok, str(report)
    assert report.nodes[0].dtypes == (dtype,)


@pytest.mark.parametrize(("turn", "name"), [*enumerate(nodes.registry())])
def test_every_node_of_the_registry_is_right(turn, name):
    """One generic case each, in turn the first, second or third; `gradlab verify` takes all."""
    cases = [case for case in nodes.registry()[name].cases() if case.generic]
    ledger = Ledger()
    case = cases[turn % len(cases)]
    judge_cases((case,), ledger, dtype=np.dtype("float64"), seed=turn, thorough=False)
    assert not ledger.findings, ledger.findings


@pytest.mark.slow
def test_every_node_is_right_on_all_generic_cases():
    report = gradlab.verify()
    assert report.ok, str(report)


@pytest.mark.slow
def test_every_node_is_right_at_every_special_point():
    report = gradlab.verify(thorough=True)
    assert report.ok, str(report)
    assert len(report.nodes) == len(nodes.registry())


def test_the_report_is_json_plain():
    import json

    report = gradlab.verify("tanh")
    data = json.loads(report.render("json"))
    assert data["schema"] == "gradlab.verify/2"
    assert data["nodes"][0]["structure"] == ["Diagonal"]
    assert "tanh" in report.render("html")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gradlab.verify("sigmod"), InputError, "did you mean 'sigmoid'"),
        (lambda: gradlab.verify("qwxz"), InputError, "gradlab nodes"),
        (lambda: gradlab.verify(3), InputTypeError, "got int"),
        (lambda: gradlab.verify("tanh", dtypes=["int32"]), InputError, "got 'int32'"),
        (lambda: gradlab.verify("tanh", dtypes=["float23"]), InputError, "'float23'"),
    ],
)
def test_wrong_calls_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()
