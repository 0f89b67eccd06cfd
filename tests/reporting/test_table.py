"""Tables fit the terminal, and hold the same numbers at any width."""

import os
import pty
import subprocess
import sys

import pytest

from gradlab.reporting import fitted
from gradlab.reporting._table import table

HEADERS = ("node", "error", "why")
ROWS = [
    ("softmax", "-12.5", "the gradient of x is transposed, and 3.25 times too large"),
    ("tanh", "1e-05", "rounding"),
]


@pytest.mark.parametrize("columns", [None, 20, 40, 60, 80, 200])
def test_no_word_and_no_number_is_lost(columns):
    with fitted(columns):
        drawn = table(HEADERS, ROWS)
    whole = sorted(word for row in (HEADERS, *ROWS) for cell in row for word in cell.split())
    assert sorted(drawn.split()) == whole
    if columns and columns >= 40:
        assert max(map(len, drawn.splitlines())) <= columns


def test_numbers_stand_under_each_other():
    lines = table(HEADERS, ROWS).splitlines()
    assert lines[1].index("-12.5") + 5 == lines[2].index("1e-05") + 5 == lines[0].index("error") + 5


def test_every_report_has_the_same_numbers_in_a_terminal(reports):
    for name, report in reports.items():
        with fitted(70):
            narrow = report.render("text")
        assert sorted(narrow.split()) == sorted(report.render("text").split()), name


def in_a_terminal(*words: str, **environment: str) -> str:
    """Return what a command writes to a terminal of 60 columns, which is no more than it holds."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "gradlab", *words],
        stdout=theirs,
        check=True,
        timeout=60,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "60", **environment},
    )
    text = os.read(ours, 1 << 16).decode().replace("\r", "")
    os.close(ours)
    os.close(theirs)
    return text


def test_the_command_line_fits_its_terminal():
    text = in_a_terminal("doctor", NO_COLOR="1")
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("platform"))
    assert all(len(line) <= 60 for line in lines[start : start + 3]) and "\x1b" not in text
