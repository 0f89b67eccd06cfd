"""A progress bar on the terminal, for work that lasts longer than a moment."""

import contextlib
import sys
import threading
from collections.abc import Iterator

from gradlab.progress import listening

__all__ = ["working"]

_PATIENCE = 1.0  # seconds of work before a bar appears


@contextlib.contextmanager
def working(doing: str) -> Iterator[None]:
    """Show on standard error what is being done, and how far it has come, while inside.

    Nothing is shown where standard error is no terminal, or where the work is done in a moment.

    Args:
        doing: what is done as a whole; what is done now (see `gradlab.progress`) stands behind it.
    """
    if not sys.stderr.isatty():
        yield
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
        with listening(show):
            yield
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
