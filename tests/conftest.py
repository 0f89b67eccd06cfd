"""Lets tests import what several of them draw from: the fault corpus, the random programs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
