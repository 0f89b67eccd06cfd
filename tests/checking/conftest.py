"""What tests of verdicts share."""

import pytest


@pytest.fixture
def verdict_alone(request, monkeypatch):
    """Search no fix, except with --slow: a search takes as long as several checks.

    `tests/repair` tests the search. A verdict does not depend on it.
    """
    if not request.config.getoption("--slow"):
        monkeypatch.setattr("gradlab.repair.repair", lambda rules, seed, lost="": ((), None))
