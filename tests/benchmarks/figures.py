"""Measure the figures of the README again, on this machine.

Run it from the root of a clone: `python tests/benchmarks/figures.py [WORD ...]`. It reads the table
of figures in README.md, runs the command of each row, and prints the end of what each command says.
With words, it runs the rows that have one of them, such as `verify` or `bench_jacobian.py`.
"""

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES = 24  # of each command's output: all figures of a benchmark fit


def rows() -> list[tuple[str, str]]:
    """Return what each row of the table measures, and the command that measures it."""
    text = (ROOT / "README.md").read_text().partition("| what | figure | how |")[2]
    return re.findall(r"^\| ([^|]+) \| [^|]+ \| `([^`|]+)` \|$", text.partition("\n\n")[0], re.M)


def command(how: str) -> list[str]:
    """Return the process that a cell names: a gradlab command, a benchmark, or a test."""
    words = shlex.split(how)
    if words[0] == "gradlab":
        return [sys.executable, "-m", *words]
    if words[0].startswith("bench_"):
        return [sys.executable, f"tests/benchmarks/{words[0]}", *words[1:]]
    return [sys.executable, "-m", "pytest", "-q", *words]


def main() -> None:
    for what, how in rows():
        if sys.argv[1:] and not any(word in how for word in sys.argv[1:]):
            continue
        print(f"## {what}\n\n    {how}\n", flush=True)
        since = time.monotonic()
        done = subprocess.run(command(how), cwd=ROOT, text=True, stdout=subprocess.PIPE)
        print("\n".join(f"    {line}" for line in done.stdout.splitlines()[-LINES:]))
        print(f"\nstatus {done.returncode}, {time.monotonic() - since:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
