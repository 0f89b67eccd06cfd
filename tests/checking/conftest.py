"""Lets these tests import the fault corpus, which the benchmarks use too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
