"""What is installed: the whole package with its types, and nothing of the repository around it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_it_holds_the_package_and_its_types_alone(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    modules = (ROOT / "gradlab").rglob("*.py")
    assert names == {str(path.relative_to(ROOT)) for path in modules} | {
        "gradlab/py.typed",
        "gradlab/reporting/page.css",
        "gradlab/reporting/page.js",
        "gradlab/nodes/__init__.pyi",
    }


def test_it_says_what_it_needs_and_where_it_is_entered(wheel: zipfile.ZipFile) -> None:
    held = {name.rpartition("/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    entries = wheel.read(held["entry_points.txt"]).decode()
    assert "gradlab = gradlab.__main__:run" in entries
    assert "gradlab.pytest_plugin = gradlab.pytest_plugin" in entries
    metadata = wheel.read(held["METADATA"]).decode()
    assert "Requires-Python: >=3.11" in metadata and "License-Expression: MIT" in metadata
    assert "LICENSE" in held
