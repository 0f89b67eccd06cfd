"""NumPy functions as programs: run once on stand-ins for their arrays, and written down as jaxprs.

NumPy computes on the stand-ins' shadows, so that shapes, dtypes, errors and aliasing are NumPy's;
JAX computes on their symbols.
"""

from gradlab.errors import NotReadable
from gradlab.reading.as_jax import as_jax
from gradlab.reading.read import Reading, read
from gradlab.reading.running import evaluate
from gradlab.reading.session import Decision

__all__ = ["Decision", "NotReadable", "Reading", "as_jax", "evaluate", "read"]
