"""The stub of `gradlab.nodes` is what the registry says."""

from gradlab.nodes._stub import PATH, stub


def test_the_stub_is_what_the_registry_says():
    assert PATH.read_text() == stub(), "write it anew: python -m gradlab.nodes._stub"
