"""What a check report says, to people and to machines."""

import dataclasses
import json
import re
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

import gradlab
from gradlab.report import Law, leaf_status
from gradlab.reporting import detailed

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


@pytest.fixture(scope="module")
def wrong():
    return gradlab.check(lambda x: 2 * x, X, backward=lambda g, x: -2 * g)


@pytest.fixture(scope="module")
def right():
    return gradlab.check(lambda x: 2 * x, X, backward=lambda g, x: 2 * g)


def test_text_says_the_verdict_the_entry_and_the_diagnosis(right, wrong):
    assert str(right).splitlines()[0] == "<lambda>: right for x (float64, seed 0)"
    lines = str(wrong).splitlines()
    assert lines[0].startswith("GL101 test_report.py:21  <lambda>: the gradient of x is WRONG (flo")
    text = str(wrong)
    assert "Worst: x[" in text and "expected" in text and "off by a relative" in text
    assert "return gradlab.check(lambda x: 2 * x, X, backward=lambda g, x: -2 * g)" in text
    assert "gradlab explain GL101" in text
    assert len(lines) <= 24


def test_text_fits_a_terminal_of_100_columns_and_loses_no_word(right, wrong):
    long = Law("formula", "warned", "the gradient of params['w'][0, 17] is off; " * 9)
    report = dataclasses.replace(right, laws=(*right.laws, long), notes=("a word " * 40,))
    assert max(map(len, str(report).splitlines())) <= 100
    assert max(map(len, str(wrong).splitlines())) <= 100
    lines = str(report).splitlines()
    first = next(i for i, line in enumerate(lines) if "formula" in line and "params" in line)
    column = lines[first].index("formula")
    assert lines[first + 1][: column + 1].strip() and not lines[first + 1][:column].strip()
    assert str(report).count("params['w'][0, 17]") == 9, "an index is never broken"
    assert " ".join(str(report).split()).count("a word") == 40


def test_a_path_that_is_too_long_stays_whole(wrong):
    path = f"params['{'x' * 90}']"
    leaf = dataclasses.replace(wrong.leaves[0], path=path)
    worst = dataclasses.replace(wrong.worst, path=path)
    report = dataclasses.replace(wrong, worst=worst, leaves=(leaf,))
    assert any(path in line for line in str(report).splitlines())
    assert re.search(r"is -?[\d.]+,\s+expected\s+-?[\d.]+", str(report))


def test_a_failure_has_at_most_24_lines_and_details_on_demand(wrong):
    many = tuple(dataclasses.replace(wrong.leaves[0], path=f"x{i}") for i in range(30))
    report = dataclasses.replace(wrong, leaves=many, notes=("a note " * 30,) * 9)
    assert len(str(report).splitlines()) <= 24
    with detailed():
        assert "formula" in str(wrong) and "adjoint" in str(wrong)


def test_truth(right, wrong):
    assert right and right.ok and not right.failed and right.diagnosis == ""
    assert not wrong and wrong.failed


def test_json(wrong):
    data = json.loads(wrong.render("json"))
    assert data["schema"] == "gradlab.check/2" and data["ok"] is False
    assert data["diagnosis"] == "the sign of `-2 * g` is wrong: `-2 * g` should be `2 * g`"
    assert data["worst"]["path"] == "x"
    assert {law["status"] for law in data["laws"]} <= {
        "passed",
        "warned",
        "failed",
        "skipped",
        "inconclusive",
    }


def test_junit(right, wrong):
    for report, failures in ((right, 0), (wrong, len(wrong.failed))):
        (suite,) = ElementTree.fromstring(report.render("junit"))
        assert int(suite.get("failures")) == failures == len(suite.findall("testcase/failure"))
        assert len(suite) == len(report.laws) + 1


def test_html_escapes(wrong):
    assert "&lt;lambda&gt;" in wrong._repr_html_()


def test_resolution_says_what_would_have_been_seen(right):
    assert 0 < right.resolution["x"] < 1e-12


def test_the_same_seed_gives_the_same_report(wrong):
    again = gradlab.check(lambda x: 2 * x, X, backward=lambda g, x: -2 * g)
    other = gradlab.check(lambda x: 2 * x, X, backward=lambda g, x: -2 * g, seed=1)
    assert again.worst == wrong.worst
    assert other.worst.actual != wrong.worst.actual


@pytest.mark.parametrize(("dtype", "most"), [("float64", 1e-13), ("float32", 2.0**-18)])
def test_the_resolution_is_the_error_from_which_on_a_check_fails(dtype, most):
    def off_by(delta):
        f = jax.custom_vjp(lambda x: x * x)
        f.defvjp(lambda x: (x * x, x), lambda x, g: (g * 2 * x * (1 + delta),))
        return f

    x = np.array([0.7, 1.3, 2.9])
    seen = gradlab.check(off_by(0.0), x, dtypes=dtype).resolution["x"]
    assert seen <= most
    assert gradlab.check(off_by(3 * seen), x, dtypes=dtype).failed
    assert not gradlab.check(off_by(seen / 10), x, dtypes=dtype).failed


def test_every_input_has_a_line():
    """An integer, a key, a setting, or what wrt= leaves out: each says that it was not checked."""

    def layer(x, index, key, scale, flag):
        return x[index] * scale * jax.random.uniform(key, ())

    inputs = (X, np.array([0, 1, 1]), jax.random.key(0), np.float32(2.0), True)
    report = gradlab.check(layer, *inputs, wrt="x")
    assert report.ok and [leaf.path for leaf in report.leaves] == ["x"]
    assert {each.path: each.dtype for each in report.unchecked} == {
        "index": "int64",
        "key": "key<fry>",
        "scale": "float32",
        "flag": "",
    }
    lines = " ".join(str(report).split())
    assert "index is int64, so it has no gradient and was not checked" in lines
    assert "key is a random key, so it has no gradient and was not checked" in lines
    assert "no gradient of scale was asked for or returned, so it was not checked" in lines
    assert "flag is a setting, not an array, so it was not checked" in lines
    hand = gradlab.check(lambda x, n: x * n, X, np.int32(3), backward=lambda g, x, n: (g * n, None))
    assert hand.ok and [each.path for each in hand.unchecked] == ["n"]


def test_plain_data_holds_what_is_derived(wrong):
    data = wrong.to_dict()
    assert data["status"] == "wrong" and data["failed"] and data["undecided"] == []
    assert data["grade"] is None and data["rules"] == []
    (fix, *_) = data["fixes"]
    assert fix["kind"] == "GL101" and fix["line"] == 21 and fix["edits"] == 1
    leaf = wrong.leaves[0]
    assert (leaf.status, leaf.right, leaf.wrong) == ("wrong", 0, X.size)
    assert wrong.worst.relative == pytest.approx(2.0) and 0 < wrong.worst.explained < 1e-14


@pytest.mark.parametrize(
    ("counts", "digits", "zeros", "status"),
    [
        ((2, 1, 3), None, 0, "wrong"),
        ((0, 0, 3), None, 0, "undecided"),
        ((0, 0, 0), None, 0, "right"),
        ((3, 0, 3), (1, 1), 0, "loses digits"),
        ((0, 0, 3), (3, 3), 0, "loses digits"),
        ((3, 0, 3), (1, 0), 0, "right, loses digits"),
        ((3, 0, 3), (3, 0), 0, "undecided"),
        ((3, 0, 3), (1, 0), 2, "undecided"),
        ((3, 0, 3), (0, 0), 3, "right"),
    ],
)
def test_the_verdict_on_an_input_follows_one_table(counts, digits, zeros, status):
    found = None
    if digits is not None:
        lost, avoidable = digits
        found = gradlab.Digits(0.1, 7.0, 7.2, lost, avoidable, 0, 3, (0,), None, "float32")
    assert leaf_status(*counts, found, zeros) == status
