"""Who works tells how far it has come; a bar shows it on a terminal, and only for long work."""

import os
import pty
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.progress import listening, step, tracked


def test_stages_inside_stages_add_up() -> None:
    told = []
    with listening(lambda share, doing: told.append((round(share, 3), doing))):
        for _ in tracked("ab", str):
            for _ in tracked(iter("xyz"), str, total=3):
                pass
    assert told == [
        *[(0.0, "a"), (0.0, "a, x"), (0.167, "a, y"), (0.333, "a, z")],
        *[(0.5, "b"), (0.5, "b, x"), (0.667, "b, y"), (0.833, "b, z")],
    ]


def test_an_error_leaves_no_stage_behind() -> None:
    told = []
    with listening(lambda share, doing: told.append((share, doing))):
        with pytest.raises(ZeroDivisionError):
            for item in tracked([1, 0], str):
                item // item
        list(tracked([5], str))
    assert told[-1] == (0.0, "5")


def test_nobody_need_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock is read then: on some machines that takes as long as a law of a small check."""
    monkeypatch.delattr("time.process_time")
    with step("digits"):
        assert list(tracked([1, 2], str)) == [1, 2]


def test_a_check_tells_its_dtypes_and_its_laws() -> None:
    told = []
    with listening(lambda share, doing: told.append((share, doing))):
        gradlab.check(jnp.sin, np.ones(2), dtypes=["float64", "float32"])
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0.0 and 0.9 < shares[-1] < 1.0
    assert any(doing == "float32, finite differences" for _, doing in told)


def shown(seconds: float) -> str:
    """Return what work of so many seconds writes to standard error."""
    code = (
        "import time; from gradlab._working import working; from gradlab.progress import tracked\n"
        "with working('checking [b]f[/b]'):\n"
        f"    for _ in tracked('ab', str): time.sleep({seconds / 2})"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    subprocess.run(
        [sys.executable, "-c", code],
        stderr=theirs,
        check=True,
        env=environment,
    )
    os.write(theirs, b"\n")  # so that there is something to read
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)
    return text


def test_a_bar_appears_for_long_work_alone() -> None:
    assert "checking [b]f[/b]: b" in shown(2.4)
    assert shown(0.0).strip() == ""
