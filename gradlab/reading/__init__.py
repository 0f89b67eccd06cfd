"""NumPy functions as programs: run once on stand-ins for their arrays, and written down as jaxprs.

NumPy computes on the stand-ins' shadows, so that shapes, dtypes, errors and aliasing are NumPy's;
JAX computes on their symbols.
"""

from gradlab.errors import NotReadable
from gradlab.reading.as_jax import as_jax, ported
from gradlab.reading.frames import is_library
from gradlab.reading.names import rewinder
from gradlab.reading.read import Reading, read
from gradlab.reading.running import evaluate
from gradlab.reading.session import Decision

__all__ = [
    "Decision",
    "NotReadable",
    "Reading",
    "as_jax",
    "evaluate",
    "is_library",
    "ported",
    "read",
    "rewinder",
]
