"""The public names are exactly the ones that are promised, and each is documented."""

import ast
import dataclasses
import gc
import inspect
import pathlib

import pytest

import gradlab

TOOLS = {
    "CompiledJacobian",
    "Graph",
    "Jacobian",
    "Node",
    "as_jax",
    "assert_gradients",
    "assert_structure",
    "audit",
    "check",
    "jacobian",
    "nodes",
    "precision",
    "strategies",
    "verify",
}
ERRORS = {
    "GradientMismatch",
    "GradientUndecided",
    "GradlabError",
    "InputError",
    "InputTypeError",
    "NotReadable",
    "StructureMismatch",
}
DATA = {
    "AuditReport",
    "AuditedRule",
    "CheckReport",
    "Condition",
    "Digits",
    "DoctorReport",
    "Entries",
    "Entry",
    "Evidence",
    "Finding",
    "Fix",
    "GraphReport",
    "JacobianReport",
    "Law",
    "Leaf",
    "NodeResult",
    "PrecisionReport",
    "SweepReport",
    "Rule",
    "RulePart",
    "Unchecked",
    "VerifyReport",
}
NAMES = TOOLS | ERRORS | DATA


def test_all_is_exact() -> None:
    assert set(gradlab.__all__) == NAMES
    assert set(dir(gradlab)) == NAMES | {"__version__"}


@pytest.mark.parametrize("name", sorted(TOOLS | {"GradlabError"}))
def test_each_name_is_there_and_has_a_runnable_example(name: str) -> None:
    thing = getattr(gradlab, name)
    assert thing.__doc__
    if not inspect.ismodule(thing):
        assert ">>> " in thing.__doc__


@pytest.mark.parametrize("name", sorted(DATA))
def test_data_is_frozen(name: str) -> None:
    cls = getattr(gradlab, name)
    assert cls.__doc__
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]  # of every dataclass


def test_the_type_checker_sees_every_name() -> None:
    assert gradlab.__file__
    tree = ast.parse(pathlib.Path(gradlab.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {alias.asname for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert told == set(gradlab.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'chekc'"):
        gradlab.chekc  # type: ignore[attr-defined]  # the typo under test


@pytest.mark.parametrize(
    ("error", "base"),
    [
        ("InputError", ValueError),
        ("InputTypeError", TypeError),
        ("GradientMismatch", AssertionError),
        ("GradientUndecided", AssertionError),
        ("StructureMismatch", AssertionError),
    ],
)
def test_errors_are_also_what_callers_expect(error: str, base: type[Exception]) -> None:
    assert issubclass(getattr(gradlab, error), base)


@pytest.mark.parametrize("on", [True, False])
def test_looking_up_a_name_leaves_the_collector_of_garbage_as_it_was(on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        assert gradlab.__getattr__("check") is gradlab.check
        assert gc.isenabled() == on
    finally:
        (gc.enable if before else gc.disable)()
