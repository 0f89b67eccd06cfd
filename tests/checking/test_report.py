"""What a check report says, to people and to machines."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

import gradlab

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


@pytest.fixture(scope="module")
def wrong():
    return gradlab.check(lambda x: 2 * x, X, backward=lambda g, x: -2 * g)


@pytest.fixture(scope="module")
def right():
    return gradlab.check(lambda x: 2 * x, X, backward=lambda g, x: 2 * g)


def test_text_says_the_verdict_the_entry_and_the_diagnosis(right, wrong):
    assert str(right).splitlines()[0] == "<lambda>: the gradient is right (float64, seed 0)"
    lines = str(wrong).splitlines()
    assert lines[0] == "<lambda>: the gradient is WRONG (float64, seed 0)"
    assert lines[1].startswith("  worst entry  x[") and "expected" in lines[1]
    assert lines[2] == "  diagnosis    the gradient of x has the wrong sign"


def test_truth(right, wrong):
    assert right and right.ok and not right.failed and right.diagnosis == ""
    assert not wrong and wrong.failed


def test_json(wrong):
    data = json.loads(wrong.render("json"))
    assert data["schema"] == "gradlab.check/1" and data["ok"] is False
    assert data["diagnosis"] == "the gradient of x has the wrong sign"
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
        suite = ElementTree.fromstring(report.render("junit"))
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
