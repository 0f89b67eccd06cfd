"""What a person reads with `help(...)`: every public name says what it takes, raises and shows."""

import dataclasses
import inspect
import re

import pytest

import gradlab
from gradlab import pytest_plugin, strategies
from gradlab.checking.report import AuditReport, CheckReport
from gradlab.checking.verify import VerifyReport
from gradlab.graph.report import GraphReport
from gradlab.numerics import PrecisionReport
from gradlab.structure.report import JacobianReport

TAKE_INPUTS = ("assert_gradients", "assert_structure", "audit", "check", "jacobian", "precision")
FUNCTIONS = {name: getattr(gradlab, name) for name in (*TAKE_INPUTS, "verify")} | {
    f"strategies.{name}": getattr(strategies, name) for name in strategies.__all__
}
CLASSES = {"Graph": gradlab.Graph, "Node": gradlab.Node}
REPORTS = {
    cls.__name__: cls
    for cls in (
        *(AuditReport, CheckReport, GraphReport),
        *(JacobianReport, PrecisionReport, VerifyReport),
    )
}
FIXTURES = ("gradaudit", "gradcheck", "jacobian")


def sections(thing):
    """Return the docstring's first line and its sections, by their titles."""
    text = inspect.getdoc(thing) or ""
    parts = re.split(r"^(Args|Attributes|Returns|Raises|References|Example):\n", text, flags=re.M)
    return text.splitlines()[0] if text else "", dict(zip(parts[1::2], parts[2::2]))


def named(section):
    """Return the names that a section of a docstring explains."""
    return {name.lstrip("*") for name in re.findall(r"^    (\*{0,2}\w+): ", section, re.M)}


def members(cls):
    """Yield the public methods and properties that a class defines itself."""
    for name, member in vars(cls).items():
        function = getattr(member, "fget", None) or getattr(member, "func", None)
        function = function or getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(inspect.unwrap(function)):
            yield name, inspect.unwrap(function)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_returns_and_raises(name):
    function = FUNCTIONS[name]
    line, found = sections(function)
    assert line.endswith(".")
    assert named(found["Args"]) == set(inspect.signature(function).parameters)
    assert ">>> " in found["Example"]
    assert "Raises" in found or name == "strategies.pytrees"
    assert "Returns" in found or name == "assert_gradients" or line.startswith("Return ")


@pytest.mark.parametrize("name", TAKE_INPUTS)
def test_inputs_are_described_by_shape_and_dtype(name):
    described = sections(FUNCTIONS[name])[1]["Args"].partition("*inputs:")[2]
    assert re.search(r"shape", described)
    assert re.search(r"dtype|float", described)


@pytest.mark.parametrize("name", ["check", "jacobian"])
def test_a_method_names_its_source(name):
    assert re.search(r"\((19|20)\d\d\)", sections(FUNCTIONS[name])[1]["References"])


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_explains_each_method(name):
    line, found = sections(CLASSES[name])
    assert line.endswith(".") and ">>> " in found["Example"] and "Raises" in found
    for method, function in members(CLASSES[name]):
        line, found = sections(function)
        assert line.endswith("."), method
        parameters = set(inspect.signature(function).parameters) - {"self", "cls", "position"}
        assert named(found.get("Args", "")) == parameters, method


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_explains_each_field_and_property(name):
    cls = REPORTS[name]
    line, found = sections(cls)
    assert line.endswith(".")
    fields = {f.name for f in dataclasses.fields(cls) if not f.name.startswith("_")}
    explained = named(found.get("Attributes", found.get("Args", "")))
    assert fields - explained == set()
    for member, function in members(cls):
        assert sections(function)[0].endswith("."), member


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_says_how_it_is_called_and_fails(name):
    fixture = inspect.unwrap(getattr(pytest_plugin, name))
    line, found = sections(getattr(fixture, "__pytest_wrapped__", fixture))
    assert line.startswith("Assert ")
    assert "GradlabError" in found["Raises"] and f"{name}(" in found["Example"]


def test_the_nodes_show_how_they_are_called():
    assert ">>> " in gradlab.nodes.__doc__
    undocumented = [name for name, cls in gradlab.nodes.registry().items() if not cls.__doc__]
    assert not undocumented
