"""What every test run of this repository shares."""

import pytest
from hypothesis import settings

import gradlab.nodes  # noqa: F401  (else pytest loads a file of it a second time)

# Listed although its entry point loads it too, so that a checkout that is not installed has it.
pytest_plugins = ["gradlab.pytest_plugin", "pytester"]

settings.register_profile("gradlab", deadline=None, print_blob=True)
settings.load_profile("gradlab")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes too")
    parser.addoption("--on-gpu", action="store_true", help="run on the GPU what needs none")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
