"""NumPy functions as programs: run once on stand-ins for their arrays, and written down as jaxprs.

NumPy computes on the stand-ins' shadows, so that shapes, dtypes, errors and aliasing are NumPy's;
JAX computes on their symbols.
"""

from gradlab.errors import NotReadable as NotReadable
from gradlab.reading.as_jax import as_jax as as_jax
from gradlab.reading.as_jax import ported as ported
from gradlab.reading.frames import is_library as is_library
from gradlab.reading.names import rewinder as rewinder
from gradlab.reading.read import Reading as Reading
from gradlab.reading.read import read as read
from gradlab.reading.running import evaluate as evaluate
from gradlab.reading.session import Decision as Decision
