"""A progress bar on the terminal, for work that lasts longer than a moment."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from gradlab.progress import listening

_PATIENCE = 1.0  # seconds of work before a bar appears


@contextlib.contextmanager
def working(doing: str) -> Iterator[dict[str, float]]:
    """Show on standard error what is being done, and how far it has come, while inside.

    Nothing is shown where standard error is no terminal, or where the work is done in a moment.
    What is entered is a dict of the CPU seconds of each step.
    """
    if not sys.stderr.isatty():
        with listening(lambda share, now: None) as spent:
            yield spent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(doing, total=None)

    def show(share: float, now: str) -> None:
        bar.update(task, completed=share, total=1.0, description=f"{doing}: {now}")

    timer = threading.Timer(_PATIENCE, bar.start)
    timer.start()
    try:
        with listening(show) as spent:
            yield spent
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


@contextlib.contextmanager
def counting() -> Iterator[Callable[[str, str], None]]:
    """Show one line on standard error, rewritten on a terminal; elsewhere a line for each group.

    What is entered is called with the line, and the group that it belongs to.
    """
    terminal, last = sys.stderr.isatty(), [""]

    def tell(line: str, group: str) -> None:
        if terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif group != last[0]:
            print(line, file=sys.stderr, flush=True)
        last[0] = group

    try:
        yield tell
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
