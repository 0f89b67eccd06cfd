"""Every report that can fail is a JUnit document whose counts and verdicts are the report's."""

from xml.etree import ElementTree

import pytest

from gradlab.reporting import formats

KINDS = ("verify", "check", "check wrong", "audit")


@pytest.mark.parametrize("name", KINDS)
def test_it_is_well_formed_and_its_counts_hold(reports, name):
    report = reports[name]
    root = ElementTree.fromstring(report.render("junit").encode())
    assert root.tag == "testsuites" and len(root) > 0
    for element in (root, *root):
        cases = list(element.iter("testcase"))
        assert int(element.get("tests")) == len(cases) > 0
        assert int(element.get("failures")) == len(list(element.iter("failure")))
        assert int(element.get("skipped")) == len(list(element.iter("skipped")))
    assert report.ok == (root.get("failures") == "0")
    assert not list(root.iter("script"))


def test_names_come_through_but_for_what_xml_cannot_hold(reports):
    (suite,) = ElementTree.fromstring(reports["check"].render("junit").encode())
    assert suite.get("name") == "gradlab check <script>alert('\"&')</script>\\x1b"


def test_a_failure_says_what_is_wrong(reports):
    root = ElementTree.fromstring(reports["check wrong"].render("junit").encode())
    words = " ".join(failure.text for failure in root.iter("failure"))
    assert "Worst: x[" in words and "expected" in words


def test_what_cannot_fail_is_no_suite():
    assert not any("junit" in formats(kind) for kind in ("nodes", "doctor", "graph", "precision"))
