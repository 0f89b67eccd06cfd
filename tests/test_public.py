"""The public names are exactly the ones that are promised, and each is documented."""

import inspect

import pytest

import gradlab

NAMES = {
    "Graph",
    "GradlabError",
    "Node",
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


def test_all_is_exact() -> None:
    assert set(gradlab.__all__) == NAMES
    assert set(dir(gradlab)) == NAMES | {"__version__"}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_name_is_there_and_has_a_runnable_example(name: str) -> None:
    thing = getattr(gradlab, name)
    assert thing.__doc__
    if not inspect.ismodule(thing):
        assert ">>> " in thing.__doc__


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
