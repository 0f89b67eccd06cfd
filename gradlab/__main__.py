"""`python -m gradlab` and `gradlab` are the command line."""

import atexit
import gc
import os
import sys
from typing import NoReturn

from gradlab.cli import main


def run() -> NoReturn:
    """Run one command, and end the process: Python needs a fifth of a second to take JAX apart."""
    gc.set_threshold(100_000)  # imports make many objects, and no garbage
    status = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
